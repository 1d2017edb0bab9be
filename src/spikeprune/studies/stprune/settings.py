"""How much the study tries on which data and network: the whole of it, or a quick form on little data."""

from dataclasses import dataclass, replace
from typing import Any

from spikeprune.recipes.config import Recipe
from spikeprune.studies import deep


@dataclass(frozen=True)
class Hybrid:
    """The paper's way to an SNN: an ANN without norms, converted, and trained on.

    Attributes:
        timesteps: at which the converted network is measured, rising; it is trained on at the first.
        width: of the network, narrow since T is large.
        dropout: in all training.
        balanced: samples that thresholds are balanced on.
        tested: held-out samples.
        draws: of the Poisson input.
        lr: learning rate of the training on.
    """

    timesteps: tuple[int, ...] = (25, 50, 100)
    width: float = 0.125
    dropout: float = 0.2
    balanced: int = 128
    tested: int = 1000
    draws: int = 3
    lr: float = 1e-3


@dataclass(frozen=True)
class Settings:
    """The grids of the study.

    Attributes:
        overrides: of the data's recipe.
        variances: shares of variance whose widths are told, falling.
        compress: the widths that are trained are those of the largest variance, in steps of half a percent, that leaves at most one in so many
            parameters.
        samples: training samples that the principal components are measured on.
        levels: T of every level, falling; the first is the dense network's.
        batches: of training at each level, of the recipe's fine-tuning.
        budget: accuracy that the last T may lose against the first, on samples that nothing is scored on.
        networks: what is made and measured, in an order in which each finds those that it starts from.
        bits: of weights.
        aware: bits that a network is trained with as well.
        sigmas: of Gaussian noise on images.
        lost, moved: on events, shares that are deleted, and timesteps that they are moved by.
        noisy: held-out samples of the noise curves.
        hybrid: the paper's way to an SNN; None for none.
    """

    overrides: tuple[str, ...] = ("net.width=0.25", "net.timesteps=4", "train.epochs=5", "prune.batch=128", "prune.lr=1e-3")
    variances: tuple[float, ...] = (0.999, 0.99, 0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
    compress: float = 10.0
    samples: int = 3200
    levels: tuple[int, ...] = (4, 2, 1)
    batches: int = 200
    budget: float = 0.01
    networks: tuple[str, ...] = (
        "dense", "dense on", "ann", "ann on", "slim", "leading", "uniform", "shallow", "short", "leading short", "sudden",
    )  # fmt: skip
    bits: tuple[int, ...] = (8, 7, 6, 5, 4, 3, 2)
    aware: tuple[int, ...] = (5, 4, 3, 2)
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    lost: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    moved: tuple[int, ...] = (1, 2, 4)
    noisy: int = 2000
    hybrid: Hybrid | None = Hybrid()

    def fixed(self) -> dict[str, Any]:
        """Give what every trial rests on; which trials there are may change, and those that are done stay."""
        names = (
            "compress", "samples", "levels", "batches", "budget", "variances", "bits", "sigmas", "lost", "moved", "noisy",
        )  # fmt: skip
        rests = {name: getattr(self, name) for name in names}
        return {**rests, "hybrid": None if self.hybrid is None else vars(self.hybrid), "recipe": self.overrides}

    def of(self, recipe: Recipe) -> "Settings":
        """Leave out what the network or the data cannot do: a twin of a movie, the paper's way of a network with norms built in."""
        plain = recipe.net.name in ("vgg9", "vgg11")
        images = not recipe.data.events
        without = {"shallow"} if recipe.net.name not in ("vgg9", "vgg11", "vggsnn") else set()
        without |= set() if images else {"ann", "ann on"}
        fits = plain and images and recipe.data.normalize == "none"
        return replace(self, networks=tuple(x for x in self.networks if x not in without), hybrid=self.hybrid if fits else None)


FULL = Settings()
# Few recordings, whose frames are added up as T falls.
EVENTS = Settings(
    overrides=("net.timesteps=10", "prune.lr=2e-3"),
    compress=4.0,
    samples=800,
    levels=(10, 5, 2, 1),
    batches=60,
    networks=("dense", "dense on", "slim", "leading", "shallow", "short", "leading short", "dense short"),
    noisy=300,
)
# For a GPU: the paper's network, at a few timesteps of direct coding. Steps times integers need 32 bit.
CIFAR = Settings(
    overrides=("net.name=vgg9", "net.timesteps=8", "machine.precision=32-true"), levels=(8, 4, 2, 1), batches=4000, samples=6400
)
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
    lost=(0.5,),
    moved=(1,),
    noisy=200,
    hybrid=Hybrid((2, 4), tested=200),
)


def settings_of(data: str, quick: bool) -> Settings:
    """Give the settings that suit a data set."""
    if quick:
        return QUICK
    if data == "cifar10":
        return CIFAR
    return EVENTS if deep.RECIPES[data] == deep.EVENTS else FULL
