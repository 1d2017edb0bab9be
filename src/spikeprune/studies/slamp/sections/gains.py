"""The gains that SLAMP found: how far apart they are, and which timesteps weigh."""

from statistics import mean

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.sections.words import Told, at, by_share, drawn

ALIKE = 0.05  # spread of the gains below which the method is LAMP in all but name


def gains(told: Told) -> Section | None:
    """Show gain^2 and the weights of timesteps, by layer."""
    if "slamp" not in told.asked(["slamp"]):
        return None
    first, last = (at(told.sweep, "slamp", density) for density in (told.densities[0], told.densities[-1]))
    return Section(
        "gains",
        "The gains",
        claims=[_claim(told)],
        text=[
            "gain² is the power of a layer's leaky input trace over that of its inputs, both weighted over timesteps by |dL/dh[t]|². It multiplies the "
            "layer's LAMP scores, so only differences between layers matter. A layer that drives no neuron keeps no trace and has gain 1."
        ],
        tables=[_table(told, first, last), *_moved(told)],
        plots=_plots(told, first),
    )


def spread(values: list[float]) -> float:
    """Give the largest over the smallest, less one.

    Example:
        >>> spread([1.0, 1.5])
        0.5
    """
    return max(values) / min(values) - 1


def _claim(told: Told) -> Claim:
    found = {d: [row["gains"] for row in at(told.sweep, "slamp", d)] for d in told.densities}
    found = {density: made for density, made in found.items() if made}
    apart = {density: [spread(gains) for gains in made] for density, made in found.items()}
    hidden = {density: [spread(gains[:-1] if len(gains) > 2 else gains) for gains in made] for density, made in found.items()}
    judged = hidden if told.readout else apart
    texts = [f"{100 * d:g} %: {Spread.of(values):.2f} ({Spread.of(hidden[d]):.2f})" for d, values in apart.items()]
    return Claim(
        "The gains differ between layers, so that the method is more than LAMP",
        "no number is known",
        "largest over smallest, less one (in brackets without the last layer): " + "; ".join(texts),
        by_share([min(values) >= ALIKE for values in judged.values()]),
        f"at least {ALIKE:g} over all layers{' but the readout, whose gain is 1 by definition,' if told.readout else ''} at every stop and for every seed",
    )


def _per_layer(rows: Rows, i: int) -> Spread:
    return Spread.of(row["gains"][i] for row in rows)


def _table(told: Told, first: Rows, last: Rows) -> Table:
    body = [
        (name, *(f"{_per_layer(rows, i):.2f}" if len(rows) else "–" for rows in (first, last)), _steps(first, i))
        for i, name in enumerate(told.layers)
    ]
    caption = (
        f"gain² when the first stop ({100 * told.densities[0]:g} %) and the last one ({100 * told.densities[-1]:g} %) were decided, mean ± sample standard "
        "deviation over seeds, and the mean weights of timesteps 1 to T at the first."
    )
    return Table(("layer", "gain², first stop", "gain², last stop", "weights of timesteps"), body, caption, "Gains")


def _moved(told: Told) -> list[Table]:
    """Say how many weights each layer keeps, over those that LAMP leaves it."""
    shared = [d for d in told.densities if len(at(told.sweep, "slamp", d)) and len(at(told.sweep, "lamp", d))]
    if not shared:
        return []
    body = [(name, *(_over_lamp(told, density, i) for density in shared)) for i, name in enumerate(told.layers)]
    caption = (
        "Weights that SLAMP leaves a layer over those that LAMP leaves it, mean ± sample standard deviation over seeds. At the first stop the "
        "gains alone make the difference; later the two networks have also been retrained apart."
    )
    return [Table(("layer", *(f"{100 * d:g} %" for d in shared)), body, caption, "Weights over LAMP's")]


def _over_lamp(told: Told, density: float, layer: int) -> str:
    kept = [{row["seed"]: row["layers"][layer] for row in at(told.sweep, name, density)} for name in ("slamp", "lamp")]
    both = kept[0].keys() & kept[1].keys()
    return f"{Spread.of(kept[0][seed] / kept[1][seed] for seed in sorted(both)):.2f}" if both else "–"


def _steps(rows: Rows, layer: int) -> str:
    weights = [row["steps"][layer] for row in rows]
    return " ".join(f"{mean(step):.2f}" for step in zip(*weights, strict=True))


def _plots(told: Told, rows: Rows) -> list[Plot]:
    places = {float(i): name for i, name in enumerate(told.layers)}
    lines = [Line("gain²", {place: [row["gains"][int(place)] for row in rows] for place in places})] if len(rows) else []
    panel = Panel(lines, "layer", "gain² at the first stop", names=places)
    return drawn("gains", "Gain of each layer", panel, "gain² of each layer at the first stop, mean and deviation over seeds.")
