"""Names, differences and lines that the sections share."""

from collections.abc import Sequence
from dataclasses import dataclass

from spikeprune.errors import MeasureError
from spikeprune.report.curves import Line
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Verdict
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.contenders import ABOUT

BEYOND = "the mean over seeds is larger than its sample standard deviation (of one seed: larger than 0)"
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
    """

    rows: Rows
    densities: tuple[float, ...]
    layers: tuple[str, ...]
    neurons: tuple[str, ...]
    timesteps: int

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


def lead(rows: Rows, ours: str, theirs: str, density: float, name: str = "accuracy", factor: float = 100.0) -> Spread:
    """Take the difference of two contenders at a density, seed by seed.

    Raises:
        MeasureError: they share no seed there.
    """
    pair = [at(rows, method, density) for method in (ours, theirs)]
    found = gap(*(part.by_seed(name, factor) for part in pair)) if all(map(len, pair)) else None
    if found is None:
        raise MeasureError(f"{ours} and {theirs} share no seed at a density of {density}.")
    return found


def ahead(found: Spread) -> bool:
    """Whether a difference is positive beyond its spread; of one seed, whether it is positive."""
    return found.mean > 0 and found.clear is not False


def by_share(held: Sequence[bool]) -> Verdict:
    """Turn the tests of one claim into a verdict: all, some or none hold."""
    if not held:
        return "not tested"
    return "reproduced" if all(held) else "partly" if any(held) else "refuted"


def line(told: Told, method: str, name: str, factor: float = 100.0, label: str = "") -> Line | None:
    """Draw what was measured of a contender over the stops; None if nothing was."""
    points = {}
    for place, density in enumerate(told.densities):
        rows = at(told.sweep, method, density)
        if len(rows):
            points[float(place)] = list(rows.by_seed(name, factor).values())
    return Line(label or ABOUT[method], points) if points else None
