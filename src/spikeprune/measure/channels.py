"""Probes of output channels: how active their neurons are, and what the loss feels of the gain behind them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import MeasureError
from spikeprune.measure.clock import Clock
from spikeprune.measure.probe import naming
from spikeprune.view.graph import Family, Use
from spikeprune.view.layer import refuse_nonfinite
from spikeprune.view.model_view import ModelView, bare_copy


class ByNeuron:
    """A mean over samples, timesteps and places of something that each entry of a neuron layer has; abstract."""

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._view, self._clock = view, clock
        self._families = [family for family in view.graph.families if family.why is None and family.neurons]
        self._uses = {use.module: use for family in self._families for use in family.neurons}
        self._sums: dict[str, Tensor] = {}

    def begin(self) -> None:
        """Keep nothing of a batch."""

    def means(self) -> Mapping[str, Tensor]:
        """Give (C_out,) by layer: the mean over the neurons that the channels of its family pass."""
        share = self._clock.samples * self._view.timesteps
        found: dict[str, Tensor] = {}
        for family in self._families:
            parts = [
                _of_channels(self._sums[use.module] / share, family, use) for use in family.neurons if use.module in self._sums
            ]
            if parts:
                found |= dict.fromkeys(family.layers, torch.stack(parts).mean(0))
        return found

    def _add(self, name: str, values: Tensor) -> None:
        """Add up a neuron's values, of its input's shape, by entry of the channel axis; over time, batch and places."""
        axis = values.dim() - 1 - self._uses[name].trailing
        places = values.shape[axis + 1 :].numel()
        total = values.double().sum([d for d in range(values.dim()) if d != axis]) / places
        self._sums[name] = self._sums[name] + total if name in self._sums else total


class ChannelRate(ByNeuron):
    """Spikes a neuron and timestep."""

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every neuron that prunable channels pass."""
        for name in self._uses:
            yield self._view.neurons[name].register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        adapter = self._view.adapter
        assert adapter is not None

        def hook(module: nn.Module, _: tuple[Any, ...], output: object) -> None:
            self._add(name, adapter.spikes(module, output).detach() != 0)

        return hook


class ChannelMembrane(ByNeuron):
    """Mean |v| after the reset."""

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every neuron that prunable channels pass."""
        for name in self._uses:
            yield self._view.neurons[name].register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def _hook(self, name: str) -> Any:
        adapter = self._view.adapter
        assert adapter is not None

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            with torch.no_grad(), naming(name):
                self._add(name, adapter.membrane(bare_copy(module), *args, **kwargs).abs())

        return hook


class GainGradient:
    """|dL/d gain| of the norms behind prunable channels, a mean over batches that each weigh as many samples as they have."""

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._clock = clock
        self._families = [family for family in view.graph.families if family.why is None and family.norms]
        names = dict.fromkeys(use.module for family in self._families for use in family.norms)
        self._gains = {name: view.net.get_parameter(f"{name}.weight") for name in names}
        self._sums: dict[str, Tensor] = {}

    @property
    def parameters(self) -> list[Tensor]:
        """The gains that take gradients, in the order in which `add` wants these."""
        return [gain for gain in self._gains.values() if gain.requires_grad]

    def hooks(self) -> Iterator[RemovableHandle]:
        """Need none: `add` is told of every gradient."""
        return iter(())

    def begin(self) -> None:
        """Keep nothing of a batch."""

    def add(self, gradients: tuple[Tensor | None, ...]) -> None:
        """Take a batch's gradients of `parameters`."""
        names = [name for name, gain in self._gains.items() if gain.requires_grad]
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is None:
                continue
            refuse_nonfinite(gradient, "gain gradients", name, f"Check calibration batch {self._clock.batch} and the loss.")
            share = self._clock.batch_samples * gradient.abs().double()
            self._sums[name] = self._sums[name] + share if name in self._sums else share

    def means(self) -> Mapping[str, Tensor]:
        """Give (C_out,) by layer: the mean over the norms of its family."""
        found: dict[str, Tensor] = {}
        for family in self._families:
            parts = [_of_channels(self._sums[use.module], family, use) for use in family.norms if use.module in self._sums]
            if parts:
                found |= dict.fromkeys(family.layers, torch.stack(parts).mean(0) / self._clock.samples)
        return found


def _of_channels(values: Tensor, family: Family, use: Use) -> Tensor:
    """Average the entries of each channel: (C_out,)."""
    size = family.channels * use.repeat
    if use.offset + size > values.numel():
        raise MeasureError(
            f"{use.module!r} has {values.numel()} entries, too few for the channels of {family.name!r}. View the model again."
        )
    return values[use.offset : use.offset + size].view(family.channels, use.repeat).mean(1)
