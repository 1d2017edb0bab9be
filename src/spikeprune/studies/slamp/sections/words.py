"""Names, differences and lines that the sections share."""

from collections.abc import Sequence
from dataclasses import dataclass

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Claim, Plot
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.contenders import ABOUT
from spikeprune.studies.verdicts import BEYOND as BEYOND
from spikeprune.studies.verdicts import ahead as ahead
from spikeprune.studies.verdicts import by_share as by_share

SPARSE = 0.2  # densities up to this one are those that claims about accuracy rest on
SAME = (
    "Mean ± sample standard deviation over seeds; differences are taken seed by seed. All contenders have the same dense networks, stops, "
    "batches of retraining and recalibration of norms."
)


@dataclass(frozen=True)
class Told:
    """What the sections need to know besides the rows.

    Attributes:
        rows: a row for each seed, contender and density, and those of the dense networks.
        densities: the stops, falling.
        layers: names of the synaptic layers in call order.
        neurons: names of the neuron layers in call order.
        timesteps: T.
        readout: whether the last layer drives no neuron, so that its gain is 1 whatever it is given.
    """

    rows: Rows
    densities: tuple[float, ...]
    layers: tuple[str, ...]
    neurons: tuple[str, ...]
    timesteps: int
    readout: bool = True

    @property
    def dense(self) -> Rows:
        """The dense networks, a row a seed."""
        return self.rows.where(part="dense")

    @property
    def sweep(self) -> Rows:
        """The contenders at every stop."""
        return self.rows.where(part="sweep")

    def asked(self, names: Sequence[str]) -> list[str]:
        """Pick the contenders that were tried."""
        tried = self.sweep.distinct("method")
        return [name for name in names if name in tried]

    @property
    def stops(self) -> dict[float, str]:
        """Give each stop a place of its own on an axis, the highest density first, and its name."""
        return {float(i): f"{100 * density:g} %" for i, density in enumerate(self.densities)}


def flat(rows: Sequence[dict[str, object]]) -> Rows:
    """Turn a chain's row into a row for each of its stops."""
    found: list[dict[str, object]] = []
    for row in rows:
        stops = row.get("stops")
        if stops is None:
            found.append(row)
        else:
            assert isinstance(stops, list)
            facts = {key: value for key, value in row.items() if key not in ("stops", "seconds")}
            found += [{**facts, **stop} for stop in stops]
    return Rows(found)


def at(rows: Rows, method: str, density: float) -> Rows:
    """Pick a contender's rows at a density; none if it could not be pruned so far."""
    return rows.where(method=method, density=density)


def cell(rows: Rows, name: str, spec: str = ".1f", factor: float = 100.0) -> str:
    """Write mean and spread of what was measured, or say that there is nothing."""
    return f"{rows.spread(name, factor):{spec}}" if len(rows) else "–"


def seeds(rows: Rows, name: str, factor: float = 1.0) -> dict[int, float]:
    """Give one number a seed; none where nothing was measured."""
    return rows.by_seed(name, factor) if len(rows) else {}


def leads(told: Told, ours: str, theirs: str) -> dict[float, Spread]:
    """Take the difference of two contenders' accuracies in points, seed by seed, at every density where they share a seed."""
    found = {}
    for density in told.densities:
        own, other = (seeds(at(told.sweep, name, density), "accuracy", 100.0) for name in (ours, theirs))
        if (difference := gap(own, other)) is not None:
            found[density] = difference
    return found


def above(told: Told, ours: str, theirs: str, text: str, paper: str) -> Claim:
    """Claim that one contender is above another, and judge it where both could be pruned to."""
    gaps = {density: found for density, found in leads(told, ours, theirs).items() if density <= SPARSE}
    return Claim(
        text,
        paper,
        "; ".join(f"{100 * density:g} %: {found:+.2f}" for density, found in gaps.items()) or "no density that both reached",
        by_share([ahead(found) for found in gaps.values()]),
        f"{ABOUT[ours]} less {ABOUT[theirs]}, in points, is above 0, and {BEYOND}, at every density of {100 * SPARSE:g} % and less that both "
        "could be pruned to",
    )


def line(told: Told, method: str, name: str, factor: float = 100.0, label: str = "") -> Line | None:
    """Draw what was measured of a contender over the stops; None if nothing was."""
    points = {}
    for place, density in enumerate(told.densities):
        rows = at(told.sweep, method, density)
        if len(rows):
            points[float(place)] = list(rows.by_seed(name, factor).values())
    return Line(label or ABOUT[method], points) if points else None


def drawn(name: str, title: str, panel: Panel, caption: str) -> list[Plot]:
    """Draw a panel of its own, unless it has no line."""
    return [Plot(curves(name, title, [panel]), caption)] if panel.lines else []
