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


def by_mean(score: Tensor) -> Tensor:
    """Divide non-negative scores by their mean; all zero stays all zero.

    Example:
        >>> by_mean(torch.tensor([1.0, 3.0]))
        tensor([0.5000, 1.5000])
    """
    mean = score.mean()
    return score / torch.where(mean > 0, mean, torch.ones_like(mean))


def by_rank(score: Tensor) -> Tensor:
    """Replace each non-negative score by the share of scores that are not larger, in (0, 1]; zero stays zero.

    Example:
        >>> by_rank(torch.tensor([0.0, 5.0, 100.0, 5.0]))
        tensor([0.0000, 0.7500, 1.0000, 0.7500])
    """
    flat = score.flatten()
    rank = torch.searchsorted(flat.sort().values, flat, right=True).to(score.dtype) / flat.numel()
    return (rank * (flat > 0)).view_as(score)


def per_weight(gradient: Tensor) -> Tensor:
    """Give each weight its own |gradient|."""
    return gradient


def per_input(gradient: Tensor) -> Tensor:
    """Give each weight the mean |gradient| of all weights that read the same input neuron or channel (dim 1).

    Example:
        >>> per_input(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[2., 3.],
                [2., 3.]])
    """
    return gradient.mean([d for d in range(gradient.dim()) if d != 1], keepdim=True).expand_as(gradient)


def per_output(gradient: Tensor) -> Tensor:
    """Give each weight the mean |gradient| of all weights that feed the same output neuron or channel (dim 0).

    Example:
        >>> per_output(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[1.5000, 1.5000],
                [3.5000, 3.5000]])
    """
    return gradient.mean(list(range(1, gradient.dim())), keepdim=True).expand_as(gradient)


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
