"""Currents into spikes: the neurons of a layer that is no native one, such as the first, whose input is no spikes."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.integers import affine
from spikeprune.runtime.jit import compiled
from spikeprune.runtime.lanes import begin, constant, over, variable
from spikeprune.runtime.neurons import LANES, START, Cells, Neurons, constants, membrane_of
from spikeprune.runtime.once import once
from spikeprune.runtime.program import Program, Room, spanned
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
    _check(x)
    return once(prepare, x if _mapped(x) else x.contiguous(), neurons, scale, bias)


def prepare(
    program: Program, x: Tensor, neurons: Neurons, scale: Tensor | None = None, bias: Tensor | None = None,
    membrane: Tensor | None = None,
) -> SpikeMaps:  # fmt: skip
    """Put at the end of a program what `encode` does, of what x holds whenever it runs.

    Args:
        program: to which it is added.
        x: as of `encode`, of any strides but within a map, which must be contiguous.
        neurons: of C channels.
        scale: as of `encode`.
        bias: alike.
        membrane: what `rest` gives, from which a run begins, and which holds the membranes after it; None to begin each run at the
            start.

    Returns:
        what holds the spikes after a run.

    Raises:
        LayoutError: as of `encode`, or a map is not contiguous, or the membrane of another shape.
        QuantizeError: scale or bias is of another dtype or shape.
        NonFinite: scale or bias has NaN or infinity.

    Example:
        >>> program, x = Program(), torch.ones(1, 1, 1)
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0)
        >>> found = prepare(program, x, one, membrane=rest(x, one))
        >>> program.run(), found.words.item(), program.run(), found.words.item()  # it fires every other time
        (None, 0, None, 1)
    """
    _check(x)
    if not _mapped(x):
        raise LayoutError(f"each map of currents must be contiguous, but {tuple(x.shape)} with strides {x.stride()} was given.")
    t, n, c, h, w = (*x.shape, 1, 1)[:5]
    table = constants(neurons, *affine(x[0, 0], scale, bias), c)
    words = needed(n * h * w)
    out = torch.empty(c, t, words, dtype=torch.int64)
    v = membrane_of(membrane, partial(rest, x, neurons), Room("encode membrane", 0, torch.float32))
    moments, kept = 1 if x.stride(0) == 0 else t, membrane is not None
    room = Room("encode currents", moments * words * WORD, torch.float32)
    run = compiled(("encode", neurons.hard, kept), partial(_write, neurons.hard, kept))
    program.add(run, spanned(x), table, lanes_of(n * h * w), room, v, out, t, moments, n, c, h * w, *x.stride()[:3], 2 * words)
    return SpikeMaps(out, n, h, w)


def rest(x: Tensor, neurons: Neurons) -> Tensor:
    """Give membranes before the first timestep, float32 (C, lanes filled up to whole words).

    Args:
        x: of the shape that `encode` is given.
        neurons: of C channels.

    Example:
        >>> rest(torch.ones(1, 2, 1), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0, start=0.5))[:, :2]
        tensor([[0.5000, 0.5000]])
    """
    return neurons.start.detach()[:, None].repeat(1, needed(x[0, :, 0].numel()) * WORD)


def _check(x: Tensor) -> None:
    if x.dim() not in (3, 5) or x.dtype != torch.float32 or x.device.type != "cpu" or not x.numel():
        raise LayoutError(
            f"currents are float32 (T, N, C, H, W) or (T, N, F) on the CPU, but {x.dtype} {tuple(x.shape)} was given."
        )


def _mapped(x: Tensor) -> bool:
    """Whether the places of each map follow each other."""
    return x.dim() == 3 or x[0, 0, 0].is_contiguous()


def _write(hard: bool, kept: bool, module: Any) -> None:
    code, arrays, parts = begin(module, "f32 f32 i32 f32 f32 i32", 9)
    x, table, valid, room, membrane, out = arrays
    timesteps, moments, samples, channels, places, *steps, words = parts
    nothing = constant(code, 0, "f32", WORD)
    with over(code, 0, channels) as c:
        with over(code, 0, moments) as t:
            room.store((t * words + words - 2) * LANES, nothing)  # of the last word, not every lane may count
            with over(code, 0, samples) as n:
                source = x.at(t * steps[0] + n * steps[1] + c * steps[2])
                target = room.at(t * words * LANES + n * places)
                with over(code, 0, places) as p:
                    target.store(p, source.load(p))
        cells = Cells.of_channel(table, c, channels, hard)
        start = table.load(channels * START + c).everywhere(LANES)
        with over(code, 0, words) as w:
            place = (c * words + w) * LANES
            v = variable(membrane.load(place, LANES) if kept else start)
            with over(code, 0, timesteps) as t:
                after, fires = cells.update(v.value, room.load((t.least(moments - 1) * words + w) * LANES, LANES))
                v.put(after)
                out.store((c * timesteps + t) * words + w, fires.bits("i32") & valid.load(w))
            if kept:
                membrane.store(place, v.value)
    code.ret_void()
