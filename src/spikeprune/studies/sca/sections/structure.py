"""The structure that is learned: channels of each layer, over time and at the end."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.page import Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.sca.contenders import ABOUT, CONTENDERS
from spikeprune.studies.sca.sections.words import Told
from spikeprune.studies.sweep import at, drawn

GLOBAL = ("sca", "soft", "l1", "slimming", "activity")


def structure(told: Told) -> Section:
    """Show how many channels each layer keeps."""
    names = told.asked([name for name in CONTENDERS if name in GLOBAL])
    return Section(
        "structure",
        "The structure that is learned",
        text=[
            "Channels that each layer keeps. One threshold serves all layers, so a layer whose scores run lower loses more. Over time: after every "
            "update of SCA, in all stops in a row."
        ],
        tables=[_table(told, density, names) for density in told.densities],
        plots=[*_over_time(told), *_shares(told, names)],
    )


def _table(told: Told, density: float, names: list[str]) -> Table:
    body = [("dense", *(_channels(told.dense, i) for i in range(len(told.layers))))]
    body += [(ABOUT[name], *(_channels(at(told.sweep, name, density), i) for i in range(len(told.layers)))) for name in names]
    caption = "Channels of each layer, mean over seeds."
    return Table(("contender", *told.layers), body, caption, f"Channels at {100 * density:g} %")


def _channels(rows: Rows, layer: int) -> str:
    values = [row["channels"][layer] for row in rows]
    return f"{sum(values) / len(values):.0f}" if values else "–"


def _over_time(told: Told) -> list[Plot]:
    """Draw the paper's third figure: channels of each layer after every update."""
    if "sca" not in told.asked(["sca"]):
        return []
    whole = _whole(told)
    lines, marks, first = [], {}, 0
    for i, name in enumerate(told.layers):
        points: dict[float, list[float]] = {0.0: [100.0] * max(1, len(told.dense))}
        first = 1
        for density in told.densities:
            rows = list(at(told.sweep, "sca", density))
            marks[float(first)] = f"{100 * density:g} %"
            for update in range(len(rows[0]["history"]) if rows else 0):
                points[float(first + update)] = [100.0 * row["history"][update][i] / whole[i] for row in rows]
            first += len(rows[0]["history"]) if rows else 0
        lines.append(Line(name, points))
    panel = Panel(lines, "update", "channels kept %", marks=marks)
    words = "SCA: share of each layer's channels after every update, mean and deviation over seeds; dotted: where a stop begins."
    return drawn("over-time", "Channels over time", panel, words)


def _whole(told: Told) -> list[int]:
    return [next(iter(told.dense))["channels"][i] for i in range(len(told.layers))]


def _shares(told: Told, names: list[str]) -> list[Plot]:
    whole, middle = _whole(told), told.densities[len(told.densities) // 2]
    lines = []
    for name in names:
        rows = at(told.sweep, name, middle)
        if len(rows):
            lines.append(
                Line(ABOUT[name], {float(i): [100.0 * row["channels"][i] / whole[i] for row in rows] for i in range(len(whole))})
            )
    panel = Panel(lines, "layer", "channels kept %", names={float(i): name for i, name in enumerate(told.layers)})
    return drawn(
        "shares", f"Channels at {100 * middle:g} %", panel, f"Share of each layer's channels at {100 * middle:g} % of all."
    )
