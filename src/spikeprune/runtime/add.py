"""Currents of several layers added before the neurons that they feed, as in residual networks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.jit import compiled
from spikeprune.runtime.lanes import begin, over
from spikeprune.runtime.program import Program, spanned


def prepare(program: Program, x: Tensor, y: Tensor) -> Tensor:
    """Put at the end of a program the sum of two values.

    Args:
        program: to which it is added.
        x: float32 (T, N, C, H, W) or (T, N, F), of any strides but within a map, which must be contiguous; a row of features alike.
        y: of the same shape.

    Returns:
        what holds the sum after a run, contiguous.

    Raises:
        LayoutError: they differ in shape, or one has other axes, another dtype or maps that are not contiguous.

    Example:
        >>> program, x, y = Program(), torch.ones(1, 1, 2), torch.ones(1, 1, 2)
        >>> found = prepare(program, x, y)
        >>> y[:] = 3
        >>> program.run()
        >>> found
        tensor([[[4., 4.]]])
    """
    if x.shape != y.shape:
        raise LayoutError(f"values of {tuple(x.shape)} and {tuple(y.shape)} cannot be added.")
    steps = [step for one in (x, y) for step in _steps(one)]
    out = torch.empty(x.shape, dtype=torch.float32)
    outer, count = (x.shape[:3], x.shape[3:].numel()) if x.dim() == 5 else ((1, *x.shape[:2]), x.shape[2])
    program.add(compiled("add numbers", _write), spanned(x), spanned(y), out, *outer, count, *steps)
    return out


def _steps(x: Tensor) -> Sequence[int]:
    """Give how far apart the rows of numbers lie, on three axes."""
    last = x[0, 0, 0] if x.dim() == 5 else x[0, 0] if x.dim() == 3 else None
    if last is None or x.dtype != torch.float32 or not last.is_contiguous():
        raise LayoutError(
            f"values to add are float32 (T, N, C, H, W) or (T, N, F), each map contiguous, but {x.dtype} {tuple(x.shape)} with strides "
            f"{x.stride()} was given."
        )
    return x.stride()[:3] if x.dim() == 5 else (0, *x.stride()[:2])


def _write(module: Any) -> None:
    code, (x, y, out), parts = begin(module, "f32 f32 f32", 10)
    sizes, count, ours, theirs = parts[:3], parts[3], parts[4:7], parts[7:]
    with over(code, 0, sizes[0]) as i, over(code, 0, sizes[1]) as j, over(code, 0, sizes[2]) as k:
        one = x.at(i * ours[0] + j * ours[1] + k * ours[2])
        other = y.at(i * theirs[0] + j * theirs[1] + k * theirs[2])
        row = out.at(((i * sizes[1] + j) * sizes[2] + k) * count)
        with over(code, 0, count) as p:
            row.store(p, one.load(p) + other.load(p))
    code.ret_void()


def mapped(x: Tensor) -> bool:
    """Whether a value over time has maps, or features, that native code reads."""
    return x.dim() in (3, 5) and x[(0,) * (x.dim() // 2 + 1)].is_contiguous()
