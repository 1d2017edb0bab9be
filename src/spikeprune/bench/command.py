"""The command `spikeprune bench`: what it takes, and how it shows a report."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from spikeprune.errors import PlanError

if TYPE_CHECKING:
    from spikeprune.bench.report import Report

WIDE = 200  # columns of a table that no terminal shows
ROUNDS, QUICK_ROUNDS = 9, 2
WIDTH, QUICK_WIDTH = 0.25, 0.0625
SECONDS, QUICK_SECONDS = 0.03, 0.002


def bench(
    workloads: Annotated[
        list[str] | None, typer.Option("--workload", help="One of those that --list tells, as often as wanted; all by default.")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the workloads and end.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny networks, hardly trained, on the embedded images: to see that everything works.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where networks and reports go; by default runs/bench, or runs/bench-quick.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of timing; 9 by default, 2 with --quick.")] = None,
    width: Annotated[
        float | None,
        typer.Option(min=0.01, help="Of the deep networks; 0.25 by default. At 1 the VGG has random weights, scaled to a rate."),
    ] = None,
) -> None:
    """Measure how fast compiled networks are, against the frameworks and dense engines, on one thread."""
    from spikeprune.bench.measuring import Options
    from spikeprune.bench.running import run
    from spikeprune.bench.workloads import chosen

    out = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)
    if list_them:
        return out.print(_listed())
    names = chosen(workloads)
    options = Options(
        folder or Path("runs") / ("bench-quick" if quick else "bench"),
        rounds=rounds or (QUICK_ROUNDS if quick else ROUNDS),
        seconds=QUICK_SECONDS if quick else SECONDS,
        width=width or (QUICK_WIDTH if quick else WIDTH),
        quick=quick,
    )
    err = Console(markup=False, highlight=False, stderr=True)
    done = run(names, options, watch=lambda title: err.print(title, soft_wrap=True))
    for part in _shown(done):
        out.print(part, soft_wrap=isinstance(part, str))
    out.print(f"Report: {options.folder / 'report.html'}", soft_wrap=True)
    if not done.right:
        raise PlanError("an engine gave wrong answers; see the lines that say WRONG, and do not trust the times beside them.")


def _listed() -> Table:
    from spikeprune.bench.workloads import WORKLOADS

    table = Table("workload", "goals", "what is measured", box=None)
    for name, entry in WORKLOADS.items():
        table.add_row(name, entry.ids, entry.about)
    return table


def _shown(done: "Report") -> Iterator[Table | str]:
    from spikeprune.bench.report import TITLES, cells, heading, lines

    for case in done.cases:
        table = Table(*TITLES, title=heading(case), title_justify="left")
        for row in case.rows:
            table.add_row(*cells(row))
        yield table
        yield from lines(case)
