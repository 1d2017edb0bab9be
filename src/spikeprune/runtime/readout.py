"""What a network says at the end: its spikes or currents, summed over time with a weight for each timestep.

All of them 1 count spikes, all of them 1 / T give rates, and the last one alone 1 takes the last timestep.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.jit import compiled
from spikeprune.runtime.lanes import Memory, Value, begin, constant, ones, over
from spikeprune.runtime.program import Program, spanned
from spikeprune.runtime.spikes import SpikeRows


def prepare(program: Program, x: SpikeRows, weights: Sequence[float]) -> Tensor:
    """Put at the end of a program the weighted sum over time of spikes.

    Args:
        program: to which it is added.
        x: spikes (N, T, F).
        weights: T numbers.

    Returns:
        what holds the sums after a run, float32 (N, F).

    Raises:
        LayoutError: there are more or fewer weights than timesteps, or one of them is no finite number.

    Example:
        >>> from spikeprune.runtime.spikes import pack_rows
        >>> program, x = Program(), torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]])
        >>> found = prepare(program, pack_rows(x), [1.0, 0.5])
        >>> program.run()
        >>> found
        tensor([[1.0000, 1.5000, 0.0000]])
    """
    n, t, width = x.words.shape
    out = torch.empty(n, x.features, dtype=torch.float32)
    program.add(compiled("readout of spikes", _spikes), x.words, _checked(weights, t), out, n, t, width, x.features)
    return out


def prepare_currents(program: Program, x: Tensor, weights: Sequence[float]) -> Tensor:
    """Put at the end of a program the weighted sum over time of currents.

    Args:
        program: to which it is added.
        x: float32 (T, N, F), of any strides but within a row of features.
        weights: T numbers.

    Returns:
        what holds the sums after a run, float32 (N, F).

    Raises:
        LayoutError: x has other axes, another dtype or features that do not follow each other, or the weights are wrong as of `prepare`.

    Example:
        >>> program, x = Program(), torch.tensor([[[2.0, 1.0]], [[4.0, 3.0]]])
        >>> found = prepare_currents(program, x, [0.5, 0.5])
        >>> program.run()
        >>> found
        tensor([[3., 2.]])
    """
    if x.dim() != 3 or x.dtype != torch.float32 or (x.stride(2) != 1 and x.shape[2] > 1):
        raise LayoutError(
            f"currents are float32 (T, N, F), features in a row, but {x.dtype} {tuple(x.shape)} with strides {x.stride()} was given."
        )
    timesteps, n, features = x.shape
    out, memory = torch.empty(n, features, dtype=torch.float32), spanned(x)
    sizes = (n, timesteps, features, *x.stride()[:2])
    program.add(compiled("readout of currents", _currents), memory, _checked(weights, timesteps), out, *sizes)
    return out


def _checked(weights: Sequence[float], timesteps: int) -> Tensor:
    if len(weights) != timesteps or not all(map(math.isfinite, weights)):
        raise LayoutError(f"a readout of {timesteps} timesteps takes as many finite weights, but {list(weights)} were given.")
    return torch.tensor(weights, dtype=torch.float32)


def _spikes(module: Any) -> None:
    code, (words, weights, out), (samples, timesteps, width, features) = begin(module, "i64 f32 f32", 4)
    with over(code, 0, samples) as n:
        row = _zeros(out, n, features)
        with over(code, 0, timesteps) as t, over(code, 0, width) as w:
            weight = weights.load(t)
            with ones(words.load((n * timesteps + t) * width + w)) as bit:
                row.add(w * WORD + bit, weight)
    code.ret_void()


def _currents(module: Any) -> None:
    code, (x, weights, out), (samples, timesteps, features, step, pitch) = begin(module, "f32 f32 f32", 5)
    with over(code, 0, samples) as n:
        row = _zeros(out, n, features)
        with over(code, 0, timesteps) as t:
            weight, source = weights.load(t), x.at(t * step + n * pitch)
            with over(code, 0, features) as c:
                row.add(c, source.load(c) * weight)
    code.ret_void()


def _zeros(out: Memory, n: Value, features: Value) -> Memory:
    """Write zeros into row n of the output, and return it."""
    row = out.at(n * features)
    with over(out.code, 0, features) as c:
        row.store(c, constant(out.code, 0, "f32"))
    return row
