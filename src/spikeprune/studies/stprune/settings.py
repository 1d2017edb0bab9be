"""How much the study tries on which data and network: the whole of it, or a quick form on little data."""

from dataclasses import dataclass
from typing import Any

from spikeprune.studies import deep


@dataclass(frozen=True)
class Settings:
    """The grids of the study.

    Attributes:
        overrides: of the data's recipe.
        variances: shares of variance whose widths are told, falling.
        compress: the widths that are trained are those of the first variance that leaves at most one in so many parameters.
        samples: training samples that the principal components are measured on.
        levels: T of every level, falling; the first is the dense network's.
        batches: of training at each level, of the recipe's fine-tuning.
        budget: validation accuracy that the last T may lose against the first.
        networks: what is made and measured, in an order in which each finds those that it starts from.
        bits: of weights.
        aware: bits that a network is trained with as well.
        sigmas: of Gaussian noise on images.
        lost, moved: on events, shares that are deleted, and timesteps that they are moved by.
        noisy: test samples of the noise curves.
        hybrid: timesteps at which the converted network is measured, rising; it is trained on at the first. Empty for none.
    """

    overrides: tuple[str, ...] = ("net.width=0.25", "net.timesteps=8", "train.epochs=2")
    variances: tuple[float, ...] = (0.999, 0.99, 0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
    compress: float = 10.0
    samples: int = 3200
    levels: tuple[int, ...] = (8, 4, 2, 1)
    batches: int = 400
    budget: float = 0.01
    networks: tuple[str, ...] = ("dense", "ann", "slim", "leading", "uniform", "short", "sudden")
    bits: tuple[int, ...] = (8, 7, 6, 5, 4, 3, 2)
    aware: tuple[int, ...] = (5, 4, 3, 2)
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    lost: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    moved: tuple[int, ...] = (1, 2, 4)
    noisy: int = 2000
    hybrid: tuple[int, ...] = (25, 50, 100)

    def fixed(self) -> dict[str, Any]:
        """Give what every trial rests on; which trials there are may change, and those that are done stay."""
        names = ("compress", "samples", "levels", "batches", "budget", "variances", "bits", "sigmas", "noisy", "hybrid")
        return {**{name: getattr(self, name) for name in names}, "recipe": self.overrides}


FULL = Settings()
# Few recordings, whose frames are added up as T falls; there is no ANN twin of a movie.
EVENTS = Settings(
    overrides=("net.timesteps=10",),
    compress=4.0,
    samples=800,
    levels=(10, 5, 2, 1),
    batches=60,
    networks=("dense", "slim", "short", "dense short"),
    noisy=300,
    hybrid=(),
)
# For a GPU: the paper's network, at a few timesteps of direct coding.
CIFAR = Settings(overrides=("net.name=vgg9", "net.timesteps=8"), batches=4000, samples=6400)
QUICK = Settings(
    overrides=deep.QUICK,
    variances=(0.99, 0.9, 0.7),
    compress=2.0,
    samples=300,
    levels=(2, 1),
    batches=16,
    bits=(8, 5, 3),
    aware=(3,),
    sigmas=(0.2,),
    noisy=200,
    hybrid=(2, 4),
)


def settings_of(data: str, quick: bool) -> Settings:
    """Give the settings that suit a data set."""
    if quick:
        return QUICK
    if data == "cifar10":
        return CIFAR
    return EVENTS if deep.RECIPES[data] == deep.EVENTS else FULL
