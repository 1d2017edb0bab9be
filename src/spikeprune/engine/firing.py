"""A plan's neurons as those that native code has, one decay, threshold and reset a channel; and which values are spikes."""

import math
from collections.abc import Set

import torch
from torch import Tensor

from spikeprune.engine.plan import Concatenate, Crop, Neuron, Plan, Pool, Reshape
from spikeprune.runtime.neurons import Neurons


def native(op: Neuron) -> Neurons | str:
    """Give a plan's neurons as native ones, or say why there are none.

    A charge that must exceed the threshold reaches the next float32 above it. A soft reset that waits for the next timestep takes the
    threshold off after the decay; threshold / decay before it is the same.

    Example:
        >>> half, one, zero = (torch.tensor(x, dtype=torch.double) for x in (0.5, 1.0, 0.0))
        >>> level = {"threshold": one, "strict": True, "reset": "soft", "reset_to": zero, "delayed": True, "rest": zero, "start": zero}
        >>> found = native(Neuron(inputs=(0,), shape=(1,), over_time=True, name="n", decay=half, gain=one, **level))
        >>> found.reset, bool(found.threshold > 1)
        (tensor([2.]), True)
    """
    if not op.shape:
        return "it has no channels"
    if op.gives != "spikes":
        return "the network reads its charge"
    if op.delayed and bool((op.decay == 0).any()):
        return "its reset waits for a membrane that keeps nothing"
    threshold = op.threshold.float()
    if op.strict:
        threshold = torch.nextafter(threshold, torch.tensor(math.inf))
    resets = {"hard": op.reset_to, "soft": op.threshold / op.decay if op.delayed else op.threshold, "none": torch.zeros(())}
    rows = [_row(x, op.shape[0]) for x in (op.decay, threshold, resets[op.reset], op.start)]
    if not all(bool(torch.isfinite(row).all()) for row in rows):
        return "a constant of it is not finite in float32"
    return Neurons(rows[0], rows[1], rows[2], rows[3], hard=op.reset == "hard")


def charged(op: Neuron) -> tuple[Tensor, Tensor]:
    """Give gain and shift, (C,), that make the charge that a timestep adds of its input."""
    channels = op.shape[0]
    shift = op.rest * (1 - op.decay)
    return op.gain.expand(channels), shift.expand(channels)


def _row(constant: Tensor, channels: int) -> Tensor:
    return constant.float().expand(channels).contiguous()


def spiking(plan: Plan, x: Tensor) -> set[int]:
    """Give the numbers of the values that are nothing but spikes.

    Args:
        plan: the plan.
        x: an example of its input, which is spikes if all of it is 0 or 1, and differs from timestep to timestep.
    """
    found = {0} if plan.input.over_time and bool(((x == 0) | (x == 1)).all()) else set[int]()
    for number, op in enumerate(plan.operations[1:], 1):
        kept = isinstance(op, Reshape | Concatenate | Crop) or (isinstance(op, Pool) and op.kind == "max")
        if (isinstance(op, Neuron) and op.gives == "spikes") or (kept and found.issuperset(op.inputs)):
            found.add(number)
    return {number for number in found if len(plan.operations[number].shape) in (1, 3)}


def read_flat(plan: Plan, number: int) -> bool:
    """Whether whatever reads a value reads its maps in a row."""
    readers = [op for op in plan.operations if number in op.inputs]
    return all(isinstance(op, Reshape) and len(op.shape) == 1 for op in readers)


def as_bits(plan: Plan, spikes: Set[int], number: int) -> bool:
    """Whether native code makes a value, as bits."""
    op = plan.operations[number]
    if number not in spikes:
        return False
    if isinstance(op, Neuron):
        return not isinstance(native(op), str)
    if isinstance(op, Pool):
        plain = not op.ceil_mode and len({*op.kernel}) == len({*op.stride}) == len({*op.padding}) == 1
        return plain and as_bits(plan, spikes, op.inputs[0])
    if isinstance(op, Concatenate):
        return all(as_bits(plan, spikes, i) for i in op.inputs)
    flat = isinstance(op, Reshape) and len(op.shape) == 1
    return (flat or isinstance(op, Crop)) and as_bits(plan, spikes, op.inputs[0])
