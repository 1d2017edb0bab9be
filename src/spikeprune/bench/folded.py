"""A plan as ordinary torch modules, T folded into the batch: the form in which dense engines run a spiking network best.

Norms are folded already. What no timestep changes is computed once, constants that are one number are numbers, and neurons are
unrolled over time.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.engine import Plan
from spikeprune.engine import plan as p
from spikeprune.errors import PlanError


class Folded(nn.Module):
    """Runs a plan; a value over time is (T * N, ...), timesteps outside, any other (N, ...).

    Args:
        plan: what to run; with one output.

    Raises:
        PlanError: it has several outputs, or a part that is a function of the network.

    Example:
        >>> from spikeprune import model_view
        >>> from spikeprune.engine import make_plan
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> folded, x = Folded(make_plan(model_view(net, torch.rand(2, 4), spiking=False))), torch.rand(5, 4)
        >>> torch.allclose(folded(x), net(x), atol=1e-6)
        True
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        if len(plan.outputs) != 1:
            raise PlanError(f"only a plan with one output can be folded; this one has {len(plan.outputs)}.")
        self.steps, self.time_axis, self.output = plan.timesteps, plan.input.time_axis, plan.outputs[0]
        self.shape = plan.operations[self.output].shape
        self.over_time = [op.over_time for op in plan.operations]
        self.sources = [op.inputs for op in plan.operations]
        self.own = [isinstance(op, p.Neuron | p.Readout) for op in plan.operations]
        self.parts = nn.ModuleList(_part(op, plan) for op in plan.operations)

    def forward(self, x: Tensor) -> Tensor:
        """Run all timesteps from rest; x as the plan's input says."""
        if self.time_axis is not None:
            x = (x.transpose(0, 1) if self.time_axis == 1 else x).flatten(0, 1)
        values = [x]
        for number, part in enumerate(self.parts):
            if number:
                values.append(self._given(part, number, [values[i] for i in self.sources[number]]))
        out = values[self.output]
        return out.reshape(self.steps, -1, *self.shape) if self.over_time[self.output] else out

    def _given(self, part: nn.Module, number: int, inputs: list[Tensor]) -> Tensor:
        flags = [self.over_time[i] for i in self.sources[number]]
        if not self.own[number] and any(flags):
            inputs = [x if flag else x.repeat(self.steps, *[1] * (x.dim() - 1)) for x, flag in zip(inputs, flags, strict=True)]
        out: Tensor = part(*inputs)
        return out


class _Neurons(nn.Module):
    def __init__(self, op: p.Neuron, steps: int, *, over_time: bool) -> None:
        super().__init__()
        self.steps, self.over_time, self.op_shape = steps, over_time, op.shape
        self.strict, self.reset, self.delayed, self.gives = op.strict, op.reset, op.delayed, op.gives
        self.decay: Tensor | float
        self.gain: Tensor | float
        self.rest: Tensor | float
        self.threshold: Tensor | float
        self.reset_to: Tensor | float
        self.start: Tensor | float
        for name in ("decay", "gain", "rest", "threshold", "reset_to", "start"):
            value = getattr(op, name)
            single = value.numel() == 1 or bool((value == value.flatten()[0]).all())
            if single:
                setattr(self, name, float(value.flatten()[0]))
            else:
                self.register_buffer(name, value.float().view(-1, *[1] * (len(op.shape) - 1)))

    def forward(self, x: Tensor) -> Tensor:
        v: Tensor | float = self.start
        out, due = [], None
        for current in x.chunk(self.steps) if self.over_time else [x] * self.steps:
            h = self._charged(current, v)
            if due is not None:
                h = h - due
            s = (h > self.threshold if self.strict else h >= self.threshold).to(x.dtype)
            v = self._after(h, s)
            due = _times(s, self.threshold) if self.delayed else None
            out.append(s if self.gives == "spikes" else h)
        return torch.cat(out)

    def _charged(self, current: Tensor, v: Tensor | float) -> Tensor:
        driven = _times(current, self.gain)
        if isinstance(self.rest, float) and self.rest == 0:
            return driven if isinstance(v, float) and v == 0 else v * self.decay + driven
        return self.rest + self.decay * (v - self.rest) + driven

    def _after(self, h: Tensor, s: Tensor) -> Tensor:
        if self.reset == "hard":
            zero = isinstance(self.reset_to, float) and self.reset_to == 0
            return h * (1 - s) if zero else torch.where(s > 0, self.reset_to, h)
        return h - _times(s, self.threshold) if self.reset == "soft" and not self.delayed else h


def _times(x: Tensor, constant: Tensor | float) -> Tensor:
    return x if isinstance(constant, float) and constant == 1 else x * constant


class _Readout(nn.Module):
    def __init__(self, op: p.Readout, steps: int) -> None:
        super().__init__()
        self.steps, self.kind, self.op_shape = steps, op.kind, op.shape
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(op.weights).view(-1, *[1] * (1 + len(op.shape))))

    def forward(self, x: Tensor) -> Tensor:
        parts = x.reshape(self.steps, -1, *self.op_shape)
        if self.kind == "mean":
            return parts.mean(0)
        return parts.sum(0) if self.kind == "sum" else (parts * self.weights).sum(0)


class _Scale(nn.Module):
    def __init__(self, op: p.Scale) -> None:
        super().__init__()
        self.gain: Tensor
        self.shift: Tensor
        for name in ("gain", "shift"):
            value: Tensor = getattr(op, name).float()
            self.register_buffer(name, value.view(-1, *[1] * (len(op.shape) - 1)) if value.dim() else value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.shift


class _Reshape(nn.Module):
    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.shape)


class _Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Concatenate(nn.Module):
    def forward(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, 1)


def _part(op: p.Operation, plan: Plan) -> nn.Module:
    if isinstance(op, p.Input):
        return nn.Identity()
    if isinstance(op, p.Neuron):
        return _Neurons(op, plan.timesteps, over_time=plan.operations[op.inputs[0]].over_time)
    if isinstance(op, p.Readout):
        return _Readout(op, plan.timesteps)
    if isinstance(op, p.Synapse):
        return _synapse(op)
    if isinstance(op, p.Pool):
        return _pool(op)
    if isinstance(op, p.Scale):
        return _Scale(op)
    if isinstance(op, p.Reshape):
        return _Reshape(op.shape)
    plain = {p.Add: _Add, p.Concatenate: _Concatenate, p.ReLU: nn.ReLU}
    if type(op) not in plain:
        raise PlanError(f"{type(op).__name__} is a function of the network, which no other engine can be given.")
    return plain[type(op)]()


def _synapse(op: p.Synapse) -> nn.Module:
    weight, biased = op.weight.float(), op.bias is not None
    if not op.stride:
        layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=biased)
    else:
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(op.stride)]
        shape = (weight.shape[1] * op.groups, weight.shape[0], tuple(weight.shape[2:]))
        layer = kind(*shape, op.stride, op.padding, op.dilation, op.groups, biased)  # type: ignore[arg-type]
    layer.load_state_dict({"weight": weight, **({"bias": op.bias.float()} if op.bias is not None else {})})
    return layer.requires_grad_(False)


def _pool(op: p.Pool) -> nn.Module:
    space = len(op.kernel)
    kind: Any = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[space]
    mean: Any = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}[space]
    if op.kind == "max":
        pool: nn.Module = kind(op.kernel, op.stride, op.padding, ceil_mode=op.ceil_mode)
    else:
        pool = mean(op.kernel, op.stride, op.padding, op.ceil_mode, op.count_include_pad)
    return pool
