"""Answers to disturbed inputs: Gaussian noise on images; deleted and moved events."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import gap
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.stprune.sections.words import ABOUT, SPREAD, Told, percents
from spikeprune.studies.stprune.trials import NOISY, REPEATS
from spikeprune.studies.sweep import cell, drawn
from spikeprune.studies.verdicts import BEYOND, ahead, by_share

KINDS = {
    "gaussian": ("Gaussian noise", "standard deviation, in units of the input"),
    "deleted": ("Deleted events", "share of events that is lost"),
    "moved": ("Moved events", "timesteps that an event moves at most"),
}


def noise(told: Told) -> Section:
    """Compare the small and short network with the dense one and the ANN."""
    names = [name for name in NOISY if len(told.rows.where(part="noise", name=name))]
    rows = told.inner({"part": "noise", "name": "short"})
    kinds = [kind for kind in KINDS if kind in rows.distinct("kind")]
    others = [name for name in ("ann on", "dense on") if name in names]
    return Section(
        "noise",
        "Disturbed inputs",
        claims=[_claim(told, kind, other) for kind in kinds for other in others],
        text=[
            f"Top-1 accuracy of up to {told.settings.noisy:,} held-out samples, a mean over {REPEATS} draws of the noise a seed; the same noise for every network. None was trained "
            "with noise."
        ],
        tables=[_table(told, kind, names) for kind in kinds],
        plots=[plot for kind in kinds for plot in _plot(told, kind, names)],
    )


def _at(told: Told, kind: str, name: str, strength: float) -> dict[int, float]:
    return percents(told.inner({"part": "noise", "name": name}).where(kind=kind, strength=strength))


def _strengths(told: Told, kind: str) -> list[float]:
    return told.inner({"part": "noise", "name": "short"}).where(kind=kind).distinct("strength")


def _claim(told: Told, kind: str, other: str) -> Claim:
    found = {}
    for strength in _strengths(told, kind):
        if (difference := gap(_at(told, kind, "short", strength), _at(told, kind, other, strength))) is not None:
            found[strength] = difference
    known = "1 to 4 points above the ANN (CIFAR-10, VGG9)" if (kind, other) == ("gaussian", "ann on") else "not told"
    return Claim(
        f"{KINDS[kind][0]}: the small and short network is above the {ABOUT[other]}",
        known,
        "; ".join(f"{strength:g}: {difference:+.2f}" for strength, difference in found.items()),
        by_share([ahead(difference) for difference in found.values()]),
        f"its accuracy less the other's, in points, is above 0, and {BEYOND}, at every strength",
    )


def _table(told: Told, kind: str, names: list[str]) -> Table:
    body = [("none", *(cell(told.rows.where(part="noise", name=name), "accuracy", ".2f") for name in names))]
    for strength in _strengths(told, kind):
        cells = [
            cell(told.inner({"part": "noise", "name": name}).where(kind=kind, strength=strength), "accuracy", ".2f")
            for name in names
        ]
        body.append((f"{strength:g}", *cells))
    title, unit = KINDS[kind]
    return Table((unit, *(ABOUT[name] for name in names)), body, f"Top-1 in percent. {SPREAD}", title)


def _plot(told: Told, kind: str, names: list[str]) -> list[Plot]:
    lines = []
    for name in names:
        start = {0.0: list(percents(told.rows.where(part="noise", name=name)).values())}
        points = {s: list(_at(told, kind, name, s).values()) for s in _strengths(told, kind)}
        lines.append(Line(ABOUT[name], {**start, **points}))
    title, unit = KINDS[kind]
    return drawn(f"noise-{kind}", title, Panel(lines, unit, "top-1 accuracy %"), f"{title}: mean and deviation over seeds.")
