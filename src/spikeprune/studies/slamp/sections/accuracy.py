"""Accuracy at equal budgets: SLAMP against every other allocation."""

from spikeprune.report.curves import Panel
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.slamp.contenders import ABOUT, MAIN
from spikeprune.studies.slamp.sections.words import SAME, SPARSE, Told, above, at, cell, drawn, leads, line, seeds


def accuracy(told: Told) -> Section:
    """Compare the allocations at every stop."""
    names = told.asked(MAIN)
    return Section(
        "accuracy",
        "Accuracy at equal budgets",
        claims=[_claim(told, other) for other in names if other != "slamp"],
        text=[
            "Each contender prunes a copy of the trained network down the densities, one stop after the other. At every stop it measures what it needs, "
            "prunes all layers, and the copy is retrained under hold with a fresh optimizer, a warm-up and a cosine decay; then the norms' statistics "
            "are measured anew. Contenders differ in their masks alone. Random keeps as many weights of each layer as ERK. The dense network is not "
            "retrained, so a pruned one, which has trained longer, may be above it."
        ],
        tables=[_table(told, names), *([_leads(told, names)] if "slamp" in names else [])],
        plots=_plots(told, names),
        remarks=_ended(told, names),
    )


def _claim(told: Told, other: str) -> Claim:
    text = f"SLAMP is above {ABOUT[other]} at densities of {100 * SPARSE:g} % and less"
    return above(told, "slamp", other, text, "no number is known")


def _ended(told: Told, names: list[str]) -> list[str]:
    """Say of each contender that could not go on what stopped it."""
    why = {row["method"]: row["ended"] for row in told.sweep if "ended" in row}
    return [f"{ABOUT[name]} ended early: {why[name]}" for name in names if name in why]


def _table(told: Told, names: list[str]) -> Table:
    dense = ("100 %", *[cell(told.dense, "accuracy", ".2f")] * len(names))
    rows = [(f"{100 * d:g} %", *(cell(at(told.sweep, name, d), "accuracy", ".2f") for name in names)) for d in told.densities]
    caption = f"Top-1 accuracy in percent on held-out data. {SAME} A dash: the allocation cannot be met there. First row: the dense network."
    return Table(("density", *(ABOUT[name] for name in names)), [dense, *rows], caption, "Top-1")


def _leads(told: Told, names: list[str]) -> Table:
    others = [name for name in names if name != "slamp"]
    gaps = {other: leads(told, "slamp", other) for other in others}
    pair = [name for name in ("slamp", "lamp") if name in names]
    rows = []
    for density in told.densities:
        known = [f"{gaps[other][density]:+.2f}" if density in gaps[other] else "–" for other in others]
        top5 = [cell(at(told.sweep, name, density), "top5", ".2f") for name in pair]
        rows.append((f"{100 * density:g} %", *known, " / ".join(top5)))
    titles = ("density", *(f"SLAMP − {ABOUT[other]}" for other in others), f"top-5, {' / '.join(ABOUT[name] for name in pair)}")
    return Table(titles, rows, f"Differences of top-1 in points, and top-5 in percent. {SAME}", "Leads")


def _plots(told: Told, names: list[str]) -> list[Plot]:
    lines = [found for name in names if (found := line(told, name, "accuracy"))]
    dense = list(seeds(told.dense, "accuracy", 100.0).values())
    level = ("dense", dense) if dense else None
    panel = Panel(lines, "density of all layers", "top-1 accuracy %", level=level, names=told.stops)
    words = "Top-1 accuracy at every stop, mean and deviation over seeds; points are set side by side."
    return drawn("accuracy", "Accuracy against density", panel, words)
