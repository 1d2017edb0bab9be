"""SNIP: connection sensitivity, in one shot before training.

Lee, Ajanthan, Torr. SNIP: Single-shot Network Pruning based on Connection Sensitivity. ICLR 2019. arXiv:1810.02340

Reading of the paper
  stated    the sensitivity of a weight is |dL/dc| for a gate c = 1 on it, which is |w * dL/dw|, divided by the sum over all
            weights; one ranking over all layers; one mini-batch (100 images of MNIST, 128 of CIFAR); at an initialisation
            whose variance is scaled to the layer; pruned once, then trained.
  inferred  the division by the sum is left out: it changes no rank.
  differs   over more batches than one, |w * dL/dw| of each is averaged, so that batches of opposite sign do not cancel; with
            one calibration batch it is the paper's score. The gradient is taken in evaluation mode. No layer is emptied:
            each keeps its best weight. A layer that no gradient reaches is refused, where the paper would empty it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from spikeprune.decide import choose
from spikeprune.errors import MeasureError
from spikeprune.kernel.allocate import global_top_k
from spikeprune.kernel.patterns import Pattern, Unstructured, check_pattern
from spikeprune.kernel.scores import held_down, magnitude
from spikeprune.masks import Masks
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer


@dataclass(frozen=True)
class SNIP:
    """Keep the units of largest |w * dL/dw|, in one ranking over all layers.

    Prune an untrained network with it, once, then train under `hold`.

    Args:
        pattern: what is removed together; the paper's is `Unstructured()`. A column scores the mean of its weights.

    Raises:
        MeasureError: no gradient reaches a layer.

    Example:
        >>> import torch
        >>> from spikeprune import model_view, prune
        >>> net = torch.nn.Linear(4, 2)
        >>> batch = (torch.rand(8, 4), torch.tensor([0, 1] * 4))
        >>> view = model_view(net, batch[0], spiking=False)
        >>> prune(view, SNIP(), 0.75, calibration=[batch], loss_fn=torch.nn.functional.cross_entropy).kept
        {'': 2}
    """

    pattern: Pattern = Unstructured()
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WEIGHT_GRADIENT})

    def __post_init__(self) -> None:
        check_pattern(self.pattern)

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Score by sensitivity, rank all layers together, keep the most sensitive."""
        scores = {}
        for layer in layers:
            score = held_down(_sensitivity(layer, stats[layer.name].weight_gradient), masks.get(layer.name))
            scores[layer.name] = self.pattern.reduce(score)
        return choose(layers, scores, sparsity, global_top_k, self.pattern)


def _sensitivity(layer: Layer, gradient: Tensor) -> Tensor:
    if not bool((gradient > 0).any()):
        raise MeasureError(
            f"no gradient reaches the weights of layer {layer.name!r}, so the sensitivity of all {gradient.numel()} is zero. Do its "
            "neurons, or those behind it, never come near their threshold? Measure untrained batch norms first (recalibrate), lower the "
            "threshold, or scale its initial weights up."
        )
    return magnitude(layer.weight) * gradient
