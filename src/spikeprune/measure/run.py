"""The pass itself: which probes listen, batch by batch, and what they give."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import EmptyCalibration, MeasureError, MissingLoss
from spikeprune.kernel.pca import Scatter
from spikeprune.measure.batches import LossFn, check_batches, loss_of, parts, refuse_empty, run_batch
from spikeprune.measure.channels import ChannelMembrane, ChannelRate, GainGradient
from spikeprune.measure.clock import Clock
from spikeprune.measure.eligibility import Eligibility
from spikeprune.measure.gradients import WeightGradient
from spikeprune.measure.inputs import InputCount, Power
from spikeprune.measure.neurons import NearThreshold, SpikeRate, StepWeight
from spikeprune.measure.probe import Probe
from spikeprune.measure.scatter import ChannelScatter
from spikeprune.stats import AT_LAYERS, GRADIENTS, LayerStats, Need, Stats
from spikeprune.view.layer import Layer, check_weights
from spikeprune.view.model_view import ModelView, check_view


def measure(view: ModelView, batches: Iterable[Any], needs: Set[Need], *, loss_fn: LossFn | None = None, seed: int = 0) -> Stats:
    """Run the model over `batches` once and gather what is needed.

    The model is left as it was found, but for what its own forward changes in place on its attributes: an item appended
    to a list or a counter in a dict stays.

    Args:
        view: the model.
        batches: any iterable of `x` or `(x, y)`, tensors in the layout of the model; a DataLoader serves. Moved to the
            model's device.
        needs: the statistics to gather.
        loss_fn: `loss_fn(output, y)` to a scalar, the mean over the batch's samples; asked for by needs that take gradients.
        seed: of the noise that the model itself draws, if any.

    Raises:
        MissingLoss: a need takes gradients and there is no loss_fn.
        EmptyCalibration: no batch came.
        NonFinite: a weight, an input or a gradient is NaN or infinite.
        LayoutError: a batch has other timesteps than the view, or calls other layers.
        MeasureError: the model cannot run a batch; the loss depends on no layer's weight, or cannot be computed; a neuron's
            leak, charge or surrogate is asked for and cannot be told.

    Example:
        >>> from spikeprune import model_view
        >>> view = model_view(torch.nn.Linear(2, 1), torch.ones(1, 2), spiking=False)
        >>> measure(view, [torch.tensor([[0.5, 0.0]])], {Need.INPUT_COUNT})[""].input_count
        tensor([[1., 0.]], dtype=torch.float64)
    """
    check_view(view)
    _check_needs(needs, loss_fn)
    check_batches(batches)
    check_weights(view.layers)
    if GRADIENTS & needs and not any(layer.weight.requires_grad for layer in view.layers):
        raise MeasureError("the weights of all layers are frozen; set requires_grad to measure gradients.")
    total = _Pass(view, needs)
    with view.undisturbed(seed=seed), ExitStack() as hooks, torch.set_grad_enabled(bool(GRADIENTS & needs)):
        for handle in total.hooks():
            hooks.callback(handle.remove)
        for number, batch in enumerate(batches):
            x, y = parts(batch, view.device)
            refuse_empty(x, number)
            total.take(number, x, y, loss_fn)
    if not total.clock.samples:
        raise EmptyCalibration(
            "the calibration data held no batch. Pass a list or a DataLoader with at least one; a generator is empty the second time."
        )
    return total.stats()


class _Pass:
    """The probes that the needs ask for, and their common clock."""

    def __init__(self, view: ModelView, needs: Set[Need]) -> None:
        self.view, self.needs, self.clock = view, needs, Clock(view)
        self.weights, self.counts = WeightGradient(view, self.clock), InputCount(view, self.clock)
        self.gains: GainGradient | None = None
        self.credits: Eligibility | None = None
        self.probes: dict[Need, Probe] = {need: self._probe(need) for need in Need if need in needs}

    def _probe(self, need: Need) -> Probe:
        view, clock = self.view, self.clock
        match need:
            case Need.WEIGHT_GRADIENT:
                return self.weights
            case Need.ELIGIBILITY:
                self.credits = Eligibility(view, clock)
                return self.credits
            case Need.INPUT_COUNT:
                return self.counts
            case Need.INPUT_POWER | Need.TRACE_POWER:
                return Power(view, clock, trace=need is Need.TRACE_POWER)
            case Need.SPIKE_RATE:
                return SpikeRate(view, clock)
            case Need.NEAR_THRESHOLD:
                return NearThreshold(view, clock)
            case Need.STEP_WEIGHT:
                return StepWeight(view, clock)
            case Need.CHANNEL_MEMBRANE:
                return ChannelMembrane(view, clock)
            case Need.CHANNEL_RATE:
                return ChannelRate(view, clock)
            case Need.GAIN_GRADIENT:
                self.gains = GainGradient(view, clock)
                return self.gains
            case Need.CURRENT_SCATTER | Need.CHARGE_SCATTER:
                return ChannelScatter(view, clock, charge=need is Need.CHARGE_SCATTER)

    def hooks(self) -> Iterator[RemovableHandle]:
        # In the order of Need: credits are taken back from the neuron's own input, before STEP_WEIGHT puts one of its own there.
        yield from self.clock.first()
        for probe in self.probes.values():
            yield from probe.hooks()
        yield from self.clock.last(self.view.layers if AT_LAYERS & self.needs else ())

    def take(self, number: int, x: Any, y: Any, loss_fn: LossFn | None) -> None:
        """Run a batch; when this returns, its graph is gone."""
        self.clock.begin()
        for probe in self.probes.values():
            probe.begin()
        out = run_batch(self.view, x, number)
        self.clock.check()
        if GRADIENTS & self.needs:
            assert loss_fn is not None
            self._backward(loss_of(loss_fn, out, y, number))

    def _backward(self, loss: Tensor) -> None:
        gains = [] if self.gains is None else self.gains.parameters
        others = GRADIENTS & self.needs - {Need.ELIGIBILITY}
        if self.credits is not None:
            # One way through the graph for all: STEP_WEIGHT adds up what passes, and must hear it once.
            parameters = [*(x.weight for x in self.view.layers if x.weight.requires_grad), *gains] if others else []
            loss = _linear(parameters, self.credits.backward(loss, parameters))
        if others:
            found = self.weights.backward(loss, gains)
            if self.gains is not None:
                self.gains.add(found)

    def stats(self) -> Stats:
        means = {need: probe.means() for need, probe in self.probes.items()}
        rates: Any = means.pop(Need.SPIKE_RATE, None)
        layers = {layer.name: self._layer(layer, means) for layer in self.view.layers}
        return Stats(layers, rates, self.clock.batch + 1, self.clock.samples)

    def _layer(self, layer: Layer, means: Mapping[Need, Mapping[str, Tensor] | Mapping[str, Scatter]]) -> LayerStats:
        values = {need: found[layer.name] for need, found in means.items() if layer.name in found}
        absent = {need: _no_gradient(layer) for need in GRADIENTS & self.needs}
        absent |= {need: why for need, why in ABSENT.items() if need in self.needs}
        if Need.ELIGIBILITY in self.needs and layer.weight.requires_grad and layer.neuron is not None:
            absent[Need.ELIGIBILITY] = NO_CREDIT.format(neuron=layer.neuron)
        return LayerStats(layer.name, values, binary=layer.name not in self.counts.real, absent=absent)


ABSENT = {
    Need.NEAR_THRESHOLD: ": it drives no neuron.",
    Need.CHANNEL_MEMBRANE: ": its output channels must stay, or pass no neuron; see view.explain().",
    Need.CHANNEL_RATE: ": its output channels must stay, or pass no neuron; see view.explain().",
    Need.CURRENT_SCATTER: ": its output channels must stay, or pass no neuron; see view.explain().",
    Need.CHARGE_SCATTER: ": its output channels must stay, or pass no neuron; see view.explain().",
    Need.GAIN_GRADIENT: ": its output channels must stay, or pass no norm whose gain takes gradients; see view.explain().",
}
NO_CREDIT = (
    ": the loss does not feel the spikes of {neuron!r}, which it drives, or these do not feel its weight. Undo a detach() behind it, use "
    "spikes in the loss in place of a membrane, or leave it out (layers=...)."
)


def _linear(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """Give a loss that has these gradients, with a graph of its own."""
    parts = [(x * grad).sum() for x, grad in zip(parameters, gradients, strict=True) if grad is not None]
    return sum(parts, start=torch.zeros(()))


def _no_gradient(layer: Layer) -> str:
    if not layer.weight.requires_grad:
        return ": its weight is frozen; set requires_grad, or leave the layer out (layers=...)."
    return ": the loss does not depend on its weight. Undo a detach() behind it, use its output in the loss, or leave it out (layers=...)."


def _check_needs(needs: Set[Need], loss_fn: LossFn | None) -> None:
    unknown = [need for need in needs if not isinstance(need, Need)]
    if unknown:
        raise MeasureError(f"needs must be members of spikeprune.Need; got {unknown}.")
    if GRADIENTS & needs and loss_fn is None:
        names = ", ".join(sorted(f"Need.{need.name}" for need in GRADIENTS & needs))
        raise MissingLoss(f"{names} takes gradients, so a loss_fn is needed: pass loss_fn=fn, where fn(output, y) is a scalar.")
