"""The native layers of a plan: found once, packed once for each kernel, and shared by all shapes of input."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from spikeprune.engine import firing
from spikeprune.engine.connect import connect
from spikeprune.engine.grid import on_grid
from spikeprune.engine.kernels import Kernel, Layer
from spikeprune.engine.plan import Neuron, Operation, Plan, Scale, Synapse


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
        plan: the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._layers: dict[int, Fused | str] = {}
        self._packed: dict[tuple[int, str, bool], Any] = {}
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, number: int) -> Fused | str:
        """Give the layer that makes a value: of neurons or, for currents, of a synapse; or say why there is no native one."""
        if number not in self._layers:
            self._layers[number] = self._find(number)
        return self._layers[number]

    def packed(self, number: int, kernel: Kernel, *, split: bool = False) -> Any:
        """Give a layer as a kernel takes it; of a stride of 2, perhaps for maps that are split."""
        key = (number, kernel.name, split)
        if key not in self._packed:
            found = self.layer(number)
            assert isinstance(found, Fused)
            layer = found.layer.split() if split else found.layer
            assert layer is not None
            self._packed[key] = kernel.pack(layer)
        return self._packed[key]

    def keep(self, number: int, kernel: str) -> None:
        """Forget what other kernels would have taken."""
        for key in [key for key in self._packed if key[0] == number and key[1] != kernel]:
            del self._packed[key]

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
        scale, bias = (gain * step).float().contiguous(), (gain * found.bias + shift).float().contiguous()
        return Fused(synapse.name, found.source, Layer(weight, scale, bias, neurons, found.stride, found.padding))

    def _numbers(self, number: int, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Give the weights of a synapse as native code takes them, and the step of each output."""
        if number not in self._weights:
            found = on_grid(weight)
            plain = weight.float().contiguous(), torch.ones(len(weight), dtype=torch.double)
            self._weights[number] = plain if found is None else found
        return self._weights[number]


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
