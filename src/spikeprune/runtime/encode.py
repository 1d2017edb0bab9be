"""Currents into spikes: the neurons of a layer that is no native one, such as the first, whose input is no spikes."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.integers import affine
from spikeprune.runtime.jit import compiled
from spikeprune.runtime.lanes import begin, over, variable
from spikeprune.runtime.neurons import LANES, START, Cells, Neurons, constants
from spikeprune.runtime.spikes import SpikeMaps, lanes_of, needed


def encode(x: Tensor, neurons: Neurons, scale: Tensor | None = None, bias: Tensor | None = None) -> SpikeMaps:
    """Run neurons over all timesteps of their currents.

    Args:
        x: float32 (T, N, C, H, W), or (T, N, F) as features of one place; what is the same at all timesteps may be expanded.
        neurons: of C channels.
        scale: float32 (C,), by which currents are multiplied; None for 1.
        bias: float32 (C,), which is added then; None for 0.

    Raises:
        LayoutError: x has other axes or another dtype, or the neurons another number of channels.
        QuantizeError: scale or bias is of another dtype or shape.
        NonFinite: scale or bias has NaN or infinity.

    Example:
        >>> from spikeprune.runtime.spikes import unpack_maps
        >>> image = torch.tensor([0.5, 1.0]).view(1, 1, 1, 1, 2)
        >>> one = Neurons.alike(1, decay=1.0, threshold=1.0, reset=1.0)
        >>> unpack_maps(encode(image.expand(2, -1, -1, -1, -1), one)).flatten(1)
        tensor([[0., 1.],
                [1., 1.]])
    """
    if x.dim() not in (3, 5) or x.dtype != torch.float32 or x.device.type != "cpu" or not x.numel():
        raise LayoutError(
            f"currents are float32 (T, N, C, H, W) or (T, N, F) on the CPU, but {x.dtype} {tuple(x.shape)} was given."
        )
    x = x.detach()
    x = x if x[0].is_contiguous() else x.contiguous()
    t, n, c, h, w = (*x.shape, 1, 1)[:5]
    table = constants(neurons, *affine(x[0, 0], scale, bias), c)
    words = needed(n * h * w)
    out, room = torch.empty(c, t, words, dtype=torch.int64), torch.zeros(t * words * WORD)
    run = compiled(("encode", neurons.hard), partial(_write, neurons.hard))
    tensors = (x, table, lanes_of(n * h * w), room, out)
    run(*(one.data_ptr() for one in tensors), t, n, c, h * w, x.stride(0), 2 * words)
    return SpikeMaps(out, n, h, w)


def _write(hard: bool, module: Any) -> None:
    code, arrays, (timesteps, samples, channels, places, step, words) = begin(module, "f32 f32 i32 f32 i32", 6)
    x, table, valid, room, out = arrays
    with over(code, 0, channels) as c:
        with over(code, 0, timesteps) as t, over(code, 0, samples) as n:
            source = x.at(t * step + (n * channels + c) * places)
            target = room.at(t * words * LANES + n * places)
            with over(code, 0, places) as p:
                target.store(p, source.load(p))
        cells = Cells.of_channel(table, c, channels, hard)
        start = table.load(channels * START + c).everywhere(LANES)
        with over(code, 0, words) as w:
            v = variable(start)
            with over(code, 0, timesteps) as t:
                after, fires = cells.update(v.value, room.load((t * words + w) * LANES, LANES))
                v.put(after)
                out.store((c * timesteps + t) * words + w, fires.bits("i32") & valid.load(w))
    code.ret_void()
