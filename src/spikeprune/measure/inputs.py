"""Probes of what layers are given: how many inputs are not zero, and the power of inputs and of their leaky trace."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import NonFinite
from spikeprune.measure.clock import Clock
from spikeprune.measure.probe import Steps, naming
from spikeprune.view.layer import Layer, Layout, refuse_nonfinite
from spikeprune.view.model_view import ModelView


class InputCount:
    """Non-zero inputs a sample, and which layers were ever given anything but -1, 0 and 1."""

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._view, self._clock, self._counts = view, clock, Steps()
        self.real: set[str] = set()

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every layer."""
        for layer in self._view.layers:
            yield layer.module.register_forward_pre_hook(self._hook(layer))

    def begin(self) -> None:
        """Keep nothing of a batch."""

    def means(self) -> Mapping[str, Tensor]:
        """Give (T, channels, space ...) by layer, or (1, ...) for one called once."""
        return self._counts.stacked(self._clock.samples)

    def _hook(self, layer: Layer) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            x = layer.by_timestep(args[0].detach(), self._view.timesteps)
            if layer.name in self.real or not bool(((x == 0) | (x.abs() == 1)).all()):
                refuse_nonfinite(x, "inputs", layer.name, self._clock.advice)
                self.real.add(layer.name)
            for i, step in enumerate((x != 0).sum(1)):
                self._counts.add(layer.name, self._clock.at(layer.name) + i, step)

        return hook


class Power:
    """Power of the inputs of each channel, or of their leaky trace a[t] = leak a[t-1] + s[t], by timestep.

    The leak is that of the neuron that the layer drives, without its resets. A layer that drives none keeps no trace. One
    that is called once gets the same input at every timestep.

    Args:
        view: the model.
        clock: of the pass.
        trace: whether of the trace, rather than of the inputs themselves.
    """

    def __init__(self, view: ModelView, clock: Clock, *, trace: bool) -> None:
        self._view, self._clock, self._sums = view, clock, Steps()
        self._leak = {layer.name: _leak(view, layer) if trace else 0.0 for layer in view.layers}
        self._traces: dict[str, Tensor] = {}

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every layer."""
        for layer in self._view.layers:
            yield layer.module.register_forward_pre_hook(self._hook(layer))

    def begin(self) -> None:
        """Put the traces to rest."""
        self._traces.clear()

    def means(self) -> Mapping[str, Tensor]:
        """Give (T, channels) by layer.

        Raises:
            NonFinite: a power is NaN or infinite.
        """
        found = self._sums.stacked(self._clock.samples)
        for name, powers in found.items():
            if not bool(torch.isfinite(powers).all()):
                raise NonFinite(
                    f"the power of the inputs of layer {name!r} is NaN or infinite. Check the calibration batches, and the norms "
                    "before the layer."
                )
        return found

    def _hook(self, layer: Layer) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            steps = layer.by_timestep(args[0].detach(), self._view.timesteps)
            if layer.layout is Layout.ONCE:
                self._constant(layer, steps[0])
                return
            for i, step in enumerate(steps):
                self._add(layer, self._clock.at(layer.name) + i, self._traced(layer.name, step))

        return hook

    def _traced(self, name: str, step: Tensor) -> Tensor:
        leak = self._leak[name]
        if not leak:
            return step
        # Out of place, so that the trace never writes on the model's own tensor.
        trace = torch.add(step, self._traces[name], alpha=leak) if name in self._traces else step
        self._traces[name] = trace
        return trace

    def _constant(self, layer: Layer, step: Tensor) -> None:
        power, factor = _power(layer, step), 0.0
        for t in range(self._view.timesteps):
            factor = self._leak[layer.name] * factor + 1.0
            self._sums.add(layer.name, t, power * factor**2)

    def _add(self, layer: Layer, t: int, step: Tensor) -> None:
        self._sums.add(layer.name, t, _power(layer, step))


def _power(layer: Layer, step: Tensor) -> Tensor:
    """Sum the squares of each channel over samples and places: (N, C, space ...) or (N, ..., C) to (C,), float64."""
    square = step.square()
    if isinstance(layer.module, nn.Linear):
        return square.reshape(-1, square.shape[-1]).sum(0, dtype=torch.double)
    return square.flatten(2).sum((0, 2), dtype=torch.double)


def _leak(view: ModelView, layer: Layer) -> float:
    if layer.neuron is None or view.adapter is None:
        return 0.0
    with naming(layer.neuron):
        return view.adapter.leak(view.neurons[layer.neuron])
