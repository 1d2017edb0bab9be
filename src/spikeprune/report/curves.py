"""Figures of any quantity: lines over a number, bars over names; each a mean over seeds with its sample deviation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from spikeprune.errors import MeasureError
from spikeprune.report import drawing
from spikeprune.report.drawing import GREY, Look, draw, folded, looks, mean_deviation
from spikeprune.report.ticks import marks, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 25  # points of a line beyond which markers and error bars would touch: a band is drawn instead


@dataclass(frozen=True)
class Line:
    """Values over a number, drawn as mean and sample deviation.

    Args:
        label: as in the legend; one label has one look in all panels.
        points: x -> one value a seed.
        look: how it is drawn; without one, `looks` chooses.
        reference: drawn thin, dashed and grey, without markers, as what a paper reports.
    """

    label: str
    points: Mapping[float, Sequence[float]]
    look: Look | None = None
    reference: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines on axes of their own.

    Args:
        lines: with labels that differ.
        x: label of the horizontal axis; panels in a row with equal labels share it.
        y: label of the vertical axis.
        title: above the panel.
        marks: x -> a short text, above a dotted vertical line.
        level: label and one value a seed of a horizontal line, its deviation a band.
        scale: of the vertical axis.
        y_range: the ends of the vertical axis; without them, all values fit.
        names: x -> what its tick says in place of the number.
    """

    lines: Sequence[Line]
    x: str
    y: str
    title: str = ""
    marks: Mapping[float, str] = field(default_factory=dict)
    level: tuple[str, Sequence[float]] | None = None
    scale: Literal["linear", "log"] = "linear"
    y_range: tuple[float, float] | None = None
    names: Mapping[float, str] = field(default_factory=dict)


def curves(name: str, title: str, panels: Sequence[Panel], *, styles: Mapping[str, Look] | None = None) -> str:
    """Draw panels below each other under one legend, as an SVG element.

    Of three and more lines, points at the same x are set side by side, less than a third of the way to the next x.

    Args:
        name: starts every id in it, so unique on the page.
        title: what a screen reader says.
        panels: from top to bottom.
        styles: label -> look; labels it lacks are given the looks it leaves free.

    Raises:
        MeasureError: a line without values, with one that is not finite, or that a logarithmic axis cannot show.
        MissingExtra: matplotlib is not installed.

    Example:
        >>> lamp = Line("lamp", {80: [71.2, 70.8], 90: [66.0, 64.9]})
        >>> curves("fig-1", "Accuracy", [Panel([lamp], "sparsity, %", "accuracy, %")])[:16]
        '<svg role="img" '
    """
    _check(panels)
    found = _looks(panels, styles or {})
    levels = [panel.level[0] for panel in panels if panel.level]
    shown = list(dict.fromkeys([*levels, *found]))
    ends = [i + 1 == len(panels) or panel.x != panels[i + 1].x for i, panel in enumerate(panels)]

    def paint(figure: Any) -> None:
        column = figure.subplots(len(panels), 1, squeeze=False).ravel()
        for i, (axes, panel) in enumerate(zip(column, panels, strict=True)):
            if i and not ends[i - 1]:
                axes.sharex(column[i - 1])
            _paint(axes, panel, found)
            axes.set_ylabel(folded(panel.y, 32 if len(panels) == 1 else 24))
            axes.tick_params(labelbottom=ends[i])
            axes.set_xlabel(folded(panel.x, 56) if ends[i] else "")
        for axes, panel in zip(column, panels, strict=True):  # once shared limits are final
            ticks(axes, [x for other in panels if other.x == panel.x for line in other.lines for x in line.points], panel.names)
            above = marks(axes, panel.marks)
            if panel.title:
                axes.set_title(folded(panel.title, 52), pad=6 + 13 * above)
        if shown != [""]:
            drawing.legend(figure, [_sample(found.get(label)) for label in shown], shown)

    own = 2.5 if len(panels) == 1 else 1.85
    extra = sum(0.22 * bool(panel.title) + 0.18 * bool(panel.marks) for panel in panels) + 0.4 * sum(ends)
    return draw(name, title, own * len(panels) + extra + _legend_height(shown), paint)


def bars(
    name: str,
    title: str,
    rows: Sequence[tuple[str, Mapping[str, Sequence[float]]]],
    x: str,
    *,
    scale: Literal["linear", "symlog"] = "linear",
    styles: Mapping[str, Look] | None = None,
) -> str:
    """Draw horizontal bars from 0, a group a row, as an SVG element; every bar says its value, a bar of 0 too.

    Args:
        name: as for `curves`, like `title` and `styles`.
        title: what a screen reader says.
        rows: (category, label -> one value a seed), from top to bottom; a label may be missing in a row.
        x: label of the horizontal axis.
        scale: of that axis; "symlog" is logarithmic from about the smallest value on, and linear from there to 0.
        styles: label -> look.

    Raises:
        MeasureError: a row without bars, a bar without values or with one that is not finite.
        MissingExtra: matplotlib is not installed.

    Example:
        >>> bars("fig-2", "Weights", [("fc1", {"kept": [812, 790]}), ("fc2", {"kept": [0, 0]})], "weights")[:16]
        '<svg role="img" '
    """
    if not rows:
        raise MeasureError("a figure of bars needs one row or more, but has none.")
    for category, row in rows:
        _check_values(f"row {category!r}", row)
    labels = list(dict.fromkeys(label for _, row in rows for label in row))
    chosen = looks([*(styles or {}), *labels]) | dict(styles or {})
    values = [[mean_deviation(row[label]) if label in row else None for label in labels] for _, row in rows]
    thick = 0.8 / len(labels)

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        drawing.value_axis(axes, [found for _, row in rows for found in row.values()], scale)
        for i, row in enumerate(values):
            for j, (label, value) in enumerate(zip(labels, row, strict=True)):
                if value:
                    drawing.bar(axes, i - 0.4 + (j + 0.5) * thick, value, thick * 0.86, chosen[label])
        axes.set_yticks(range(len(rows)), [folded(row) for row, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=folded(x, 46))
        axes.axvline(0, color="#8a8a8a", linewidth=0.8)
        if labels != [""]:
            drawing.patches(figure, [(label, chosen[label].color, chosen[label].hatch) for label in labels])

    return draw(name, title, 0.6 + _legend_height(labels) + len(rows) * (0.16 + max(0.19 * len(labels), 0.24)), paint)


def _check(panels: Sequence[Panel]) -> None:
    if not panels:
        raise MeasureError("a figure of curves needs one panel or more, but has none.")
    for panel in panels:
        where = f"panel {panel.title or panel.y!r}"
        labels = [line.label for line in panel.lines]
        if not labels:
            raise MeasureError(f"{where} has no lines. Leave it out, or give it one.")
        if len(set(labels)) < len(labels):
            raise MeasureError(f"{where} has two lines with one label, which none could tell apart: {labels}. Rename one.")
        for line in panel.lines:
            _check_values(f"line {line.label!r} of {where}", line.points, panel.scale == "log")
        if panel.level:
            _check_values(f"level {panel.level[0]!r} of {where}", {0.0: panel.level[1]}, panel.scale == "log")


def _check_values(what: str, points: Mapping[Any, Sequence[float]], positive: bool = False) -> None:
    if not points:
        raise MeasureError(f"{what} has no values. Leave it out, or give it some.")
    for at, values in points.items():
        numbers = [*values] if isinstance(at, str) else [at, *values]
        if not len(values):
            raise MeasureError(f"{what} has no value at {at!r}. Leave it out there, or give it one value a seed.")
        if not all(map(isfinite, numbers)):
            raise MeasureError(f"{what} is not finite at {at!r}: {', '.join(map(str, values))}. Leave it out there.")
        if positive and mean_deviation(values)[0] <= 0:
            raise MeasureError(f"{what} has a mean of 0 or less at {at!r}, which a logarithmic axis cannot show.")


def _looks(panels: Sequence[Panel], styles: Mapping[str, Look]) -> dict[str, Look]:
    lines = [line for panel in panels for line in panel.lines]
    references = dict.fromkeys(line.label for line in lines if line.reference)
    chosen = looks([*styles, *(line.label for line in lines if line.label not in references)]) | dict(styles)
    chosen |= {label: Look(GREY, "", drawing.LINES[1 + i % (len(drawing.LINES) - 1)]) for i, label in enumerate(references)}
    chosen |= {line.label: line.look for line in reversed(lines) if line.look}
    return {line.label: chosen[line.label] for line in lines}


def _sample(look: Look | None) -> Any:
    """Give the legend's sample; what is no line is a level."""
    return (
        drawing.key(look, look.line, width=None if look.marker else 1.1)
        if look
        else drawing.key(Look(drawing.INK, "", "-"), "-", width=1.1)
    )


def _legend_height(labels: Sequence[str]) -> float:
    return 0.0 if list(labels) == [""] else max(drawing.legend_height(labels), 0.31)


def _paint(axes: "Axes", panel: Panel, found: Mapping[str, Look]) -> None:
    if panel.scale == "log":
        drawing.log_axis(axes, *_ends(panel))
    if panel.level:
        drawing.level_line(axes, panel.level[1])
    for x in panel.marks:
        axes.axvline(x, color=GREY, linewidth=1.1, linestyle=(0, (1, 1.6)), zorder=1)
    own = [line for line in panel.lines if not line.reference]
    step = _step([x for line in own for x in line.points], len(own))
    for line in panel.lines:
        shift = (own.index(line) - (len(own) - 1) / 2) * step if line in own else 0.0
        _line(axes, line, found[line.label], shift)
    axes.grid(axis="y")
    if panel.y_range:
        axes.set_ylim(*panel.y_range)
    if panel.scale == "linear":
        axes.yaxis.set_major_formatter(drawing.plain(max(map(abs, axes.get_ylim()))))


def _line(axes: "Axes", line: Line, look: Look, shift: float) -> None:
    stops = sorted(line.points)
    where, values = [x + shift for x in stops], [line.points[x] for x in stops]
    least = axes.get_ylim()[0] if axes.get_yscale() == "log" else -float("inf")
    if line.reference:
        style = {"linestyle": look.line, "linewidth": 1.1, "zorder": 1.5}
        lone = {"marker": "_", "markersize": 16, "markeredgewidth": 1.6} if len(stops) == 1 else {}
        drawing.spread_line(axes, where, values, look, **style | lone)
    elif len(stops) <= MANY:
        drawing.spread_line(axes, where, values, look, linestyle=look.line)
    else:
        spreads = [mean_deviation(found) for found in values]
        axes.plot(where, [middle for middle, _ in spreads], color=look.color, linestyle=look.line)
        low, high = [max(m - d, least) for m, d in spreads], [m + d for m, d in spreads]
        axes.fill_between(where, low, high, color=look.color, alpha=0.15, linewidth=0)


def _step(where: Iterable[float], lines: int) -> float:
    """Give how far apart the points of two lines at the same x are set."""
    stops = sorted(set(where))
    if lines < 3 or len(stops) > 12:
        return 0.0
    gaps = [b - a for a, b in pairwise(stops)]
    return min(0.012 * (stops[-1] - stops[0]), 0.6 * min(gaps) / lines) if gaps else 0.012


def _ends(panel: Panel) -> tuple[float, float]:
    """Give the ends of what a logarithmic axis shows; a deviation that reaches 0 leaves it."""
    values = [found for line in panel.lines for found in line.points.values()] + ([panel.level[1]] if panel.level else [])
    spreads = [mean_deviation(found) for found in values]
    low = min(middle - deviation if middle > deviation else middle for middle, deviation in spreads)
    return low, max(middle + deviation for middle, deviation in spreads)
