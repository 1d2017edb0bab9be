"""How wide each layer must be, by both readings of the potential and at every variance."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.sections.words import Told, ratio
from spikeprune.studies.sweep import drawn
from spikeprune.studies.verdicts import by_share

CAREFUL, FEWER = 0.99, 10.0
READING = {"current": "current", "charge": "charge, with leak and reset"}


def widths(told: Told) -> Section | None:
    """Show the significant dimensions of each layer."""
    rows = told.inner({"part": "widths"})
    if not len(rows):
        return None
    first, names = rows.where(reading="current"), _families(rows)
    lines = [
        Line(f"{100 * v:g} %", {float(i): _widths(first.where(variance=v), name) for i, name in enumerate(names)})
        for v in told.settings.variances
    ]
    whole = {float(i): [float(c)] * 2 for i, c in enumerate(_dense(told, names))}
    panel = Panel(
        [Line("dense", whole, reference=True), *lines], "layer", "channels", names={float(i): x for i, x in enumerate(names)}
    )
    words = "Significant dimensions of each layer of the dense network, by the share of variance that they explain; dashed: its channels."
    return Section(
        "widths",
        "Significant widths",
        claims=[_claim(told, first)],
        text=[
            f"Principal components of the averaged potential of the dense network, over {told.settings.samples:,} training samples at most and all places. The "
            "readings: the current that is accumulated without leak and reset, which sets the widths of this study, and the mean of the charge. "
            "For ordinary networks the layers from where dimensions begin to fall are left out as well, as in the network that is called shallow."
        ],
        tables=[_table(told, rows, reading) for reading in READING],
        plots=drawn("widths", "Significant dimensions of each layer", panel, words),
    )


def _claim(told: Told, rows: Rows) -> Claim:
    dense = told.network("dense").by_seed("parameters")
    found = {v: ratio(dense, rows.where(variance=v).by_seed("parameters")) for v in told.settings.variances if v >= CAREFUL}
    return Claim(
        "Significant dimensions are so few that a tenth of the parameters is left",
        "10 to 14 times fewer (CIFAR-10, VGG9; the variance is not told, analyses of this kind take 99 to 99.9 %)",
        "; ".join(f"{100 * v:g} %: {fewer:.1f} times fewer" for v, fewer in found.items()),
        by_share([fewer.mean >= FEWER for fewer in found.values()]),
        f"on average at least {FEWER:g} times fewer parameters, at every variance of {100 * CAREFUL:g} % and more",
    )


def _families(rows: Rows) -> list[str]:
    """Name the layers, or families of layers whose channels are added by their first, that can lose channels."""
    return list(next(iter(rows))["widths"])


def _dense(told: Told, names: list[str]) -> list[int]:
    channels = next(iter(told.rows.where(part="widths")))["channels"]
    return [channels[name] for name in names]


def _widths(rows: Rows, layer: str) -> list[float]:
    return [float(row["widths"][layer]) for row in rows]


def _table(told: Told, rows: Rows, reading: str) -> Table:
    names = _families(rows)
    body = [("dense", *map(str, _dense(told, names)), f"{told.network('dense').spread('parameters'):,.0f}", "")]
    for variance in told.settings.variances:
        found = rows.where(reading=reading, variance=variance)
        places = sorted({row["contraction"] or "never" for row in found})
        cells = [f"{Spread.of(_widths(found, name)):.0f}" for name in names]
        body.append((f"{100 * variance:g} %", *cells, f"{found.spread('parameters'):,.0f}", ", ".join(places)))
    titles = ("variance", *names, "parameters", "dimensions fall from")
    return Table(
        titles, body, f"Mean ± sample standard deviation over seeds, by the {READING[reading]}.", f"Widths by the {reading}"
    )
