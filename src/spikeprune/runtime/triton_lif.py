"""Neurons over all timesteps on a GPU as one Triton kernel; it reads each input once, and membranes never leave the registers.

Every operation is rounded to float32, in the order of the plan's reference, whatever the inputs are; so what fires is what fires there.
Triton is optional: who asks looks at `refuses` first and has another way.
"""

import os
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Literal

import torch
from torch import Tensor

from spikeprune.errors import LayoutError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGE, SMALL = 1024, 128  # neurons of a program; small ones for few neurons, so that every processor has one
MANY = 1 << 18
MOST = (1 << 31) - LARGE  # entries of a timestep: places are 32 bits
UNROLLED = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class TritonNeurons:
    """What the neurons of a layer do; the equations are those of `engine.plan.Neuron`.

    Attributes:
        table: float32 (6, C): decay, gain, rest, threshold, reset_to and start of each channel; C is 1 of what has no channels.
        reset: "hard", "soft" or "none".
        strict: whether the charge must exceed the threshold.
        delayed: whether a soft reset waits for the next timestep.
        charges: whether the kernel gives charges in place of spikes.
        alike: whether all channels have the same constants; found, not given.

    Raises:
        LayoutError: the table is of another shape or dtype.
    """

    table: Tensor
    reset: Literal["hard", "soft", "none"]
    strict: bool = False
    delayed: bool = False
    charges: bool = False
    alike: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        if self.table.dim() != 2 or len(self.table) != 6 or self.table.dtype != torch.float32:
            raise LayoutError(f"constants are {self.table.dtype} {tuple(self.table.shape)}, but must be float32 (6, C).")
        object.__setattr__(self, "alike", bool((self.table == self.table[:, :1]).all()))  # asked once: it waits for the device


def refuses(device: torch.device) -> str:
    """Say why Triton's kernel does not run on a device, or "".

    Example:
        >>> refuses(torch.device("meta"))
        'Triton runs on CUDA devices'
    """
    if device.type != "cuda" and not (device.type == "cpu" and _interpreted()):
        return "Triton runs on CUDA devices"
    return _refuses(device)


@cache
def _refuses(device: torch.device) -> str:
    from spikeprune.runtime import triton_code

    if triton_code.fire is None:
        return "Triton is not installed"
    try:  # it asks for a C compiler, drivers and room on disk
        fire(torch.zeros(1, 1, device=device), TritonNeurons(table=torch.zeros(6, 1, device=device), reset="none"))
    except Exception as error:
        return f"Triton cannot compile here ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return ""


def takes(x: Tensor) -> bool:
    """Whether the kernel has an input's dtype and size.

    Example:
        >>> takes(torch.zeros(2, 3)), takes(torch.zeros(2, 3, dtype=torch.double))
        (True, False)
    """
    return x.dtype in DTYPES and 0 < x[0].numel() <= MOST


def fire(x: Tensor, neurons: TritonNeurons) -> Tensor:
    """Run neurons over all timesteps from their start.

    Args:
        x: (T, N, C, space ...) or (T, N), of a dtype that `takes` allows; timesteps may lie anywhere, also on each other.
        neurons: of C channels, on the same device.

    Returns:
        spikes, or charges, of x's shape and dtype; each timestep lies in memory as x's first does, channels innermost or outermost.

    Raises:
        LayoutError: x has another number of channels, no timestep, or a dtype or size that the kernel lacks.
    """
    from spikeprune.runtime.triton_code import fire as kernel

    channels, found = neurons.table.shape[1], x.shape[2] if x.dim() > 2 else 1
    if x.dim() < 2 or not len(x) or not takes(x) or found != channels:
        raise LayoutError(
            f"neurons of {channels} channels were given {x.dtype} {tuple(x.shape)}; the kernel takes (T, N, {channels}, ...), not "
            f"empty, of {', '.join(map(str, DTYPES))}, with up to {MOST} entries a timestep."
        )
    x = _dense(x)
    step = x[0]
    out = torch.empty_strided(x.shape, (step.numel(), *step.stride()), dtype=x.dtype, device=x.device)
    block = LARGE if step.numel() >= MANY else SMALL
    unrolled = max(count for count in range(1, UNROLLED + 1) if len(x) % count == 0)
    sizes = (step.numel(), x.stride(0), _inner(step) or 1, channels)
    ways = (neurons.reset == "hard", neurons.reset == "soft", neurons.delayed, neurons.strict, neurons.charges)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where the process is
        kernel[(-(-step.numel() // block),)](
            x, out, neurons.table, *sizes, len(x), unrolled, neurons.alike, *ways, block, enable_fp_fusion=False
        )
    return out


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _inner(step: Tensor) -> int | None:
    """How far apart the channels of a timestep (N, C, space ...) that has no gaps lie; None if it has any, or another order."""
    if step.is_contiguous():
        return prod(step.shape[2:])
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(step.dim())
    return 1 if last is not None and step.is_contiguous(memory_format=last) else None


def _dense(x: Tensor) -> Tensor:
    if _inner(x[0]) is not None:
        return x
    return x[0].contiguous().expand(x.shape) if x.stride(0) == 0 else x.contiguous()
