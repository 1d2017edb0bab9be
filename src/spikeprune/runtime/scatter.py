"""A convolution fed by spikes, scattered: each spike adds its taps' weights to the sums of 32 channels, in a plane that stays in cache.

The cost goes with the spikes, and not with the weights' sparsity. int8 weights are summed in 16 bits, and moved to 32 before the first
channel with which sums could leave these, whichever inputs fire; so they are exact.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import scatter_code
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.integers import LONG, SHORT, affine, check_weight
from spikeprune.runtime.neurons import LANES, START, Neurons, check_neurons, constants, membrane_of
from spikeprune.runtime.once import once
from spikeprune.runtime.planes import Kernel, Plane, plane
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.scatter_code import Shape
from spikeprune.runtime.spikes import SpikeMaps, needed

ROOM = 24 << 10  # bytes of sums, so that the first-level cache holds them beside the weights


@dataclass(frozen=True, eq=False)
class ScatterLayer:
    """A convolution and its neurons if it has any, made by `pack`.

    Attributes:
        weights: int8 or float32 (blocks of 32 outputs, C_in, taps phase by phase, 32).
        cuts: int32 (blocks, runs + 1), where the runs of channels begin, between which sums are moved to 32 bits, and C_in.
        table: float32 (6, blocks * 32), what `neurons.constants` gives.
        kernel: the shape of the convolution.
        hard: which reset; None for a layer without neurons.
        outputs: C_out.
    """

    weights: Tensor
    cuts: Tensor
    table: Tensor
    kernel: Kernel
    hard: bool | None
    outputs: int


def pack(
    weight: Tensor,
    neurons: Neurons | None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> ScatterLayer:
    """Lay a layer out.

    Args:
        weight: (C_out, C_in, height, width), int8 or float32.
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
        >>> pack(torch.ones(1, 4, 3, 3), one, padding=1).weights.shape
        torch.Size([1, 4, 9, 32])
    """
    check_weight(weight, (4,))
    weight = weight.detach()
    kernel = Kernel(weight.shape[2], weight.shape[3], stride, padding)
    blocks = -(-len(weight) // LANES)
    filled = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, blocks * LANES - len(weight))).view(blocks, LANES, *weight.shape[1:])
    order = [tap for phase in kernel.phases() for tap in phase]
    weights = torch.stack([filled[..., y, x] for y, x in order], -1).permute(0, 2, 3, 1).contiguous()
    table = constants(neurons, *affine(weight, scale, bias), blocks * LANES)
    return ScatterLayer(weights, cuts(flushes(weights)), table, kernel, None if neurons is None else neurons.hard, len(weight))


def flushes(weights: Tensor) -> Tensor:
    """Say before which channels sums must be moved, so that 16 bits hold them whichever inputs fire.

    Args:
        weights: (blocks, C_in, taps, outputs); a sum has each of its tap and channel once, or not.

    Returns:
        int8 (blocks, C_in), 1 before such channels; 0 everywhere for float32.

    Example:
        >>> flushes(torch.full((1, 4, 100, 1), 127, dtype=torch.int8))  # 12700 a channel
        tensor([[0, 0, 1, 0]], dtype=torch.int8)
    """
    found = torch.zeros(weights.shape[:2], dtype=torch.int8)
    if weights.dtype != torch.int8:
        return found
    up, down = weights.long().clamp(min=0).sum(2), weights.long().clamp(max=0).sum(2)
    high, low = torch.zeros_like(up[:, 0]), torch.zeros_like(up[:, 0])
    for c in range(weights.shape[1]):
        high, low = high + up[:, c], low + down[:, c]
        over = ((high > SHORT) | (low < -SHORT - 1)).any(1)
        high[over], low[over] = up[over, c], down[over, c]
        found[:, c] = over
    return found


def cuts(flushes: Tensor) -> Tensor:
    """Turn what `flushes` gives into runs: int32 (blocks, runs + 1); a block that has fewer has empty ones.

    Example:
        >>> cuts(torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]]))
        tensor([[0, 2, 4],
                [0, 4, 4]], dtype=torch.int32)
    """
    channels, most = flushes.shape[1], int(flushes.sum(1).max())
    places = torch.where(flushes != 0, torch.arange(channels), channels).sort(1).values[:, :most]
    return F.pad(F.pad(places, (1, 0)), (0, 1), value=channels).int().contiguous()


def run(x: SpikeMaps, layer: ScatterLayer) -> SpikeMaps:
    """Run a layer and its neurons over all timesteps of all samples.

    Raises:
        LayoutError: the input has another number of channels than the layer, or is smaller than the kernel, or the layer has no
            neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0)
        >>> layer = pack(torch.ones(1, 1, 1, 2), one)
        >>> unpack_maps(run(pack_maps(torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 1, 3)), layer))
        tensor([[[[[1., 0.]]]]])
    """
    return once(prepare, x, layer)


def prepare(program: Program, x: SpikeMaps, layer: ScatterLayer, membrane: Tensor | None = None) -> SpikeMaps:
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
        >>> layer = pack(torch.ones(1, 1, 1, 1), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> program, x = Program(), pack_maps(torch.ones(1, 1, 1, 1, 1))
        >>> found = prepare(program, x, layer, rest(x, layer))
        >>> program.run(), found.words.item(), program.run(), found.words.item()  # it fires every other time
        (None, 0, None, 1)
    """
    check_neurons(layer.hard, wanted=True)
    to = _plane(x, layer)
    words = needed(x.samples * to.height * to.width)
    out = torch.empty(len(layer.weights) * LANES, x.words.shape[1], words, dtype=torch.int64)
    v = membrane_of(membrane, partial(rest, x, layer), _room("membrane", to.height * to.width * LANES, torch.float32))
    masks = _room("masks", x.words.shape[1] * words * WORD, torch.int32)
    _add(program, x, layer, to, (v, masks, out), kept=membrane is not None)
    return SpikeMaps(out[: layer.outputs], x.samples, to.height, to.width)


def rest(x: SpikeMaps, layer: ScatterLayer) -> Tensor:
    """Give membranes before the first timestep, float32 (blocks of 32 outputs, N, H W, 32), of the output's places.

    Raises:
        LayoutError: the layer has no neurons, or does not fit the input.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0, start=0.5)
        >>> rest(pack_maps(torch.ones(1, 2, 1, 1, 1)), pack(torch.ones(1, 1, 1, 1), one))[..., 0].flatten()
        tensor([0.5000, 0.5000])
    """
    check_neurons(layer.hard, wanted=True)
    to = _plane(x, layer)
    return layer.table[START].view(-1, 1, 1, LANES).repeat(1, x.samples, to.height * to.width, 1)


def run_currents(x: SpikeMaps, layer: ScatterLayer) -> Tensor:
    """Run a layer without neurons: sums, scaled and with bias, float32 (T, N, C_out, H, W).

    Raises:
        LayoutError: as of `run`, or the layer has neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> run_currents(pack_maps(torch.ones(1, 1, 1, 1, 2)), pack(torch.full((1, 1, 1, 2), 1.5), None))
        tensor([[[[[3.]]]]])
    """
    return once(prepare_currents, x, layer).contiguous()


def prepare_currents(program: Program, x: SpikeMaps, layer: ScatterLayer) -> Tensor:
    """Put at the end of a program what `run_currents` does.

    Returns:
        what holds the currents after a run, float32 (T, N, C_out, H, W); in memory channels are filled up to blocks of 32.

    Raises:
        LayoutError: as of `prepare`, or the layer has neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> program, x = Program(), pack_maps(torch.zeros(1, 1, 1, 1, 2))
        >>> found = prepare_currents(program, x, pack(torch.full((1, 1, 1, 2), 1.5), None))
        >>> x.words[:] = 2
        >>> program.run()
        >>> found, found.stride()
        (tensor([[[[[1.5000]]]]]), (32, 32, 1, 1, 1))
    """
    check_neurons(layer.hard, wanted=False)
    to = _plane(x, layer)
    out = torch.empty(x.words.shape[1], x.samples, len(layer.weights) * LANES, to.height, to.width, dtype=torch.float32)
    room, masks = _room("membrane", to.height * to.width * LANES, torch.float32), _room("masks", 0, torch.int32)
    _add(program, x, layer, to, (room, masks, out), kept=False)
    return out[:, :, : layer.outputs]


def _plane(x: SpikeMaps, layer: ScatterLayer) -> Plane:
    if len(x.words) != layer.weights.shape[1]:
        raise LayoutError(f"the layer takes {layer.weights.shape[1]} channels, but spikes of {len(x.words)} were given.")
    return plane(layer.kernel, x.height, x.width)


def _add(program: Program, x: SpikeMaps, layer: ScatterLayer, to: Plane, last: tuple[Tensor | Room, ...], *, kept: bool) -> None:
    """Add the calls, of which the second is given membranes, masks and the output as its last arrays."""
    timesteps, (blocks, channels) = x.words.shape[1], layer.weights.shape[:2]
    integer, wide = layer.weights.dtype == torch.int8, layer.cuts.shape[1] > 2
    size = ROOM // (to.size * LANES * (2 if integer else 4))
    slots = max(1, min(size, x.samples * timesteps))
    events, firsts = _list(program, x, to, slots)
    count = slots * to.size * LANES
    sums = _room("sums", count, torch.int16 if integer else torch.float32), _room("wide", count if wide else 0, torch.int32)
    shape = Shape(replace(layer.kernel, padding=0), integer, wide, layer.hard, kept)
    words = 2 * needed(x.samples * to.height * to.width)
    sizes = (
        channels,
        layer.cuts.shape[1] - 1,
        blocks,
        x.samples,
        timesteps,
        slots,
        to.size,
        to.pitch,
        to.height,
        to.width,
        to.origin,
        words,
    )
    arrays = (events, firsts, layer.weights, layer.cuts, layer.table, *sums, *last)
    program.add(scatter_code.convolution(shape), *arrays, *sizes)


def _list(program: Program, x: SpikeMaps, to: Plane, slots: int) -> tuple[Room, Room]:
    """Add the call that lists events, with room for every spike that there may be; memory that none needs is never touched."""
    channels, timesteps, width = x.words.shape
    phases, places = to.starts.shape
    most = channels * timesteps * x.samples * places + 1  # one is written ahead, and then not counted
    if most > LONG:
        raise LayoutError(f"{most} events are more than 32 bits count; give fewer samples at a time.")
    events = _room("events", most, torch.int32)
    firsts = _room("firsts", -(-x.samples * timesteps // slots) * channels * phases + 1, torch.int32)
    sizes = (channels, timesteps, width, x.samples, places, phases, slots, to.size)
    program.add(scatter_code.listing(), x.words, to.starts, events, firsts, *sizes)
    return events, firsts


def _room(name: str, count: int, dtype: torch.dtype) -> Room:
    return Room(f"scatter {name}", count, dtype)
