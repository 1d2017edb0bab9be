"""A network as a flat list of operations on values: what fast kernels are chosen for, and what `reference` runs in plain torch.

A value is what one operation gives. It is either a tensor for each timestep, (T, N, ...), or one for all of them, (N, ...). An
operation names its inputs by number, the number of a value being the place of its operation in the list. Nothing of a framework is
left: a neuron is its equation. All constants are float64, so that each executor rounds them once, to its own precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Operation:
    """What all operations have.

    Attributes:
        inputs: numbers of the values that it reads, each smaller than its own.
        shape: of what it gives, for one sample and timestep: channels first, (C, space ...) or (features,).
        over_time: whether it gives one value a timestep, (T, N, *shape), or one for all, (N, *shape).
    """

    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    over_time: bool


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Input(Operation):
    """What the plan is given; it reads nothing, and is the first operation.

    Attributes:
        time_axis: 0 for (T, N, ...), 1 for (N, T, ...), None for (N, ...), which is the same at all timesteps.
        drawn: the network draws this from its batch by chance (Poisson coding); the plan is given what was drawn, (T, N, ...).
    """

    time_axis: Literal[0, 1] | None
    drawn: bool = False


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Synapse(Operation):
    """A linear map or convolution of one weight, norms folded in.

    Attributes:
        name: of the layer in the network; of several with one weight, the first.
        weight: (C_out, C_in), or (C_out, C_in / groups, kernel ...).
        bias: (C_out,) or None.
        stride: an int for each axis of the kernel; empty for a linear map, as are the next two.
        padding: zeros on both sides.
        dilation: of the kernel.
        groups: of channels.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Operation):
    """gain * x + shift, each () or (C,): a norm that no layer could take over, or a constant."""

    gain: Tensor
    shift: Tensor


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Neuron(Operation):
    """Integrate and fire. Constants are () or (C,).

    Charge h[t] of input x[t], spike s[t] and membrane v[t], from v[-1] = start::

        h[t] = rest + decay (v[t-1] - rest) + gain x[t]      s[t] = h[t] >= threshold, or > if strict
        reset "hard"                v[t] = reset_to where s[t], else h[t]
        reset "soft"                v[t] = h[t] - threshold s[t]
        reset "none"                v[t] = h[t]
        reset "soft", delayed       v[t] = h[t], and h[t+1] is smaller by threshold s[t], after the decay

    A hard reset to 0 that snnTorch delays is the same as one that is not, with `start` at rest, and is given as such.

    Attributes:
        name: of the neuron layer in the network.
        decay: of the membrane, a timestep: 1 is no leak.
        gain: of the input.
        rest: the potential that it decays to.
        threshold: the charge at which it fires.
        strict: whether the charge must exceed the threshold.
        reset: "hard", "soft" or "none".
        reset_to: the membrane after a spike, of a hard reset.
        delayed: whether the soft reset waits for the next timestep.
        start: the membrane before the first timestep.
        gives: its spikes; or its charge, which a network may return as well.
    """

    name: str
    decay: Tensor
    gain: Tensor
    rest: Tensor
    threshold: Tensor
    strict: bool
    reset: Literal["hard", "soft", "none"]
    reset_to: Tensor
    delayed: bool
    start: Tensor
    gives: Literal["spikes", "charge"] = "spikes"


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Pool(Operation):
    """The largest or mean value of each window; a global or adaptive pool with equal windows is one of them.

    Attributes:
        kind: "max" or "average".
        kernel: of each axis behind the channels, as are the next two.
        stride: between windows.
        padding: on both sides.
        ceil_mode: whether windows may reach beyond the far end.
        count_include_pad: whether an average counts the padding.
    """

    kind: Literal["max", "average"]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = True


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Operation):
    """The sum of two values of one shape; one that is the same at all timesteps is added at each."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Concatenate(Operation):
    """Values of several channels in a row, as one."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Operation):
    """The same entries in the same order, in another shape, such as flat."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Crop(Operation):
    """The first rows and columns of maps."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class ReLU(Operation):
    """max(0, x)."""


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Readout(Operation):
    """A weighted sum over timesteps, which is the same at all timesteps.

    Attributes:
        weights: one a timestep: all 1 for the sum, all 1 / T for the mean, the last alone for the last timestep.
    """

    weights: tuple[float, ...]

    @property
    def kind(self) -> Literal["sum", "mean", "last", "weighted"]:
        """What it is called; a sum of one timestep is a sum."""
        first, steps = self.weights[0], len(self.weights)
        if set(self.weights) == {1.0}:
            return "sum"
        if set(self.weights) == {first} and abs(first * steps - 1) < 1e-12:
            return "mean"
        return "last" if self.weights == (0.0,) * (steps - 1) + (1.0,) else "weighted"


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Outside(Operation):
    """Something that a plan has no word for; torch runs it as the network does.

    Attributes:
        name: of the function.
        call: gives (rows, *shape) of inputs (rows, ...); a row is one sample at one timestep, and no row sees another.
        reason: why it is outside.
    """

    name: str
    call: Callable[..., Tensor]
    reason: str


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """A network's operations in the order in which they run. Made by `make_plan`.

    Attributes:
        operations: the first is the input; the number of a value is the place of its operation.
        outputs: numbers of what the network returns; a value over time is returned as (T, N, ...), any other as (N, ...).
        timesteps: T.
        notes: what a user should know, a sentence each.

    Example:
        >>> double = Scale(inputs=(0,), shape=(3,), over_time=False, gain=torch.tensor(2.0), shift=torch.tensor(0.0))
        >>> print(Plan((Input(inputs=(), shape=(3,), over_time=False, time_axis=None), double), outputs=(1,), timesteps=1).explain())
        0 Input (3)
        1 Scale of 0 (3)
        returns 1
    """

    operations: tuple[Operation, ...]
    outputs: tuple[int, ...]
    timesteps: int
    notes: tuple[str, ...] = ()

    @property
    def input(self) -> Input:
        """What the plan is given."""
        first = self.operations[0]
        assert isinstance(first, Input)
        return first

    @property
    def neurons(self) -> dict[str, int]:
        """The numbers of the spikes, by name of the neuron layer."""
        return {op.name: i for i, op in enumerate(self.operations) if isinstance(op, Neuron) and op.gives == "spikes"}

    @property
    def outside(self) -> tuple[Outside, ...]:
        """What torch runs."""
        return tuple(op for op in self.operations if isinstance(op, Outside))

    def explain(self) -> str:
        """Tell each operation in a line: its number, kind, name, inputs and shape; T stands before values over time."""
        lines = [_line(number, op) for number, op in enumerate(self.operations)]
        return "\n".join([*lines, f"returns {', '.join(map(str, self.outputs))}", *self.notes])


def _line(number: int, op: Operation) -> str:
    kind = type(op).__name__ if not isinstance(op, Readout) else f"Readout ({op.kind})"
    name = f" {op.name}" if isinstance(op, Synapse | Neuron | Outside) else ""
    read = f" of {', '.join(map(str, op.inputs))}" if op.inputs else ""
    shape = ", ".join([*(["T"] if op.over_time else []), *map(str, op.shape)])
    return f"{number} {kind}{name}{read} ({shape})" + (f": {op.reason}" if isinstance(op, Outside) else "")


def constant(value: float | Tensor) -> Tensor:
    """Make a constant of a plan: float64, on the CPU, without a gradient, its own memory.

    Example:
        >>> constant(0.5)
        tensor(0.5000, dtype=torch.float64)
    """
    return torch.as_tensor(value).detach().to("cpu", torch.double, copy=True)
