"""How much the study tries on which data and network: the whole of it, or a quick form on little data."""

from dataclasses import dataclass
from typing import Any

from spikeprune.recipes.config import Recipe, load_recipe
from spikeprune.studies.slamp.contenders import CONTROLS, MAIN, READINGS

# data set -> the recipe of its dense network and of retraining
RECIPES = {
    "fashion-mnist": "slamp-fashion",
    "fashion-sample": "slamp-fashion",
    "nmnist-1k": "slamp-nmnist",
    "nmnist": "slamp-nmnist",
    "cifar10": "slamp-cifar10",
}


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

    def recipe(self, data: str, seed: int, extra: tuple[str, ...]) -> Recipe:
        """Give the recipe of one seed's dense network; `extra` are overrides on top."""
        return load_recipe(RECIPES[data], [*self.overrides, *extra, f"data.name={data}", f"seed={seed}"])


FULL = Settings()
# Few recordings: 80 batches are three epochs of nmnist-1k.
EVENTS = Settings(batches=80)
QUICK = Settings(
    overrides=(
        "data.validation=500",
        "net.width=0.0625",
        "net.timesteps=2",
        "train.epochs=3",
        "train.batch=32",
        "prune.batch=32",
        "prune.calibration=2",
    ),
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
    return EVENTS if RECIPES[data] == "slamp-nmnist" else FULL
