"""Connectivity, operations and energy: they do not follow the density of weights alike."""

from collections.abc import Mapping

from spikeprune.report.curves import Panel
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.contenders import ABOUT, CONTROLS, MAIN
from spikeprune.studies.slamp.sections.words import SAME, Told, at, by_share, cell, drawn, line, seeds

PRESERVED = 1.0  # points below dense within which accuracy counts as preserved
HALF = 50.0  # percent of dense SynOps up to which operations have fallen substantially


def cost(told: Told) -> Section:
    """Say what every contender costs at every stop."""
    names = told.asked(MAIN)
    return Section(
        "cost",
        "Connectivity and operations",
        claims=_claims(told),
        text=[
            "By weight: non-zero weights over weights. Unrolled: the same of synapses, a kernel's weight once for every output position that it serves. "
            "SynOps are exact: spikes times their non-zero fan-out, of the first test samples, summed over timesteps. The dense network is not retrained, which favours the pruned ones."
        ],
        tables=[_table(told, names)],
        plots=_plots(told, names),
    )


def _claims(told: Told) -> list[Claim]:
    """Hold SLAMP's accuracy against the dense network's, and against that of one that was retrained as often, unpruned."""
    text = "Connectivity and spiking operations fall substantially while accuracy is preserved"
    claims = [_claim(told, text, "the dense network", {density: told.dense for density in told.densities})]
    if "unpruned" in told.asked(CONTROLS):
        alike = {density: at(told.sweep, "unpruned", density) for density in told.densities}
        claims.append(
            _claim(told, f"{text}, beside a network that is retrained alike", "the network retrained alike, unpruned", alike)
        )
    return claims


def _claim(told: Told, text: str, whole: str, base: Mapping[float, Rows]) -> Claim:
    """Find the lowest density at which SLAMP's accuracy is within a point of the base's, and what operations are left there."""
    lost, left = {}, {}
    for density in told.densities:
        rows = at(told.sweep, "slamp", density)
        found = gap(seeds(rows, "accuracy", 100.0), seeds(base[density], "accuracy", 100.0))
        share = _share(rows, base[density])
        if found is not None and share is not None:
            lost[density], left[density] = found, share
    kept = [density for density, found in lost.items() if found.mean >= -PRESERVED]
    shown = "; ".join(f"{100 * d:g} %: {found:+.2f} points with {left[d]:.1f} % of its SynOps" for d, found in lost.items())
    return Claim(
        text,
        "said so, no number is known",
        f"against {whole}: {shown or 'nothing was measured'}",
        by_share([bool(kept) and left[min(kept)].mean <= HALF] if lost else []),
        f"at the lowest density that loses at most {PRESERVED:g} point on average, SynOps are at most {HALF:g} % of that network's on average",
    )


def _share(rows: Rows, base: Rows) -> Spread | None:
    """Give SynOps in percent of another network's, seed by seed; None where they share no seed."""
    own, whole = seeds(rows, "synops"), seeds(base, "synops")
    shared = own.keys() & whole.keys()
    return Spread.of(100 * own[seed] / whole[seed] for seed in sorted(shared)) if shared else None


def _table(told: Told, names: list[str]) -> Table:
    body = [("dense", "100 %", *_numbers(told.dense, told))]
    for density in told.densities:
        for name in names:
            if len(rows := at(told.sweep, name, density)):
                body.append((ABOUT[name], f"{100 * density:g} %", *_numbers(rows, told)))
    titles = ("contender", "density", "top-1 %", "convolutions %", "unrolled %", "SynOps, thousands", "of dense %", "energy nJ")
    caption = f"{SAME} Energy: 45 nm CMOS, 32-bit float; memory, norms and neurons are left out."
    return Table(titles, body, caption, "Cost")


def _numbers(rows: Rows, told: Told) -> tuple[str, ...]:
    share = _share(rows, told.dense)
    convolutions = any(row["conv"] for row in rows)  # none at all: the network has no convolution
    return (
        cell(rows, "accuracy", ".2f"),
        cell(rows, "conv", ".2f") if convolutions else "–",
        cell(rows, "unrolled", ".2f"),
        cell(rows, "synops", ",.0f", 1e-3),
        "–" if share is None else f"{share:.1f}",
        cell(rows, "energy_pj", ",.1f", 1e-3),
    )


def _plots(told: Told, names: list[str]) -> list[Plot]:
    lines = [found for name in names if (found := line(told, name, "synops", 1e-3))]
    dense = list(seeds(told.dense, "synops", 1e-3).values())
    level = ("dense", dense) if dense else None
    panel = Panel(lines, "density of all layers", "SynOps a sample, thousands", level=level, scale="log", names=told.stops)
    words = "Exact SynOps at every stop, mean and deviation over seeds, on a logarithmic axis."
    return drawn("synops", "Operations against density", panel, words)
