"""A linear layer fed by spikes, event by event: each spike adds its row of weights, and the neurons follow in the same pass.

The cost goes with the spikes, and the weights' sparsity changes nothing but where an input has no weight left: its spikes are
passed over. So it is the way for few samples.

Layout: weights (K, outputs), of which the outputs are filled up with zeros to whole tiles of vectors. int8 weights are summed in 16
bits, for as many events as these hold whichever they are, then moved to 32.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.integers import SHORT, affine, check_weight
from spikeprune.runtime.jit import compiled
from spikeprune.runtime.lanes import Memory, Value, begin, constant, ones, over, variable
from spikeprune.runtime.neurons import LANES, START, Cells, Neurons, constants
from spikeprune.runtime.spikes import SpikeRows, needed, pack_rows

VECTORS = 8  # of LANES outputs, that a tile has at most: their sums stay in registers


@dataclass(frozen=True, eq=False)
class RowLayer:
    """A linear layer with its weights as rows, made by `pack`.

    Attributes:
        rows: int8 or float32 (K, outputs filled up).
        living: int64, a bit for each input that has a weight other than 0.
        table: float32 (6, outputs filled up), what `neurons.constants` gives.
        hard: which reset; None for a layer without neurons.
        outputs: how many there are.
        vectors: of LANES outputs, in a tile.
        every: how many events 16 bits hold, whichever they are.
    """

    rows: Tensor
    living: Tensor
    table: Tensor
    hard: bool | None
    outputs: int
    vectors: int
    every: int


def pack(weight: Tensor, neurons: Neurons | None, scale: Tensor | None = None, bias: Tensor | None = None) -> RowLayer:
    """Lay a layer out.

    Args:
        weight: (C_out, C_in), int8 or float32.
        neurons: of C_out channels; None for a layer that gives currents.
        scale: float32 (C_out,), by which sums are multiplied; None for 1.
        bias: float32 (C_out,), which is added then; None for 0.

    Raises:
        QuantizeError: weight, scale or bias is of another dtype or shape.
        LayoutError: the neurons are of another number of channels.
        NonFinite: one of the tensors has NaN or infinity.

    Example:
        >>> pack(torch.tensor([[100, 0, -3]], dtype=torch.int8), None).rows[:, 0]
        tensor([100,   0,  -3], dtype=torch.int8)
    """
    check_weight(weight, (2,))
    weight = weight.detach()
    count = -(-len(weight) // LANES)
    tiles = -(-count // VECTORS)
    vectors = -(-count // tiles)
    channels = tiles * vectors * LANES
    living = pack_rows((weight != 0).any(0).float().view(1, 1, -1)).words.flatten()
    rows = F.pad(weight.T, (0, channels - len(weight))).contiguous()
    every = held(weight) if weight.dtype == torch.int8 else weight.shape[1]
    table = constants(neurons, *affine(weight, scale, bias), channels)
    return RowLayer(rows, living, table, None if neurons is None else neurons.hard, len(weight), vectors, every)


def held(weight: Tensor) -> int:
    """Say how many different inputs can fire before a sum leaves 16 bits, whichever they are; at most all.

    Args:
        weight: whole numbers (C_out, C_in).

    Example:
        >>> held(torch.full((1, 300), -128)), held(torch.full((1, 300), 127)), held(torch.full((1, 300), 1))
        (256, 258, 300)
    """
    up = weight.long().clamp(min=0).sort(dim=1, descending=True).values.cumsum(1)
    down = weight.long().clamp(max=0).sort(dim=1).values.cumsum(1)
    fits = (up <= SHORT) & (down >= -SHORT - 1)
    return int(fits.sum(1).min())


def spikes(x: SpikeRows, layer: RowLayer) -> SpikeRows:
    """Run a layer and its neurons over all timesteps of all samples.

    Args:
        x: what fired before, (N, T, K).
        layer: as packed, with neurons.

    Returns:
        spikes (N, T, C_out).

    Raises:
        LayoutError: the input has another number of features than the layer, or the layer no neurons.

    Example:
        >>> layer = pack(torch.tensor([[1.0, 2.0], [0.5, 0.0]]), Neurons.alike(2, decay=1.0, threshold=1.0, reset=1.0))
        >>> spikes(pack_rows(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])), layer).words
        tensor([[[1],
                 [3]]])
    """
    if layer.hard is None:
        raise LayoutError("the layer has no neurons, and so no spikes; ask for its currents.")
    n, t, _ = x.words.shape
    width = needed(layer.table.shape[1])
    out = torch.zeros(n, t, width, dtype=torch.int64)
    _run(x, layer, out, 2 * width)
    return SpikeRows(out, layer.outputs)


def currents(x: SpikeRows, layer: RowLayer) -> Tensor:
    """Run a layer without neurons: sums, scaled and with bias, float32 (T, N, C_out).

    Raises:
        LayoutError: the input has another number of features than the layer, or the layer has neurons.

    Example:
        >>> currents(pack_rows(torch.tensor([[[1.0, 0.0, 1.0]]])), pack(torch.tensor([[1.0, 2.0, 4.0]]), None))
        tensor([[[5.]]])
    """
    if layer.hard is not None:
        raise LayoutError("the layer has neurons, and gives spikes only; pack it without for its currents.")
    out = torch.empty(*x.words.shape[:2], layer.table.shape[1])
    _run(x, layer, out, layer.table.shape[1])
    return out[..., : layer.outputs].transpose(0, 1).contiguous()


def _run(x: SpikeRows, layer: RowLayer, out: Tensor, pitch: int) -> None:
    if x.features != len(layer.rows):
        raise LayoutError(f"the layer takes {len(layer.rows)} features, but spikes of {x.features} were given.")
    n, t, width = x.words.shape
    channels, integer = layer.table.shape[1], layer.rows.dtype == torch.int8
    run = compiled(("event rows", layer.vectors, integer, layer.hard), partial(_write, layer.vectors, integer, layer.hard))
    events, membrane = torch.empty(len(layer.rows), dtype=torch.int64), torch.empty(channels)
    tensors = (x.words, layer.living, layer.rows, layer.table, events, membrane, out)
    tiles = channels // (layer.vectors * LANES)
    run(*(x.data_ptr() for x in tensors), n, t, width, len(layer.living), channels, tiles, layer.every, pitch)


def _write(vectors: int, integer: bool, hard: bool | None, module: Any) -> None:
    """Write the layer; without a reset it gives currents."""
    kinds = f"i64 i64 {'i8' if integer else 'f32'} f32 i64 f32 {'f32' if hard is None else 'i32'}"
    code, arrays, (samples, timesteps, width, living_width, channels, tiles, every, pitch) = begin(module, kinds, 8)
    words, living, rows, table, events, membrane, out = arrays
    with over(code, 0, samples) as n:
        with over(code, 0, channels // LANES) as i:
            membrane.store(i * LANES, table.load(channels * START + i * LANES, LANES))
        with over(code, 0, timesteps) as t:
            row = n * timesteps + t
            count = _list(words.at(row * width), living, living_width, events, channels)
            with over(code, 0, tiles) as tile:
                sums = _sum(rows.at(tile * (vectors * LANES)), events, count, every, vectors, integer)
                for j, one in enumerate(sums):
                    first = tile * (vectors * LANES) + j * LANES
                    cells = Cells.of_channels(table, first, channels, bool(hard))
                    if hard is None:
                        out.store(row * pitch + first, cells.current(one))
                    else:
                        v, fires = cells.update(membrane.load(first, LANES), one)
                        membrane.store(first, v)
                        out.store(row * pitch + first // LANES, fires.bits("i32"))
    code.ret_void()


def _list(words: Memory, living: Memory, width: Value, events: Memory, pitch: Value) -> Value:
    """Write code that lists where the rows of the inputs that fired begin; return how many."""
    count = variable(constant(words.code, 0))
    with over(words.code, 0, width) as w, ones(words.load(w) & living.load(w)) as bit:
        now = count.value
        events.store(now, (w * WORD + bit) * pitch)
        count.put(now + 1)
    return count.value


def _sum(rows: Memory, events: Memory, count: Value, every: Value, vectors: int, integer: bool) -> list[Value]:
    """Write the sums of the listed rows, a tile of them; whole numbers are moved to 32 bits before 16 could overflow."""
    code, name = rows.code, "i32" if integer else "f32"
    sums = [variable(constant(code, 0, name, LANES)) for _ in range(vectors)]
    if not integer:
        _add(rows, events, constant(code, 0), count, sums)
        return [one.value for one in sums]
    with over(code, 0, (count + every - 1) // every) as part:
        short = [variable(constant(code, 0, "i16", LANES)) for _ in range(vectors)]
        _add(rows, events, part * every, (part * every + every).least(count), short)
        for one, few in zip(sums, short, strict=True):
            one.put(one.value + few.value.wide("i32"))
    return [one.value for one in sums]


def _add(rows: Memory, events: Memory, first: Value, last: Value, sums: list[Any]) -> None:
    with over(rows.code, first, last) as e:
        row = rows.at(events.load(e))
        for j, one in enumerate(sums):
            found = row.load(constant(rows.code, j * LANES), LANES)
            one.put(one.value + (found.wide("i16") if rows.name == "i8" else found))
