"""Accuracy at equal budgets: SCA against every other way to choose channels."""

from spikeprune.report.curves import Panel
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.sca.contenders import ABOUT, CONTENDERS
from spikeprune.studies.sca.sections.words import Told, above
from spikeprune.studies.sweep import SAME, at, cell, drawn, gaps, line, seeds
from spikeprune.studies.verdicts import by_share


def accuracy(told: Told) -> Section:
    """Compare the contenders at every stop."""
    names = told.asked(CONTENDERS)
    return Section(
        "accuracy",
        "Accuracy at equal budgets",
        claims=[*(_claim(told, other) for other in names if other != "sca" and "sca" in names), *_unmasked(told)],
        text=[
            f"Each contender prunes channels of a copy of the trained network, one stop after the other, and the copy is retrained for {told.batches} "
            "batches at every stop. SCA decides again and again in the first half of them, with regrowth, and keeps its structure in the second. As its "
            "authors zero it, dead channels train on between updates, and the last update comes after the last batch. The others decide once, at "
            "the start of the stop. Accuracy is that of the smaller network after shrink, which emits the same spikes as the silenced one "
            "(checked at every stop). The dense network is not retrained."
        ],
        tables=[_table(told, names), *([_leads(told, names)] if "sca" in names else [])],
        plots=_plots(told, names),
        remarks=[
            f"{ABOUT[row['method']]}, seed {row['seed']}, ended early: {row['ended']}" for row in told.sweep if "ended" in row
        ],
    )


def _claim(told: Told, other: str) -> Claim:
    known = "dense 91.14, SCA 91.67 at 28.4 % of the parameters" if other == "l1" else "not told apart"
    return above(told, "sca", other, f"SCA is above {ABOUT[other]} at every share of channels", f"{known} (CIFAR-10, VGG16)")


def _unmasked(told: Told) -> list[Claim]:
    """Say how much of the accuracy that the authors' code reports belongs to channels that count as pruned."""
    if "soft" not in told.asked(["soft"]):
        return []
    lost = {}
    for density in told.densities:
        rows = at(told.sweep, "soft", density)
        if (found := gap(seeds(rows, "unmasked", 100.0), seeds(rows, "accuracy", 100.0))) is not None:
            lost[density] = found
    return [
        Claim(
            "Accuracy measured before channels are set to zero is that of the pruned network",
            "so measured in the authors' code",
            "before less after: " + "; ".join(f"{100 * density:g} %: {found:+.2f}" for density, found in lost.items()),
            by_share([_within(found) for found in lost.values()]),
            "before and after differ by at most half a point on average, at every stop",
        )
    ]


def _within(found: Spread) -> bool:
    return abs(found.mean) <= 0.5


def _table(told: Told, names: list[str]) -> Table:
    dense = ("100 %", *[cell(told.dense, "accuracy", ".2f")] * len(names))
    rows = [(f"{100 * d:g} %", *(cell(at(told.sweep, name, d), "accuracy", ".2f") for name in names)) for d in told.densities]
    caption = f"Top-1 accuracy in percent on held-out data, by share of channels kept. {SAME} First row: the dense network."
    return Table(("channels", *(ABOUT[name] for name in names)), [dense, *rows], caption, "Top-1")


def _leads(told: Told, names: list[str]) -> Table:
    others = [name for name in names if name != "sca"]
    found = {other: gaps(told.sweep, "sca", other, told.densities) for other in others}
    rows = [
        (f"{100 * d:g} %", *(f"{found[other][d]:+.2f}" if d in found[other] else "–" for other in others)) for d in told.densities
    ]
    return Table(
        ("channels", *(f"SCA − {ABOUT[other]}" for other in others)), rows, f"Differences of top-1 in points. {SAME}", "Leads"
    )


def _plots(told: Told, names: list[str]) -> list[Plot]:
    lines = [found for name in names if (found := line(told.sweep, ABOUT[name], name, "accuracy", told.densities))]
    dense = list(seeds(told.dense, "accuracy", 100.0).values())
    level = ("dense", dense) if dense else None
    panel = Panel(lines, "channels kept", "top-1 accuracy %", level=level, names=told.places)
    words = "Top-1 accuracy at every stop, mean and deviation over seeds; points are set side by side."
    return drawn("accuracy", "Accuracy against channels", panel, words)
