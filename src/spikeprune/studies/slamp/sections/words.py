"""Names, differences and lines that the sections share."""

from collections.abc import Sequence
from dataclasses import dataclass

from spikeprune.report.curves import Line
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim
from spikeprune.studies import sweep
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.contenders import ABOUT
from spikeprune.studies.sweep import SAME as SAME
from spikeprune.studies.sweep import at as at
from spikeprune.studies.sweep import cell as cell
from spikeprune.studies.sweep import drawn as drawn
from spikeprune.studies.sweep import gaps
from spikeprune.studies.sweep import seeds as seeds
from spikeprune.studies.verdicts import BEYOND as BEYOND
from spikeprune.studies.verdicts import ahead as ahead
from spikeprune.studies.verdicts import by_share as by_share

SPARSE = 0.2  # densities up to this one are those that claims about accuracy rest on


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


def leads(told: Told, ours: str, theirs: str) -> dict[float, Spread]:
    """Take the difference of two contenders' accuracies in points, seed by seed, at every density where they share a seed."""
    return gaps(told.sweep, ours, theirs, told.densities)


def above(told: Told, ours: str, theirs: str, text: str, paper: str) -> Claim:
    """Claim that one contender is above another, and judge it where both could be pruned to."""
    found_gaps = {density: found for density, found in leads(told, ours, theirs).items() if density <= SPARSE}
    return Claim(
        text,
        paper,
        "; ".join(f"{100 * density:g} %: {found:+.2f}" for density, found in found_gaps.items())
        or "no density that both reached",
        by_share([ahead(found) for found in found_gaps.values()]),
        f"{ABOUT[ours]} less {ABOUT[theirs]}, in points, is above 0, and {BEYOND}, at every density of {100 * SPARSE:g} % and less that both "
        "could be pruned to",
    )


def line(told: Told, method: str, name: str, factor: float = 100.0) -> Line | None:
    """Draw what was measured of a contender over the stops; None if nothing was."""
    return sweep.line(told.sweep, ABOUT[method], method, name, told.densities, factor)
