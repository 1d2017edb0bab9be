"""CQP: weight magnitude fused with surrogate-gradient criticality, pruned exactly and in rounds.

Muhammad Hamza. Criticality-Constrained Iterative Pruning for Energy-Efficient Spiking Neural Networks via Combined
Importance Scoring. 2026. arXiv:2606.30676

Reading of the paper
  stated    the score fuses magnitude with surrogate-gradient criticality; pruning is exact, in rounds with fine-tuning,
            and dead weights must be masked in the gradient and in the weight. In the author's notebooks: criticality is
            the mean over batches of |dL/dw| through all timesteps, averaged over the weights of an input neuron and divided
            by its largest; the score of an input column is its mean magnitude times its criticality to the power alpha;
            alpha = 0.5 was best; and columns of criticality above a threshold are protected.
  inferred  the weight-level form, |w| * criticality^alpha with both taken weight by weight; several layers share one ranking.
            What the final paper normalises over is not known, so each reading is a switch: `criticality` (a weight's own,
            or that of its input or output neuron), `normalize` (by the largest, the mean or the rank) and `joint` (within
            each layer, or over all pruned layers at once).
  differs   criticality is measured in evaluation mode, without dropout and input noise, so that the same weights and
            data give the same masks. A criticality equal to the threshold is protected too. The removed count is rounded
            to nearest where the notebooks truncate. If protection leaves too few weights to remove, that is an error that
            names the reachable sparsity, not a silent shortfall.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spikeprune.decide import choose
from spikeprune.errors import MeasureError, MethodError, SparsityError
from spikeprune.kernel.allocate import global_top_k, kept, reachable
from spikeprune.kernel.patterns import Channel, Pattern, Unstructured, check_pattern, living
from spikeprune.kernel.scores import by_mean, held_down, magnitude, per_input, per_output, per_weight, unit
from spikeprune.masks import Masks
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer, by_unit

Reading = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CQP:
    """Keep the units of largest magnitude times criticality^alpha.

    Criticality is measured anew at every call, so it is fresh at every stage of a `Pruner`; the statistics are those of
    the calibration batches, as many as are given.

    Args:
        alpha: exponent of the criticality, 0 or more; 0 is magnitude pruning.
        protect: criticality, in (0, 1], at or above which a unit is never removed; None protects nothing.
        pattern: `Unstructured()` scores weight by weight, `Channel(dim=1)` by input column (the author's code).
        criticality: whose |dL/dw| a weight is judged by: `scores.per_weight`, its own (inferred); `scores.per_input`, the
            mean over its input neuron, as the author's code has it for columns; `scores.per_output`, over its output
            neuron (the "neuron criticality" of related work).
        normalize: `scores.unit`, by the largest (the author's code, there with 1e-8 added); `scores.by_mean`; or
            `scores.by_rank`, which forgets how far apart two criticalities are. Within one layer the first two rank alike.
        joint: normalize over all pruned layers at once rather than within each. The paper prunes one layer, where both
            are the same; over several, False lets every layer hold a most critical weight, True compares their gradients.

    Raises:
        SparsityError: alpha or protect out of range, or protection leaves too little to remove.
        MethodError: switches that contradict each other: `protect` with `by_mean`, which has no upper bound, or
            `per_output` with columns, which all get the same.
        MeasureError: the criticality of a whole layer is zero.

    Example:
        >>> CQP(alpha=0.5).needs
        frozenset({<Need.WEIGHT_GRADIENT: 'weight_gradient'>})
    """

    alpha: float = 0.5
    protect: float | None = None
    pattern: Pattern = Unstructured()
    criticality: Reading = per_weight
    normalize: Reading = unit
    joint: bool = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WEIGHT_GRADIENT})

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise SparsityError(f"alpha is {self.alpha}, but must be a number of 0 or more; 0.5 is the paper's best.")
        if self.protect is not None and not 0 < self.protect <= 1:
            raise SparsityError(f"protect is {self.protect}, but criticality lies in (0, 1]; None protects nothing.")
        check_pattern(self.pattern)
        for name in ("criticality", "normalize"):
            if not callable(getattr(self, name)):
                raise MethodError(
                    f"{name} is {getattr(self, name)!r}, but must be a function of a tensor, such as scores.per_input or scores.by_rank."
                )
        if self.protect is not None and self.normalize is by_mean:
            raise MethodError("protect is a threshold in (0, 1], but by_mean has no upper bound; normalize by unit or by_rank.")
        if isinstance(self.pattern, Channel) and self.criticality is (per_input, per_output)[self.pattern.dim]:
            one, other = (("input neurons", "output channel"), ("output neurons", "input column"))[self.pattern.dim]
            better = ("per_output", "per_input")[self.pattern.dim]
            raise MethodError(f"the criticality of {one} is the same for every {other}; use {better} or per_weight.")

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Score by magnitude and criticality, rank all layers together, keep the best."""
        scores = {}
        for layer, critical in zip(layers, self.critical(layers, stats), strict=True):
            score = self.pattern.reduce(magnitude(layer.weight)) * critical**self.alpha
            if self.protect is not None:
                score = score.masked_fill(critical >= self.protect, torch.inf)  # the constraint
            scores[layer.name] = held_down(score, living(self.pattern, masks.get(layer.name)))
        self._refuse_overprotection(by_unit(layers, scores, self.pattern), sparsity)
        return choose(layers, scores, sparsity, global_top_k, self.pattern)

    def critical(self, layers: Sequence[Layer], stats: Stats) -> list[Tensor]:
        """Give the criticality of each layer's units, normalized as asked: what `alpha` and `protect` act on.

        Raises:
            MeasureError: it is zero for a whole layer.
        """
        found = [self.pattern.reduce(self.criticality(stats[layer.name].weight_gradient)) for layer in layers]
        for layer, critical in zip(layers, found, strict=True):
            if not bool((critical > 0).any()):
                raise MeasureError(
                    f"no gradient reaches the weights of layer {layer.name!r}: the criticality of all {critical.numel()} units is zero. Do its "
                    "neurons, or those behind it, never come near their threshold? Lower the threshold or train longer."
                )
        if not self.joint:
            return [self.normalize(critical) for critical in found]
        together = self.normalize(torch.cat([critical.flatten() for critical in found]))
        parts = torch.split(together, [critical.numel() for critical in found])
        return [part.view_as(critical) for part, critical in zip(parts, found, strict=True)]

    def _refuse_overprotection(self, scores: dict[str, Tensor], sparsity: float) -> None:
        units = sum(score.numel() for score in scores.values())
        safe = [int((score == torch.inf).sum()) for score in scores.values()]
        needed = sum(max(1, count) for count in safe)  # a layer keeps its best unit, protected or not
        if any(safe) and needed > kept(units, sparsity):
            raise SparsityError(
                f"protect={self.protect} protects {sum(safe)} of {units} units, but sparsity {sparsity} keeps only "
                f"{kept(units, sparsity)}. Ask for at most {reachable(units, needed)}, or raise protect."
            )


@dataclass(frozen=True)
class GradientOnly:
    """Keep the units of largest criticality, whatever their magnitude: the paper's baseline "gradient-only".

    It is CQP without the magnitude, the limit of a large alpha.

    Args:
        pattern: what is removed together.
        criticality: whose |dL/dw| a weight is judged by, as in `CQP`.

    Example:
        >>> GradientOnly().needs
        frozenset({<Need.WEIGHT_GRADIENT: 'weight_gradient'>})
    """

    pattern: Pattern = Unstructured()
    criticality: Reading = per_weight
    needs: ClassVar[frozenset[Need]] = CQP.needs

    def __post_init__(self) -> None:
        CQP(pattern=self.pattern, criticality=self.criticality)  # refuses what CQP refuses

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Score by criticality, each layer's divided by its largest, and rank all layers together."""
        critical = CQP(pattern=self.pattern, criticality=self.criticality).critical(layers, stats)
        scores = {}
        for layer, score in zip(layers, critical, strict=True):
            scores[layer.name] = held_down(score, living(self.pattern, masks.get(layer.name)))
        return choose(layers, scores, sparsity, global_top_k, self.pattern)
