"""Accuracy at equal budgets: SLAMP against every other allocation."""

from spikeprune.report.curves import Panel, curves
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.slamp.contenders import ABOUT, MAIN
from spikeprune.studies.slamp.sections.words import BEYOND, SAME, Told, ahead, at, by_share, cell, lead, line

SPARSE = 0.2  # densities up to this one are those that claims are about


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
            "are measured anew. Contenders differ in their masks alone."
        ],
        tables=[_table(told, names), _leads(told, names)],
        plots=[_plot(told, names)],
    )


def _tested(told: Told, other: str) -> list[float]:
    """Give the densities of the claims that both were pruned to."""
    return [d for d in told.densities if d <= SPARSE and len(at(told.sweep, other, d)) and len(at(told.sweep, "slamp", d))]


def _claim(told: Told, other: str) -> Claim:
    gaps = {density: lead(told.sweep, "slamp", other, density) for density in _tested(told, other)}
    return Claim(
        f"SLAMP is above {ABOUT[other]} at densities of {100 * SPARSE:g} % and less",
        "no number is known",
        "; ".join(f"{100 * density:g} %: {found:+.2f}" for density, found in gaps.items()),
        by_share([ahead(found) for found in gaps.values()]),
        f"the difference in points is above 0, and {BEYOND}, at every density",
    )


def _table(told: Told, names: list[str]) -> Table:
    rows = [(f"{100 * d:g} %", *(cell(at(told.sweep, name, d), "accuracy", ".2f") for name in names)) for d in told.densities]
    dense = ("100 %", cell(told.dense, "accuracy", ".2f"), *[""] * (len(names) - 1))
    caption = f"Top-1 accuracy in percent on held-out data. {SAME} A dash: the allocation cannot be met there. First row: the dense network."
    return Table(("density", *(ABOUT[name] for name in names)), [dense, *rows], caption, "Top-1")


def _leads(told: Told, names: list[str]) -> Table:
    others = [name for name in names if name != "slamp"]
    rows = []
    for density in told.densities:
        known = [f"{lead(told.sweep, 'slamp', o, density):+.2f}" if len(at(told.sweep, o, density)) else "–" for o in others]
        top5 = [cell(at(told.sweep, name, density), "top5", ".2f") for name in ("slamp", "lamp") if name in names]
        rows.append((f"{100 * density:g} %", *known, " / ".join(top5)))
    titles = ("density", *(f"SLAMP − {ABOUT[other]}" for other in others), "top-5, SLAMP / LAMP")
    return Table(titles, rows, f"Differences of top-1 in points, and top-5 in percent. {SAME}", "Leads")


def _plot(told: Told, names: list[str]) -> Plot:
    lines = [found for name in names if (found := line(told, name, "accuracy"))]
    level = ("dense", list(told.dense.by_seed("accuracy", 100.0).values()))
    panel = Panel(lines, "density of all layers", "top-1 accuracy %", level=level, names=told.stops)
    return Plot(
        curves("accuracy", "Accuracy against density", [panel]),
        "Top-1 accuracy at every stop, mean and deviation over seeds; points are set side by side.",
    )
