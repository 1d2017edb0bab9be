"""One dry forward: which layers and neurons are called, in which order, and how time and batch reach them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from spikeprune.errors import LayoutError, ModelError, NoPrunableLayers, SpikepruneError
from spikeprune.view.adapters import Adapter
from spikeprune.view.layer import SYNAPTIC, Layer, Layout, apply_synapses


@dataclass(frozen=True)
class Survey:
    """What the dry forward found; see `ModelView` for the fields."""

    layers: tuple[Layer, ...]
    neurons: dict[str, nn.Module]
    timesteps: int
    uncounted: tuple[str, ...]


@dataclass
class _Calls:
    module: nn.Module
    count: int = 0
    shape: torch.Size = field(default_factory=torch.Size)
    first: int = 0
    last: int = 0


def survey(net: nn.Module, adapter: Adapter | None, run: Callable[[], object]) -> Survey:
    """Run the model once with hooks on its layers and neurons, and read the hooks' notes."""
    synaptic, neurons = _listen(net, adapter, run)
    if not synaptic:
        raise NoPrunableLayers(f"{type(net).__name__} called no Linear or Conv layer, so there is nothing to prune.")
    steps, samples = _time_and_batch(neurons, adapter) if adapter else (1, next(iter(synaptic.values())).shape[0])
    sequence = adapter is not None and any(adapter.takes_sequence(calls.module) for calls in neurons.values())
    layers = tuple(
        Layer(name, calls.module, _layout(name, calls, steps, samples, sequence=sequence), _driven(calls, neurons))
        for name, calls in synaptic.items()
    )
    _refuse_shared({layer.name: synaptic[layer.name] for layer in layers if layer.layout is Layout.ONCE}, neurons)
    _refuse_tied(layers)
    counted = {f"{layer.name}.weight" for layer in layers}
    uncounted = tuple(name for name, p in net.named_parameters() if p.dim() > 1 and name not in counted)
    return Survey(layers, {name: calls.module for name, calls in neurons.items()}, steps, uncounted)


def _listen(net: nn.Module, adapter: Adapter | None, run: Callable[[], object]) -> tuple[dict[str, _Calls], dict[str, _Calls]]:
    """Run with hooks; give the calls of the layers and of the neurons."""
    synaptic: dict[str, _Calls] = {}
    neurons: dict[str, _Calls] = {}
    clock = count()
    for name, module in net.named_modules():
        if isinstance(module, SYNAPTIC):
            _refuse_unplain(name, module)
    with ExitStack() as hooks:
        for name, module in net.named_modules():
            if isinstance(module, SYNAPTIC):
                hooks.callback(module.register_forward_hook(_note(name, synaptic, clock, check=True)).remove)
            elif adapter is not None and adapter.is_neuron(module):
                hooks.callback(module.register_forward_hook(_note(name, neurons, clock, check=False)).remove)
        try:
            run()
        except SpikepruneError:
            raise
        except Exception as error:
            raise ModelError(
                f"{type(net).__name__} could not run the example: {type(error).__name__}: {error}. The example must be one batch as "
                "the model's forward takes it, without labels; for an unusual call pass forward=fn(net, batch)."
            ) from error
    return synaptic, neurons


def _refuse_unplain(name: str, module: nn.Module) -> None:
    weight = module._parameters.get("weight")
    if weight is None:
        raise ModelError(
            f"layer {name!r} has no plain weight parameter: it is parametrized, or already carries a mask of "
            "torch.nn.utils.prune. Make it plain first (remove_parametrizations, prune.remove)."
        )
    if is_lazy(weight):
        raise ModelError(f"layer {name!r} is lazy and has no weight yet; run one forward of the model first.")


def _note(
    name: str, notes: dict[str, _Calls], clock: Iterator[int], *, check: bool
) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        if not args or not isinstance(args[0], Tensor):
            raise ModelError(f"module {name!r} was not given its input as first positional argument; call it as module(x).")
        calls = notes.setdefault(name, _Calls(module, first=next(clock)))
        if check and not calls.count:
            _refuse_unlinear(name, module, args[0], output)
        if calls.count and calls.shape != args[0].shape:
            raise LayoutError(
                f"module {name!r} was called with {tuple(calls.shape)} and then {tuple(args[0].shape)}; one shape is needed."
            )
        calls.count, calls.shape, calls.last = calls.count + 1, args[0].shape, next(clock)

    return hook


def _refuse_unlinear(name: str, module: nn.Module, inputs: Tensor, output: object) -> None:
    """A subclass may do more than its weight says (standardize it, drop parts): then a mask would not mean what it says.

    Silent inputs hide the difference, so a subclass is asked a second time, with noise.
    """
    plain = _is_plain(module, inputs, output)
    if plain and type(module) not in SYNAPTIC:
        noise = torch.rand_like(inputs)
        plain = _is_plain(module, noise, type(module).forward(module, noise))
    if not plain:
        kind = next(base.__name__ for base in SYNAPTIC if isinstance(module, base))
        raise ModelError(
            f"layer {name!r} ({type(module).__name__}) is not the plain {kind} of its weight: its output differs from weight "
            "times input. Pruning its weight would not remove synapses; use a plain layer."
        )


def _is_plain(module: nn.Module, inputs: Tensor, output: object) -> bool:
    weight, bias = module._parameters["weight"], module._parameters.get("bias")
    assert weight is not None
    plain = apply_synapses(module, inputs, weight, bias)
    return (
        isinstance(output, Tensor)
        and plain.shape == output.shape
        and torch.allclose(plain, output, rtol=1e-3, atol=1e-5, equal_nan=True)
    )


def _time_and_batch(neurons: dict[str, _Calls], adapter: Adapter) -> tuple[int, int]:
    if not neurons:
        raise ModelError("the example reached no spiking neuron; pass an example that runs the whole model.")
    seen = {}
    for name, calls in neurons.items():
        if adapter.takes_sequence(calls.module):
            if len(calls.shape) < 2:
                raise LayoutError(
                    f"neuron {name!r} takes all timesteps at once, (T, N, ...), but was given {tuple(calls.shape)}."
                )
            if calls.count > 1:
                raise LayoutError(f"neuron {name!r} takes all timesteps at once but was called {calls.count} times in one pass.")
            seen[name] = (calls.shape[0], calls.shape[1])
        elif not calls.shape:
            raise LayoutError(f"neuron {name!r} was given a single number; its input must be (N, ...).")
        else:
            seen[name] = (calls.count, calls.shape[0])
    if len(set(seen.values())) > 1:
        told = "; ".join(f"{name}: T = {t}, N = {n}" for name, (t, n) in seen.items())
        raise LayoutError(
            f"the neurons do not agree on timesteps and batch size ({told}). If a neuron is shared between layers, give each its own."
        )
    return next(iter(seen.values()))


def _driven(layer: _Calls, neurons: dict[str, _Calls]) -> str | None:
    """Name the neuron that is called first after the layer was: behind a norm, an addition or a pool, or none."""
    later = {name: calls.first for name, calls in neurons.items() if calls.first > layer.first}
    return min(later, key=later.__getitem__, default=None)


def _refuse_shared(once: dict[str, _Calls], neurons: dict[str, _Calls]) -> None:
    """A layer called once, amid the calls of a neuron: what looks like timesteps is one neuron used for several layers."""
    for name, layer in once.items():
        for neuron, calls in neurons.items():
            if calls.first < layer.first < calls.last:
                raise LayoutError(
                    f"layer {name!r} was called once, amid the {calls.count} calls of neuron {neuron!r}: is the neuron shared between "
                    "layers? Give each layer its own. If the layer serves all timesteps, call it before the loop over them."
                )


def _refuse_tied(layers: tuple[Layer, ...]) -> None:
    owner: dict[nn.Parameter, str] = {}
    for layer in layers:
        if layer.weight in owner:
            raise ModelError(
                f"layers {owner[layer.weight]!r} and {layer.name!r} share one weight, which can carry only one mask. "
                "Give each its own weight."
            )
        owner[layer.weight] = layer.name


def _layout(name: str, calls: _Calls, steps: int, samples: int, *, sequence: bool) -> Layout:
    shape, weight = calls.shape, calls.module._parameters["weight"]
    assert weight is not None
    lead = len(shape) - (1 if weight.dim() == 2 else weight.dim() - 1)  # axes before the channels
    whole = lead >= 2 and tuple(shape[:2]) == (steps, samples)
    if whole and calls.count == steps > 1:
        raise LayoutError(
            f"layer {name!r} was called {steps} times with {tuple(shape)}: either every call is one of T = {steps} timesteps, or each has "
            "them all and the layer is used several times. View the model with an example of another batch size."
        )
    if whole and calls.count == 1 and (sequence or steps > 1):
        return Layout.SEQUENCE
    if calls.count == steps and lead >= 1 and shape[0] == samples:
        return Layout.STEP
    if calls.count == 1 and lead >= 1 and shape[0] == steps * samples:
        return Layout.FOLDED
    if calls.count == 1 and lead >= 1 and shape[0] == samples:
        return Layout.ONCE
    raise LayoutError(
        f"layer {name!r} was called {calls.count} times with inputs of shape {tuple(shape)}; with T = {steps} timesteps and N = {samples} "
        "samples it should be called T times with (N, ...), or once with (T, N, ...), (T * N, ...) or (N, ...). Layers used "
        "several times a timestep are not supported."
    )
