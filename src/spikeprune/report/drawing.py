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
from spikeprune.report.findings import DENSE, Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 5.0  # inches: with text of 10 points, still about 9 pixels when the figure is 340 pixels wide on a phone
INK, FAINT = "#222222", "#d9d9d9"
# Okabe and Ito's colours, told apart by colour-blind readers; their yellow is left out, too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
HATCHES = ("", "xxx", "...")  # for bars, once the colours start over
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (8, 1, 1, 1, 1, 1)))

SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spikeprune",
    "text.parse_math": False,
    "figure.constrained_layout.h_pad": 0.07,
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
    hatch: str = ""


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Give each label a colour, a marker and a line style; the dense network is black and solid."""
    methods = [label for label in dict.fromkeys(labels) if label != DENSE]
    chosen = {}
    for i, label in enumerate(methods):
        cycle, color = divmod(i, len(COLORS))
        hatch = HATCHES[cycle % len(HATCHES)]
        chosen[label] = Look(COLORS[color], MARKERS[i % len(MARKERS)], LINES[(i + cycle) % len(LINES)], hatch)
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
    figure.legend(handles, texts, loc="outside upper left", ncols=_columns(labels))


def legend_height(labels: Sequence[str]) -> float:
    """Give the height in inches that a legend takes; none for a single network, which needs no legend."""
    return 0.12 + 0.19 * -(-len(labels) // _columns(labels)) if len(labels) > 1 else 0.0


def _columns(labels: Sequence[str]) -> int:
    return max(1, min(len(labels), 4, int(58 / (max(len(short(label)) for label in labels) + 7))))


def short(label: str, width: int = 48) -> str:
    """Cut a name that is too long in its middle."""
    label = label or "(model)"
    half = width // 2
    return label if len(label) <= width else f"{label[: half - 1]}…{label[-half:]}"


def folded(label: str, width: int = 22) -> str:
    """Set a long name on two lines, broken after a dot, a dash or a space where there is one near the middle."""
    text = short(label, 2 * width)
    if len(text) <= width:
        return text
    breaks = [i + 1 for i, sign in enumerate(text) if sign in " ._-/," and len(text) - width <= i + 1 <= width]
    middle = min(breaks or [len(text) // 2], key=lambda i: abs(i - len(text) / 2))
    return f"{text[:middle].strip()}\n{text[middle:]}"


def mean_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Give mean and sample standard deviation; 0 for one value, so that nothing is drawn."""
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
