"""Numbers that are taken for spikes and are none, counted."""

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import bits
from spikeprune.runtime.program import Program


def prepare_count_odd(program: Program, x: Tensor) -> Tensor:
    """Put at the end of a program what counts the numbers of x that are neither 0 nor 1; return what holds the count, int64 (1,).

    Args:
        program: to which it is added.
        x: float32 on the CPU, contiguous.

    Raises:
        LayoutError: x is of another dtype or layout.

    Example:
        >>> program, x = Program(), torch.zeros(1, 1, 3)
        >>> odd = prepare_count_odd(program, x)
        >>> x[0, 0, 1:] = torch.tensor([1.0, 0.5])
        >>> program.run()
        >>> odd
        tensor([1])
    """
    if x.dtype != torch.float32:
        raise LayoutError(f"numbers that are counted are float32, but {x.dtype} was given.")
    odd = torch.zeros(1, dtype=torch.int64)
    program.add(bits.odd(), x, odd, 1, x.numel(), 0)
    return odd
