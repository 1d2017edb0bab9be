"""Ticks and marks along the horizontal axis, placed so that no two texts touch."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from spikeprune.report.drawing import GREY, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGN = 0.017  # width of a letter, as a share of the axes' width


def ticks(axes: "Axes", where: Iterable[float], names: Mapping[float, str]) -> None:
    """Put the ticks at the points, unless there are many; a number or name that would touch the next is left out."""
    stops = sorted(set(where))
    low, high = axes.get_xlim()
    if len(stops) == 1:
        low, high = axes.set_xlim(min(low, stops[0] - 0.1), max(high, stops[0] + 0.1))
    texts: list[str] = []
    taken = float("inf")
    for stop in reversed(stops):
        text = names.get(stop, number(stop))
        half = 0.5 * SIGN * (len(text) + 1) * (high - low)
        fits = stop + half <= taken
        texts.insert(0, text if fits else "")
        taken = stop - half if fits else taken
    if len(stops) <= 12:
        axes.set_xticks(stops, texts)
    else:
        axes.xaxis.set_major_formatter(plain(max(abs(low), abs(high))))


def number(x: float) -> str:
    """Write a number in few digits: three that count where it would be longer, and whole from a thousand on.

    Example:
        >>> [number(x) for x in (0.25, 10 / 3, 55.3297, 19567.1, 200)]
        ['0.25', '3.33', '55.3', '19,567', '200']
    """
    text = f"{x:g}"
    if len(text) <= 4:
        return text
    return f"{x:.3g}" if abs(x) < 1000 else f"{x:,.0f}"


def marks(axes: "Axes", texts: Mapping[float, str]) -> int:
    """Write each mark above its line, in a row of its own where it would touch another; give the number of rows."""
    low, high = axes.get_xlim()
    rows: list[float] = []  # where the last text of each ends
    for x in sorted(texts):
        text = short(texts[x], 40)
        half = 0.5 * SIGN * len(text)
        middle = min(max((x - low) / (high - low), half), 1 - half)
        row = next((i for i, end in enumerate(rows) if end + SIGN < middle - half), len(rows))
        rows[row : row + 1] = [middle + half]
        axes.annotate(
            text, (middle, 1.0), (0, 3 + 13 * row), xycoords="axes fraction", textcoords="offset points",
            ha="center", fontsize=9.5, color=GREY,
        )  # fmt: skip
    return len(rows)
