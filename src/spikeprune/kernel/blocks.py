"""Blocks of M weights in a row along the input channels, of which N live: N:M sparsity.

The blocks of a convolution lie at each kernel position of each output channel by itself: hardware reads the inputs of one position
in a row. Where M does not divide the inputs, the last block of a row is filled up; none spans two rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeprune.errors import SparsityError
from spikeprune.kernel.sampler import top

LARGEST = 32  # inputs of a block


@dataclass(frozen=True)
class NM:
    """At most n of every m weights in a row along the input channels live.

    How many live follows from the pattern, so methods with it take no sparsity.

    Args:
        n: weights that live, 1 to m.
        m: weights of a block, up to 32.

    Raises:
        SparsityError: there is no such pattern; when used, the layer has fewer inputs than m.

    Example:
        >>> NM(2, 4).select(torch.tensor([[3.0, 1.0, 2.0, 0.0, 5.0, 6.0]]), keep=4)
        tensor([[ True, False,  True, False,  True,  True]])
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (self.n, self.m))
        if not whole or not 1 <= self.n <= self.m <= LARGEST:
            raise SparsityError(
                f"NM({self.n!r}, {self.m!r}) is no pattern: whole numbers 1 <= n <= m <= {LARGEST} are, such as NM(2, 4)."
            )

    def reduce(self, score: Tensor) -> Tensor:
        """Return the score itself: a weight is a unit."""
        return score

    def count(self, score: Tensor) -> int:
        """Say how many weights live of a layer's scores, of which dead weights have minus infinity."""
        alive = blocks(score, self.m, fill=-torch.inf) != -torch.inf
        return int(alive.sum(1).clamp_max(self.n).sum())

    def select(self, score: Tensor, keep: int) -> Tensor:
        """Keep the n best weights of every block, ties by lower index.

        Raises:
            SparsityError: `keep` is not what the pattern leaves.
        """
        if keep != (own := self.count(score)):
            raise SparsityError(
                f"{self.n}:{self.m} leaves {own} of {score.numel()} weights here, not {keep}; leave the sparsity out."
            )
        return uncolumns(top(columns(score, self.m, fill=-torch.inf), self.n), score.shape)

    def expand(self, units: Tensor, weight: Tensor) -> Tensor:
        """Return the mask itself, once its shape is that of the weight."""
        return units.view_as(weight)


def blocks(weight: Tensor, m: int, fill: float = 0.0) -> Tensor:
    """Cut (C_out, C_in, kernel ...) into rows of m weights: (B, m), the last of each row filled up.

    Raises:
        SparsityError: there are fewer than m inputs.

    Example:
        >>> blocks(torch.arange(6.0).view(1, 6), 4)
        tensor([[0., 1., 2., 3.],
                [4., 5., 0., 0.]])
    """
    inputs = _inputs(weight, m)
    rows = torch.movedim(weight, 1, -1).reshape(-1, inputs)
    return torch.nn.functional.pad(rows, (0, -inputs % m), value=fill).reshape(-1, m)


def unblocks(values: Tensor, shape: torch.Size) -> Tensor:
    """Put blocks (B, m) back into a weight's shape; what was filled up is dropped.

    Example:
        >>> unblocks(blocks(torch.arange(6.0).view(1, 6), 4), torch.Size([1, 6]))
        tensor([[0., 1., 2., 3., 4., 5.]])
    """
    inputs, (out, _, *kernel) = shape[1], shape
    rows = values.reshape(out, *kernel, -1)[..., :inputs]
    return torch.movedim(rows, -1, 1).contiguous()


def columns(weight: Tensor, m: int, fill: float = 0.0) -> Tensor:
    """Cut (C_out, C_in, kernel ...) into columns of m weights: (m, B). The blocks are those of `blocks`, in the
    weight's own order: so much less has to be moved.

    Raises:
        SparsityError: there are fewer than m inputs.

    Example:
        >>> columns(torch.arange(6.0).view(1, 6), 4)
        tensor([[0., 4.],
                [1., 5.],
                [2., 0.],
                [3., 0.]])
    """
    out, inputs = weight.shape[0], _inputs(weight, m)
    flat = torch.nn.functional.pad(weight.reshape(out, inputs, -1), (0, 0, 0, -inputs % m), value=fill)
    return flat.view(out, -1, m, flat.shape[2]).permute(2, 0, 1, 3).reshape(m, -1).contiguous()


def uncolumns(values: Tensor, shape: torch.Size) -> Tensor:
    """Put columns (m, B) back into a weight's shape; what was filled up is dropped.

    Example:
        >>> uncolumns(columns(torch.arange(6.0).view(1, 6), 4), torch.Size([1, 6]))
        tensor([[0., 1., 2., 3., 4., 5.]])
    """
    m, (out, inputs) = values.shape[0], shape[:2]
    flat = values.view(m, out, -(-inputs // m), -1).permute(1, 2, 0, 3).flatten(1, 2)
    return flat[:, :inputs].reshape(shape)


def _inputs(weight: Tensor, m: int) -> int:
    """Give how many inputs a row has, which must be enough for a block."""
    inputs = weight.shape[1]
    if inputs < m:
        raise SparsityError(
            f"a weight of shape {tuple(weight.shape)} has {inputs} inputs in a row, fewer than the {m} of a block. Leave the layer out, as a "
            "first or a depthwise convolution, or take smaller blocks."
        )
    return inputs


def fullest(mask: Tensor, m: int) -> int:
    """Say how many weights live in the fullest block of a mask.

    Example:
        >>> fullest(torch.tensor([[True, False, True, False, True]]), 4)
        2
    """
    return int(blocks(mask.float(), m).sum(1).max())
