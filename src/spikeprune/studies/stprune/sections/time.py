"""Fewer timesteps: trained level by level, and cut without training."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.page import Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.sections.words import ABOUT, SPREAD, Told, lead, percents
from spikeprune.studies.stprune.trials import FALLING
from spikeprune.studies.sweep import cell, drawn

STARTS = {short: start for start, short in FALLING.items()}


def time(told: Told) -> Section:
    """Show accuracy, spikes, operations and energy at every level."""
    names = told.names(STARTS)
    last = told.settings.levels[-1]
    claims = []
    for name in names:
        trained, cut = _levels(told, name).where(timesteps=last), _cut(told, name).where(timesteps=last)
        text = f"At T = {last}, {ABOUT[STARTS[name]]}: training at every level is better than cutting timesteps"
        claims.append(lead(text, percents(trained), percents(cut), "trained less cut"))
    lines = []
    for name in names:
        for rows, words in ((_levels(told, name), "trained"), (_cut(told, name), "cut")):
            points = {_place(told, t): list(percents(rows.where(timesteps=t)).values()) for t in told.settings.levels}
            lines.append(Line(f"{ABOUT[STARTS[name]]}, {words}", {x: values for x, values in points.items() if values}))
    panel = Panel(lines, "T", "top-1 accuracy %", names={_place(told, t): str(t) for t in told.settings.levels})
    return Section(
        "time",
        "Fewer timesteps",
        claims=[claim for claim in claims if claim is not None],
        text=[
            f"T falls from level to level, each level goes on from the weights of the last and is trained for {told.settings.batches} batches. Cut: the network "
            "of the full T, run for its first timesteps only. "
            + ("Frames of events are added up, not dropped, in both. " * told.events)
        ],
        tables=[_table(told, name) for name in names],
        plots=drawn("time", "Accuracy against timesteps", panel, "Top-1 accuracy at every T, mean and deviation over seeds."),
    )


def _place(told: Told, timesteps: int) -> float:
    return float(told.settings.levels.index(timesteps))


def _levels(told: Told, name: str) -> Rows:
    return told.inner({"part": "network", "name": name}, "levels")


def _cut(told: Told, name: str) -> Rows:
    return told.inner({"part": "cut", "name": STARTS[name]})


def _table(told: Told, name: str) -> Table:
    body = []
    for t in told.settings.levels:
        rows = _levels(told, name).where(timesteps=t)
        body.append(
            (
                str(t),
                cell(rows, "accuracy", ".2f"),
                cell(_cut(told, name).where(timesteps=t), "accuracy", ".2f"),
                cell(rows, "spikes", ",.0f", 1.0),
                cell(rows, "synops", ",.0f", 1e-3),
                cell(rows, "energy_pj", ",.1f", 1e-3),
            )
        )
    titles = ("T", "trained, top-1 %", "cut, top-1 %", "spikes a sample", "SynOps, thousands", "energy nJ")
    words = "Spikes, SynOps and energy are of the trained network, of all neurons and timesteps."
    return Table(titles, body, f"{SPREAD} {words}", f"Levels: {ABOUT[STARTS[name]]}")
