"""What is aimed at, ratios and amounts, set before it was measured, and whether it is met."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["met", "stretch met", "missed", "not measured", "no goal"]


@dataclass(frozen=True)
class Goal:
    """A ratio to reach.

    Attributes:
        must: below it, the goal is missed.
        stretch: the further aim; None if there is none.

    Example:
        >>> goal = Goal(2.0, 4.0)
        >>> goal.verdict(1.99), goal.verdict(2.0), goal.verdict(5.0), goal.verdict(None)
        ('missed', 'met', 'stretch met', 'not measured')
    """

    must: float
    stretch: float | None = None

    def verdict(self, ratio: float | None) -> Verdict:
        """Judge a ratio; None is one that was not measured."""
        if ratio is None:
            return "not measured"
        if self.stretch is not None and ratio >= self.stretch:
            return "stretch met"
        return "met" if ratio >= self.must else "missed"

    def __str__(self) -> str:
        """Write it as reports do."""
        return f"x{self.must:g}" + (f" / x{self.stretch:g}" if self.stretch is not None else "")


@dataclass(frozen=True)
class Under:
    """An amount to stay below, such as seconds, whatever others take.

    Attributes:
        most: from it on, the goal is missed.
        unit: of the amount.

    Example:
        >>> goal = Under(0.5, "s")
        >>> goal.verdict(0.49), goal.verdict(0.5), goal.verdict(None)
        ('met', 'missed', 'not measured')
    """

    most: float
    unit: str

    def verdict(self, amount: float | None) -> Verdict:
        """Judge an amount; None is one that was not measured."""
        if amount is None:
            return "not measured"
        return "met" if amount < self.most else "missed"

    def __str__(self) -> str:
        """Write it as reports do."""
        return f"< {self.most:g} {self.unit}"


def verdict(goal: Goal | Under | None, ratio: float | None, amount: float | None = None) -> Verdict:
    """Judge a ratio, or the amount itself, by a goal, if there is one.

    Example:
        >>> verdict(None, 3.0), verdict(Goal(2), 3.0), verdict(Under(2, "s"), None, 3.0)
        ('no goal', 'met', 'missed')
    """
    if goal is None:
        return "no goal"
    return goal.verdict(amount if isinstance(goal, Under) else ratio)


Key = tuple[float, int]  # sparsity, batch
Goals = dict[str, Goal]  # by opponent

MLP: dict[Key, Goals] = {
    **{
        (sparsity, 1): {
            "torch.compile": Goal(10, 15),
            "ONNX Runtime int8": Goal(5, 8),
            "SpikingJelly": Goal(50, 100),
            "snnTorch": Goal(100, 200),
        }
        for sparsity in (0.0, 0.7, 0.9, 0.95)
    },
    (0.0, 64): {"torch.compile": Goal(3.5), "ONNX Runtime int8": Goal(2.4)},
    (0.9, 64): {"torch.compile": Goal(5.5, 8), "ONNX Runtime int8": Goal(3.7, 5.5)},
    (0.95, 64): {"torch.compile": Goal(9, 13), "ONNX Runtime int8": Goal(6, 9)},
}
VGG: dict[Key, Goals] = {
    (0.0, 1): {"OpenVINO int8": Goal(1.8, 2.5), "OpenVINO": Goal(6.5)},
    (0.9, 1): {
        "OpenVINO int8": Goal(2.1, 4), "OpenVINO": Goal(8), "torch folded": Goal(12), "SpikingJelly": Goal(15), "snnTorch": Goal(25),
    },
    (0.95, 1): {"OpenVINO int8": Goal(3.5, 6), "OpenVINO": Goal(12), "torch folded": Goal(19)},
    (0.0, 16): {"OpenVINO int8": Goal(1.7, 2.3)},
    (0.9, 16): {"OpenVINO int8": Goal(2.7, 4)},
    (0.95, 16): {"OpenVINO int8": Goal(4.5, 6.5)},
}  # fmt: skip
FEW_BITS: dict[tuple[float, int], Goals] = {  # sparsity, bits
    (0.7, 4): {"OpenVINO int8": Goal(3)},
    (0.9, 4): {"OpenVINO int8": Goal(4.6, 8)},
    (0.95, 4): {"OpenVINO int8": Goal(6.3, 12)},
    (0.7, 3): {"OpenVINO int8": Goal(4)},
    (0.9, 3): {"OpenVINO int8": Goal(5.4, 10)},
}
UNPRUNED = "spikeprune, unpruned"
CHANNELS: dict[Key, Goals] = {  # share of channels that stay, batch
    (0.5, 1): {"OpenVINO int8": Goal(2.1), UNPRUNED: Goal(2.8)},
    (0.25, 1): {"OpenVINO int8": Goal(2.8), UNPRUNED: Goal(12)},
    (0.5, 16): {"OpenVINO int8": Goal(1.6), UNPRUNED: Goal(2.8)},
    (0.25, 16): {"OpenVINO int8": Goal(1.9), UNPRUNED: Goal(12)},
}
SCATTER = "spikeprune, unpruned by scatter"
BLOCKS: dict[float, Goals] = {0.75: {SCATTER: Goal(1.1, 2)}, 0.9: {SCATTER: Goal(1.8, 4), "OpenVINO int8": Goal(4, 7)}}
LONGER = "spikeprune, all timesteps"
TIMESTEPS: dict[int, Goals] = {2: {LONGER: Goal(1.9)}, 1: {LONGER: Goal(3.6)}}
EVENTS: Goals = {"OpenVINO int8": Goal(3, 6)}
DENSE = "dense network in SpikingJelly"
TOGETHER: Goals = {DENSE: Goal(80, 150)}
SIZE: dict[tuple[float, int], Goal] = {(0.9, 8): Goal(11, 13), (0.9, 4): Goal(10)}
COMPILING, FIRST = Under(3, "s"), Under(0.5, "s")
MEMORY = Goal(1)
