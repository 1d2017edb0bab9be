"""Probes of neurons: spike rates, how many are near their threshold, and what the loss feels of each timestep."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import NonFinite
from spikeprune.measure.clock import Clock
from spikeprune.measure.probe import Steps, naming
from spikeprune.view.adapters import Adapter
from spikeprune.view.layer import Layer, Layout
from spikeprune.view.model_view import ModelView, bare_copy


class SpikeRate:
    """Spikes a neuron and timestep."""

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._view, self._clock, self._rates = view, clock, Steps()

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every neuron."""
        for name, neuron in self._view.neurons.items():
            yield neuron.register_forward_hook(self._hook(name))

    def begin(self) -> None:
        """Keep nothing of a batch."""

    def means(self) -> Mapping[str, Tensor]:
        """Give (T,) by neuron."""
        return self._rates.stacked(self._clock.samples)

    def _hook(self, name: str) -> Any:
        adapter = _adapter(self._view)

        def hook(module: nn.Module, _: tuple[Any, ...], output: object) -> None:
            fired = adapter.spikes(module, output).detach() != 0
            fired = fired if adapter.takes_sequence(module) else fired.unsqueeze(0)
            rates = fired.reshape(*fired.shape[:2], -1).double().mean(2).sum(1)
            for i, rate in enumerate(rates):
                self._rates.add(name, self._clock.at(name) + i, rate)

        return hook


class NearThreshold:
    """Share of the neurons that a layer drives whose charge lies within half a threshold of the threshold."""

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._view, self._clock, self._shares = view, clock, Steps()

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every neuron that a layer drives."""
        for name in _driven(self._view):
            yield self._view.neurons[name].register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def begin(self) -> None:
        """Keep nothing of a batch."""

    def means(self) -> Mapping[str, Tensor]:
        """Give (T,) by layer."""
        return _by_layer(self._view, self._shares.stacked(self._clock.samples))

    def _hook(self, name: str) -> Any:
        adapter = _adapter(self._view)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            with torch.no_grad(), naming(name):
                charge, threshold = adapter.charge(bare_copy(module), *args, **kwargs)
                near = (charge - threshold).abs() < threshold / 2
            near = near if adapter.takes_sequence(module) else near.unsqueeze(0)
            for i, share in enumerate(near.reshape(*near.shape[:2], -1).double().mean(2).sum(1)):
                self._shares.add(name, self._clock.at(name) + i, share)

        return hook


class StepWeight:
    """Squared norm of dL/dh[t] a sample, at what a layer drives: the input of its neuron, else its own output.

    The input of a neuron stands for its charge h[t]: they differ by a factor that is the same at every timestep. At the
    neuron the timesteps are apart even behind a layer that is called once for all.
    """

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._view, self._clock, self._powers = view, clock, Steps()

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every neuron that a layer drives, and at layers that drive none."""
        for name in _driven(self._view):
            yield self._view.neurons[name].register_forward_pre_hook(self._at_neuron(name))
        for layer in self._view.layers:
            if layer.neuron is None:
                yield layer.module.register_forward_hook(self._at_output(layer))

    def begin(self) -> None:
        """Keep nothing of a batch."""

    def means(self) -> Mapping[str, Tensor]:
        """Give (T,) by layer; timesteps that the loss does not feel have no gradient, and weigh nothing."""
        steps = self._view.timesteps
        # Of a readout that is called once, for all timesteps, each of them has the same share.
        once = {x.name for x in self._view.layers if x.layout is Layout.ONCE and x.neuron is None}
        self._powers.fill(steps, once)
        found = self._powers.stacked(self._clock.samples)
        for name, powers in found.items():
            if not bool(torch.isfinite(powers).all()):
                raise NonFinite(
                    f"the gradient at {name!r} is NaN or infinite. Check the calibration batches, or lower the learning rate that led here."
                )
        found = {name: powers.expand(steps) / steps if name in once else powers for name, powers in found.items()}
        return _by_layer(self._view, found)

    def _at_neuron(self, name: str) -> Any:
        adapter = _adapter(self._view)

        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not args[0].requires_grad:
                return None
            x = args[0].view_as(args[0])  # a tensor of the pass's own, whose hook goes with it
            sequence = adapter.takes_sequence(module)
            self._listen(name, x, lambda grad: grad if sequence else grad.unsqueeze(0))
            return (x, *args[1:])

        return hook

    def _at_output(self, layer: Layer) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not output.requires_grad:
                return None
            out = output.view_as(output)
            self._listen(layer.name, out, lambda grad: layer.by_timestep(grad, self._view.timesteps))
            return out

        return hook

    def _listen(self, name: str, x: Tensor, by_timestep: Any) -> None:
        t, samples = self._clock.at(name), self._clock.batch_samples

        def hook(grad: Tensor) -> None:
            # The loss is a batch's mean, so a sample's own gradient is as many times larger.
            for i, step in enumerate(by_timestep(grad.detach())):
                self._powers.add(name, t + i, samples**2 * step.square().sum(dtype=torch.double))

        x.register_hook(hook)  # type: ignore[no-untyped-call]


def _adapter(view: ModelView) -> Adapter:
    assert view.adapter is not None
    return view.adapter


def _driven(view: ModelView) -> list[str]:
    return list(dict.fromkeys(layer.neuron for layer in view.layers if layer.neuron is not None))


def _by_layer(view: ModelView, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hand what was found at a neuron to the layers that drive it."""
    names = {layer.name: layer.neuron or layer.name for layer in view.layers}
    return {name: found[source] for name, source in names.items() if source in found}
