"""How every figure of the report looks, and how it becomes SVG that can stand in a page beside others.

Figures keep off global state: no pyplot, settings that start from matplotlib's own defaults and are put back after.
Equal input gives equal text: no dates, and ids that start with the figure's name. Text stays text.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spikeprune.errors import MissingExtra
from spikeprune.findings import DENSE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.2  # inches: with text of 10 points, still about 9 pixels when the figure is 340 pixels wide on a phone
INK, FAINT = "#222222", "#d9d9d9"
# Okabe and Ito's colours, told apart by colour-blind readers; their yellow is left out, too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (8, 1, 1, 1, 1, 1)))

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spikeprune",
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.edgecolor": "#8a8a8a",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.4,
}


@dataclass(frozen=True)
class Look:
    """How a network is drawn, in every figure of a page."""

    color: str
    marker: str
    line: Any


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Give each label a colour, a marker and a line style; the dense network is black and solid."""
    methods = [label for label in dict.fromkeys(labels) if label != DENSE]
    chosen = {
        label: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)]) for i, label in enumerate(methods)
    }
    return {DENSE: Look(INK, ".", "-")} | chosen


def draw(name: str, title: str, height: float, paint: "Callable[[Figure], None]") -> str:
    """Draw one figure as an SVG element.

    Args:
        name: starts every id in it, so unique on the page.
        title: what a screen reader says.
        height: in inches; the width is `WIDTH`.
        paint: draws on the figure.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.of("matplotlib", "recipes", "the HTML report") from error
    buffer = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")  # the browser has the fonts
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return embed(buffer.getvalue(), name, title)


def embed(svg: str, name: str, title: str) -> str:
    """Make a whole SVG file an element of a page: no prolog, no style for all, no fixed size, ids of its own.

    Only tags are rewritten, never text, so a label may hold whatever it likes.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _own_ids(tag.group(), name), body)
    root = f'<svg role="img" aria-label="{_attribute(title)}" style="stroke-linejoin:round"'
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return head.replace("<svg", root, 1) + ">" + rest.rstrip()


def legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Put a legend above the axes, in as many columns as fit the labels."""
    # A label that starts with an underscore would be left out.
    texts = [f" {label}" if label.startswith("_") else label for label in map(short, labels)]
    columns = max(1, min(len(texts), 4, int(58 / (max(map(len, texts)) + 7))))
    figure.legend(handles, texts, loc="outside upper left", ncols=columns)


def short(label: str, width: int = 44) -> str:
    """Cut a long name in its middle, where names differ least."""
    label = label or "(model)"
    half = width // 2
    return label if len(label) <= width else f"{label[: half - 1]}…{label[-half:]}"


def mean_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Give mean and sample standard deviation; 0 for one value, so that nothing is drawn."""
    from spikeprune.findings import Spread

    spread = Spread.of(values)
    return spread.mean, spread.deviation or 0.0


def order(labels: Mapping[str, Any]) -> list[str]:
    """Give the labels, the dense network first."""
    return sorted(labels, key=lambda label: label != DENSE)


def _own_ids(tag: str, name: str) -> str:
    tag = re.sub(r'(\sid=")', rf"\g<1>{name}-", tag)
    return re.sub(r'((?:href="|url\()#)', rf"\g<1>{name}-", tag)


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
