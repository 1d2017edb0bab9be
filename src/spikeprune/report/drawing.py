"""How every figure of the report looks, and how it becomes SVG that can stand in a page beside others.

Figures keep off global state: no pyplot, settings that start from matplotlib's own defaults and are put back after.
Equal input gives equal text: no dates, and ids that start with the figure's name. Text stays text.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any

from spikeprune.errors import MissingExtra
from spikeprune.report.findings import DENSE, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.0  # inches: with text of 10 points, still about 9 pixels when the figure is 340 pixels wide on a phone
INK, FAINT, GREY = "#222222", "#d9d9d9", "#6b6b6b"
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
    texts = [f" {label}" if label.startswith("_") else label for label in map(_entry, labels)]
    figure.legend(handles, texts, loc="outside upper left", ncols=_columns(labels))


def legend_height(labels: Sequence[str]) -> float:
    """Give the height in inches that a legend takes; none for a single network, which needs no legend."""
    folds = sum(_entry(label).count("\n") for label in labels)
    return 0.12 + 0.19 * (-(-len(labels) // _columns(labels)) + folds) if len(labels) > 1 else 0.0


def patches(figure: "Figure", entries: Sequence[tuple[str, str, str]]) -> None:
    """Put a legend of bars above the axes; an entry is (text, colour, hatch)."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=color, hatch=hatch, edgecolor="white", linewidth=0) for _, color, hatch in entries]
    legend(figure, handles, [text for text, _, _ in entries])


def key(look: Look, line: Any, marked: bool = True, width: float | None = None) -> Any:
    """Give the legend's sample of a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=look.color, linestyle=line, marker=look.marker if marked else "", linewidth=width)


def spread_line(axes: "Axes", where: Sequence[float], values: Sequence[Sequence[float]], look: Look, **style: Any) -> None:
    """Draw a line through the means of the values at each place, their sample deviations as error bars."""
    means, deviations = zip(*map(mean_deviation, values), strict=True)
    bars = [deviation or float("nan") for deviation in deviations] if any(deviations) else None
    drawn: dict[str, Any] = {"color": look.color, "marker": look.marker, "capsize": 2.5, "elinewidth": 1} | style
    axes.errorbar(where, means, bars, **drawn)


def level_line(axes: "Axes", values: Sequence[float], color: str = INK) -> None:
    """Draw a horizontal line at the mean of the values, a band of their sample deviation around it."""
    middle, deviation = mean_deviation(values)
    axes.axhline(middle, color=color, linewidth=1.1)
    axes.axhspan(middle - deviation, middle + deviation, color=color, alpha=0.1, linewidth=0)


def bar(axes: "Axes", where: float, value: tuple[float, float], thick: float, look: Look, floor: float | None = None) -> None:
    """Draw a horizontal bar from 0, its deviation as a line and its value as text; nothing is drawn below a floor."""
    middle, deviation = value
    start, least = (0.0, -float("inf")) if floor is None else (floor, floor)
    width = max(middle, least) - start
    axes.barh(where, width, thick, start, color=look.color, hatch=look.hatch, edgecolor="white", linewidth=0)
    if deviation:
        axes.plot([max(middle - deviation, least), middle + deviation], [where, where], color=INK, linewidth=0.9)
    below = middle < 0
    end = middle - deviation if below else max(middle + deviation, least)
    axes.annotate(
        signed(f"{middle:,.0f}" if abs(middle) >= 1000 else f"{middle:.3g}"), (end, where), (-3 if below else 3, 0),
        textcoords="offset points", va="center", ha="right" if below else "left", fontsize=9.5,
    )  # fmt: skip


def plain_ticks(axes: "Axes") -> None:
    """Write the horizontal axis in plain numbers, with a grid."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", color=FAINT)


def plain(largest: float) -> Any:
    """Give the formatter of a linear axis whose values go up to `largest`."""
    from matplotlib.ticker import FuncFormatter, ScalarFormatter

    if 1e-3 <= largest < 1e4:
        return ScalarFormatter(useOffset=False)
    return FuncFormatter(lambda value, _: signed(f"{value:,.0f}" if largest > 1 else f"{value:.3g}"))


def log_axis(axes: "Axes", low: float, high: float) -> None:
    """Make the vertical axis logarithmic, with room around its ends, half a decade or more and numbers that fit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = log10(high / low)
    room = 10 ** max(0.06 * decades, 0.35 - decades / 2)
    text = _power if low < 1e-3 or high > 1e5 else "{:,.4g}".format
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(low / room, high * room)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0), numticks=7))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def value_axis(axes: "Axes", values: Sequence[Sequence[float]], scale: str) -> None:
    """Scale the axis of bars, with room for the numbers at their ends; only what can be negative goes below 0."""
    from matplotlib.ticker import FixedLocator, NullLocator

    spreads = list(map(mean_deviation, values))
    negative = any(value < 0 for found in values for value in found)
    low = min(0.0, *(middle - deviation for middle, deviation in spreads), 0.0) if negative else 0.0
    high = max(0.0, *(middle + deviation for middle, deviation in spreads), 0.0) or float(low == 0)
    if scale == "symlog":
        sizes = [abs(middle) for middle, _ in spreads if middle] or [1.0]
        first, last = floor(log10(min(sizes))), floor(log10(max(high, -low)))
        axes.set_xscale("symlog", linthresh=10.0**first, linscale=0.6)
    ends = axes.xaxis.get_transform().transform([low, high])
    room = 0.17 * (ends[1] - ends[0])
    axes.set_xlim(*axes.xaxis.get_transform().inverted().transform([ends[0] - room * (low < 0), ends[1] + room]))
    plain_ticks(axes)
    if scale == "symlog":
        powers = [10.0**i for i in range(first, last + 1, max(1, -(-(last - first + 1) // 5)))]
        shown = [sign * size for sign in (-1, 1) for size in powers if low <= sign * size <= high]
        axes.xaxis.set_major_locator(FixedLocator([0.0, *shown]))
        axes.xaxis.set_minor_locator(NullLocator())


def _power(value: float) -> str:
    exponent = floor(log10(value) + 1e-9)
    factor = round(value / 10.0**exponent)
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{'' if factor == 1 else f'{factor}·'}10{raised}"


def signed(number: str) -> str:
    """Write a number with the sign for minus in place of the hyphen."""
    return number.replace("-", "−")


def _columns(labels: Sequence[str]) -> int:
    longest = max(len(line) for label in labels for line in _entry(label).split("\n"))
    return max(1, min(len(labels), 4, int(58 / (longest + 7))))


def _entry(label: str) -> str:
    return folded(label, 48)


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
