"""SR-STE: N:M masks of the largest weights, chosen anew after every step, with a pull on those that are masked.

Aojun Zhou, Yukun Ma, Junnan Zhu et al. Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch. ICLR 2021.
arXiv:2102.04010

    mask = the n largest |W| of every block of m;   gradient of W = dL/d(mask W) + decay (1 - mask) W

Reading of the paper
  stated    both formulas; decay 2e-4; trained from scratch.
  differs   the first layer, the last, and those whose inputs m does not divide are left out unless they are named.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikeprune.errors import MethodError
from spikeprune.kernel.blocks import NM, columns, uncolumns
from spikeprune.kernel.sampler import top
from spikeprune.stats import LayerStats, Need
from spikeprune.view.layer import Layer


@dataclass(frozen=True)
class SRSTE:
    """Keep the n largest of every m weights at every step, while all of them train. Use it with `learn_masks`.

    Args:
        n: weights that live of a block, 1 to m.
        m: weights of a block, in a row along the input channels; up to 32.
        decay: pull on masked weights towards zero; the paper's lambda.

    Raises:
        SparsityError: there is no such pattern.
        MethodError: decay is negative.

    Example:
        >>> SRSTE(1, 4).pattern
        NM(n=1, m=4)
    """

    n: int = 2
    m: int = 4
    decay: float = 2e-4

    def __post_init__(self) -> None:
        _ = self.pattern
        if not self.decay >= 0:
            raise MethodError(f"decay is {self.decay}, but must be 0 or more.")

    @property
    def pattern(self) -> NM:
        """What lives of a block."""
        return NM(self.n, self.m)

    @property
    def needs(self) -> Set[Need]:
        """Nothing is measured."""
        return frozenset()

    def begin(self, layers: Sequence[Layer], steps: int) -> "Largest":
        """Begin; there is nothing to keep."""
        return Largest(self)


@final
class Largest:
    """Follows the weights, and knows nothing of its own."""

    every = 0

    def __init__(self, method: SRSTE) -> None:
        self._method = method

    def draw(self, name: str, weight: Tensor) -> Tensor:
        """Take the n largest weights of every block."""
        return self.best(name, weight)

    def best(self, name: str, weight: Tensor) -> Tensor:
        """Take the n largest weights of every block."""
        size = columns(weight.detach().abs(), self._method.m, fill=-torch.inf)
        return uncolumns(top(size, self._method.n), weight.shape)

    def learn(self, name: str, weight: Tensor, grad: Tensor) -> None:
        """Pull masked weights towards zero."""
        if self._method.decay:
            grad.add_(weight * ~self.best(name, weight), alpha=self._method.decay)

    def note(self, name: str, weight: Tensor, stats: LayerStats) -> None:
        """Take nothing."""

    def advance(self) -> None:
        """Count nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Give nothing: the weights say it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""
