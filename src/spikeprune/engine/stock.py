"""The native layers of a plan: found once, packed once for each kernel, and shared by all shapes of input."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, final
from weakref import ref

import torch
from torch import Tensor

from spikeprune.engine import firing
from spikeprune.engine.connect import connect
from spikeprune.engine.grid import on_grid
from spikeprune.engine.kernels import Kernel, Layer
from spikeprune.engine.plan import Neuron, Operation, Plan, Pool, Reshape, Scale, Synapse
from spikeprune.engine.stored import Stored
from spikeprune.errors import PlanError
from spikeprune.runtime.neurons import LANES

EMPTY: Mapping[int, Stored] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Fused:
    """A layer of a plan in native terms.

    Attributes:
        name: of the synapse.
        source: number of the value that it reads.
        layer: its weights, and its neurons if it has any.
    """

    name: str
    source: int
    layer: Layer


@final
class Stock:
    """The layers of a plan; weights that lie on a grid are whole numbers, others float32.

    Attributes:
        plan: the plan; of a weight that is stored it has nothing but the shape.
        direct: whether native code convolves real numbers, by the number of the synapse, as whoever measured it first found.

    Args:
        plan: the plan.
        stored: weights, by the number of their synapse, that no one needs but kernels: each is unpacked when it is laid out, and no longer.
    """

    def __init__(self, plan: Plan, stored: Mapping[int, Stored] = EMPTY) -> None:
        self._stored = dict(stored)
        self.direct: dict[int, bool] = {}
        self.plan = filled(plan, {number: one.outline(torch.double) for number, one in stored.items()}) if stored else plan
        self._whole: ref[Plan] | None = None
        self._layers: dict[int, Fused | str] = {}
        self._packed: dict[tuple[int, str, bool], Any] = {}
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    def whole(self) -> Plan:
        """Give the plan with all its weights, which are unpacked for as long as somebody holds it."""
        found = self.plan if not self._stored else None if self._whole is None else self._whole()
        if found is None:
            found = filled(self.plan, {number: one.whole() for number, one in self._stored.items()})
            self._whole = ref(found)
        return found

    def stores(self, number: int) -> bool:
        """Whether a synapse's weight is stored, so that torch cannot run it."""
        return number in self._stored

    def layer(self, number: int) -> Fused | str:
        """Give the layer that makes a value: of neurons or, for currents, of a synapse; or say why there is no native one.

        Its weight is empty, on no device, if it is stored.
        """
        if number not in self._layers:
            self._layers[number] = self._find(number)
        return self._layers[number]

    def packed(self, number: int, kernel: Kernel, *, split: bool = False) -> Any:
        """Give a layer as a kernel takes it; of a stride of 2, perhaps for maps that are split.

        Raises:
            PlanError: its weight was stored, and the kernel does not take it.
        """
        key = (number, kernel.name, split)
        if key not in self._packed:
            layer = self._unpacked(number)
            if why := kernel.refuses(layer):
                raise PlanError(f"operation {number} cannot run by {kernel.name!r}: {why}. Compile the network again.")
            whole = layer.split() if split else layer
            assert whole is not None
            self._packed[key] = kernel.pack(whole)
        return self._packed[key]

    def parts(self, number: int, count: int, *, split: bool = False) -> list[Layer]:
        """Cut a layer's outputs into so many parts, or fewer, of whole blocks of channels; packed anew by whoever asks."""
        layer = self._unpacked(number)
        whole = layer.split() if split else layer
        assert whole is not None
        blocks = -(-len(whole.weight) // LANES)
        bounds = [LANES * (blocks * i // count) for i in range(count)] + [len(whole.weight)]
        return [whole.part(first, last) for first, last in pairwise(bounds) if last > first]

    def keep(self, number: int, kernel: str) -> None:
        """Forget what other kernels would have taken."""
        for key in [key for key in self._packed if key[0] == number and key[1] != kernel]:
            del self._packed[key]

    def _unpacked(self, number: int) -> Layer:
        found = self.layer(number)
        assert isinstance(found, Fused)
        below = current(self.plan.operations, number)[0]
        if below not in self._stored:
            return found.layer
        synapse = self.plan.operations[below]
        assert isinstance(synapse, Synapse)
        again = connect(self.plan.operations, replace(synapse, weight=self._stored[below].numbers()))
        assert not isinstance(again, str)
        return replace(found.layer, weight=again.weight.contiguous())

    def _find(self, number: int) -> Fused | str:
        operations, op = self.plan.operations, self.plan.operations[number]
        neurons = firing.native(op) if isinstance(op, Neuron) else None
        if isinstance(neurons, str):
            return neurons
        below, gain, shift = current(operations, number)
        synapse = operations[below]
        if not isinstance(synapse, Synapse):
            return "no synapse feeds it alone"
        found = connect(operations, synapse)
        if isinstance(found, str):
            return found
        weight, step = self._numbers(below, found.weight)
        bias = torch.zeros_like(step) if synapse.bias is None else synapse.bias
        scale, bias = (gain * step).float().contiguous(), (gain * bias + shift).float().contiguous()
        return Fused(synapse.name, found.source, Layer(weight, scale, bias, neurons, found.stride, found.padding))

    def _numbers(self, number: int, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Give the weights of a synapse as native code takes them, and the step of each output."""
        if number not in self._weights:
            found, stored = None, self._stored.get(number)
            if stored is None:
                found = on_grid(weight)
            elif stored.step is not None:
                found = weight.to(torch.int8), stored.step
            self._weights[number] = (
                (weight.float().contiguous(), torch.ones(len(weight), dtype=torch.double)) if found is None else found
            )
        return self._weights[number]


def storable(operations: tuple[Operation, ...], number: int) -> bool:
    """Whether a synapse's numbers are those of its native layer, so that nothing else need be kept: no average becomes part of it."""
    if not isinstance(operations[number], Synapse):
        return False
    source = operations[number].inputs[0]
    while isinstance(before := operations[source], Reshape):
        source = before.inputs[0]
    return not (isinstance(before, Pool) and before.kind == "average")


def filled(plan: Plan, weights: Mapping[int, Tensor]) -> Plan:
    """Give a plan other weights."""
    operations = list(plan.operations)
    for number, weight in weights.items():
        synapse = operations[number]
        assert isinstance(synapse, Synapse)
        operations[number] = replace(synapse, weight=weight)
    return replace(plan, operations=tuple(operations))


def current(operations: tuple[Operation, ...], number: int) -> tuple[int, Tensor, Tensor]:
    """Give the value whose gain times it plus shift, (C,) each, a neuron or synapse adds to its membrane or gives."""
    op = operations[number]
    if isinstance(op, Neuron):
        gain, shift = firing.charged(op)
        number = op.inputs[0]
    else:
        gain, shift = (torch.full(op.shape[:1], x, dtype=torch.double) for x in (1.0, 0.0))
    while isinstance(below := operations[number], Scale):
        number, gain, shift = below.inputs[0], gain * below.gain, shift + gain * below.shift
    return number, gain, shift
