"""Thresholds of a network converted from an ANN, balanced layer by layer, by scaling the weights in front of them.

Potentials have no unit of their own: a linear neuron that rests at 0, and is reset to 0 or by subtraction, emits the same spikes if
its input and its threshold are multiplied by the same number. So a threshold v is set by dividing the input by v: the spikes are the same, the scale
lies in the state dict, where SpikingJelly's thresholds do not, and a surrogate gradient of fixed width keeps its place relative to
the threshold.

Reading of Chowdhury, Garg, Roy (IJCNN 2021, arXiv:2104.12528; see `spikeprune.methods.stprune`)
  third-party  layer by layer in depth, the 99.9th percentile of the current over all timesteps and samples, Poisson input, no leak.
  inferred     values of 0 or less count among the samples; places and channels are pooled.
  differs      the leak of the network stays as it is: balance an IF network and load its weights into the leaky one.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from spikeprune.errors import EmptyCalibration, NonFinite, QuantizeError
from spikeprune.kernel.quantile import Histogram
from spikeprune.measure import check_batches, parts, refuse_empty, run_batch
from spikeprune.measure.probe import naming
from spikeprune.view.layer import check_weights
from spikeprune.view.model_view import ModelView, bare_copy, check_view

NORMS = (_BatchNorm, _InstanceNorm)  # others mix channels, so that their neurons cannot be followed
ROUNDING = 1e-4  # relative; of a percentile that was scaled, beyond the width of bins


def balance_(
    view: ModelView, batches: Iterable[Any], *, percentile: float = 99.9, scale: float = 1.0, seed: int = 0
) -> dict[str, float]:
    """Balance the thresholds of a network whose weights come from an ANN, in place; return them by neuron, in call order.

    One neuron layer after the other, in call order: the network, as far as it is balanced, runs over the batches, and the
    threshold becomes `scale` times the percentile of the neuron's input current over all timesteps, samples and places. What drives
    the neuron is multiplied by (own threshold) / (that threshold): gain and shift of the norm between, a module between that has
    `scale_(factor)`, such as the zoo's gain, or else weight and bias of the layer. It is checked on the scaled network.

    The returned thresholds v_th are in units of the current before scaling: the same network unscaled, with these thresholds, emits
    the same spikes. Without biases, shifts and leak, and with average pools, the rates of a neuron approach max(0, a) / (product of
    the v_th up to it), at most 1, where a is the ANN's activation, as the timesteps grow; biases and shifts are scaled with the
    weights, and so are right for these thresholds but not for the ANN.

    Args:
        view: the spiking network, in evaluation mode while it runs; a failure leaves its weights as they were.
        batches: `x` or `(x, y)`, at least one. They are kept, since every neuron layer takes a pass.
        percentile: of the current, in (0, 100]; currents of 0 or less count as 0.
        scale: of all thresholds; below 1, deep layers fire more in few timesteps.
        seed: of the noise that the network draws, such as Poisson input: the same in every pass.

    Raises:
        QuantizeError: a percentile or scale that makes no sense; a layer whose percentile is 0; a current that does not scale with
            what drives it, as with an added identity; a neuron that rests above 0, or has several thresholds.
        EmptyCalibration: no batch came.
        ModelError: it is no view.
        MeasureError: a neuron's threshold or reset is not known here, or a batch cannot be run.
        NonFinite: a weight or current is NaN or infinite.

    Example:
        >>> from spikingjelly.activation_based.neuron import IFNode
        >>> from spikeprune import model_view
        >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), IFNode(v_reset=None, step_mode="m"))
        >>> _ = net[0].weight.data.fill_(3.0)
        >>> found = balance_(model_view(net, torch.ones(4, 1, 1)), [torch.ones(4, 1, 1)])
        >>> round(found["1"], 3), round(net[0].weight.item(), 3)
        (3.0, 1.0)
    """
    check_view(view)
    _check_options(percentile, scale)
    check_batches(batches)
    check_weights(view.layers)
    batches = list(batches)
    if not batches:
        raise EmptyCalibration("there is no batch to balance on. Pass a list or a DataLoader with at least one.")
    own = {name: _threshold(view, name) for name in view.neurons}
    if not own:
        raise QuantizeError("the network has no spiking neurons, so no thresholds. View the spiking network, not its ANN twin.")
    scalers = _scalers(view)
    work = _Work(view, batches, percentile / 100, scale, seed)
    with _restored(view.net):
        return work.balance(own, scalers)


Scaler = Callable[[float], object]


@dataclass(frozen=True)
class _Expected:
    """What the percentile of a neuron's current must be, now that it is scaled, and by how much it may miss."""

    neuron: str
    level: float
    tolerance: float


class _Work:
    """The passes: each measures one neuron's current, and that of the one before again, now scaled."""

    def __init__(self, view: ModelView, batches: list[Any], share: float, scale: float, seed: int) -> None:
        self.view, self.batches, self.share, self.scale, self.seed = view, batches, share, scale, seed

    def balance(self, own: dict[str, float], scalers: dict[str, list[Scaler]]) -> dict[str, float]:
        """Balance one neuron after the other, and check each in the pass of the next."""
        found: dict[str, float] = {}
        scaled: _Expected | None = None
        for name in own:
            currents = self._currents([name, *([scaled.neuron] if scaled else [])])
            if scaled is not None:
                self._check(currents[scaled.neuron], scaled)
            level = self._percentile(name, currents[name])
            found[name] = level * self.scale
            factor = own[name] / found[name]
            for scaler in scalers[name]:
                scaler(factor)
            scaled = _Expected(name, level * factor, currents[name].width * factor)
        assert scaled is not None
        self._check(self._currents([scaled.neuron])[scaled.neuron], scaled)
        return found

    def _currents(self, names: list[str]) -> dict[str, Histogram]:
        """Run all batches, and count the input of some neurons."""
        found = {name: Histogram() for name in names}
        with self.view.undisturbed(seed=self.seed), torch.no_grad(), ExitStack() as hooks:
            for name, histogram in found.items():
                hooks.callback(self.view.neurons[name].register_forward_pre_hook(_count(name, histogram)).remove)
            for number, batch in enumerate(self.batches):
                x, _ = parts(batch, self.view.device)
                refuse_empty(x, number)
                run_batch(self.view, x, number)
        return found

    def _percentile(self, name: str, current: Histogram) -> float:
        level = current.quantile(self.share)
        if level <= 0:
            raise QuantizeError(
                f"the {100 * self.share:g}th percentile of the current of neuron {name!r} is 0: {current.zeros:,} of {current.count:,} "
                "currents are 0 or less, so the layer is all but dead. Take a higher percentile, a lower scale or more timesteps, or check the training of the ANN."
            )
        return level

    def _check(self, current: Histogram, scaled: _Expected) -> None:
        level = current.quantile(self.share)
        if abs(level - scaled.level) > scaled.tolerance + current.width + ROUNDING * scaled.level:
            raise QuantizeError(
                f"the current of neuron {scaled.neuron!r} does not scale with the layers that drive it: its percentile should be "
                f"{scaled.level:.6g} now, but is {level:.6g}. Something else reaches it, such as the identity of a residual block; use "
                "a network without."
            )


def _count(name: str, histogram: Histogram) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        try:
            histogram.add(args[0])
        except NonFinite as error:
            raise NonFinite(f"the current of neuron {name!r}: {error} Check the batches and the weights.") from error

    return hook


def _check_options(percentile: float, scale: float) -> None:
    if not _number(percentile) or not 0 < percentile <= 100:
        raise QuantizeError(f"the percentile is {percentile!r}, but must be a number in (0, 100]; the paper's is 99.9.")
    if not _number(scale) or not 0 < scale < math.inf:
        raise QuantizeError(f"the scale of the thresholds is {scale!r}, but must be a number above 0; 1 leaves them as measured.")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _threshold(view: ModelView, name: str) -> float:
    """Return a neuron's own threshold, having checked that the neuron knows no other potential than it."""
    adapter = view.adapter
    assert adapter is not None
    module = bare_copy(view.neurons[name])
    adapter.reset(module)
    with torch.no_grad(), naming(name):
        level = torch.as_tensor(adapter.threshold(module))
        rest = adapter.membrane(module, torch.zeros(1, 1, device=view.device))
    if level.numel() != 1:
        raise QuantizeError(
            f"neuron {name!r} has {level.numel()} thresholds, but a layer is balanced by one. Give it one number."
        )
    if not 0 < float(level) < math.inf:
        raise QuantizeError(f"neuron {name!r} has a threshold of {float(level)}; it must be a number above 0.")
    if bool(rest.any()):
        raise QuantizeError(
            f"neuron {name!r} rests at {float(rest.flatten()[0]):.4g}, so that scaling its input is not the same as another threshold. Let it "
            "be reset to 0, or by subtraction."
        )
    return float(level)


def _scalers(view: ModelView) -> dict[str, list[Scaler]]:
    """Find what scales the current of each neuron, from the order in which modules are called."""
    layers = {layer.name for layer in view.layers}
    found: dict[str, list[Scaler]] = {}
    drivers: dict[str, list[str]] = {}  # the layers called since the last neuron, each with what is called behind it
    for name in _call_order(view, layers):
        if name in layers:
            drivers[name] = []
        elif name in view.neurons:
            found[name] = _of_neuron(view, name, drivers)
            drivers = {}
        elif drivers:
            drivers[next(reversed(drivers))].append(name)
    return found


def _call_order(view: ModelView, layers: set[str]) -> list[str]:
    """Run the example, and name layers, neurons, norms with a gain, and modules that scale themselves, by their first call."""
    order: dict[str, None] = {}

    def note(name: str) -> Any:
        return lambda *_: order.setdefault(name)

    with view.undisturbed(), torch.no_grad(), ExitStack() as hooks:
        for name, module in view.net.named_modules():
            normed = isinstance(module, NORMS) and module.weight is not None
            if name in layers or name in view.neurons or normed or _scales_itself(module):
                hooks.callback(module.register_forward_pre_hook(note(name)).remove)
        run_batch(view, view.example, 0)
    return list(order)


def _of_neuron(view: ModelView, neuron: str, drivers: Mapping[str, list[str]]) -> list[Scaler]:
    """Give what scales a neuron's current: of each driver the last norm or gain behind it, else its weight.

    A norm behind the last driver serves those that have none, as where sums are normed; if they are not, the check will tell.
    """
    if not drivers:
        raise QuantizeError(f"no layer is called between neuron {neuron!r} and the one before, so there is nothing to scale.")
    for name in drivers:
        family = view.graph.of(name)
        if neuron not in [use.module for use in family.neurons]:
            raise QuantizeError(
                f"layer {name!r} is called before neuron {neuron!r}, but its channels were not seen to reach it"
                f"{f': {family.why}' if family.why else ''}. See view.explain()."
            )
    of_sum = list(drivers.values())[-1][-1:]
    names = dict.fromkeys(next(iter(behind[-1:] or of_sum), name) for name, behind in drivers.items())
    return [_scaler(view.net.get_submodule(name)) for name in names]


def _scales_itself(module: nn.Module) -> bool:
    return callable(getattr(module, "scale_", None))


def _scaler(module: Any) -> Scaler:
    """Give what multiplies a module's output."""
    if _scales_itself(module):
        scale: Scaler = module.scale_
        return scale

    def scaler(factor: float) -> None:
        with torch.no_grad():
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    parameter.mul_(factor)

    return scaler


@contextmanager
def _restored(net: nn.Module) -> Iterator[None]:
    """Put all parameters back if the work fails."""
    before = [(parameter, parameter.detach().clone()) for parameter in net.parameters()]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for parameter, value in before:
                parameter.copy_(value)
        raise
