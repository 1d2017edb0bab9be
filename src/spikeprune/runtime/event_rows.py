"""A linear layer fed by spikes, event by event: each spike adds its row of weights, and the neurons follow in the same pass.

The cost goes with the spikes, and the weights' sparsity changes nothing but where an input has no weight left: its spikes are
passed over. So it is the way for few samples.

Layout: weights (K, outputs), of which the outputs are filled up with zeros to whole tiles of vectors. int8 weights are summed in 16
bits, for as many events as these hold whichever they are, then moved to 32.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import event_rows_code
from spikeprune.runtime.event_rows_code import Shape
from spikeprune.runtime.integers import SHORT, affine, check_weight, some_rows
from spikeprune.runtime.neurons import LANES, START, Neurons, check_neurons, constants, membrane_of
from spikeprune.runtime.once import once
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.spikes import SpikeRows, needed, pack_rows

VECTORS = 8  # of LANES outputs, that a tile has at most: their sums stay in registers
MOST = 1 << 62  # inputs: there is room for all


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
    return min(weight.shape[1], *(_held(_sizes(rows)) for rows in some_rows(weight)))


def _held(counts: Tensor) -> int:
    """Say it of rows whose weights are counted by their value, from -128 on."""
    sides = ((counts[:, 129:].flip(1), torch.arange(127, 0, -1), SHORT), (counts[:, :128], torch.arange(128, 0, -1), SHORT + 1))
    return min(_fewest(found, sizes, room) for found, sizes, room in sides)


def _sizes(weight: Tensor) -> Tensor:
    """Count the weights of each row by their value, from -128 on: int64 (rows, 256)."""
    places = weight.long() + 128 + 256 * torch.arange(len(weight))[:, None]
    return torch.bincount(places.flatten(), minlength=256 * len(weight)).view(-1, 256)


def _fewest(counts: Tensor, sizes: Tensor, room: int) -> int:
    """Say how many of the largest weights of each row a room holds, of the row that it holds fewest of.

    Args:
        counts: int64 (rows, sizes), how many weights of each size there are.
        sizes: from the largest on.
        room: for their sum.
    """
    sums, seen = (counts * sizes).cumsum(1), counts.cumsum(1)
    over = sums > room
    first = over.int().argmax(1, keepdim=True)  # the first size of which not all fit
    before = [x.gather(1, first) - y.gather(1, first) for x, y in ((sums, counts * sizes), (seen, counts))]
    held = before[1] + (room - before[0]) // sizes[first]
    return int(held[over.any(1)].min()) if bool(over.any()) else MOST


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
    return once(prepare, x, layer)


def prepare(program: Program, x: SpikeRows, layer: RowLayer, membrane: Tensor | None = None) -> SpikeRows:
    """Put at the end of a program what `spikes` does, of what x holds whenever it runs.

    Args:
        program: to which it is added.
        x: what fired before, (N, T, K).
        layer: as packed, with neurons.
        membrane: what `rest` gives, from which a run begins, and which holds the membranes after it; None to begin each run at the
            start.

    Returns:
        what holds the spikes (N, T, C_out) after a run.

    Raises:
        LayoutError: the input has another number of features than the layer, the layer no neurons, or the membrane another shape.

    Example:
        >>> layer = pack(torch.ones(1, 1), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> program, x = Program(), pack_rows(torch.ones(1, 1, 1))
        >>> found = prepare(program, x, layer, rest(x, layer))
        >>> program.run(), found.words.item(), program.run(), found.words.item()  # it fires every other time
        (None, 0, None, 1)
    """
    check_neurons(layer.hard, wanted=True)
    n, t, _ = x.words.shape
    width = needed(layer.table.shape[1])
    out = torch.zeros(n, t, width, dtype=torch.int64)  # half a word may be left as it is
    _add(program, x, layer, out, 2 * width, membrane)
    return SpikeRows(out, layer.outputs)


def rest(x: SpikeRows, layer: RowLayer) -> Tensor:
    """Give membranes before the first timestep, float32 (N, outputs filled up).

    Raises:
        LayoutError: the layer has no neurons.

    Example:
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0, start=0.5)
        >>> rest(pack_rows(torch.ones(1, 2, 1)), pack(torch.ones(1, 1), one))[:, 0]
        tensor([0.5000, 0.5000])
    """
    check_neurons(layer.hard, wanted=True)
    return layer.table[START].repeat(len(x.words), 1)


def currents(x: SpikeRows, layer: RowLayer) -> Tensor:
    """Run a layer without neurons: sums, scaled and with bias, float32 (T, N, C_out).

    Raises:
        LayoutError: the input has another number of features than the layer, or the layer has neurons.

    Example:
        >>> currents(pack_rows(torch.tensor([[[1.0, 0.0, 1.0]]])), pack(torch.tensor([[1.0, 2.0, 4.0]]), None))
        tensor([[[5.]]])
    """
    return once(prepare_currents, x, layer)[..., : layer.outputs].transpose(0, 1).contiguous()


def prepare_currents(program: Program, x: SpikeRows, layer: RowLayer) -> Tensor:
    """Put at the end of a program what `currents` does; return what holds them after a run, in another order.

    Returns:
        float32 (N, T, outputs filled up), of which [..., : layer.outputs] counts.

    Raises:
        LayoutError: the input has another number of features than the layer, or the layer has neurons.

    Example:
        >>> program, x = Program(), pack_rows(torch.zeros(1, 1, 3))
        >>> found = prepare_currents(program, x, pack(torch.tensor([[1.0, 2.0, 4.0]]), None))
        >>> x.words[:] = 6
        >>> program.run()
        >>> found[..., :1]
        tensor([[[6.]]])
    """
    check_neurons(layer.hard, wanted=False)
    out = torch.empty(*x.words.shape[:2], layer.table.shape[1], dtype=torch.float32)
    _add(program, x, layer, out, layer.table.shape[1], None)
    return out


def _add(program: Program, x: SpikeRows, layer: RowLayer, out: Tensor, pitch: int, membrane: Tensor | None) -> None:
    if x.features != len(layer.rows):
        raise LayoutError(f"the layer takes {len(layer.rows)} features, but spikes of {x.features} were given.")
    n, t, width = x.words.shape
    channels, shape = layer.table.shape[1], Shape(layer.vectors, layer.rows.dtype == torch.int8, layer.hard, membrane is not None)
    events = Room("event rows events", len(layer.rows), torch.int64)
    v = membrane_of(membrane, partial(rest, x, layer), Room("event rows membrane", channels, torch.float32))
    tiles = channels // (layer.vectors * LANES)
    sizes = (n, t, width, len(layer.living), channels, tiles, layer.every, pitch)
    program.add(event_rows_code.layer(shape), x.words, layer.living, layer.rows, layer.table, events, v, out, *sizes)
