"""A convolution fed by spikes, of weights that live in blocks of 32 outputs: each spike adds only the taps that live.

The cost goes with the spikes and with the blocks that live, `patterns.Block(1, 32)`, so that both sparsities multiply. Sums lie in
planes, and 16 bits are left before they could overflow, as `scatter` has it.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import block_scatter_code
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.block_entries import entries
from spikeprune.runtime.block_scatter_code import AHEAD, TOGETHER
from spikeprune.runtime.integers import LONG, affine, check_weight
from spikeprune.runtime.neurons import LANES, START, Neurons, check_neurons, constants, membrane_of
from spikeprune.runtime.once import once
from spikeprune.runtime.planes import Kernel, Plane, plane, reach
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.scatter_code import Shape
from spikeprune.runtime.spikes import SpikeMaps, needed

ROOM = 32 << 10  # bytes of sums: few weights want a place beside them in the first-level cache


@dataclass(frozen=True, eq=False)
class BlockLayer:
    """A convolution or linear layer and its neurons if it has any, made by `pack`.

    Attributes:
        weights: int8 or float32 (living blocks, 32), in the order of `block_entries.entries`.
        taps: int64 (living blocks,), the tap of each, numbered phase by phase.
        lists: int32 (entries,), which of the channels that are read, times phases, plus phase, an entry's events are of.
        bounds: int32, where entries begin, as `Entries.bounds` says.
        flushes: int8 (entries,), 1 where sums are moved to 32 bits before this entry.
        channels: int64, the inputs that are read: those of which a block lives.
        table: float32 (6, blocks of 32 outputs * 32), what `neurons.constants` gives.
        kernel: the shape of the convolution; 1 x 1 of a linear layer.
        hard: which reset; None for a layer without neurons.
        inputs: C_in.
        outputs: C_out.
    """

    weights: Tensor
    taps: Tensor
    lists: Tensor
    bounds: Tensor
    flushes: Tensor
    channels: Tensor
    table: Tensor
    kernel: Kernel
    hard: bool | None
    inputs: int
    outputs: int


def pack(
    weight: Tensor,
    neurons: Neurons | None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> BlockLayer:
    """Lay a layer out; its dead blocks are those of zeros alone.

    Args:
        weight: (C_out, C_in, height, width) or (C_out, C_in), int8 or float32.
        neurons: of C_out channels; None for a layer that gives currents.
        scale: float32 (C_out,), by which sums are multiplied; None for 1.
        bias: float32 (C_out,), which is added then; None for 0.
        stride: of the kernel, on both axes.
        padding: zeros on each side.

    Raises:
        QuantizeError: weight, scale or bias is of another dtype or shape.
        LayoutError: the neurons are of another number of channels, or the kernel of a size that native code does not have.
        NonFinite: one of the tensors has NaN or infinity.

    Example:
        >>> one = Neurons.alike(1, decay=1.0, threshold=1.0, reset=1.0)
        >>> layer = pack(torch.tensor([[3, 0, -1]], dtype=torch.int8), one)
        >>> layer.weights[:, 0], layer.channels
        (tensor([ 3, -1], dtype=torch.int8), tensor([0, 2]))
    """
    check_weight(weight, (2, 4))
    weight = weight.detach()
    height, width = weight.shape[2:] or (1, 1)
    kernel = Kernel(height, width, stride, padding)
    phases = kernel.phases()
    order = [y * width + x for taps in phases for y, x in taps]
    phase = torch.tensor([f for f, taps in enumerate(phases) for _ in taps])
    blocks = _blocks(weight)[:, :, order]
    channels = blocks.any(3).any(2).any(0).nonzero().flatten()
    blocks = blocks[:, channels]
    found = entries(blocks.any(3), phase)
    weights = blocks[tuple(found.taps.T)].contiguous()
    lists = found.first[:, 1] * len(phases) + phase[found.first[:, 2]]
    parts = (found.taps[:, 2].contiguous(), lists.int(), found.bounds(len(blocks)), found.flushes(weights), channels)
    table = constants(neurons, *affine(weight, scale, bias), len(blocks) * LANES)
    hard = None if neurons is None else neurons.hard
    return BlockLayer(weights, *parts, table, kernel, hard, inputs=weight.shape[1], outputs=len(weight))


def living(weight: Tensor) -> float:
    """Give the share of a weight's blocks of 32 outputs by one input that are not zeros alone, of 1 when all live.

    Args:
        weight: (C_out, C_in, height, width) or (C_out, C_in).

    Example:
        >>> living(torch.eye(64))  # each input feeds one of two blocks
        0.5
    """
    return float(_blocks(weight).any(3).double().mean())


def run(x: SpikeMaps, layer: BlockLayer) -> SpikeMaps:
    """Run a layer and its neurons over all timesteps of all samples.

    Raises:
        LayoutError: the input has another number of channels than the layer, or is smaller than the kernel, or the layer has no
            neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> layer = pack(torch.tensor([[1.0, 1.0, 0.0]]), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> x = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])  # two samples
        >>> unpack_maps(run(pack_maps(x.view(1, 2, 3)), layer)).flatten()
        tensor([1., 0.])
    """
    return once(prepare, x, layer)


def prepare(program: Program, x: SpikeMaps, layer: BlockLayer, membrane: Tensor | None = None) -> SpikeMaps:
    """Put at the end of a program what `run` does, of what x holds whenever it runs.

    Args:
        program: to which it is added.
        x: what fired before.
        layer: as packed, with neurons.
        membrane: what `rest` gives, from which a run begins, and which holds the membranes after it; None to begin each run at the
            start.

    Returns:
        what holds the spikes after a run.

    Raises:
        LayoutError: the input has another number of channels than the layer, is smaller than the kernel, or may have more spikes than
            32 bits count; the layer has no neurons, or the membrane another shape.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> layer = pack(torch.ones(1, 1), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> program, x = Program(), pack_maps(torch.ones(1, 1, 1))
        >>> found = prepare(program, x, layer, rest(x, layer))
        >>> program.run(), found.words.item(), program.run(), found.words.item()  # it fires every other time
        (None, 0, None, 1)
    """
    check_neurons(layer.hard, wanted=True)
    to = _plane(x, layer)
    words = needed(x.samples * to.height * to.width)
    out = torch.empty(layer.table.shape[1], x.words.shape[1], words, dtype=torch.int64)
    v = membrane_of(membrane, partial(rest, x, layer), _room("membrane", to.height * to.width * LANES, torch.float32))
    masks = _room("masks", x.words.shape[1] * words * WORD, torch.int32)
    _add(program, x, layer, to, (v, masks, out), kept=membrane is not None)
    return SpikeMaps(out[: layer.outputs], x.samples, to.height, to.width)


def rest(x: SpikeMaps, layer: BlockLayer) -> Tensor:
    """Give membranes before the first timestep, float32 (blocks of 32 outputs, N, H W, 32), of the output's places.

    Raises:
        LayoutError: the layer has no neurons, or does not fit the input.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0, start=0.5)
        >>> rest(pack_maps(torch.ones(1, 2, 1)), pack(torch.ones(1, 1), one))[..., 0].flatten()
        tensor([0.5000, 0.5000])
    """
    check_neurons(layer.hard, wanted=True)
    to = _plane(x, layer)
    return layer.table[START].view(-1, 1, 1, LANES).repeat(1, x.samples, to.height * to.width, 1)


def run_currents(x: SpikeMaps, layer: BlockLayer) -> Tensor:
    """Run a layer without neurons: sums, scaled and with bias, float32 (T, N, C_out, H, W).

    Raises:
        LayoutError: as of `run`, or the layer has neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> run_currents(pack_maps(torch.ones(1, 1, 2)), pack(torch.tensor([[1.5, 2.0]]), None)).item()
        3.5
    """
    return once(prepare_currents, x, layer).contiguous()


def prepare_currents(program: Program, x: SpikeMaps, layer: BlockLayer) -> Tensor:
    """Put at the end of a program what `run_currents` does.

    Returns:
        what holds the currents after a run, float32 (T, N, C_out, H, W); in memory channels are filled up to blocks of 32.

    Raises:
        LayoutError: as of `prepare`, or the layer has neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> program, x = Program(), pack_maps(torch.zeros(1, 1, 2))
        >>> found = prepare_currents(program, x, pack(torch.tensor([[1.5, 2.0]]), None))
        >>> x.words[1] = 1
        >>> program.run(), found.item()
        (None, 2.0)
    """
    check_neurons(layer.hard, wanted=False)
    to = _plane(x, layer)
    out = torch.empty(x.words.shape[1], x.samples, layer.table.shape[1], to.height, to.width, dtype=torch.float32)
    room, masks = _room("membrane", to.height * to.width * LANES, torch.float32), _room("masks", 0, torch.int32)
    _add(program, x, layer, to, (room, masks, out), kept=False)
    return out[:, :, : layer.outputs]


def _blocks(weight: Tensor) -> Tensor:
    """View a weight by blocks of 32 outputs: (blocks, C_in, taps, 32), the last block filled up."""
    flat = weight.reshape(*weight.shape[:2], -1)
    return F.pad(flat, (0, 0, 0, 0, 0, -len(flat) % LANES)).view(-1, LANES, *flat.shape[1:]).permute(0, 2, 3, 1)


def _plane(x: SpikeMaps, layer: BlockLayer) -> Plane:
    if len(x.words) != layer.inputs:
        raise LayoutError(f"the layer takes {layer.inputs} channels, but spikes of {len(x.words)} were given.")
    return plane(layer.kernel, x.height, x.width)


def _add(program: Program, x: SpikeMaps, layer: BlockLayer, to: Plane, last: tuple[Tensor | Room, ...], *, kept: bool) -> None:
    """Add the calls, of which the second is given membranes, masks and the output as its last arrays."""
    integer, wide, total = layer.weights.dtype == torch.int8, bool(layer.flushes.any()), x.samples * x.words.shape[1]
    slots = max(1, min(ROOM // (to.size * LANES * (2 if integer else 4)), total))
    count, offsets = slots * to.size * LANES, _offsets(layer.kernel, to.pitch)
    spare = int(offsets.max()) + LANES  # what fills lists up is added behind the planes
    events, firsts = _list(program, x, layer, to, slots)
    sums = _room("sums", count + spare, torch.int16 if integer else torch.float32)
    rooms = sums, _room("wide", count if wide else 0, torch.int32)
    every, words = len(layer.channels) * len(to.starts), 2 * needed(x.samples * to.height * to.width)
    arrays = (
        events,
        firsts,
        layer.lists,
        layer.bounds,
        offsets[layer.taps],
        layer.weights,
        layer.flushes,
        layer.table,
        *rooms,
        *last,
    )
    sizes = (every, len(layer.table[0]) // LANES, x.samples, x.words.shape[1], slots, to.size, spare, to.pitch)
    shape = Shape(Kernel(1, 1), integer, wide, layer.hard, kept)
    program.add(block_scatter_code.convolution(shape), *arrays, *sizes, to.height, to.width, to.origin, words)


def _offsets(kernel: Kernel, pitch: int) -> Tensor:
    """Give, for each tap phase by phase, how many elements behind its event it adds: int32 (taps,)."""
    down, across = reach(kernel.height, kernel.stride), reach(kernel.width, kernel.stride)
    steps = [(down - y // kernel.stride, across - x // kernel.stride) for taps in kernel.phases() for y, x in taps]
    return torch.tensor([(pitch * y + x) * LANES for y, x in steps], dtype=torch.int32)


def _list(program: Program, x: SpikeMaps, layer: BlockLayer, to: Plane, slots: int) -> tuple[Room, Room]:
    """Add the call that lists events, with room for every spike that there may be; memory that none needs is never touched."""
    (_, timesteps, width), (phases, places) = x.words.shape, to.starts.shape
    total, chunks = x.samples * timesteps, needed(places)
    lists = -(-total // slots) * len(layer.channels) * phases
    most = len(layer.channels) * total * places + lists * (TOGETHER - 1) + AHEAD + TOGETHER
    if most > LONG:
        raise LayoutError(f"{most} events are more than 32 bits count; give fewer samples at a time.")
    events, firsts = _room("events", most, torch.int32), _room("firsts", lists + 1, torch.int32)
    slot = torch.arange(total)
    bit = slot // timesteps * places
    begins = torch.stack([slot % timesteps * width + bit // WORD, bit % WORD], 1)
    filled = F.pad(to.starts, (0, chunks * WORD - places), value=-1)
    masks = ((filled >= 0).view(phases, chunks, WORD).long() << torch.arange(WORD)).sum(2)
    starts = F.pad(filled.clamp(min=0).flatten() * LANES, (0, WORD))
    arrays = (x.words, layer.channels * (timesteps * width), begins, starts, masks, events, firsts)
    step, end = to.size * LANES, x.words.numel() - 1
    program.add(block_scatter_code.listing(), *arrays, len(layer.channels), total, phases, chunks, slots, step, slots * step, end)
    return events, firsts


def _room(name: str, count: int, dtype: torch.dtype) -> Room:
    return Room(f"scatter {name}", count, dtype)
