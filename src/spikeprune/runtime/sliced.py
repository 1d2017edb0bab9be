"""A convolution or linear layer of weights of few bits: spikes are added as bits, up to 512 lanes of them in one instruction.

A weight is written with the digits -1, 0 and 1, no two neighbours of which live, so that few do (the non-adjacent form). Full adders
count the spikes that meet the living digits of each place. So the cost goes with these, that is with the weights that live and with
their bits, and not with the spikes. It needs many lanes (places times samples times timesteps). Sums are exact whichever inputs fire:
how many bits they need is known from the weights.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from spikeprune.errors import LayoutError, QuantizeError
from spikeprune.runtime import sliced_code
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.integers import affine, check_weight, extremes
from spikeprune.runtime.neurons import START, Neurons, constants, membrane_of
from spikeprune.runtime.once import once
from spikeprune.runtime.planes import Kernel
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.sliced_code import Shape, Tiling, filled, tiling
from spikeprune.runtime.spikes import SpikeMaps, lanes_of, needed
from spikeprune.runtime.taps import outputs, shifts

PLACES = 8  # of the digits of int8
LEVELS = (3, 4, 5)  # of adders, among which a layer chooses
SPARE = 1 << 19  # bytes of tiles that are laid out at once: few enough to be near when their rows are added


@dataclass(frozen=True, eq=False)
class SlicedLayer:
    """A layer of int8 weights as signed digits, and its neurons, made by `pack`.

    Attributes:
        terms: int32, the term (channel * taps + tap) of each digit, by output, then place, then sign; each of these filled up to groups
            of 2^levels with C_in * taps, the term that never fires.
        ends: int32 (C_out * places * 2 + 1,), where in the groups the digits of each output, place and sign, plus first, begin.
        table: float32 (6, C_out), what `neurons.constants` gives.
        kernel: the shape of the convolution; 1 x 1 of a linear layer.
        inputs: C_in.
        places: of the digits, 1 to 8.
        shape: what its code depends on.
    """

    terms: Tensor
    ends: Tensor
    table: Tensor
    kernel: Kernel
    inputs: int
    places: int
    shape: Shape


def pack(
    weight: Tensor,
    neurons: Neurons,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> SlicedLayer:
    """Lay a layer out; its dead weights are the zeros.

    Args:
        weight: (C_out, C_in, height, width) or (C_out, C_in), int8.
        neurons: of C_out channels.
        scale: float32 (C_out,), by which sums are multiplied; None for 1.
        bias: float32 (C_out,), which is added then; None for 0.
        stride: of the kernel, on both axes.
        padding: zeros on each side.

    Raises:
        QuantizeError: weight, scale or bias is of another dtype or shape, or a row so long that 32 bits cannot hold its sums.
        LayoutError: the neurons are of another number of channels, or the kernel of a size that native code does not have.
        NonFinite: scale or bias has NaN or infinity.

    Example:
        >>> one = Neurons.alike(1, decay=1.0, threshold=1.0, reset=1.0)
        >>> layer = pack(torch.tensor([[3, 0, -1]], dtype=torch.int8), one)
        >>> layer.terms.view(-1, 8)[:, :3]  # 3 = 4 - 1 and -1: no +1; twice -1; no +2, no -2; once +4, no -4
        tensor([[0, 2, 3],
                [0, 3, 3]], dtype=torch.int32)
        >>> layer.ends
        tensor([0, 0, 1, 1, 1, 2, 2], dtype=torch.int32)
    """
    check_weight(weight, (2, 4))
    if weight.dtype != torch.int8:
        raise QuantizeError(
            f"a bit-sliced layer has int8 weights, but {weight.dtype} {tuple(weight.shape)} was given; quantize it."
        )
    flat = weight.detach().reshape(len(weight), -1)
    height, width = weight.shape[2:] or (1, 1)
    kernel = Kernel(height, width, stride, padding)
    lists, terms, counts = _digits(flat)
    counters = _counters(counts)
    levels = min(LEVELS, key=partial(_additions, counts, counters))
    terms, ends = _grouped(lists, terms, counts.flatten(), (1 << levels, flat.shape[1]))
    table = constants(neurons, *affine(weight, scale, bias), len(weight))
    shape = Shape(levels, counters, _planes(flat), neurons.hard)
    return SlicedLayer(terms, ends, table, kernel, weight.shape[1], counts.shape[1], shape)


def digits(weight: Tensor) -> int:
    """Say how many signed digits weights have that live: what their layer costs goes with it.

    Args:
        weight: int8.

    Example:
        >>> digits(torch.tensor([0, 4, -1, 3, 127, -128], dtype=torch.int8))  # 3 is 4 - 1, 127 is 128 - 1
        7
    """
    plus, minus = _signed(weight)
    return sum(int(((plus | minus) >> b & 1).sum()) for b in range(PLACES))


def run(x: SpikeMaps, layer: SlicedLayer) -> SpikeMaps:
    """Run a layer and its neurons over all timesteps of all samples.

    Raises:
        LayoutError: the input has another number of channels than the layer, is smaller than the kernel, or larger than one call takes.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> layer = pack(torch.tensor([[1, 1, 0]], dtype=torch.int8), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> x = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])  # two samples
        >>> unpack_maps(run(pack_maps(x.view(1, 2, 3)), layer)).flatten()
        tensor([1., 0.])
    """
    return once(prepare, x, layer)


def prepare(program: Program, x: SpikeMaps, layer: SlicedLayer, membrane: Tensor | None = None) -> SpikeMaps:
    """Put at the end of a program what `run` does, of what x holds whenever it runs.

    Args:
        program: to which it is added.
        x: what fired before.
        layer: as packed.
        membrane: what `rest` gives, from which a run begins, and which holds the membranes after it; None to begin each run at the
            start.

    Returns:
        what holds the spikes after a run.

    Raises:
        LayoutError: the input has another number of channels than the layer, is smaller than the kernel, or larger than one call
            takes; or the membrane has another shape.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> layer = pack(torch.ones(1, 1, dtype=torch.int8), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> program, x = Program(), pack_maps(torch.ones(1, 1, 1))
        >>> found = prepare(program, x, layer, rest(x, layer))
        >>> program.run(), found.words.item(), program.run(), found.words.item()  # it fires every other time
        (None, 0, None, 1)
    """
    height, width = _output(x, layer)
    words, alike = needed(x.samples * height * width), layer.kernel.stride == 1 and (height, width) == (x.height, x.width)
    shape, lay = replace(layer.shape, kept=membrane is not None), tiling(words, x.words.shape[1])
    v = membrane_of(membrane, partial(rest, x, layer), Room("sliced membrane", 0, torch.float32))
    out = torch.empty(len(layer.table[0]), x.words.shape[1], words, dtype=torch.int64)
    rows = layer.inputs * layer.kernel.taps + 1
    entries, index = _entries(layer.terms * lay.words, rows * lay.words)
    planes = Room("sliced planes", (layer.places + shape.planes) * lay.words, torch.int64)
    sums = Room("sliced sums", lay.tiles * lay.words * WORD, torch.int32 if shape.sums == "i32" else torch.int16)
    at_once = lay.at_once(rows, SPARE) if alike else lay.groups
    tiles = Room("sliced tiles", at_once * lay.tiles * rows * lay.words, torch.int64)
    arrays = (tiles, entries, layer.ends, layer.table, lanes_of(x.samples * height * width), planes, sums, v, out)
    for first in range(0, lay.groups, at_once):
        count = min(at_once, lay.groups - first)
        (_shift if alike else _route)(program, x, layer.kernel, lay, tiles, (first, count))
        sizes = (len(out), layer.places, rows, first, count, lay.tiles, len(out[0]), words, lay.step)
        program.add(sliced_code.layer(shape, lay.words, index), *arrays, *sizes)
    return SpikeMaps(out, x.samples, height, width)


def rest(x: SpikeMaps, layer: SlicedLayer) -> Tensor:
    """Give membranes before the first timestep, float32 (C_out, lanes of the output filled up to whole words).

    Raises:
        LayoutError: the layer does not fit the input.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0, start=0.5)
        >>> rest(pack_maps(torch.ones(1, 2, 1)), pack(torch.ones(1, 1, dtype=torch.int8), one))[:, :2]
        tensor([[0.5000, 0.5000]])
    """
    height, width = _output(x, layer)
    return layer.table[START][:, None].repeat(1, needed(x.samples * height * width) * WORD)


def _output(x: SpikeMaps, layer: SlicedLayer) -> tuple[int, int]:
    """Give height and width of what the layer makes."""
    if len(x.words) != layer.inputs:
        raise LayoutError(f"the layer takes {layer.inputs} channels, but spikes of {len(x.words)} were given.")
    return layer.kernel.output(x.height, x.width)


def _signed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Write weights in signed digits of which no two neighbours live: bit b, int32, where 2^b is added, and where it is taken off."""
    size = weight.int().abs()
    triple = 3 * size  # differs from the size, in bits, one place above where a digit lives
    plus, minus = (triple & ~size) >> 1, (size & ~triple) >> 1
    return torch.where(weight < 0, minus, plus), torch.where(weight < 0, plus, minus)


def _digits(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give, for each digit of (C_out, terms) that lives, its list and its term, by list; and how many there are, (C_out, places, 2).

    There is a list for each output, place and sign, in this order.
    """
    row, term = flat.nonzero(as_tuple=True)
    signed = _signed(flat[row, term])
    places = max(1, *(int(one.max()).bit_length() for one in signed)) if len(row) else 1
    lists, terms = [], []
    for place in range(places):
        for sign, one in enumerate(signed):
            lives = (one >> place & 1).bool()
            lists.append((row[lives] * places + place) * 2 + sign)
            terms.append(term[lives])
    found, order = torch.cat(lists).sort(stable=True)
    counts = torch.bincount(found, minlength=len(flat) * places * 2).view(len(flat), places, 2)
    return found, torch.cat(terms)[order], counts


def _grouped(lists: Tensor, terms: Tensor, counts: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Give the terms of all lists, each filled up to whole groups, and where the groups of each list begin.

    Args:
        lists: of each term, rising.
        terms: of the digits.
        counts: of each list.
        size: terms of a group, and what fills it up.
    """
    group, filler = size
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), -(-counts // group)]).cumsum(0)
    found = torch.full((int(ends[-1]) * group,), filler, dtype=torch.int32)
    found[ends[lists] * group + torch.arange(len(lists)) - (counts.cumsum(0) - counts)[lists]] = terms.int()
    return found, ends.int()


def _additions(counts: Tensor, counters: int, levels: int) -> int:
    """Say how many instructions add rows in groups of 2^levels: three a full adder, two a half one for the carry."""
    groups = -(-counts // (1 << levels))
    return int(groups.sum()) * (3 * ((1 << levels) - 1) + 2 * (counters - levels))


def _counters(counts: Tensor) -> int:
    """Say how many bits hold, with a sign, what is counted at each place, of the digits (C_out, places, 2)."""
    most = least = torch.zeros(len(counts), dtype=torch.int64)
    found = max(LEVELS) + 1
    for plus, minus in counts.permute(1, 2, 0):
        most, least = most + plus, least - minus
        found = max(found, _bits(int(most.max()), int(least.min())))
        most, least = most >> 1, least >> 1
    return found + found % 2  # even, so that more layers share their code


def _planes(flat: Tensor) -> int:
    """Say how many bits hold, with a sign, the sums of rows of weights, whichever inputs fire."""
    least, most = extremes(flat)
    found = _bits(int(most.max()), int(least.min()))
    return found + found % 2


def _bits(most: int, least: int) -> int:
    """Say how many bits hold, with a sign, whole numbers from `least`, 0 or less, to `most`, 0 or more."""
    return max(most.bit_length(), (~least).bit_length()) + 1


def _entries(words: Tensor, count: int) -> tuple[Tensor, str]:
    """Give places of a tile of so many words in 16 bits, if they hold them, or in 32."""
    return (words.to(torch.int16), "i16") if count <= 1 << 16 else (words, "i32")


def _shift(program: Program, x: SpikeMaps, kernel: Kernel, lay: Tiling, tiles: Room, part: tuple[int, int]) -> None:
    """Lay out the bits that each tap sees, where outputs are as many as inputs, of some groups."""
    (channels, timesteps, width), pitch = x.words.shape, filled(lay.groups, lay.near) * lay.step
    offsets, masks = shifts(kernel, x.samples, x.height, x.width, pitch)
    guard = int(offsets.abs().max()) // WORD + 2
    row = Room("sliced row", guard + max(width, pitch) + guard, torch.int64)  # masks hide what is around the spikes
    sizes = (channels, timesteps, width, kernel.taps, part[0], filled(part[1], lay.near), pitch, lay.tiles, guard)
    program.add(sliced_code.shifting(lay.words, lay.step, lay.near), x.words, offsets, masks, row, tiles, *sizes)


def _route(program: Program, x: SpikeMaps, kernel: Kernel, lay: Tiling, tiles: Room, part: tuple[int, int]) -> None:
    """Lay out the bits that each tap sees, of any convolution, spike by spike, of all groups."""
    channels, timesteps, width = x.words.shape
    if tiles.count >= 2**31 // WORD:
        raise LayoutError(f"{tiles.count} words of spikes are more than one call takes; give fewer samples at a time.")
    lanes, lane, group = outputs(kernel, x.samples, x.height, x.width), lay.step * WORD, tiles.count // part[1] * WORD
    table = torch.where(lanes < 0, -1, lanes // lane * group + lanes % lane + torch.arange(kernel.taps) * (lay.words * WORD))
    sizes = (channels, timesteps, width, kernel.taps, part[1], lay.tiles)
    program.add(sliced_code.routing(lay.words, lay.step), x.words, table.int(), tiles, *sizes)
