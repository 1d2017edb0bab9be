"""How much the study tries on which data and network: the whole of it, or a quick form on little data."""

from dataclasses import dataclass
from typing import Any

from spikeprune.studies import deep
from spikeprune.studies.slamp.contenders import CONTROLS, MAIN, READINGS


@dataclass(frozen=True)
class Settings:
    """The grids of the study.

    Attributes:
        overrides: of the data's recipe.
        densities: the stops of every chain, falling; each begins where the one before ended.
        batches: of retraining after each stop.
        contenders: what prunes the trained network.
        scratch: sparse training and SNIP, which start from the untrained network.
        scratch_densities: those of the latter, each trained anew.
        updates: exchanges of weights in sparse training.
    """

    overrides: tuple[str, ...] = ()
    densities: tuple[float, ...] = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
    batches: int = 200
    contenders: tuple[str, ...] = (*MAIN, *CONTROLS, *READINGS)
    scratch: tuple[str, ...] = ("snip", "set", "rigl")
    scratch_densities: tuple[float, ...] = (0.05,)
    updates: int = 40

    def fixed(self) -> dict[str, Any]:
        """Give what every trial rests on; which trials there are may change, and those that are done stay."""
        return {"densities": self.densities, "batches": self.batches, "updates": self.updates, "recipe": self.overrides}


FULL = Settings()
# Few recordings: 80 batches are three epochs of nmnist-1k.
EVENTS = Settings(batches=80)
QUICK = Settings(
    overrides=deep.QUICK,
    densities=(0.2, 0.05, 0.02),
    batches=15,
    contenders=("slamp", "lamp", "erk", "global", "first alone", "even"),
    scratch=("rigl",),
    updates=4,
)


def settings_of(data: str, quick: bool) -> Settings:
    """Give the settings that suit a data set."""
    if quick:
        return QUICK
    return EVENTS if deep.RECIPES[data] == deep.EVENTS else FULL
