"""Connectivity, operations and energy: they do not follow the density of weights alike."""

from spikeprune.report.curves import Panel, curves
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.contenders import ABOUT, MAIN
from spikeprune.studies.slamp.sections.words import SAME, Told, at, by_share, cell, line

PRESERVED = 1.0  # points below dense within which accuracy counts as preserved


def cost(told: Told) -> Section:
    """Say what every contender costs at every stop."""
    names = told.asked(MAIN)
    return Section(
        "cost",
        "Connectivity and operations",
        claims=[_claim(told)],
        text=[
            "By weight: non-zero weights over weights. Unrolled: the same of synapses, a kernel's weight once for every output position that it serves. "
            "SynOps are exact: spikes times their non-zero fan-out, of the first test samples, summed over timesteps."
        ],
        tables=[_table(told, names)],
        plots=[_plot(told, names)],
    )


def _claim(told: Told) -> Claim:
    """Find the lowest density at which SLAMP's accuracy is within a point of dense, and what operations it saves there."""
    dense = told.dense.by_seed("accuracy", 100.0)
    lost = {}
    for density in told.densities:
        found = gap(at(told.sweep, "slamp", density).by_seed("accuracy", 100.0), dense)
        assert found is not None
        lost[density] = found
    kept = [density for density, found in lost.items() if found.mean >= -PRESERVED]
    shown = "; ".join(f"{100 * d:g} %: {found:+.2f} points, {_saved(told, d):.1f} times fewer" for d, found in lost.items())
    return Claim(
        "Connectivity and spiking operations fall substantially while accuracy is preserved",
        "said so, no number is known",
        f"against the dense network: {shown}",
        by_share([bool(kept) and _saved(told, min(kept)).mean >= 2]),
        f"at the lowest density that loses at most {PRESERVED:g} point on average, SynOps are at least halved",
    )


def _saved(told: Told, density: float) -> Spread:
    ours, dense = at(told.sweep, "slamp", density).by_seed("synops"), told.dense.by_seed("synops")
    return Spread.of(dense[seed] / ours[seed] for seed in ours)


def _table(told: Told, names: list[str]) -> Table:
    body = [("dense", "100 %", *(_numbers(told.dense, told)))]
    for density in told.densities:
        for name in names:
            if len(rows := at(told.sweep, name, density)):
                body.append((ABOUT[name], f"{100 * density:g} %", *_numbers(rows, told)))
    titles = ("contender", "density", "top-1 %", "convolutions %", "unrolled %", "SynOps, thousands", "of dense %", "energy nJ")
    caption = f"{SAME} Energy: 45 nm CMOS, 32-bit float; memory, norms and neurons are left out."
    return Table(titles, body, caption, "Cost")


def _numbers(rows: Rows, told: Told) -> tuple[str, ...]:
    dense = told.dense.by_seed("synops")
    share = Spread.of(100 * value / dense[seed] for seed, value in rows.by_seed("synops").items())
    return (
        cell(rows, "accuracy", ".2f"), cell(rows, "conv", ".2f"), cell(rows, "unrolled", ".2f"),
        cell(rows, "synops", ",.0f", 1e-3), f"{share:.1f}", cell(rows, "energy_pj", ",.1f", 1e-3),
    )  # fmt: skip


def _plot(told: Told, names: list[str]) -> Plot:
    lines = [found for name in names if (found := line(told, name, "synops", 1e-3))]
    level = ("dense", list(told.dense.by_seed("synops", 1e-3).values()))
    panel = Panel(lines, "density of all layers", "SynOps a sample, thousands", level=level, scale="log", names=told.stops)
    return Plot(
        curves("synops", "Operations against density", [panel]),
        "Exact SynOps at every stop, mean and deviation over seeds, on a logarithmic axis.",
    )
