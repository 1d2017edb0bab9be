"""Weights as whole numbers: found where they lie on a grid, made where bits are asked for."""

from collections.abc import Set
from dataclasses import replace

import torch
from torch import Tensor

from spikeprune.engine.plan import Crop, Plan, Pool, Reshape, Synapse
from spikeprune.errors import QuantizeError
from spikeprune.runtime.integers import some_rows

ROUNDED = 2.0**-23
"""How far from a multiple of its step a weight may lie, over the largest of its row: float32 rounds both, each to 2^-24 of it."""

FEW = (8, 64)  # of a row's largest weights tell most steps apart; so many are asked first, and so many of the steps that are left
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
    found = []
    for rows in some_rows(weight.flatten(1)):  # the first that lies on none ends it
        found.append(_some_on_grid(rows))
        if found[-1] is None:
            return None
    numbers, steps = zip(*found, strict=True)
    return torch.cat(numbers).view_as(weight), torch.cat(steps)


def _some_on_grid(rows: Tensor) -> tuple[Tensor, Tensor] | None:
    """Do it for a few rows, (C_out, terms)."""
    sizes = rows.abs()
    most = sizes.amax(1)
    open_counts = _open(sizes, most)
    while bool(open_counts.any(0).all()):
        count = open_counts.int().argmax(0) + 1  # the first that is still open
        step = (most / count).masked_fill(most == 0, 1.0)
        scaled = rows / step[:, None]
        fits = _whole(scaled, count)
        if bool(fits.all()):
            return scaled.round().to(torch.int8), step
        open_counts[count[~fits] - 1, (~fits).nonzero().flatten()] = False
    return None


def _open(sizes: Tensor, most: Tensor) -> Tensor:
    """Tell how many steps the largest weight of a row may be, by the large weights of each: bool (MOST, C_out)."""
    large = sizes.topk(min(FEW[1], sizes.shape[1])).values  # zeros would fit every step
    counts = torch.arange(1, MOST + 1, device=most.device)[:, None]
    scales = counts / most
    found = _whole(large[:, : FEW[0]] * scales[..., None], counts)
    count, row = found.nonzero(as_tuple=True)
    found[count, row] = _whole(large[row] * scales[count, row, None], count + 1)
    found[0, most == 0] = True
    return found


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Round weights to so many bits: each to a multiple of its output's step, of which the largest weight has as many as fit.

    Args:
        weight: (C_out, ...), float64.
        bits: 2 to 8, one of which is the sign.

    Example:
        >>> rounded(torch.tensor([[0.7, -0.24, 0.0]], dtype=torch.double), bits=4)
        tensor([[ 0.7000, -0.2000,  0.0000]], dtype=torch.float64)
    """
    found = torch.empty(weight.shape, dtype=weight.dtype)
    for rows, out in zip(some_rows(weight.flatten(1)), some_rows(found.flatten(1)), strict=True):
        step = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        step.masked_fill_(step == 0, 1.0)
        torch.mul((rows / step).round_().add_(0.0), step, out=out)  # 0 added: no zero has a sign
    return found


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
            operations[number] = replace(op, weight=rounded(op.weight, bits))
    return replace(plan, operations=tuple(operations))


def _reached(plan: Plan, op: Synapse, spiking: Set[int]) -> bool:
    source = op.inputs[0]
    while source not in spiking and isinstance(before := plan.operations[source], Reshape | Pool | Crop):
        source = before.inputs[0]
    return source in spiking


def _whole(scaled: Tensor, count: Tensor) -> Tensor:
    """Tell which rows, in steps of which their largest weight has `count`, are whole numbers as far as float32 can tell."""
    return ((scaled - scaled.round()).abs() <= ROUNDED * count[..., None]).all(-1)
