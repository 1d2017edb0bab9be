"""What is left to store and to compute, and how long it takes."""

from spikeprune.report.curves import Panel
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.sca.contenders import ABOUT, CONTENDERS
from spikeprune.studies.sca.latency import SIZES
from spikeprune.studies.sca.sections.words import Told
from spikeprune.studies.sweep import SAME, at, cell, drawn, line, seeds
from spikeprune.studies.verdicts import by_share

SHARE = 0.7  # of the ratio of MACs that the speed-up is to reach


def cost(told: Told) -> Section:
    """Say what every contender costs at every stop."""
    names = told.asked(CONTENDERS)
    return Section(
        "cost",
        "Size, operations and time",
        claims=_claims(told),
        text=[
            "Of the smaller network after shrink. MACs are those of a dense engine over all timesteps; SynOps are exact: spikes times their fan-out, "
            "of the first test samples. Time is that of the dense network over the smaller one's, both eager PyTorch, in turns in one process."
        ],
        tables=[_table(told, names), *_times(told, names)],
        plots=_plots(told, names),
    )


def _claims(told: Told) -> list[Claim]:
    claims = []
    for size in SIZES:
        held, shown = [], []
        for name in told.asked(("sca", "l1 uniform")):
            for density in told.densities:
                rows = [row for row in at(told.sweep, name, density) if f"speedup_{size}" in row]
                if rows:
                    part = Spread.of(row[f"speedup_{size}"] / row["macs_ratio"] for row in rows)
                    held.append(part.mean >= SHARE)
                    shown.append(f"{ABOUT[name]} {100 * density:g} %: {part:.2f}")
        claims.append(
            Claim(
                f"The smaller network is faster as its MACs fall, at batch {size}",
                "not measured",
                "speed-up over the ratio of MACs: " + "; ".join(shown),
                by_share(held),
                f"the mean over seeds is at least {SHARE:g} at every stop",
            )
        )
    return claims


def _table(told: Told, names: list[str]) -> Table:
    body = [("dense", "100 %", *_numbers(told.dense, told))]
    for density in told.densities:
        for name in names:
            if len(rows := at(told.sweep, name, density)):
                body.append((ABOUT[name], f"{100 * density:g} %", *_numbers(rows, told)))
    titles = (
        "contender",
        "channels",
        "top-1 %",
        "parameters",
        "of dense %",
        "MACs of dense %",
        "SynOps, thousands",
        "of dense %",
    )
    return Table(titles, body, SAME, "Cost")


def _numbers(rows: Rows, told: Told) -> tuple[str, ...]:
    return (
        cell(rows, "accuracy", ".2f"),
        cell(rows, "parameters", ",.0f", 1.0),
        _share(rows, told.dense, "parameters"),
        _share(rows, told.dense, "macs"),
        cell(rows, "synops", ",.0f", 1e-3),
        _share(rows, told.dense, "synops"),
    )


def _share(rows: Rows, base: Rows, name: str) -> str:
    """Give a quantity in percent of the dense network's, seed by seed."""
    own, whole = seeds(rows, name), seeds(base, name)
    shared = sorted(own.keys() & whole.keys())
    return f"{Spread.of(100 * own[seed] / whole[seed] for seed in shared):.1f}" if shared else "–"


def _times(told: Told, names: list[str]) -> list[Table]:
    body = []
    for name in names:
        for density in told.densities:
            rows = Rows(row for row in at(told.sweep, name, density) if "macs_ratio" in row)
            if len(rows):
                keys = ("macs_ratio", *(f"speedup_{size}" for size in SIZES))
                body.append((ABOUT[name], f"{100 * density:g} %", *(cell(rows, key, ".2f", 1.0) for key in keys)))
    titles = ("contender", "channels", "MACs, dense over smaller", *(f"time, batch {size}" for size in SIZES))
    return (
        [
            Table(
                titles,
                body,
                "Dense over smaller, mean ± sample standard deviation over seeds; of each the median of pairs of passes.",
                "Time",
            )
        ]
        if body
        else []
    )


def _plots(told: Told, names: list[str]) -> list[Plot]:
    lines = [found for name in names if (found := line(told.sweep, ABOUT[name], name, "synops", told.densities, 1e-3))]
    dense = list(seeds(told.dense, "synops", 1e-3).values())
    level = ("dense", dense) if dense else None
    panel = Panel(lines, "channels kept", "SynOps a sample, thousands", level=level, names=told.places)
    return drawn("synops", "Operations against channels", panel, "Exact SynOps at every stop, mean and deviation over seeds.")
