"""Probe of how the channels of a neuron layer vary together: the scatter of what its membrane accumulates, averaged over time."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeprune.kernel.pca import Scatter
from spikeprune.measure.clock import Clock
from spikeprune.measure.probe import naming
from spikeprune.view.graph import Family, Use
from spikeprune.view.layer import refuse_nonfinite
from spikeprune.view.model_view import ModelView, bare_copy


class ChannelScatter:
    """Scatter of the time-averaged current of each neuron, or of its charge; a sample is a place of a calibration sample.

    Args:
        view: the model.
        clock: of the pass.
        charge: whether of the charge, with the neuron's leak and resets, rather than of the current.
    """

    def __init__(self, view: ModelView, clock: Clock, *, charge: bool) -> None:
        self._view, self._clock, self._charge = view, clock, charge
        self._families = [family for family in view.graph.families if family.why is None and family.neurons]
        self._names = dict.fromkeys(use.module for family in self._families for use in family.neurons)
        self._batch: dict[str, Tensor] = {}
        self._found: dict[tuple[str, Use], Scatter] = {}

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every neuron that prunable channels pass."""
        for name in self._names:
            yield self._view.neurons[name].register_forward_pre_hook(self._hook(name), with_kwargs=True)

    def begin(self) -> None:
        """Take in the batch before."""
        for family in self._families:
            for use in family.neurons:
                if use.module in self._batch:
                    self._add(family, use, self._batch[use.module] / self._view.timesteps)
        self._batch.clear()

    def means(self) -> Mapping[str, Scatter]:
        """Give the scatter by layer; the neurons that the channels of its family pass are pooled."""
        self.begin()
        found: dict[str, Scatter] = {}
        for family in self._families:
            parts = [self._found[family.name, use] for use in family.neurons if (family.name, use) in self._found]
            if parts:
                whole = parts[0]
                for part in parts[1:]:
                    whole = whole.pooled(part)
                found |= dict.fromkeys(family.layers, whole)
        return found

    def _hook(self, name: str) -> Any:
        adapter = self._view.adapter
        assert adapter is not None

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            with torch.no_grad(), naming(name):
                x = adapter.charge(bare_copy(module), *args, **kwargs)[0] if self._charge else args[0].detach()
                x = x.double().sum(0) if adapter.takes_sequence(module) else x.double()
                self._batch[name] = self._batch[name] + x if name in self._batch else x

        return hook

    def _add(self, family: Family, use: Use, averaged: Tensor) -> None:
        """Take in (N, C ...) of a neuron: each channel's entries are its places."""
        refuse_nonfinite(averaged, "inputs", use.module, self._clock.advice)
        axis = averaged.dim() - 1 - use.trailing
        own = averaged.narrow(axis, use.offset, family.channels * use.repeat)
        places = own.movedim(axis, -1).reshape(-1, family.channels, use.repeat).transpose(1, 2).reshape(-1, family.channels)
        found, key = Scatter.of(places), (family.name, use)
        self._found[key] = self._found[key].joined(found) if key in self._found else found
