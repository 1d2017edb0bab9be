"""A plan in plain torch: what fast kernels must equal, and what runs where there are none."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from math import prod
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.engine import plan as p
from spikeprune.errors import LayoutError, PlanError

SMALL = 64  # places of a map, up to which reading the weights takes most of a convolution in float64

Values = list[Tensor]
Output = Tensor | tuple[Tensor, ...]


@final
class Reference:
    """Runs a plan, whole batches or timestep by timestep; a neuron's state is kept between timesteps only.

    Attributes:
        plan: what it runs.
        dtype: float32 or float64.

    Args:
        plan: what to run.
        dtype: of constants, values and outputs.
        device: of constants; inputs must lie there.

    Example:
        >>> from torch import nn
        >>> from spikeprune import model_view
        >>> from spikeprune.engine import make_plan
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> run = Reference(make_plan(model_view(net, torch.rand(2, 4), spiking=False)))
        >>> x = torch.rand(5, 4)
        >>> torch.allclose(run(x), net(x), atol=1e-6)
        True
    """

    def __init__(self, plan: p.Plan, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> None:
        self.plan, self.dtype, self._device = plan, dtype, device
        self._cast: dict[int, p.Operation] = {}
        self._streams = not any(isinstance(plan.operations[i], p.Readout) for op in plan.operations for i in op.inputs)
        self.reset()

    def reset(self) -> None:
        """Forget the timesteps that `step` has seen."""
        self._membranes: dict[int, Tensor] = {}
        self._charges: dict[int, Tensor] = {}
        self._next = 0

    def __call__(self, x: Tensor) -> Output:
        """Run all timesteps from rest.

        Args:
            x: as the plan's input says: (T, N, *shape), (N, T, *shape) or (N, *shape).

        Returns:
            What the network returns; several outputs as a tuple.

        Raises:
            LayoutError: x has another shape.
        """
        values = self.values(x)
        return _answer([values[i] for i in self.plan.outputs])

    def values(self, x: Tensor) -> Values:
        """Run all timesteps from rest, and give all values: (T, N, ...), or (N, ...) of those that are the same at all timesteps."""
        value = given(self.plan, x, self.dtype, x.device)
        self.reset()
        return self.run(value, self.plan.timesteps)

    def step(self, x: Tensor) -> Output:
        """Run the next timestep; `reset` comes before the first of another batch.

        Args:
            x: (N, *shape), of this timestep; of an input that is the same at all timesteps, that input again.

        Returns:
            What this timestep adds to each output, (N, ...), so that the sum of T steps is the whole; of an output over time, its
            value at this timestep.

        Raises:
            LayoutError: x has another shape, or all T timesteps have been.
            PlanError: the network goes on with its readout, so that no timestep has a share in what it returns.
        """
        source = self.plan.input
        if not self._streams:
            raise PlanError("the network goes on with a sum over timesteps, so it cannot be run step by step; run it whole.")
        if tuple(x.shape[1:]) != source.shape or x.dim() != 1 + len(source.shape):
            raise LayoutError(f"a step of the plan takes (N, {_listed(source.shape)}), but was given {tuple(x.shape)}.")
        if self._next == self.plan.timesteps:
            raise LayoutError(f"the plan has run all its {self._next} timesteps; call reset() before the next batch.")
        values = self.run(x if source.time_axis is None else x.unsqueeze(0), 1)
        outputs = ((i, self.plan.operations[i]) for i in self.plan.outputs)
        return _answer([self._share(values[i], op) for i, op in outputs])

    def state(self, number: int) -> tuple[Tensor, Tensor]:
        """Give the last charge and membrane of a neuron, (N, ...), by the number of its operation."""
        return self._charges[number], self._membranes[number]

    def _share(self, value: Tensor, op: p.Operation) -> Tensor:
        if op.over_time:
            return value[0]
        return value if isinstance(op, p.Readout) or self._next == 1 else torch.zeros_like(value)

    def one(self, number: int, inputs: Sequence[Tensor], steps: int) -> Tensor:
        """Run one operation on its inputs at the next timesteps; a neuron goes on from where it was.

        Args:
            number: of the operation, which is not the input.
            inputs: what it reads, (steps, N, ...) or (N, ...).
            steps: how many timesteps; `advance` moves on to those after.
        """
        if number not in self._cast:  # an engine asks for few of them
            self._cast[number] = _cast(self.plan.operations[number], self.dtype, self._device)
        op = self._cast[number]
        if isinstance(op, p.Neuron):
            return self._fire(number, op, inputs[0], steps)
        if isinstance(op, p.Readout):
            return _summed(inputs[0], op.weights[self._next : self._next + steps])
        return self._stateless(op, inputs, steps)

    def advance(self, steps: int) -> None:
        """Move on, when all operations of some timesteps have been."""
        self._next += steps

    @torch.no_grad()
    def run(self, x: Tensor, steps: int) -> Values:
        """Run the next timesteps, from where those before ended, and give all values.

        Args:
            x: value 0, as `given` makes it, of these timesteps.
            steps: how many.
        """
        values = [x.to(self.dtype)]
        for number, op in enumerate(self.plan.operations[1:], 1):
            values.append(self.one(number, [values[i] for i in op.inputs], steps))
        self.advance(steps)
        return values

    def _fire(self, number: int, op: p.Neuron, x: Tensor, steps: int) -> Tensor:
        currents = x if self.plan.operations[op.inputs[0]].over_time else x.expand(steps, *x.shape)
        v = self._membranes.get(number)
        v = _spread(op.start, op.shape).expand(currents.shape[1:]) if v is None else v
        out = []
        for t, current in enumerate(currents):
            # A delayed reset is due for the spike before, which the charge before still tells.
            due = self._charges.get(number) if op.delayed and self._next + t else None
            h, s, v = fire(op, current, v, due)
            self._charges[number] = h
            out.append(s if op.gives == "spikes" else h)
        self._membranes[number] = v
        return torch.stack(out)

    def _stateless(self, op: p.Operation, inputs: Sequence[Tensor], steps: int) -> Tensor:
        flags = [self.plan.operations[i].over_time for i in op.inputs]
        if not op.over_time:
            return RUN[type(op)](op, *inputs)
        full = [x if flag else x.expand(steps, *x.shape) for x, flag in zip(inputs, flags, strict=True)]
        out: Tensor = RUN[type(op)](op, *(x.flatten(0, 1) for x in full))
        return out.view(*full[0].shape[:2], *op.shape)


def given(plan: p.Plan, x: Tensor, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Give an input of a plan as its value 0: (T, N, *shape) or (N, *shape).

    Args:
        plan: the plan.
        x: as its input says: (T, N, *shape), (N, T, *shape) or (N, *shape).
        dtype: of the value.
        device: of the value.

    Raises:
        LayoutError: x is no dense tensor, has another shape, another T, or no sample.
    """
    source = plan.input
    if not isinstance(x, Tensor) or x.layout is not torch.strided or x.is_meta:
        kind = f"{x.layout} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
        raise LayoutError(f"the plan takes a dense tensor {_wanted(source, plan.timesteps)}, but was given {kind}.")
    lead = 1 if source.time_axis is None else 2
    wrong_time = source.time_axis is not None and x.dim() > 1 and x.shape[source.time_axis] != plan.timesteps
    if tuple(x.shape[lead:]) != source.shape or x.dim() != lead + len(source.shape) or wrong_time or not x.numel():
        raise LayoutError(f"the plan takes {_wanted(source, plan.timesteps)}, but was given {tuple(x.shape)}.")
    x = x.transpose(0, 1) if source.time_axis == 1 else x
    if x.dtype == dtype and not x.requires_grad and str(device) == x.device.type == "cpu":
        return x  # small networks feel every microsecond
    return x.detach().to(device, dtype)


def fire(op: p.Neuron, x: Tensor, v: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Give charge, spikes and membrane of one timestep; see `plan.Neuron` for the equations.

    Args:
        op: the neuron.
        x: its input, (N, *shape).
        v: its membrane before, of the same shape.
        before: its charge before, if its reset is delayed and this is not the first timestep.

    Example:
        >>> half, one, zero = (torch.tensor(x) for x in (0.5, 1.0, 0.0))
        >>> level = {"threshold": one, "strict": False, "reset": "soft", "reset_to": zero, "delayed": False}
        >>> op = p.Neuron(inputs=(0,), shape=(), over_time=True, name="n", decay=half, gain=one, rest=zero, start=zero, **level)
        >>> fire(op, torch.tensor([1.0]), torch.tensor([0.5]))
        (tensor([1.2500]), tensor([1.]), tensor([0.2500]))
    """
    decay, gain, rest, level, low = (_spread(c, op.shape) for c in (op.decay, op.gain, op.rest, op.threshold, op.reset_to))
    h = rest + decay * (v - rest) + gain * x
    if before is not None:
        h = h - level * _fired(op, before, level)
    s = _fired(op, h, level)
    if op.reset == "hard":
        return h, s, torch.where(s > 0, low, h)
    return h, s, h - level * s if op.reset == "soft" and not op.delayed else h


def _fired(op: p.Neuron, h: Tensor, level: Tensor) -> Tensor:
    return (h > level if op.strict else h >= level).to(h.dtype)


def _spread(constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    """View a constant of channels so that it is broadcast over samples."""
    return constant.view(-1, *[1] * (len(shape) - 1)) if constant.dim() else constant


def _summed(x: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Add up timesteps; equal weights are one factor, so that a mean is the sum's."""
    heavy = [t for t, weight in enumerate(weights) if weight]
    if not heavy:
        return torch.zeros_like(x[0])
    if len({weights[t] for t in heavy}) == 1:
        total = x[heavy].sum(0) if len(heavy) < len(weights) else x.sum(0)
        return total if weights[heavy[0]] == 1 else total * weights[heavy[0]]
    return torch.stack([x[t] * weights[t] for t in heavy]).sum(0)


def _synapse(op: p.Synapse, x: Tensor) -> Tensor:
    if not op.stride:
        return F.linear(x, op.weight, op.bias)
    if len(op.stride) == 2 and op.groups == 1 and x.dtype == torch.double and len(x) > 1 and prod(op.shape[1:]) <= SMALL:
        return _at_once(op, x)
    convolve: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(op.stride)]
    out: Tensor = convolve(x, op.weight, op.bias, op.stride, op.padding, op.dilation, op.groups)
    return out


def _at_once(op: p.Synapse, x: Tensor) -> Tensor:
    """Convolve all samples in one product: in float64 torch takes one after the other, and reads all weights for each."""
    columns = F.unfold(x, op.weight.shape[2:], op.dilation, op.padding, op.stride)  # (N, terms, places)
    out = op.weight.flatten(1) @ columns.transpose(0, 1).flatten(1)
    out = out.view(len(out), len(x), *op.shape[1:]).transpose(0, 1).contiguous()
    return out if op.bias is None else out + op.bias.view(-1, 1, 1)


def _pool(op: p.Pool, x: Tensor) -> Tensor:
    space = len(op.kernel)
    if op.kind == "max":
        pool: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[space]
        out: Tensor = pool(x, op.kernel, op.stride, op.padding, ceil_mode=op.ceil_mode)
        return out
    average: Any = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[space]
    out = average(x, op.kernel, op.stride, op.padding, op.ceil_mode, op.count_include_pad)
    return out


RUN: dict[type[p.Operation], Callable[..., Tensor]] = {
    p.Synapse: _synapse,
    p.Scale: lambda op, x: x * _spread(op.gain, op.shape) + _spread(op.shift, op.shape),
    p.Pool: _pool,
    p.Add: lambda op, x, y: x + y,
    p.Concatenate: lambda op, *xs: torch.cat(xs, 1),
    p.Reshape: lambda op, x: x.reshape(-1, *op.shape) if prod(op.shape) else x.new_zeros(len(x), *op.shape),
    p.Crop: lambda op, x: x[..., : op.shape[-2], : op.shape[-1]],
    p.ReLU: lambda op, x: x.relu(),
    p.Outside: lambda op, *xs: op.call(*xs),
}


def _cast(op: p.Operation, dtype: torch.dtype, device: torch.device | str) -> p.Operation:
    own = {field.name: getattr(op, field.name) for field in fields(op)}
    cast: dict[str, Any] = {name: value.to(device, dtype) for name, value in own.items() if isinstance(value, Tensor)}
    return replace(op, **cast)


def _answer(outputs: Values) -> Output:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _wanted(given: p.Input, steps: int) -> str:
    lead = {None: ["N"], 0: [f"T = {steps}", "N"], 1: ["N", f"T = {steps}"]}[given.time_axis]
    return f"({', '.join([*lead, *map(str, given.shape)])})"


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
