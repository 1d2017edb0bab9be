"""Where the weights stay and who fires: density and spike rate, layer by layer."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.page import Plot, Section
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.contenders import ABOUT
from spikeprune.studies.slamp.sections.words import Told, at, drawn

SHOWN = ("slamp", "lamp", "erk", "global")


def layers(told: Told) -> Section:
    """Draw density and rate of every layer at the middle and at the last stop."""
    chosen = sorted({told.densities[len(told.densities) // 2], told.densities[-1]}, reverse=True)
    return Section(
        "layers",
        "Layer by layer",
        text=["Densities of the synaptic layers on a logarithmic axis, and spikes a neuron and timestep of the neuron layers."],
        plots=[plot for density in chosen for plot in (*_densities(told, density), *_rates(told, density))],
    )


def _lines(told: Told, density: float, name: str, factor: float, count: int) -> list[Line]:
    lines = []
    for method in told.asked(SHOWN):
        rows = at(told.sweep, method, density)
        if len(rows):
            lines.append(Line(ABOUT[method], _by_place(rows, name, factor, count)))
    return lines


def _by_place(rows: Rows, name: str, factor: float, count: int) -> dict[float, list[float]]:
    return {float(i): [factor * row[name][i] for row in rows] for i in range(count)}


def _densities(told: Told, density: float) -> list[Plot]:
    names = {float(i): name for i, name in enumerate(told.layers)}
    lines = _lines(told, density, "layers", 100.0, len(told.layers))
    panel = Panel(lines, "layer", "density %", scale="log", names=names)
    words = f"Density of each layer at {100 * density:g} % of all weights."
    return drawn(f"densities-{1000 * density:g}", words, panel, words)


def _rates(told: Told, density: float) -> list[Plot]:
    names = {float(i): name for i, name in enumerate(told.neurons)}
    lines = _lines(told, density, "rates", 1.0, len(told.neurons))
    if len(told.dense):
        lines.append(Line("dense", _by_place(told.dense, "rates", 1.0, len(told.neurons)), reference=True))
    panel = Panel(lines, "neuron layer", "spikes a neuron and timestep", names=names)
    words = f"Spike rate of each neuron layer at {100 * density:g} % of all weights; grey: before pruning."
    return drawn(f"rates-{1000 * density:g}", words, panel, words)
