"""How much the study tries on which data and network: the whole of it, or a quick form on little data."""

from dataclasses import dataclass
from typing import Any

from spikeprune.studies import deep
from spikeprune.studies.spikenm.contenders import CONTENDERS, FEW

Pair = tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """The grids of the study.

    Attributes:
        overrides: of the data's recipe.
        patterns: (n, m) that every contender is tried with.
        more: (n, m) that `FEW` contenders are tried with.
        alone: (n, m) that SpikeNM is tried with, besides the dense network pruned at the end.
        share: of the training, after which masks stay as they are: of those that are learned, and of those that are decided once.
        contenders: how masks come about.
        credits: batches that eligibilities are measured on, in turn.
        moments: shares of the search at which logits are looked at.
        draws: of masks at each, to tell how much gradients vary.
    """

    overrides: tuple[str, ...] = ()
    patterns: tuple[Pair, ...] = ((1, 8),)
    more: tuple[Pair, ...] = ((2, 4), (2, 16))
    alone: tuple[Pair, ...] = ((1, 4), (2, 8), (4, 8))
    share: float = 0.6
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    credits: int = 16
    moments: tuple[float, ...] = (0.25, 0.5, 0.75)
    draws: int = 16

    def fixed(self) -> dict[str, Any]:
        """Give what every trial rests on; which trials there are may change, and those that are done stay."""
        return {
            "share": self.share,
            "credits": self.credits,
            "draws": self.draws,
            "moments": self.moments,
            "recipe": self.overrides,
        }

    @property
    def pairs(self) -> list[Pair]:
        """All patterns, from dense to sparse."""
        return sorted({*self.patterns, *self.more, *self.alone}, key=lambda pair: (-pair[0] / pair[1], pair[1]))

    def tried(self) -> list[tuple[Pair, str]]:
        """Give pattern and contender of every training."""
        tried = ((self.patterns, tuple(CONTENDERS)), (self.more, FEW), (self.alone, FEW[:1]))
        return [(pair, name) for pairs, names in tried for pair in pairs for name in names if name in self.contenders]


FULL = Settings(overrides=("net.timesteps=2", "train.epochs=4"))
EVENTS = Settings(alone=(), contenders=("spikenm", "no distillation", "sr-ste", "asp"))
QUICK = Settings(
    overrides=deep.QUICK,
    patterns=((2, 4),),
    more=(),
    alone=(),
    contenders=("spikenm", "no distillation", "sr-ste", "asp", "random"),
    credits=2,
    moments=(0.5,),
    draws=4,
)


def settings_of(data: str, quick: bool) -> Settings:
    """Give the settings that suit a data set."""
    if quick:
        return QUICK
    return EVENTS if deep.RECIPES[data] == deep.EVENTS else FULL
