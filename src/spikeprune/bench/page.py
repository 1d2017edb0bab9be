"""A benchmark as one self-contained page: for each case a bar a contestant, how many times as long as ours it takes, and the goal."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from spikeprune.bench.cases import Case, Row
from spikeprune.bench.goals import Goal
from spikeprune.bench.report import INTRO, QUICK, TITLES, Report, cells, fact, lines
from spikeprune.report.drawing import COLORS, GREY, INK, draw
from spikeprune.report.page import Plot, Section, render
from spikeprune.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REMARK = TITLES.index("remark")
CAPTION = (
    "How many times as long as ours each contestant takes, on a logarithmic axis; the thin line is from the least to the most of all rounds. Left of the "
    "line at 1 it is faster than ours. A tick is the goal."
)


def page(report: Report) -> str:
    """Give the page.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    sections = [_section(name, list(cases)) for name, cases in groupby(report.cases, lambda case: case.workload)]
    intro = f"{QUICK.strip('*')}\n\n{INTRO}" if report.facts["options"]["quick"] else INTRO
    footer = {key: fact(value) for key, value in report.facts.items()}
    return render("Speed of compiled networks", sections, intro=intro, footer=footer)


def _section(name: str, cases: Sequence[Case]) -> Section:
    from spikeprune.bench.workloads import WORKLOADS

    tables = [
        Table(TITLES, [cells(row) for row in case.rows], " ".join(lines(case)), f"{name}-{i}", frozenset({REMARK}))
        for i, case in enumerate(cases)
    ]
    plots = [
        Plot(bars(f"{name}-{i}", case), f"{case.title}. {CAPTION if not i else ''}".strip())
        for i, case in enumerate(cases)
        if _drawn(case)
    ]
    return Section(name, name, text=[WORKLOADS[name].about], plots=plots, details=tables, details_title="All figures")


def bars(name: str, case: Case) -> str:
    """Draw the ratios of a case, the slowest contestant on top."""
    rows = sorted(_drawn(case), key=lambda row: -(row.ratio or 0.0))

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            _bar(axes, place, row)
        axes.axvline(1.0, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.set(xscale="log", ylim=(len(rows) - 0.5, -0.5), xlabel="time over ours")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.margins(x=0.18)

    return draw(name, f"{case.title}: time over ours", 0.75 + 0.3 * len(rows), paint)


def _drawn(case: Case) -> list[Row]:
    return [row for row in case.rows if row.ratio is not None]


def _bar(axes: "Axes", place: int, row: Row) -> None:
    assert row.ratio is not None
    axes.barh(place, row.ratio - 1, 0.66, left=1.0, color=COLORS[0] if row.ratio >= 1 else COLORS[1])
    if row.spread is not None:
        axes.plot([row.spread.least, row.spread.most], [place, place], color=GREY, linewidth=1)
    most = max(row.ratio, 1.0, 0.0 if row.spread is None else row.spread.most)
    if isinstance(row.goal, Goal):
        axes.plot([row.goal.must] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=2)
        most = max(most, row.goal.must)
    axes.annotate(f"{row.ratio:.3g}", (most, place), (4, 0), textcoords="offset points", va="center", fontsize=9)
