"""Scores: how much a weight matters, larger is more. Each is a function of plain tensors."""

import torch
from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """Score each weight by its absolute value.

    Example:
        >>> magnitude(torch.tensor([-2.0, 1.0]))
        tensor([2., 1.])
    """
    return weight.detach().abs()


def unit(score: Tensor) -> Tensor:
    """Divide non-negative scores by their largest, so that they lie in [0, 1]; all zero stays all zero.

    Example:
        >>> unit(torch.tensor([1.0, 4.0]))
        tensor([0.2500, 1.0000])
    """
    largest = score.max()
    return score / torch.where(largest > 0, largest, torch.ones_like(largest))


def held_down(score: Tensor, mask: Tensor | None) -> Tensor:
    """Put what is already dead last (minus infinity), so that a mask made from the score can only shrink.

    Args:
        score: a floating score of any shape.
        mask: bool of the same shape, True alive; None when nothing is dead yet.

    Example:
        >>> held_down(torch.tensor([3.0, 1.0]), torch.tensor([False, True]))
        tensor([-inf, 1.])
    """
    return score if mask is None else score.masked_fill(~mask.to(score.device), -torch.inf)
