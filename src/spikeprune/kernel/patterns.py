"""Which weights live and die together, and how the survivors are picked.

A pattern turns a weight-shaped score into one score a *unit* (`reduce`), picks units (`select`) and turns the picked
units back into a weight-shaped mask (`expand`). True keeps.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import MethodError, SparsityError
from spikeprune.kernel.blocks import NM as NM


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
            f"pattern is {pattern!r}, but must be a pattern, such as patterns.Channel() or patterns.Unstructured() "
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
    """All weights of one output channel (a row of the weight), or of one input channel (a column), are a unit.

    Output channels, the default, are pruned a family at a time: those of layers whose outputs are added live and die
    together. What silences a dead one is the norm behind it; `shrink` removes it. A dead input channel is exactly its dead
    weights; with grouped convolutions it is the i-th input of every group.

    Args:
        dim: 0 for output channels, 1 for input channels.

    Raises:
        SparsityError: another dim.

    Example:
        >>> Channel().reduce(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([1.5000, 3.5000], dtype=torch.float64)
        >>> Channel(dim=1).reduce(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([2., 3.], dtype=torch.float64)
    """

    dim: int = 0

    def __post_init__(self) -> None:
        if self.dim not in (0, 1):
            raise SparsityError(f"Channel(dim={self.dim}) is none: dim=0 prunes output channels, dim=1 input channels (columns).")

    def reduce(self, score: Tensor) -> Tensor:
        """Return the mean score of each channel, float64 (C,).

        An input channel with a dead weight is dead. An output channel is when all its weights are: single ones count as 0.
        """
        score = score.transpose(0, self.dim).flatten(1).double()
        if self.dim == 0:
            score = score.masked_fill((score == -torch.inf) & (score > -torch.inf).any(1, keepdim=True), 0)
        return score.mean(1)

    def select(self, score: Tensor, keep: int) -> Tensor:
        """Keep the `keep` best channels."""
        return top_k(score, keep)

    def expand(self, units: Tensor, weight: Tensor) -> Tensor:
        """Repeat the verdict on each channel over all its weights."""
        if self.dim == 0:
            return rows(units, weight)
        return units.view(1, -1, *[1] * (weight.dim() - 2)).expand_as(weight).clone()


@dataclass(frozen=True)
class Block:
    """Weights of some output channels in a row, by some input channels in a row, at one kernel position, are a unit.

    A spike of an input channel then meets whole blocks, so that where it meets none, nothing is added: the sparsity of spikes and
    that of weights multiply. The last block of a row or column is a unit too, as far as it goes. A block with a dead weight is dead:
    shrink away dead output channels first.

    Args:
        inputs: input channels of a block, 1 or more.
        outputs: output channels of a block, 1 or more.

    Raises:
        SparsityError: there is no such pattern; when used, a block would reach over two groups of a convolution.

    Example:
        >>> pattern, weight = Block(1, 2), torch.tensor([[1.0, 5.0], [2.0, 5.0], [9.0, 0.0]])
        >>> pattern.reduce(weight)  # the last two blocks are one weight each
        tensor([1.5000, 5.0000, 9.0000, 0.0000], dtype=torch.float64)
        >>> pattern.expand(pattern.select(pattern.reduce(weight), keep=2), weight)
        tensor([[False,  True],
                [False,  True],
                [ True, False]])
    """

    inputs: int = 1
    outputs: int = 32

    def __post_init__(self) -> None:
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (self.inputs, self.outputs))
        if not whole or min(self.inputs, self.outputs) < 1:
            raise SparsityError(
                f"Block(inputs={self.inputs!r}, outputs={self.outputs!r}) is no pattern: whole numbers of 1 or more are, such as Block(1, 32)."
            )

    def reduce(self, score: Tensor) -> Tensor:
        """Return the mean score of each block, float64 (blocks,): by outputs, then inputs, then kernel positions.

        The mean, so that a block that is shorter competes with the others.
        """
        (out, ins), kernel = score.shape[:2], score.shape[2:]
        tall, broad = _lengths(out, self.outputs), _lengths(ins, self.inputs)
        pad = (*[0] * (2 * len(kernel)), 0, -ins % self.inputs, 0, -out % self.outputs)
        filled = F.pad(score.double(), pad).view(len(tall), self.outputs, len(broad), self.inputs, *kernel)
        sizes = (tall[:, None] * broad).view(len(tall), len(broad), *[1] * len(kernel))
        return (filled.sum((1, 3)) / sizes.to(score.device)).flatten()

    def select(self, score: Tensor, keep: int) -> Tensor:
        """Keep the `keep` best blocks."""
        return top_k(score, keep)

    def expand(self, units: Tensor, weight: Tensor) -> Tensor:
        """Repeat the verdict on each block over all its weights."""
        (out, ins), kernel = weight.shape[:2], weight.shape[2:]
        units = units.view(-(-out // self.outputs), -(-ins // self.inputs), *kernel)
        return units.repeat_interleave(self.outputs, 0)[:out].repeat_interleave(self.inputs, 1)[:, :ins].contiguous()

    def fits(self, outputs: int, groups: int) -> bool:
        """Whether no block reaches over two groups of a convolution, whose outputs read other inputs.

        Example:
            >>> Block(1, 32).fits(64, groups=2), Block(1, 32).fits(64, groups=64)
            (True, False)
        """
        return groups == 1 or outputs // groups % self.outputs == 0


def by_output(pattern: object) -> bool:
    """Whether a pattern's units are output channels, which are decided a family at a time."""
    return isinstance(pattern, Channel) and pattern.dim == 0


def fixed(pattern: object) -> bool:
    """Whether how much lives follows from the pattern itself, so that no sparsity can be asked for."""
    return isinstance(pattern, NM)


def rows(units: Tensor, weight: Tensor) -> Tensor:
    """Repeat a bool (C_out,) over all weights of each output channel; of the weight's shape."""
    return units.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight).clone()


def living(pattern: Pattern, mask: Tensor | None) -> Tensor | None:
    """Say which units of a weight-shaped mask can be kept; None while nothing is dead.

    Example:
        >>> living(Channel(), torch.tensor([[False, True], [False, False]]))
        tensor([ True, False])
    """
    if mask is None:
        return None
    return pattern.reduce(torch.zeros_like(mask, dtype=torch.double).masked_fill(~mask, -torch.inf)) == 0


def _lengths(count: int, size: int) -> Tensor:
    """Give the length of each of the blocks of a size that so many places are cut into."""
    return (count - torch.arange(0, count, size)).clamp_max(size)
