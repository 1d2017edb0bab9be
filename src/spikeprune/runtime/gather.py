"""A convolution or linear layer of sparse weights: each weight that lives is applied to all places and samples at once.

The cost goes with the weights that live, and not with the spikes. It needs many lanes (places times samples); a linear layer has those
of its samples. int8 weights are summed in 16 bits, row by row in as many parts as these can hold whichever inputs fire.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import gather_code
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.gather_code import Shape, Tiling
from spikeprune.runtime.integers import SHORT, affine, check_weight, extremes
from spikeprune.runtime.moves import prepare_clear, prepare_route
from spikeprune.runtime.neurons import START, Neurons, check_neurons, constants, membrane_of
from spikeprune.runtime.once import once
from spikeprune.runtime.planes import Kernel
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.spikes import SpikeMaps, lanes_of, needed
from spikeprune.runtime.taps import outputs, shifts

TERMS = 1 << 16  # inputs times taps that whole numbers can have
DTYPES = {"i16": torch.int16, "i32": torch.int32, "f32": torch.float32}  # of `Shape.sums`


@dataclass(frozen=True, eq=False)
class GatherLayer:
    """A layer of sparse weights, and its neurons if it has any, made by `pack`.

    Attributes:
        entries: int16 or int32 (weights that are not 0, 2), by output, then by term, which is channel * taps + tap; as `gather_code.layer`
            says.
        parts: int32, where the parts of rows begin.
        rows: int32 (C_out + 1,), where the rows begin in the parts.
        table: float32 (6, C_out), what `neurons.constants` gives.
        kernel: the shape of the convolution; 1 x 1 of a linear layer.
        inputs: C_in.
        shape: what its code depends on.
    """

    entries: Tensor
    parts: Tensor
    rows: Tensor
    table: Tensor
    kernel: Kernel
    inputs: int
    shape: Shape


def pack(
    weight: Tensor,
    neurons: Neurons | None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> GatherLayer:
    """Lay a layer out; its dead weights are the zeros.

    Args:
        weight: (C_out, C_in, height, width) or (C_out, C_in), int8 or float32.
        neurons: of C_out channels; None for a layer that gives currents.
        scale: float32 (C_out,), by which sums are multiplied; None for 1.
        bias: float32 (C_out,), which is added then; None for 0.
        stride: of the kernel, on both axes.
        padding: zeros on each side.

    Raises:
        QuantizeError: weight, scale or bias is of another dtype or shape.
        LayoutError: the neurons are of another number of channels, or the kernel of a size that native code does not have; a weight of
            whole numbers has more than 65,536 for an output.
        NonFinite: one of the tensors has NaN or infinity.

    Example:
        >>> one = Neurons.alike(1, decay=1.0, threshold=1.0, reset=1.0)
        >>> pack(torch.tensor([[3, 0, -1]], dtype=torch.int8), one).entries.tolist()
        [[0, 3], [2, -1]]
    """
    check_weight(weight, (2, 4))
    if weight.dtype == torch.int8 and weight[0].numel() > TERMS:
        raise LayoutError(f"an output has {weight[0].numel():,} whole numbers as weights, but {TERMS:,} are the most.")
    weight = weight.detach()
    height, width = weight.shape[2:] or (1, 1)
    kernel = Kernel(height, width, stride, padding)
    flat = weight.reshape(len(weight), -1)
    output, term = flat.nonzero(as_tuple=True)
    values, integer = flat[output, term], weight.dtype == torch.int8
    words = [term.short(), values.short()] if integer else [term.int(), values.view(torch.int32)]
    entries = torch.stack(words, 1).contiguous()
    counts = torch.bincount(output, minlength=len(weight))
    rows, fits = torch.split(values, counts.tolist()), _fit(flat) if integer else [True] * len(weight)
    cuts = [[len(row)] if whole else bounds(row) for row, whole in zip(rows, fits, strict=True)]
    parts = torch.tensor([0, *(end for row in cuts for end in row)])
    first = torch.tensor([0, *(len(row) for row in cuts)]).cumsum(0)
    shifts = (counts.cumsum(0) - counts).repeat_interleave(first.diff())
    parts[1:] += shifts
    wide = any(len(row) > 1 for row in cuts)
    table = constants(neurons, *affine(weight, scale, bias), len(weight))
    shape = Shape(integer, wide, None if neurons is None else neurons.hard)
    return GatherLayer(entries, parts.int(), first.int(), table, kernel, weight.shape[1], shape)


def _fit(weight: Tensor) -> list[bool]:
    """Say of which rows of whole numbers 16 bits hold every sum."""
    least, most = extremes(weight)
    found: list[bool] = ((most <= SHORT) & (least >= -SHORT - 1)).tolist()
    return found


def bounds(row: Tensor) -> list[int]:
    """Cut a row of weights into parts whose sums 16 bits hold, whichever inputs fire; give where each part ends.

    Example:
        >>> bounds(torch.full((600,), 127, dtype=torch.int8)), bounds(torch.zeros(0))
        ([258, 516, 600], [0])
    """
    ends, first = [], 0
    while True:
        rest = row[first:].long()
        fits = (rest.clamp(min=0).cumsum(0) <= SHORT) & (rest.clamp(max=0).cumsum(0) >= -SHORT - 1)
        first += int(fits.sum())
        ends.append(first)
        if first == len(row):
            return ends


def run(x: SpikeMaps, layer: GatherLayer) -> SpikeMaps:
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


def prepare(program: Program, x: SpikeMaps, layer: GatherLayer, membrane: Tensor | None = None) -> SpikeMaps:
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
        LayoutError: the input has another number of channels than the layer, or is smaller than the kernel; the layer has no neurons,
            or the membrane another shape.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> layer = pack(torch.ones(1, 1), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> program, x = Program(), pack_maps(torch.ones(1, 1, 1))
        >>> found = prepare(program, x, layer, rest(x, layer))
        >>> program.run(), found.words.item(), program.run(), found.words.item()  # it fires every other time
        (None, 0, None, 1)
    """
    check_neurons(layer.shape.hard, wanted=True)
    height, width = _output(x, layer)
    out = torch.zeros(len(layer.rows) - 1, x.words.shape[1], needed(x.samples * height * width), dtype=torch.int64)
    v = membrane_of(membrane, partial(rest, x, layer), Room("gather membrane", 0, torch.float32))
    _add(program, x, layer, replace(layer.shape, kept=membrane is not None), (v, out))
    return SpikeMaps(out, x.samples, height, width)


def rest(x: SpikeMaps, layer: GatherLayer) -> Tensor:
    """Give membranes before the first timestep, float32 (C_out, lanes of the output filled up to whole words).

    Raises:
        LayoutError: the layer has no neurons, or does not fit the input.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0, start=0.5)
        >>> rest(pack_maps(torch.ones(1, 2, 1)), pack(torch.ones(1, 1), one))[:, :2]
        tensor([[0.5000, 0.5000]])
    """
    check_neurons(layer.shape.hard, wanted=True)
    height, width = _output(x, layer)
    return layer.table[START][:, None].repeat(1, needed(x.samples * height * width) * WORD)


def run_currents(x: SpikeMaps, layer: GatherLayer) -> Tensor:
    """Run a layer without neurons: sums, scaled and with bias, float32 (T, N, C_out, H, W).

    Raises:
        LayoutError: as of `run`, or the layer has neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> run_currents(pack_maps(torch.tensor([[[1.0, 0.0, 1.0]]])), pack(torch.tensor([[1.0, 2.0, 4.0]]), None)).flatten()
        tensor([5.])
    """
    return once(prepare_currents, x, layer)


def prepare_currents(program: Program, x: SpikeMaps, layer: GatherLayer) -> Tensor:
    """Put at the end of a program what `run_currents` does; return what holds them after a run, float32 (T, N, C_out, H, W).

    Raises:
        LayoutError: as of `prepare`, or the layer has neurons.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> program, x = Program(), pack_maps(torch.zeros(1, 1, 2))
        >>> found = prepare_currents(program, x, pack(torch.tensor([[1.5, -1.0]]), None))
        >>> x.words[0] = 1
        >>> program.run()
        >>> found.flatten()
        tensor([1.5000])
    """
    check_neurons(layer.shape.hard, wanted=False)
    out = torch.empty(x.words.shape[1], x.samples, len(layer.rows) - 1, *_output(x, layer), dtype=torch.float32)
    _add(program, x, layer, layer.shape, (Room("gather membrane", 0, torch.float32), out))
    return out


def _output(x: SpikeMaps, layer: GatherLayer) -> tuple[int, int]:
    """Give height and width of what the layer makes."""
    if len(x.words) != layer.inputs:
        raise LayoutError(f"the layer takes {layer.inputs} channels, but spikes of {len(x.words)} were given.")
    return layer.kernel.output(x.height, x.width)


def _add(program: Program, x: SpikeMaps, layer: GatherLayer, shape: Shape, last: tuple[Tensor | Room, Tensor]) -> None:
    """Add the calls, of which the last one is given membranes and the output as its last arrays."""
    channels, timesteps, _ = x.words.shape
    height, width = _output(x, layer)
    lanes, terms = x.samples * height * width, channels * layer.kernel.taps
    alike = layer.kernel.stride == 1 and (height, width) == (x.height, x.width)
    to = Tiling.of(lanes, timesteps, alone=not alike)
    found = Room("gather tiles", -(-to.groups * to.tiles * terms * to.lanes // WORD), torch.int64)
    (_route if not alike else _fold if to.field < WORD else _shift)(program, x, layer.kernel, to, found)
    sums = Room("gather sums", to.tiles * to.lanes, DTYPES[layer.shape.sums])
    arrays = (found, layer.entries, layer.parts, layer.rows, layer.table, lanes_of(lanes), sums, *last)
    sizes = (len(layer.rows) - 1, terms, to.groups, to.tiles, timesteps, needed(lanes), x.samples, height * width)
    program.add(gather_code.layer(replace(shape, lanes=to.lanes, field=to.field)), *arrays, *sizes)


def _shift(program: Program, x: SpikeMaps, kernel: Kernel, to: Tiling, found: Room) -> None:
    """Lay out the bits that each tap sees, where outputs are as many as inputs."""
    (channels, timesteps, width), taps = x.words.shape, kernel.taps
    filled = to.groups * to.field // WORD
    offsets, masks = shifts(kernel, x.samples, x.height, x.width, filled)
    guard = int(offsets.abs().max()) // WORD + 2 + max(filled - width, 0)
    row = torch.zeros(2 * guard + width, dtype=torch.int64)  # what guards the row is never written, and stays 0
    sizes = (channels, timesteps, width, taps, to.groups, to.tiles, guard)
    program.add(gather_code.shifting(to), x.words, offsets, masks, row, found, *sizes)


def _fold(program: Program, x: SpikeMaps, kernel: Kernel, to: Tiling, found: Room) -> None:
    """Do the same where a timestep is less than a word: those of a tile lie in a row before its taps are read, at once."""
    offsets, one = shifts(kernel, x.samples, x.height, x.width, 1)
    places = torch.arange(0, min(to.lanes, WORD), to.field)
    masks = (one << places).sum(1, keepdim=True).repeat(1, to.words)  # no two of these numbers have a bit in common
    guard = int(offsets.abs().max()) // WORD + 2
    row = torch.zeros(2 * guard + to.words, dtype=torch.int64)
    sizes = (*x.words.shape[:2], kernel.taps, to.tiles, guard)
    program.add(gather_code.folding(to), x.words, offsets, masks, row, found, *sizes)


def _route(program: Program, x: SpikeMaps, kernel: Kernel, to: Tiling, found: Room) -> None:
    """Lay out the bits that each tap sees, of any convolution, spike by spike."""
    tile = len(x.words) * kernel.taps * to.lanes
    lanes = outputs(kernel, x.samples, x.height, x.width)
    tap = torch.arange(kernel.taps) * to.lanes
    table = torch.where(lanes < 0, -1, lanes // to.field * (to.tiles * tile) + tap + lanes % to.field)
    prepare_clear(program, found)
    prepare_route(program, x.words, found, table, kernel.taps * to.lanes, to.field if to.tiles == 1 else tile)
