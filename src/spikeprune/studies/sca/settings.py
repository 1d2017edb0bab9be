"""How much the study tries on which data and network: the whole of it, or a quick form on little data."""

from dataclasses import dataclass
from typing import Any

from spikeprune.studies import deep
from spikeprune.studies.sca.contenders import CONTENDERS


@dataclass(frozen=True)
class Settings:
    """The grids of the study.

    Attributes:
        overrides: of the data's recipe.
        densities: shares of channels that are kept, falling: the stops of every chain, each begins where the one before ended.
        batches: of retraining at each stop.
        updates: of SCA at each stop, in the first half of the retraining.
        calibration: batches that methods measure, of those that the recipe sets aside.
        contenders: what chooses channels.
        scratch: density whose structures are trained from scratch as well; None for none.
        timed: pairs of passes by which the smaller network is timed against the dense one.
    """

    overrides: tuple[str, ...] = ()
    densities: tuple[float, ...] = (0.7, 0.5, 0.3, 0.1)
    batches: int = 120
    updates: int = 4
    calibration: int = 2
    contenders: tuple[str, ...] = CONTENDERS
    scratch: float | None = 0.3
    timed: int = 5

    def fixed(self) -> dict[str, Any]:
        """Give what every trial rests on; which trials there are may change, and those that are done stay."""
        return {
            "densities": self.densities,
            "batches": self.batches,
            "updates": self.updates,
            **self._measured(),
            "recipe": self.overrides,
        }

    def _measured(self) -> dict[str, Any]:
        return {"calibration": self.calibration, "timed": self.timed}


FULL = Settings()
# Few recordings: 60 batches are two epochs and a half of nmnist-1k.
EVENTS = Settings(batches=60)
QUICK = Settings(
    overrides=deep.QUICK,
    densities=(0.7, 0.4),
    batches=16,
    updates=2,
    contenders=("sca", "soft", "l1", "random"),
    scratch=0.4,
    timed=2,
)


def settings_of(data: str, quick: bool) -> Settings:
    """Give the settings that suit a data set."""
    if quick:
        return QUICK
    return EVENTS if deep.RECIPES[data] == deep.EVENTS else FULL
