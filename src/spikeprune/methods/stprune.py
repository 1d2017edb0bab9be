"""STPrune: each layer is made as wide as the membrane potentials of its channels have principal components.

Sayeed Shafayet Chowdhury, Isha Garg, Kaushik Roy. Spatio-Temporal Pruning and Quantization for Low-latency Spiking Neural
Networks. IJCNN 2021. arXiv:2104.12528; the analysis is that of Garg, Panda, Roy, arXiv:1812.06224.

Reading of the paper
  stated    principal components of the membrane potential that a neuron accumulates, averaged over time, tell how many channels
            of its layer matter; a network of that width is trained from scratch. Then T falls during training
            (`temporal.shorten`), and weights are quantized to 5 bits (`quantize_`).
  inferred  the potential that is accumulated is the sum of the currents, without leak and reset, over T; the other reading, the
            mean of the charge, has both. A sample is a place of an image. The fewest components that explain the variance
            are kept, where the code for ordinary networks keeps one less. Channels that are added share a width: their places
            are pooled, each about its own mean.
  differs   the paper's networks have no norms. Here the current is what reaches the neuron, behind the norm.

Components are counted, not chosen: `shrink(view, masks, reinit=True)` draws the weights of the narrower network anew, as the paper
trains it. `shrink(view, masks)` keeps trained weights instead, those of the channels that lead: first the one of largest variance,
then always the one that those before explain least.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from spikeprune.decide import decide
from spikeprune.errors import MeasureError, MethodError, SparsityError
from spikeprune.kernel.patterns import Channel, living
from spikeprune.kernel.pca import Scatter, leading, significant
from spikeprune.kernel.scores import held_down
from spikeprune.masks import Masks
from spikeprune.stats import LayerStats, Need, Stats
from spikeprune.view.layer import Layer, unit_name

Reading = Literal["current", "charge"]
ROUNDING = 1e-6  # share of the variance that sums in float32 may make up
NEEDS = {"current": Need.CURRENT_SCATTER, "charge": Need.CHARGE_SCATTER}


@dataclass(frozen=True)
class STPrune:
    """Keep as many channels of each layer as there are significant dimensions. The widths follow from the data.

    Use it with `prune`, without a sparsity. Each layer needs more places (samples times height times width) than it has channels;
    a hundred times as many are a good measure.

    Args:
        variance: the share of a layer's variance that the dimensions must explain, in (0, 1].
        reading: of the averaged membrane potential: "current", what is accumulated without leak and reset, or "charge".

    Raises:
        MethodError: a variance outside (0, 1], or no such reading.
        MeasureError: at the call, a layer has fewer places than channels, or nothing in it varies.
        SparsityError: at the call, a sparsity is given.

    Example:
        >>> from spikeprune import methods, model_view, prune, shrink
        >>> from spikeprune.zoo import SpikingMLP
        >>> torch.manual_seed(0)
        <torch._C.Generator ...>
        >>> view = model_view(SpikingMLP((2, 8, 3), timesteps=5), torch.rand(4, 1, 1, 2))
        >>> masks = prune(view, methods.STPrune(), calibration=[torch.rand(64, 1, 1, 2)])
        >>> shrink(view, masks, reinit=True).fc1  # two pixels span two dimensions
        Linear(in_features=2, out_features=2, bias=True)
    """

    variance: float = 0.999
    reading: Reading = "current"
    pattern: ClassVar[Channel] = Channel()
    untargeted: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.variance, bool) or not isinstance(self.variance, int | float) or not 0 < self.variance <= 1:
            raise MethodError(
                f"variance is {self.variance!r}, but is the share to explain, in (0, 1]; analyses of this kind take 0.99 to 0.999."
            )
        if self.reading not in NEEDS:
            raise MethodError(f"reading is {self.reading!r}, but must be one of {', '.join(NEEDS)}.")

    @property
    def needs(self) -> Set[Need]:
        """The scatter of the reading."""
        return frozenset({NEEDS[self.reading]})

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float | None = None) -> Masks:
        """Count dimensions, and keep as many of the channels that lead."""
        if sparsity is not None:
            raise SparsityError(
                f"STPrune takes its widths from the data, so a sparsity of {sparsity} means nothing to it; set variance."
            )
        keep, scores = self.widths(layers, stats), dict[str, Tensor]()
        for layer in layers:
            order = leading(self._scatter(stats[layer.name]))
            score = torch.empty(order.numel(), dtype=torch.double, device=order.device)
            score[order] = -torch.arange(order.numel(), dtype=torch.double, device=order.device)
            name = unit_name(layer, self.pattern)
            scores[name] = held_down(score, living(self.pattern, masks.get(layer.name)))
            keep[name] = min(keep[name], int((scores[name] != -torch.inf).sum()))
        return decide(layers, scores, keep, self.pattern)

    def widths(self, layers: Sequence[Layer], stats: Stats) -> dict[str, int]:
        """Count the significant dimensions of each layer, or of each family of layers whose channels are added, by its first."""
        families: dict[str, list[Layer]] = {}
        for layer in layers:
            families.setdefault(unit_name(layer, self.pattern), []).append(layer)
        return {name: self._width(family, stats) for name, family in families.items()}

    def _scatter(self, stats: LayerStats) -> Scatter:
        return stats.current_scatter if self.reading == "current" else stats.charge_scatter

    def _width(self, family: Sequence[Layer], stats: Stats) -> int:
        layer, scatter = family[0], self._scatter(stats[family[0].name])
        channels = layer.weight.shape[0]
        if scatter.samples <= channels:
            raise MeasureError(
                f"layer {layer.name!r} has {channels} channels, but the calibration gives only {scatter.samples} places to tell their dimensions "
                f"from. Give it {-(-100 * channels // scatter.samples)} times as many samples, for a hundred places a channel."
            )
        try:
            found = significant(scatter, self.variance)
        except MeasureError as error:
            raise MeasureError(f"layer {layer.name!r}: {error} Check its weights, or leave it out (layers=...).") from error
        return found if len(family) > 1 else _bounded(found, scatter.spectrum, layer)


def _bounded(found: int, spectrum: Tensor, layer: Layer) -> int:
    """Count no more dimensions than a layer reads inputs, if what lies beyond is rounding: so it is unless something bends the path."""
    inputs = layer.weight[0].numel() * getattr(layer.module, "groups", 1)
    linear = float(spectrum[inputs:].sum()) <= ROUNDING * float(spectrum.sum())
    return min(found, inputs) if linear else found


def contraction(widths: Mapping[str, int]) -> str | None:
    """Name the layer with which significant dimensions begin to fall with depth; None if they never do.

    The analysis for ordinary networks leaves out the layers from there on. Spatio-temporal pruning is not known to.

    Args:
        widths: by layer in call order, as `STPrune.widths` gives them.

    Example:
        >>> contraction({"conv1": 8, "conv2": 20, "conv3": 31, "conv4": 12})
        'conv4'
    """
    return next((name for (_, before), (name, width) in pairwise(widths.items()) if width < before), None)
