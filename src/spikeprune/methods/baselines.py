"""What every paper is measured against: magnitude pruning under any allocation, and chance.

Reading of the papers
  stated    LAMP: squared weight over the sum of those not smaller, one global ranking (Lee et al., arXiv:2010.07611);
            Erdős-Rényi-kernel densities (Evci et al., arXiv:1911.11134).
  differs   counts are exact: LAMP's code rounds each layer by itself, and keeps all that tie with the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spikeprune.decide import choose
from spikeprune.kernel.allocate import Allocation, check_allocation, global_top_k
from spikeprune.kernel.patterns import Pattern, Unstructured, check_pattern, living
from spikeprune.kernel.scores import held_down, magnitude
from spikeprune.masks import Masks
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer, unit_name


@dataclass(frozen=True)
class Magnitude:
    """Keep the weights (or units) of largest magnitude.

    Args:
        allocation: sparsity across layers: `global_top_k` (the default), `uniform`, `erdos_renyi` or `lamp`.
        pattern: what is removed together.

    Example:
        >>> from spikeprune.kernel.allocate import lamp
        >>> Magnitude(allocation=lamp).needs
        frozenset()
    """

    allocation: Allocation = global_top_k
    pattern: Pattern = Unstructured()
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        check_allocation(self.allocation)
        check_pattern(self.pattern)

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float | None = None) -> Masks:
        """Score by magnitude, allocate, keep the largest."""
        scores = {layer.name: self.pattern.reduce(held_down(magnitude(layer.weight), masks.get(layer.name))) for layer in layers}
        return choose(layers, scores, sparsity, self.allocation, self.pattern)


@dataclass(frozen=True)
class Random:
    """Keep units drawn at random: what a score must beat.

    The draw is fixed by `seed` and the layers' shapes, so rising sparsities give nested masks.

    Args:
        seed: of this method's own generator; the global one is not touched.
        allocation: sparsity across layers; with random scores the global ranking spreads evenly, to chance.
        pattern: what is removed together.

    Example:
        >>> from spikeprune import model_view, prune
        >>> net = torch.nn.Linear(4, 2)
        >>> prune(model_view(net, torch.rand(1, 4), spiking=False), Random(seed=1), 0.75).kept
        {'': 2}
    """

    seed: int = 0
    allocation: Allocation = global_top_k
    pattern: Pattern = Unstructured()
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        check_allocation(self.allocation)
        check_pattern(self.pattern)

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float | None = None) -> Masks:
        """Score by chance, allocate, keep the luckiest."""
        generator = torch.Generator().manual_seed(self.seed)
        luck: dict[str, Tensor] = {}
        scores = {}
        for layer in layers:
            units, name = self.pattern.reduce(magnitude(layer.weight)), unit_name(layer, self.pattern)
            if name not in luck:  # once for channels that are added: the mean of several draws would be near the middle
                # float64, so that ties, which would favour the lower index, practically do not occur
                luck[name] = torch.rand(units.shape, generator=generator, dtype=torch.double)
            scores[layer.name] = held_down(luck[name], living(self.pattern, masks.get(layer.name)))
        return choose(layers, scores, sparsity, self.allocation, self.pattern)
