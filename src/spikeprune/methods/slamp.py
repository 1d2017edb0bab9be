"""SLAMP: layer-adaptive magnitude pruning whose currency between layers counts what each of them adds up over time.

Wang, Ye, Ouyang. Spiking Layer-Adaptive Magnitude-based Pruning. 2026. arXiv:2603.14946

Reading of the paper
  stated    LAMP generalised to networks over time: the sparsity of layers follows from the worst-case distortion of the output,
            summed over timesteps that do not count alike; a time-aware layer score that is LAMP's at T = 1; then pruning by
            magnitude and retraining.
  inferred  every equation, since the paper's abstract states none. A layer's pruning perturbs its neurons' charge h[t] by the lost
            weights times the leaky trace a[t] = leak a[t-1] + s[t] of its inputs. With timesteps weighted by w[t],
            gain^2 = sum_t w[t] |a[t]|^2 / sum_t w[t] |s[t]|^2 multiplies the LAMP score of the layer's weights; one ranking over all
            layers allocates, and magnitude picks within each. Where w[t] comes from and how the gain is formed are switches.
            A layer that drives no neuron, a readout, keeps no trace: its a[t] is s[t].
  differs   the constant that keeps the quotient finite is left out, so that the gain is exactly 1 at T = 1: a layer without any
            input has gain 1.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeprune.decide import decide
from spikeprune.errors import MethodError
from spikeprune.kernel.allocate import global_top_k, lamp
from spikeprune.kernel.patterns import Unstructured
from spikeprune.kernel.scores import held_down, magnitude
from spikeprune.masks import Masks
from spikeprune.stats import LayerStats, Need, Stats
from spikeprune.view.layer import Layer

Steps = Callable[[LayerStats], Tensor]
Gain = Callable[[LayerStats, Tensor], float]


def by_gradient(stats: LayerStats) -> Tensor:
    """Weigh each timestep by |dL/dh[t]|^2 of the driven neurons: through the surrogate, near their threshold they weigh most."""
    return stats.step_weight


def by_nearness(stats: LayerStats) -> Tensor:
    """Weigh each timestep by the share of driven neurons near their threshold; takes no gradient."""
    return stats.near_threshold


def evenly(stats: LayerStats) -> Tensor:
    """Weigh all timesteps alike."""
    return torch.ones(len(stats.input_power), dtype=torch.double)


def trace_gain(stats: LayerStats, weights: Tensor) -> float:
    """Power of the leaky input trace over that of the input, both weighted over timesteps: gain^2."""
    return _ratio(float(weights @ _over_channels(stats.trace_power)), float(weights @ _over_channels(stats.input_power)))


def input_gain(stats: LayerStats, weights: Tensor) -> float:
    """Weighted power of the input over its mean over timesteps: gain^2 without the leak."""
    power = _over_channels(stats.input_power)
    return _ratio(float(weights @ power), float(power.mean()))


def peak_gain(stats: LayerStats, weights: Tensor) -> float:
    """Largest weighted power of the trace over the largest of the input: gain^2 of the literal worst case."""
    return _ratio(float((weights * _over_channels(stats.trace_power)).max()), float(_over_channels(stats.input_power).max()))


def _over_channels(power: Tensor) -> Tensor:
    return power.sum(1).cpu()


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else 1.0


NEEDS: dict[Steps, set[Need]] = {by_gradient: {Need.STEP_WEIGHT}, by_nearness: {Need.NEAR_THRESHOLD}}


@dataclass(frozen=True)
class SLAMP:
    """Allocate by LAMP scores times the squared temporal gain of each layer, then keep the largest magnitudes in each.

    No layer loses its largest weight. Gains that are alike in all layers make it LAMP: `gains` shows them.

    Args:
        steps: where the weights of timesteps come from: `by_gradient`, `by_nearness` or `evenly`.
        gain: how the gain is formed: `trace_gain`, `input_gain` or `peak_gain`.
        exponent: raise the LAMP score to 1 / gain instead of multiplying it by gain^2.
        per_input: give each input a gain of its own, and use magnitude times it in place of the magnitude, in both stages.
            No longer a magnitude method; `gain` is not used.
        cap: clip gain^2, divided by the median of the layers, to [1 / cap, cap]; None clips nothing.

    Raises:
        MethodError: an argument of the wrong kind, or switches that contradict each other.

    Example:
        >>> Need.TRACE_POWER in SLAMP().needs
        True
    """

    steps: Steps = by_gradient
    gain: Gain = trace_gain
    exponent: bool = False
    per_input: bool = False
    cap: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "gain"):
            if not callable(getattr(self, name)):
                raise MethodError(
                    f"{name} is {getattr(self, name)!r}, but must be a function of methods.slamp, such as by_gradient or trace_gain."
                )
        if self.cap is not None and not self.cap >= 1:
            raise MethodError(
                f"cap is {self.cap}, but must be 1 or more; 10 lets gain^2 spread a hundredfold, None clips nothing."
            )
        if self.per_input and (self.exponent or self.cap is not None):
            raise MethodError("per_input has no gain of a layer that exponent or cap could act on; leave them out.")

    @property
    def needs(self) -> frozenset[Need]:
        """Power of inputs and traces, and what the weights of timesteps take."""
        return frozenset({Need.INPUT_POWER, Need.TRACE_POWER} | NEEDS.get(self.steps, set()))

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Allocate by score over all layers, keep the largest of each."""
        sizes = {layer.name: held_down(self._size(layer, stats), masks.get(layer.name)) for layer in layers}
        gains = dict.fromkeys(sizes, 1.0) if self.per_input else self.gains(layers, stats)
        scores = {name: self._score(size, gains[name]) for name, size in sizes.items()}
        return decide(layers, sizes, global_top_k(scores, sparsity), Unstructured())

    def gains(self, layers: Sequence[Layer], stats: Stats) -> dict[str, float]:
        """Give gain^2 by layer, as it enters the score: 1 for every layer at T = 1, and for one without input when it counts."""
        found = {layer.name: self.gain(stats[layer.name], self.weights(layer, stats)) for layer in layers}
        if self.cap is None:
            return found
        median = float(torch.tensor(list(found.values()), dtype=torch.double).median())
        least = sys.float_info.min  # a median of zero: what has a gain at all is then at the cap
        return {name: min(max(gain / max(median, least), 1 / self.cap), self.cap) for name, gain in found.items()}

    def weights(self, layer: Layer, stats: Stats) -> Tensor:
        """Give the weights of timesteps for a layer, (T,), float64, that sum to 1.

        They are even where nothing is felt at any timestep, and for a readout, which has no neuron to be near a threshold.
        """
        own = stats[layer.name]
        found = evenly(own) if self.steps is by_nearness and layer.neuron is None else self.steps(own).cpu()
        total = float(found.sum())
        return found / total if total > 0 else evenly(own) / len(found)

    def _score(self, size: Tensor, gain: float) -> Tensor:
        score = lamp(size)
        power = gain**-0.5 if gain > 0 else math.inf
        scaled = score.clamp_min(0) ** power if self.exponent else score * gain
        return torch.where(score > 0, scaled, score)  # the dead stay minus infinity, also times a gain of zero

    def _size(self, layer: Layer, stats: Stats) -> Tensor:
        size = magnitude(layer.weight)
        if not self.per_input:
            return size
        weights, own = self.weights(layer, stats), stats[layer.name]
        trace, given = (weights @ power.cpu() for power in (own.trace_power, own.input_power))
        if len(trace) != layer.weight.shape[1]:
            raise MethodError(
                f"per_input needs one weight column an input channel, but layer {layer.name!r} is grouped: {len(trace)} channels, "
                f"{layer.weight.shape[1]} columns. Leave the layer out (layers=...), or per_input off."
            )
        gain = torch.where(given > 0, trace / given, torch.ones_like(given)).sqrt().to(size.device)
        return size.double() * gain.view(1, -1, *[1] * (size.dim() - 2))
