"""Neurons at the end of a native layer: constants for each channel, one update in a register, and its plain twin.

A layer sums weights to whole numbers or to float32; then, for each neuron and timestep, every operation rounded to float32::

    x[t] = sum * scale + bias
    h[t] = decay v[t-1] + x[t],  v[-1] = start
    s[t] = h[t] >= threshold
    v[t] = reset where s[t], else h[t]      hard
    v[t] = h[t] - reset where s[t], else h[t]      soft

A neuron whose input is divided by tau has that in scale and bias; one that decays towards a rest has that in its bias.

Membranes begin at their start at each run, unless a tensor keeps them from run to run.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeprune.errors import LayoutError, NonFinite
from spikeprune.runtime.lanes import Memory, Value
from spikeprune.runtime.program import Room

LANES = 32  # neurons updated at a time
SCALE, BIAS, DECAY, THRESHOLD, RESET, START = range(6)


@dataclass(frozen=True, eq=False)
class Neurons:
    """What the neurons of a layer do, by channel.

    Attributes:
        decay: float32 (C,), what a timestep leaves of the membrane; 1 for no leak.
        threshold: float32 (C,), the charge at which it fires.
        reset: float32 (C,), the membrane after a spike if hard, what a spike takes off it otherwise.
        start: float32 (C,), the membrane before the first timestep.
        hard: which reset.

    Raises:
        LayoutError: the tensors are not of one length.
        NonFinite: a constant is NaN or infinite.

    Example:
        >>> Neurons.alike(3, decay=0.5, threshold=1.0, reset=1.0).decay
        tensor([0.5000, 0.5000, 0.5000])
    """

    decay: Tensor
    threshold: Tensor
    reset: Tensor
    start: Tensor
    hard: bool = False

    def __post_init__(self) -> None:
        count = self.decay.numel()
        for name in ("decay", "threshold", "reset", "start"):
            found = getattr(self, name)
            if found.shape != (count,) or found.dtype != torch.float32:
                raise LayoutError(f"{name} is {found.dtype} {tuple(found.shape)}, but must be float32 ({count},).")
            check_finite(name, found)

    @staticmethod
    def alike(
        channels: int, *, decay: float, threshold: float, reset: float, start: float = 0.0, hard: bool = False
    ) -> "Neurons":
        """Make neurons of the same constants in every channel."""
        rows = [torch.full((channels,), float(x), dtype=torch.float32) for x in (decay, threshold, reset, start)]
        return Neurons(rows[0], rows[1], rows[2], rows[3], hard)

    def part(self, first: int, last: int) -> "Neurons":
        """Give those of channels first, ..., last - 1.

        Example:
            >>> Neurons(*torch.eye(4).unbind()).part(1, 3).threshold
            tensor([1., 0.])
        """
        decay, threshold, reset, start = (x[first:last] for x in (self.decay, self.threshold, self.reset, self.start))
        return Neurons(decay, threshold, reset, start, self.hard)


def check_finite(name: str, x: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        NonFinite: there is one.

    Example:
        >>> check_finite("threshold", torch.tensor([1.0, math.nan]))
        Traceback (most recent call last):
        spikeprune.errors.NonFinite: threshold has 1 of 2 values that are NaN or infinite, the first at 1.
    """
    wrong = ~torch.isfinite(x.flatten())
    if bool(wrong.any()):
        first = int(wrong.int().argmax())
        raise NonFinite(f"{name} has {int(wrong.sum())} of {len(wrong)} values that are NaN or infinite, the first at {first}.")


def constants(neurons: Neurons | None, scale: Tensor, bias: Tensor, channels: int) -> Tensor:
    """Lay out what native code reads: float32 (6, channels), in the order of SCALE to START.

    Args:
        neurons: of C channels, or None for none.
        scale: float32 (C,).
        bias: float32 (C,).
        channels: C or more; what fills up never fires.

    Raises:
        LayoutError: there are neurons of another number of channels than C.

    Example:
        >>> constants(Neurons.alike(1, decay=0.5, threshold=1.0, reset=0.0), torch.ones(1), torch.zeros(1), 2)[THRESHOLD]
        tensor([1., inf])
    """
    count = len(scale)
    found = neurons or Neurons.alike(count, decay=0.0, threshold=0.0, reset=0.0)
    if len(found.decay) != count:
        raise LayoutError(f"the layer has {count} outputs, but neurons of {len(found.decay)} channels were given.")
    table = torch.zeros(6, channels, dtype=torch.float32)
    table[THRESHOLD] = math.inf
    rows = (scale, bias, found.decay, found.threshold, found.reset, found.start)
    table[:, :count] = torch.stack(rows).detach()
    return table


def check_neurons(hard: bool | None, *, wanted: bool) -> None:
    """Refuse a layer without neurons where spikes are wanted, and one with neurons where currents are.

    Args:
        hard: the layer's reset; None without neurons.
        wanted: whether there must be neurons.

    Raises:
        LayoutError: it is the other way.

    Example:
        >>> check_neurons(None, wanted=True)
        Traceback (most recent call last):
        spikeprune.errors.LayoutError: the layer has no neurons, and so no spikes; ask for its currents.
    """
    if wanted and hard is None:
        raise LayoutError("the layer has no neurons, and so no spikes; ask for its currents.")
    if not wanted and hard is not None:
        raise LayoutError("the layer has neurons, and gives spikes only; pack it without for its currents.")


def membrane_of(given: Tensor | None, start: Callable[[], Tensor], room: Room) -> Tensor | Room:
    """Give the memory of the membranes: the tensor that keeps them between runs if there is one, a room otherwise.

    Args:
        given: the tensor, or None.
        start: makes one at the start values, whose shape is the right one.
        room: for the membranes while a run lasts.

    Raises:
        LayoutError: the tensor is of another dtype or shape.

    Example:
        >>> membrane_of(torch.zeros(3), lambda: torch.zeros(2), Room("membrane", 2, torch.float32))
        Traceback (most recent call last):
        spikeprune.errors.LayoutError: membranes are torch.float32 (3,), but must be float32 (2,), as `rest` makes them.
    """
    if given is None:
        return room
    shape = start().shape
    if given.shape != shape or given.dtype != torch.float32:
        raise LayoutError(
            f"membranes are {given.dtype} {tuple(given.shape)}, but must be float32 {tuple(shape)}, as `rest` makes them."
        )
    return given


def fire(sums: Tensor, neurons: Neurons, scale: Tensor, bias: Tensor) -> Tensor:
    """Run the neurons in torch, operation by operation as native code does.

    Args:
        sums: (T, N, C, ...), of weights of the inputs that fired.
        neurons: of C channels.
        scale: float32 (C,).
        bias: float32 (C,).

    Returns:
        spikes, float32 of the shape of the sums.

    Example:
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0)
        >>> fire(torch.tensor([[[3]], [[0]], [[1]]]), one, torch.ones(1), torch.zeros(1)).flatten()
        tensor([1., 0., 1.])
    """
    shape = (-1, *[1] * (sums.dim() - 3))
    decay, threshold, reset, start = (x.view(shape) for x in (neurons.decay, neurons.threshold, neurons.reset, neurons.start))
    v, spikes = start.expand(sums.shape[1:]), []
    for one in sums:
        h = decay * v + (one.float() * scale.view(shape) + bias.view(shape))
        s = h >= threshold
        v = torch.where(s, reset.expand_as(h) if neurons.hard else h - reset, h)
        spikes.append(s.float())
    return torch.stack(spikes)


@dataclass(frozen=True, eq=False)
class Cells:
    """The constants of some neurons in registers of code being written.

    Attributes:
        rows: SCALE to START, float32 vectors, or numbers alike for all lanes.
        hard: which reset.
    """

    rows: tuple[Value, ...]
    hard: bool

    @staticmethod
    def of_channels(table: Memory, first: Value, channels: Value, hard: bool) -> "Cells":
        """Load those of LANES channels in a row from what `constants` gave."""
        return Cells(tuple(table.load(channels * row + first, LANES) for row in range(6)), hard)

    @staticmethod
    def of_channel(table: Memory, channel: Value, channels: Value, hard: bool, lanes: int = LANES) -> "Cells":
        """Load those of one channel into every lane."""
        return Cells(tuple(table.load(channels * row + channel).everywhere(lanes) for row in range(6)), hard)

    def current(self, sums: Value) -> Value:
        """Write x[t] of sums, int32 or float32."""
        real = sums if sums.raw.type == self.rows[SCALE].raw.type else sums.wide("f32")
        return real * self.rows[SCALE] + self.rows[BIAS]

    def update(self, v: Value, sums: Value) -> tuple[Value, Value]:
        """Write v[t] and, as i1, s[t], of v[t-1] and sums."""
        h = v * self.rows[DECAY] + self.current(sums)
        fires = h.compare(">=", self.rows[THRESHOLD])
        return fires.choose(self.rows[RESET] if self.hard else h - self.rows[RESET], h), fires
