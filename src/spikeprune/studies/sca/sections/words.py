"""What the sections need to know, and words that they share."""

from collections.abc import Sequence
from dataclasses import dataclass

from spikeprune.report.page import Claim
from spikeprune.studies.rows import Rows
from spikeprune.studies.sca.contenders import ABOUT
from spikeprune.studies.sweep import gaps
from spikeprune.studies.verdicts import BEYOND, ahead, by_share


@dataclass(frozen=True)
class Told:
    """What the sections need to know besides the rows.

    Attributes:
        rows: a row for each seed, contender and density; those of the dense networks; those trained from scratch.
        densities: shares of channels kept, falling.
        layers: names of the layers that lose channels, in call order.
        batches: of retraining at each stop.
    """

    rows: Rows
    densities: tuple[float, ...]
    layers: tuple[str, ...]
    batches: int

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
    def places(self) -> dict[float, str]:
        """Give each stop a place of its own on an axis, the highest density first, and its name."""
        return {float(i): f"{100 * density:g} %" for i, density in enumerate(self.densities)}


def above(told: Told, ours: str, theirs: str, text: str, paper: str) -> Claim:
    """Claim that one contender is above another, and judge it at every stop that both reached."""
    found = gaps(told.sweep, ours, theirs, told.densities)
    return Claim(
        text,
        paper,
        "; ".join(f"{100 * density:g} %: {difference:+.2f}" for density, difference in found.items())
        or "no stop that both reached",
        by_share([ahead(difference) for difference in found.values()]),
        f"{ABOUT[ours]} less {ABOUT[theirs]}, in points, is above 0, and {BEYOND}, at every stop that both reached",
    )
