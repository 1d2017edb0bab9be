"""CQP: weight magnitude fused with surrogate-gradient criticality, pruned exactly and in rounds.

Muhammad Hamza. Criticality-Constrained Iterative Pruning for Energy-Efficient Spiking Neural Networks via Combined
Importance Scoring. 2026. arXiv:2606.30676

Reading of the paper
  stated    the score fuses magnitude with surrogate-gradient criticality; pruning is exact, in rounds with fine-tuning,
            and dead weights must be masked in the gradient and in the weight. In the author's notebooks: criticality is
            the mean over batches of |dL/dw| through all timesteps, divided by its largest (here, in each layer); the score
            of an input column is its mean magnitude times its criticality to the power alpha; alpha = 0.5 was best; and
            columns of criticality above a threshold are protected.
  inferred  the weight-level form, |w| * criticality^alpha with both taken weight by weight; several layers share one ranking.
  differs   criticality is measured in evaluation mode, without dropout and input noise, so that the same weights and
            data give the same masks. A criticality equal to the threshold is protected too. The removed count is rounded to nearest where the notebooks truncate. If protection
            leaves too few weights to remove, that is an error that names the reachable sparsity, not a silent shortfall.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spikeprune.errors import MeasureError, SparsityError
from spikeprune.kernel.allocate import global_top_k, kept, reachable
from spikeprune.kernel.patterns import Pattern, Unstructured, check_pattern
from spikeprune.kernel.scores import held_down, magnitude, unit
from spikeprune.masks import Masks, decide
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer


@dataclass(frozen=True)
class CQP:
    """Keep the units of largest magnitude times criticality^alpha.

    Args:
        alpha: exponent of the criticality, 0 or more; 0 is magnitude pruning.
        protect: criticality, in (0, 1], at or above which a unit is never removed; None protects nothing.
        pattern: `Unstructured()` scores weight by weight, `Channel(dim=1)` by input column.

    Raises:
        SparsityError: alpha or protect out of range, or protection leaves too little to remove.
        MeasureError: the criticality of a whole layer is zero.

    Example:
        >>> CQP(alpha=0.5).needs
        frozenset({<Need.WEIGHT_GRADIENT: 'weight_gradient'>})
    """

    alpha: float = 0.5
    protect: float | None = None
    pattern: Pattern = Unstructured()
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WEIGHT_GRADIENT})

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise SparsityError(f"alpha is {self.alpha}, but must be a number of 0 or more; 0.5 is the paper's best.")
        if self.protect is not None and not 0 < self.protect <= 1:
            raise SparsityError(f"protect is {self.protect}, but criticality lies in (0, 1]; None protects nothing.")
        check_pattern(self.pattern)

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Score by magnitude and criticality, rank all layers together, keep the best."""
        scores = {}
        for layer in layers:
            critical = self._criticality(layer, stats)
            score = self.pattern.reduce(magnitude(layer.weight)) * critical**self.alpha
            if self.protect is not None:
                score = score.masked_fill(critical >= self.protect, torch.inf)  # the constraint
            mask = masks.get(layer.name)
            scores[layer.name] = held_down(score, None if mask is None else self.pattern.reduce(mask.double()) == 1)
        self._refuse_overprotection(scores, sparsity)
        return decide(layers, scores, global_top_k(scores, sparsity), self.pattern)

    def _criticality(self, layer: Layer, stats: Stats) -> Tensor:
        critical = unit(self.pattern.reduce(stats[layer.name].weight_gradient))
        if not bool((critical > 0).any()):
            raise MeasureError(
                f"no gradient reaches the weights of layer {layer.name!r}: the criticality of all {critical.numel()} units is zero. Do its "
                "neurons, or those behind it, never come near their threshold? Lower the threshold or train longer."
            )
        return critical

    def _refuse_overprotection(self, scores: dict[str, Tensor], sparsity: float) -> None:
        units = sum(score.numel() for score in scores.values())
        safe = [int((score == torch.inf).sum()) for score in scores.values()]
        needed = sum(max(1, count) for count in safe)  # a layer keeps its best unit, protected or not
        if any(safe) and needed > kept(units, sparsity):
            raise SparsityError(
                f"protect={self.protect} protects {sum(safe)} of {units} units, but sparsity {sparsity} keeps only "
                f"{kept(units, sparsity)}. Ask for at most {reachable(units, needed)}, or raise protect."
            )
