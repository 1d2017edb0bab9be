"""A plan run densely on one device, T folded into the batch: `Reference`, with channels innermost, fused neurons and 2:4 products.

Nothing here asks for a GPU: on a CPU the same operations run, with neurons in torch.
"""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from spikeprune.engine import plan as p
from spikeprune.engine.reference import Reference
from spikeprune.runtime import semi_structured, triton_lif
from spikeprune.runtime.semi_structured import SemiStructured
from spikeprune.runtime.triton_lif import TritonNeurons

INNERMOST = {4: torch.channels_last, 5: torch.channels_last_3d}


@final
class Dense:
    """Runs a plan on one device, all timesteps of a layer at once.

    Attributes:
        plan: what it runs.
        device: where.
        dtype: of weights and of values between layers; membranes and readouts are float32, or float64 with float64.
        torch_neurons: why neurons run in torch, one step after the other, or "" if Triton runs them.

    Args:
        plan: what to run.
        device: where constants lie, and inputs must.
        dtype: float32, bfloat16, float16, or float64 for comparisons.
        sparse: 2:4 weights of linear layers, by the number of the operation; these run as such.
    """

    def __init__(
        self, plan: p.Plan, device: torch.device, dtype: torch.dtype, sparse: Mapping[int, SemiStructured] | None = None
    ) -> None:
        self.plan, self.device, self.dtype, self.sparse = plan, device, dtype, dict(sparse or {})
        self._wide = torch.promote_types(dtype, torch.float32)
        laid = replace(plan, operations=tuple(_laid(op) for op in plan.operations))
        self._torch, self._exact = Reference(laid, dtype, device), Reference(laid, self._wide, device)
        no_kernel = f"there is no kernel of {dtype}" if dtype not in triton_lif.DTYPES else ""
        self.torch_neurons = no_kernel or triton_lif.refuses(device)
        self._neurons = {number: self._fused(op) for number, op in enumerate(plan.operations) if isinstance(op, p.Neuron)}
        self._ends = _last_reads(plan)

    def run(self, x: Tensor, wanted: Set[int]) -> dict[int, Tensor]:
        """Run all timesteps from rest.

        Args:
            x: the plan's value 0, on this device, of this dtype: (T, N, *shape) or (N, *shape).
            wanted: numbers of values to give; all others are let go when they have been read.

        Returns:
            Values, (T, N, *shape) or (N, *shape), by number.
        """
        self._exact.reset()
        values = {0: innermost(x, over_time=self.plan.input.over_time)}
        for number, op in enumerate(self.plan.operations[1:], 1):
            values[number] = self._one(number, op, [values[i] for i in op.inputs])
            for old in self._ends[number] - wanted:
                del values[old]
        self._exact.reset()  # and lets its membranes go
        return {number: values[number] for number in wanted}

    def _one(self, number: int, op: p.Operation, inputs: list[Tensor]) -> Tensor:
        if isinstance(op, p.Readout):
            return self._read_out(number, op, inputs[0].to(self._wide))
        inputs = [x.to(self.dtype) for x in inputs]
        if isinstance(op, p.Neuron):
            return self._fire(number, op, inputs[0])
        if number in self.sparse:
            return semi_structured.linear(inputs[0], self.sparse[number])
        found = self._torch.one(number, inputs, self.plan.timesteps)
        return innermost(found, over_time=op.over_time) if isinstance(op, p.Synapse) else found

    def _read_out(self, number: int, op: p.Readout, x: Tensor) -> Tensor:
        if 0.0 not in op.weights or not any(op.weights):
            return self._exact.one(number, [x], self.plan.timesteps)
        # Timesteps by number: a list of them is copied to the device, which no graph records.
        return torch.stack([x[t] * weight for t, weight in enumerate(op.weights) if weight]).sum(0)

    def _fire(self, number: int, op: p.Neuron, x: Tensor) -> Tensor:
        steps, over_time = self.plan.timesteps, self.plan.operations[op.inputs[0]].over_time
        currents = x if over_time else x.expand(steps, *x.shape)
        if not self.torch_neurons and triton_lif.takes(currents):
            return triton_lif.fire(currents, self._neurons[number])
        return self._exact.one(number, [x.to(self._wide)], steps).to(self.dtype)

    def _fused(self, op: p.Neuron) -> TritonNeurons:
        channels = op.shape[0] if op.shape else 1
        rows = [op.decay, op.gain, op.rest, op.threshold, op.reset_to, op.start]  # in the order of the kernel's table
        table = torch.stack([row.float().expand(channels) for row in rows]).to(self.device)
        return TritonNeurons(table=table, reset=op.reset, strict=op.strict, delayed=op.delayed, charges=op.gives == "charge")


def innermost(x: Tensor, *, over_time: bool) -> Tensor:
    """Bring maps into the order in which channels lie innermost; leave all else.

    Args:
        x: (T, N, *shape) or (N, *shape).
        over_time: which.

    Example:
        >>> innermost(torch.zeros(2, 4, 3, 8, 8), over_time=True).stride()
        (768, 192, 1, 24, 3)
    """
    folded = x.flatten(0, 1) if over_time else x
    order: Any = INNERMOST.get(folded.dim(), torch.contiguous_format)
    return folded.contiguous(memory_format=order).view(x.shape)


def _laid(op: p.Operation) -> p.Operation:
    if not isinstance(op, p.Synapse) or op.weight.dim() not in INNERMOST:
        return op
    return replace(op, weight=op.weight.contiguous(memory_format=INNERMOST[op.weight.dim()]))


def _last_reads(plan: p.Plan) -> list[frozenset[int]]:
    """Give, for each operation, the values that none after it reads; what nobody reads ends with itself."""
    last = list(range(len(plan.operations)))
    for number, op in enumerate(plan.operations):
        for source in op.inputs:
            last[source] = number
    return [frozenset(i for i, end in enumerate(last) if end == number) for number in range(len(last))]
