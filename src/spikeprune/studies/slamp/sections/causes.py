"""Where a lead comes from: controls that take the gain apart, and the other readings of it."""

from spikeprune.report.curves import Panel
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.slamp.contenders import ABOUT, CONTROLS, READINGS
from spikeprune.studies.slamp.sections.words import SAME, Told, above, at, cell, drawn, line

READOUT = ", a readout whose gain is 1 by definition,"


def causes(told: Told) -> Section | None:
    """Hold controls and readings against SLAMP and LAMP."""
    controls, readings = told.asked(CONTROLS), told.asked(READINGS)
    if not controls and not readings:
        return None
    plots = [plot for i, names in enumerate((controls, readings)) if names for plot in _plots(told, f"causes-{i}", names)]
    return Section(
        "causes",
        "Where it comes from, and the other readings",
        claims=_claims(told, controls, readings),
        text=[
            "Controls change SLAMP's own gains: turned over in every layer; left to the first layer alone, which is LAMP with that layer protected; taken "
            f"from it; or with the last layer{READOUT if told.readout else ''} put on a level with the others. Readings form the gain, or the "
            "weights of timesteps, in the other ways that the abstract allows."
        ],
        tables=[_table(told, ("slamp", "lamp", *controls, *readings))],
        plots=plots,
    )


def _claims(told: Told, controls: list[str], readings: list[str]) -> list[Claim]:
    claims = []
    if "inverted" in controls:
        claims.append(_over(told, "slamp", "inverted", "The direction of the gain matters: SLAMP is above its inverse"))
    if "first alone" in controls:
        claims.append(_over(told, "slamp", "first alone", "SLAMP is more than LAMP with the first layer protected"))
    if told.readout and "readout alike" in controls:
        claims.append(_over(told, "readout alike", "slamp", "A gain of 1 for the readout costs accuracy"))
    return claims + [_over(told, name, "lamp", f"{ABOUT[name]}: above LAMP") for name in readings]


def _over(told: Told, ours: str, theirs: str, text: str) -> Claim:
    return above(told, ours, theirs, text, "not said")


def _table(told: Told, names: tuple[str, ...]) -> Table:
    body = [(ABOUT[name], *(cell(at(told.sweep, name, d), "accuracy", ".2f") for d in told.densities)) for name in names]
    titles = ("contender", *(f"{100 * d:g} %" for d in told.densities))
    return Table(titles, body, f"Top-1 accuracy in percent at each density. {SAME}", "Controls and readings")


def _plots(told: Told, name: str, names: list[str]) -> list[Plot]:
    lines = [found for method in ("slamp", "lamp", *names) if (found := line(told, method, "accuracy"))]
    panel = Panel(lines, "density of all layers", "top-1 accuracy %", names=told.stops)
    words = "Top-1 accuracy at every stop, mean and deviation over seeds; points are set side by side."
    return drawn(name, "Accuracy of controls and readings", panel, words)
