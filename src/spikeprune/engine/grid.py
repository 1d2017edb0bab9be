"""Weights as whole numbers: found where they lie on a grid, made where bits are asked for."""

from collections.abc import Set
from dataclasses import replace

import torch
from torch import Tensor

from spikeprune.engine.plan import Crop, Plan, Pool, Reshape, Synapse
from spikeprune.errors import QuantizeError

CLOSE = 2.0**-18
"""How far from a multiple of its step, in steps, a weight may lie: float32 rounds to 2^-24 of it, and is 127 steps at most."""


FEW = 64  # of a row's weights tell most steps apart
MOST = 127  # steps


def on_grid(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """Find the whole numbers, of 8 bits at most, that weights are multiples of a step of; None if some are of none.

    Args:
        weight: (C_out, ...), float64.

    Returns:
        int8 of the same shape, and the step of each output, (C_out,).

    Example:
        >>> on_grid(torch.tensor([[0.5, -0.25, 0.0], [0.3, 0.9, 0.6]], dtype=torch.double))
        (tensor([[ 2, -1,  0],
                [ 1,  3,  2]], dtype=torch.int8), tensor([0.2500, 0.3000], dtype=torch.float64))
        >>> on_grid(torch.tensor([[0.5, 0.1234567]], dtype=torch.double))
    """
    flat = weight.flatten(1)
    most = flat.abs().amax(1)
    large = flat.abs().topk(min(FEW, flat.shape[1])).values  # zeros would fit every step
    open_counts = torch.stack([_whole(large * (count / most)[:, None]) for count in range(1, MOST + 1)])
    open_counts[0, most == 0] = True
    while bool(open_counts.any(0).all()):
        count = open_counts.int().argmax(0) + 1  # the first that is still open
        step = (most / count).masked_fill(most == 0, 1.0)
        scaled = flat / step[:, None]
        fits = _whole(scaled)
        if bool(fits.all()):
            return scaled.round().to(torch.int8).view_as(weight), step
        open_counts[count[~fits] - 1, (~fits).nonzero().flatten()] = False
    return None


def rounded(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Round weights to so many bits, a step for each output, so that its largest weight fits.

    Args:
        weight: (C_out, ...), float64.
        bits: 2 to 8, one of which is the sign.

    Returns:
        int8 of the same shape, and the step of each output, (C_out,).

    Example:
        >>> rounded(torch.tensor([[0.7, -0.2, 0.0]], dtype=torch.double), bits=4)
        (tensor([[ 7, -2,  0]], dtype=torch.int8), tensor([0.1000], dtype=torch.float64))
    """
    flat = weight.flatten(1)
    most = flat.abs().amax(1)
    step = (most / (2 ** (bits - 1) - 1)).masked_fill(most == 0, 1.0)
    return (flat / step[:, None]).round().to(torch.int8).view_as(weight), step


def rounded_plan(plan: Plan, bits: int, spiking: Set[int]) -> Plan:
    """Give a plan whose weights that spikes are multiplied by are rounded; those that get real numbers stay.

    Args:
        plan: the plan.
        bits: 2 to 8.
        spiking: numbers of the values that are spikes.

    Raises:
        QuantizeError: bits are out of range.
    """
    if not isinstance(bits, int) or isinstance(bits, bool) or not 2 <= bits <= 8:
        raise QuantizeError(
            f"bits is {bits!r}, but native layers have whole numbers of 2 to 8 bits; None leaves weights as they are."
        )
    operations = list(plan.operations)
    for number, op in enumerate(plan.operations):
        if isinstance(op, Synapse) and _reached(plan, op, spiking):
            numbers, step = rounded(op.weight, bits)
            shape = (-1, *[1] * (op.weight.dim() - 1))
            operations[number] = replace(op, weight=numbers.double() * step.view(shape))
    return replace(plan, operations=tuple(operations))


def _reached(plan: Plan, op: Synapse, spiking: Set[int]) -> bool:
    source = op.inputs[0]
    while source not in spiking and isinstance(before := plan.operations[source], Reshape | Pool | Crop):
        source = before.inputs[0]
    return source in spiking


def _whole(scaled: Tensor) -> Tensor:
    return ((scaled - scaled.round()).abs() <= CLOSE).all(1)
