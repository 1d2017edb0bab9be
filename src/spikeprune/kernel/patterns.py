"""Which weights live and die together, and how the survivors are picked.

A pattern turns a weight-shaped score into one score a *unit* (`reduce`), picks units (`select`) and turns the picked
units back into a weight-shaped mask (`expand`). True keeps.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from spikeprune.errors import MethodError, SparsityError


def top_k(score: Tensor, keep: int) -> Tensor:
    """Keep exactly `keep` largest scores; ties go to the lower index.

    Args:
        score: any shape; no NaN.
        keep: how many survive, 0 to `score.numel()`.

    Returns:
        A bool mask of the score's shape, True for the kept.

    Raises:
        SparsityError: `keep` is negative or more than there are.

    Example:
        >>> top_k(torch.tensor([1.0, 3.0, 3.0, 3.0]), keep=2)
        tensor([False,  True,  True, False])
    """
    if not 0 <= keep <= score.numel():
        raise SparsityError(f"cannot keep {keep} of {score.numel()} units; keep 0 to {score.numel()}.")
    order = score.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    mask[order[:keep]] = True
    return mask.view_as(score)


@runtime_checkable
class Pattern(Protocol):
    """How weights are grouped into units."""

    def reduce(self, score: Tensor) -> Tensor:
        """Turn a weight-shaped score into one score a unit."""
        ...

    def select(self, score: Tensor, keep: int) -> Tensor:
        """Pick `keep` units; a bool mask of the units' shape."""
        ...

    def expand(self, units: Tensor, weight: Tensor) -> Tensor:
        """Turn a mask of units into a mask of the weight's shape."""
        ...


def check_pattern(pattern: object) -> None:
    """Raise MethodError if it is no pattern, but perhaps the name or the class of one."""
    if isinstance(pattern, type) or not isinstance(pattern, Pattern):
        raise MethodError(
            f"pattern is {pattern!r}, but must be a pattern, such as patterns.Channel(dim=1) or patterns.Unstructured() "
            "(from spikeprune import patterns)."
        )


@dataclass(frozen=True)
class Unstructured:
    """Every weight is a unit of its own.

    Example:
        >>> Unstructured().select(torch.tensor([[1.0, -2.0], [4.0, 3.0]]), keep=2)
        tensor([[False, False],
                [ True,  True]])
    """

    def reduce(self, score: Tensor) -> Tensor:
        """Return the score itself: a weight is a unit."""
        return score

    def select(self, score: Tensor, keep: int) -> Tensor:
        """Keep the `keep` best weights."""
        return top_k(score, keep)

    def expand(self, units: Tensor, weight: Tensor) -> Tensor:
        """Return the mask itself, once its shape is that of the weight."""
        return units.view_as(weight)


@dataclass(frozen=True)
class Channel:
    """All weights that read one input channel (a column of a linear weight) are a unit.

    Only `dim=1` exists: a dead input is exactly its dead weights. Removing *output* channels (`dim=0`) means silencing
    the norm behind them and rebuilding the network smaller, which this version does not do, so it is refused. With
    grouped convolutions a unit is the i-th input of every group.

    Example:
        >>> Channel(dim=1).reduce(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([2., 3.], dtype=torch.float64)
    """

    dim: int

    def __post_init__(self) -> None:
        if self.dim != 1:
            raise SparsityError(f"Channel(dim={self.dim}) is not supported; Channel(dim=1) prunes input channels (columns).")

    def reduce(self, score: Tensor) -> Tensor:
        """Return the mean score of each input channel, float64 (C_in,); a channel with a dead weight is dead."""
        return score.transpose(0, 1).flatten(1).double().mean(1)

    def select(self, score: Tensor, keep: int) -> Tensor:
        """Keep the `keep` best input channels."""
        return top_k(score, keep)

    def expand(self, units: Tensor, weight: Tensor) -> Tensor:
        """Repeat the verdict on each input channel over all weights that read it."""
        return units.view(1, -1, *[1] * (weight.dim() - 2)).expand_as(weight).clone()
