"""Network slimming: output channels ranked by the gain of the norm behind them.

Zhuang Liu, Jianguo Li, Zhiqiang Shen, Gao Huang, Shoumeng Yan, Changshui Zhang. Learning Efficient Convolutional Networks
through Network Slimming. ICCV 2017. arXiv:1708.06519

Reading of the paper
  stated    channels are ranked by |gain| of their batch norm, over all layers together; an L1 penalty on the gains during
            training drives those of unneeded channels to zero.
  inferred  channels that are added share a rank: the mean |gain| over the norms that normalize them.
  differs   every layer keeps a channel; the paper's code may empty one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spikeprune.decide import choose
from spikeprune.errors import MethodError
from spikeprune.kernel.allocate import Allocation, check_allocation, global_top_k
from spikeprune.kernel.patterns import Channel, living
from spikeprune.kernel.scores import held_down
from spikeprune.masks import Masks
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer
from spikeprune.view.model_view import ModelView


@dataclass(frozen=True)
class Slimming:
    """Keep the output channels of largest gain.

    Args:
        allocation: of channels across layers: `global_top_k`, the paper's, or `uniform`.

    Raises:
        MethodError: the allocation is none; at the call, a layer has no norm with gain and shift behind it.

    Example:
        >>> Slimming().needs
        frozenset()
    """

    allocation: Allocation = global_top_k
    pattern: ClassVar[Channel] = Channel()
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        check_allocation(self.allocation)

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Score by |gain|, allocate, keep the largest."""
        scores = {layer.name: held_down(_gain(layer), living(self.pattern, masks.get(layer.name))) for layer in layers}
        return choose(layers, scores, sparsity, self.allocation, self.pattern)


def gain_penalty(view: ModelView) -> Tensor:
    """Sum |gain| over the norms behind all channels that can be removed: add it, times 1e-4 or so, to the loss.

    Example:
        >>> from torch import nn
        >>> from spikeprune import model_view
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        >>> gain_penalty(model_view(net, torch.rand(2, 2), spiking=False))
        tensor(3., grad_fn=<SumBackward0>)
    """
    norms = {norm.name: norm for layer in view.channel_layers() for norm in layer.norms}
    if not norms:
        raise MethodError("no channel that can be removed passes a norm with gain and shift; there is nothing to penalize.")
    return torch.stack([norm.gain.abs().sum() for norm in norms.values()]).sum()


def _gain(layer: Layer) -> Tensor:
    if not layer.norms:
        raise MethodError(
            f"slimming ranks channels by the gain of their norm, but layer {layer.name!r} has none behind it. Leave it out (layers=...), or "
            "rank by magnitude: Magnitude(pattern=Channel())."
        )
    channels = layer.weight.shape[0]
    gains = [norm.of_channels(norm.gain.detach().abs().double(), channels) for norm in layer.norms]
    return torch.stack(gains).mean(0)
