"""A convolution or linear layer of sparse weights: each weight that lives is applied to all places and samples at once.

The cost goes with the weights that live, and not with the spikes. It needs many lanes (places times samples); a linear layer has those
of its samples. int8 weights are summed in 16 bits, row by row in as many parts as these can hold whichever inputs fire.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import gather_code
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.gather_code import WORDS, Shape
from spikeprune.runtime.integers import SHORT, affine, check_weight
from spikeprune.runtime.neurons import Neurons, constants
from spikeprune.runtime.planes import Kernel
from spikeprune.runtime.spikes import SpikeMaps, lanes_of, needed, pack_rows, route


@dataclass(frozen=True, eq=False)
class GatherLayer:
    """A layer of sparse weights and its neurons, made by `pack`.

    Attributes:
        entries: int32 (weights that are not 0, 2), by output, then by term, which is channel * taps + tap; as `gather_code.layer` says.
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
    neurons: Neurons,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> GatherLayer:
    """Lay a layer out; its dead weights are the zeros.

    Args:
        weight: (C_out, C_in, height, width) or (C_out, C_in), int8 or float32.
        neurons: of C_out channels.
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
        >>> pack(torch.tensor([[3, 0, -1]], dtype=torch.int8), one).entries.tolist()  # 3 and -1, twice in 32 bits
        [[0, 196611], [2, -1]]
    """
    check_weight(weight, (2, 4))
    weight = weight.detach()
    height, width = weight.shape[2:] or (1, 1)
    kernel = Kernel(height, width, stride, padding)
    flat = weight.reshape(len(weight), -1)
    output, term = flat.nonzero(as_tuple=True)
    values, integer = flat[output, term], weight.dtype == torch.int8
    words = (values.int() & 0xFFFF | values.int() << 16) if integer else values.view(torch.int32)
    entries = torch.stack([term.int(), words], 1).contiguous()
    counts = torch.bincount(output, minlength=len(weight))
    cuts = [bounds(row) if integer else [len(row)] for row in torch.split(values, counts.tolist())]
    parts = torch.tensor([0, *(end for row in cuts for end in row)])
    first = torch.tensor([0, *(len(row) for row in cuts)]).cumsum(0)
    shifts = (counts.cumsum(0) - counts).repeat_interleave(first.diff())
    parts[1:] += shifts
    wide = any(len(row) > 1 for row in cuts)
    table = constants(neurons, *affine(weight, scale, bias), len(weight))
    return GatherLayer(entries, parts.int(), first.int(), table, kernel, weight.shape[1], Shape(integer, wide, neurons.hard))


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
        LayoutError: the input has another number of channels than the layer, or is smaller than the kernel.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> layer = pack(torch.tensor([[1.0, 1.0, 0.0]]), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> x = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])  # two samples
        >>> unpack_maps(run(pack_maps(x.view(1, 2, 3)), layer)).flatten()
        tensor([1., 0.])
    """
    channels, timesteps, _ = x.words.shape
    if channels != layer.inputs:
        raise LayoutError(f"the layer takes {layer.inputs} channels, but spikes of {channels} were given.")
    height, width = layer.kernel.output(x.height, x.width)
    words = needed(x.samples * height * width)
    alike = layer.kernel.stride == 1 and (height, width) == (x.height, x.width)
    step = min(WORDS, 1 << (words - 1).bit_length()) if alike else WORDS  # words of a timestep in a tile
    groups, tiles = -(-words // step), -(-timesteps * step // WORDS)
    terms = channels * layer.kernel.taps
    found = _shifted(x, layer.kernel, (groups, tiles, step)) if alike else _routed(x, layer.kernel, groups)
    valid = lanes_of(x.samples * height * width)
    kinds = {"i16": torch.int16, "i32": torch.int32, "f32": torch.float32}
    sums = torch.empty(tiles * WORDS * WORD, dtype=kinds[layer.shape.sums])
    out = torch.empty(len(layer.rows) - 1, timesteps, words, dtype=torch.int64)
    tensors = (found, layer.entries, layer.parts, layer.rows, layer.table, valid, sums, out)
    sizes = (len(out), terms, groups, tiles, timesteps, words, step)
    gather_code.layer(layer.shape)(*(one.data_ptr() for one in tensors), *sizes)
    return SpikeMaps(out, x.samples, height, width)


def _shifted(x: SpikeMaps, kernel: Kernel, parts: tuple[int, int, int]) -> Tensor:
    """Lay out the bits that each tap sees, where outputs are as many as inputs: int64 (groups, tiles, C_in * taps, WORDS)."""
    (groups, tiles, step), (channels, timesteps, width), taps = parts, x.words.shape, kernel.taps
    offsets, masks = _shifts(kernel, x.samples, x.height, x.width, groups * step)
    guard = int(offsets.abs().max()) // WORD + 2 + max(groups * step - width, 0)
    row = torch.zeros(2 * guard + width, dtype=torch.int64)
    found = torch.empty(groups, tiles, channels * taps, WORDS, dtype=torch.int64)
    tensors = (x.words, offsets, masks, row, found)
    sizes = (channels, timesteps, width, taps, groups, tiles, guard)
    gather_code.shifting(step)(*(one.data_ptr() for one in tensors), *sizes)
    return found


def _routed(x: SpikeMaps, kernel: Kernel, groups: int) -> Tensor:
    """Lay out the bits that each tap sees, of any convolution, spike by spike: int64 (groups, T, C_in * taps, WORDS)."""
    channels, timesteps, _ = x.words.shape
    terms, tile = channels * kernel.taps, WORDS * WORD
    found = torch.zeros(groups, timesteps, terms, WORDS, dtype=torch.int64)
    lanes = _outputs(kernel, x.samples, x.height, x.width)
    tap = torch.arange(kernel.taps) * tile
    table = torch.where(lanes < 0, -1, lanes // tile * (timesteps * terms * tile) + tap + lanes % tile)
    route(x.words, found, table, kernel.taps * tile, terms * tile)
    return found


@lru_cache(maxsize=64)
def _outputs(kernel: Kernel, samples: int, height: int, width: int) -> Tensor:
    """For each place of all samples and each tap, the lane of the output that it meets, -1 for none: (N H W, taps)."""
    down, across = kernel.output(height, width)
    y = torch.arange(height)[:, None] + kernel.padding - torch.arange(kernel.height)  # (height, kernel height)
    x = torch.arange(width)[:, None] + kernel.padding - torch.arange(kernel.width)
    met_y, met_x = ((z >= 0) & (z % kernel.stride == 0) & (z // kernel.stride < size) for z, size in ((y, down), (x, across)))
    lanes = (y // kernel.stride * across)[:, None, :, None] + (x // kernel.stride)[None, :, None, :]
    lanes = torch.where(met_y[:, None, :, None] & met_x[None, :, None, :], lanes, -1).reshape(height * width, -1)
    first = torch.arange(samples)[:, None, None] * (down * across)
    return torch.where(lanes < 0, -1, lanes + first).flatten(0, 1)


@lru_cache(maxsize=64)
def _shifts(kernel: Kernel, samples: int, height: int, width: int, words: int) -> tuple[Tensor, Tensor]:
    """For each tap, how far away in the row its input is, and where it lies inside of the map: (taps,) and (taps, words)."""
    down, across = (torch.arange(side) - kernel.padding for side in (kernel.height, kernel.width))
    offsets = (down[:, None] * width + across).flatten()
    rows, columns = torch.arange(height), torch.arange(width)
    inside_y = (rows + down[:, None] >= 0) & (rows + down[:, None] < height)
    inside_x = (columns + across[:, None] >= 0) & (columns + across[:, None] < width)
    inside = inside_y[:, None, :, None] & inside_x[None, :, None, :]  # (kernel height, kernel width, height, width)
    lanes = torch.zeros(1, kernel.taps, words * WORD)
    lanes[0, :, : samples * height * width] = inside.reshape(kernel.taps, 1, -1).expand(-1, samples, -1).flatten(1)
    return offsets, pack_rows(lanes).words[:, 0].contiguous()
