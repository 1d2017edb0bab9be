"""How wide each layer must be, by both readings of the potential and at every variance."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import Spread
from spikeprune.report.page import Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.sections.words import Told
from spikeprune.studies.sweep import drawn

READING = {"current": "current", "charge": "charge, with leak and reset"}


def widths(told: Told) -> Section | None:
    """Show the significant dimensions of each layer."""
    rows = told.inner({"part": "widths"})
    if not len(rows):
        return None
    first = rows.where(reading="current")
    lines = [
        Line(f"{100 * v:g} %", {float(i): _widths(first.where(variance=v), name) for i, name in enumerate(told.layers)})
        for v in told.settings.variances
    ]
    whole = {float(i): [float(c)] * 2 for i, c in enumerate(_dense(told))}
    panel = Panel(
        [Line("dense", whole, reference=True), *lines],
        "layer",
        "channels",
        names={float(i): x for i, x in enumerate(told.layers)},
    )
    words = "Significant dimensions of each layer of the dense network, by the share of variance that they explain; dashed: its channels."
    return Section(
        "widths",
        "Significant widths",
        text=[
            f"Principal components of the averaged potential of the dense network, over {max(told.settings.samples, 0):,} training samples and all places. The "
            "readings: the current that is accumulated without leak and reset, which sets the widths of this study, and the mean of the charge. "
            "For ordinary networks the layers from where dimensions begin to fall are left out as well; that is told here and not done."
        ],
        tables=[_table(told, rows, reading) for reading in READING],
        plots=drawn("widths", "Significant dimensions of each layer", panel, words),
    )


def _dense(told: Told) -> list[int]:
    return next(iter(told.network("dense")))["channels"][: len(told.layers)]  # type: ignore[no-any-return]


def _widths(rows: Rows, layer: str) -> list[float]:
    return [float(row["widths"][layer]) for row in rows]


def _table(told: Told, rows: Rows, reading: str) -> Table:
    body = [("dense", *map(str, _dense(told)), f"{told.network('dense').spread('parameters'):,.0f}", "")]
    for variance in told.settings.variances:
        found = rows.where(reading=reading, variance=variance)
        places = sorted({row["contraction"] or "never" for row in found})
        cells = [f"{Spread.of(_widths(found, name)):.0f}" for name in told.layers]
        body.append((f"{100 * variance:g} %", *cells, f"{found.spread('parameters'):,.0f}", ", ".join(places)))
    titles = ("variance", *told.layers, "parameters", "dimensions fall from")
    return Table(
        titles, body, f"Mean ± sample standard deviation over seeds, by the {READING[reading]}.", f"Widths by the {reading}"
    )
