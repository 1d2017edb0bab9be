"""A convolution fed by spikes, place by place: the rows of weights of what fired in a place's patch are added up in registers.

The cost goes with the spikes, as of scatter, but no sum is written before it is whole; each row of weights is read again for every spike.
int8 weights are summed in 16 bits, for as many spikes as these hold whichever they are, then moved to 32.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import patches_code
from spikeprune.runtime.event_rows import held
from spikeprune.runtime.integers import affine, check_weight
from spikeprune.runtime.neurons import LANES, START, Neurons, check_neurons, constants, membrane_of
from spikeprune.runtime.once import once
from spikeprune.runtime.patches_code import STEP, Shape
from spikeprune.runtime.planes import Kernel
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.spikes import SpikeMaps, needed

VECTORS = 8  # of LANES outputs, that a tile has at most: their sums stay in registers
MOST = 1 << 31  # what 32 bits address


@dataclass(frozen=True, eq=False)
class PatchLayer:
    """A convolution and its neurons, made by `pack`.

    Attributes:
        weights: int8 or float32 (tiles, taps, C_in, vectors * 32).
        table: float32 (6, outputs filled up), what `neurons.constants` gives.
        kernel: the shape of the convolution; 1 x 1 of a linear layer.
        hard: which reset.
        outputs: how many there are.
        every: how many spikes 16 bits hold, whichever they are.
    """

    weights: Tensor
    table: Tensor
    kernel: Kernel
    hard: bool | None
    outputs: int
    every: int


def pack(
    weight: Tensor,
    neurons: Neurons | None,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> PatchLayer:
    """Lay a layer out.

    Args:
        weight: (C_out, C_in, height, width) or (C_out, C_in), int8 or float32.
        neurons: of C_out channels; the layer must have some.
        scale: float32 (C_out,), by which sums are multiplied; None for 1.
        bias: float32 (C_out,), which is added then; None for 0.
        stride: of the kernel, on both axes.
        padding: zeros on each side.

    Raises:
        QuantizeError: weight, scale or bias is of another dtype or shape.
        LayoutError: there are no neurons, or of another number of channels, or the kernel is of a size that native code does not have, or
            has more weights than it addresses.
        NonFinite: one of the tensors has NaN or infinity.

    Example:
        >>> one = Neurons.alike(1, decay=1.0, threshold=1.0, reset=1.0)
        >>> pack(torch.ones(1, 4, 3, 3), one, padding=1).weights.shape
        torch.Size([1, 9, 4, 32])
    """
    check_weight(weight, (2, 4))
    weight = weight.detach()
    check_neurons(None if neurons is None else neurons.hard, wanted=True)
    if weight[0].numel() * LANES * VECTORS >= MOST:
        raise LayoutError(f"an output has {weight[0].numel():,} weights, but {MOST // (LANES * VECTORS) - 1:,} are the most.")
    height, width = weight.shape[2:] or (1, 1)
    blocks = -(-len(weight) // LANES)
    tiles = -(-blocks // VECTORS)
    lanes = -(-blocks // tiles) * LANES
    filled = F.pad(weight.reshape(len(weight), -1), (0, 0, 0, tiles * lanes - len(weight)))
    rows = filled.view(tiles, lanes, weight.shape[1], height * width).permute(0, 3, 2, 1).contiguous()
    every = held(weight.flatten(1)) if weight.dtype == torch.int8 else weight[0].numel()
    table = constants(neurons, *affine(weight, scale, bias), tiles * lanes)
    hard = None if neurons is None else neurons.hard
    return PatchLayer(rows, table, Kernel(height, width, stride, padding), hard, len(weight), every)


def run(x: SpikeMaps, layer: PatchLayer) -> SpikeMaps:
    """Run a layer and its neurons over all timesteps of all samples.

    Raises:
        LayoutError: the input has another number of channels than the layer, or is smaller than the kernel.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0)
        >>> layer = pack(torch.ones(1, 1, 1, 2), one)
        >>> unpack_maps(run(pack_maps(torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 1, 3)), layer))
        tensor([[[[[1., 0.]]]]])
    """
    return once(prepare, x, layer)


def prepare(program: Program, x: SpikeMaps, layer: PatchLayer, membrane: Tensor | None = None) -> SpikeMaps:
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
        LayoutError: the input has another number of channels than the layer, or is smaller than the kernel; or the membrane another shape.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> layer = pack(torch.ones(1, 1, 1, 1), Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0))
        >>> program, x = Program(), pack_maps(torch.ones(1, 1, 1, 1, 1))
        >>> found = prepare(program, x, layer, rest(x, layer))
        >>> program.run(), found.words.item(), program.run(), found.words.item()  # it fires every other time
        (None, 0, None, 1)
    """
    height, width = _output(x, layer)
    (channels, timesteps, _), (tiles, fans, _, lanes) = x.words.shape, layer.weights.shape
    pitch = x.width + 2 * layer.kernel.padding
    filled = pitch * (x.height + 2 * layer.kernel.padding)
    words = needed(x.samples * height * width)
    out = torch.empty(tiles * lanes, timesteps, words, dtype=torch.int64)
    integer = layer.weights.dtype == torch.int8
    sums = _room("sums", lanes, torch.int32 if integer else torch.float32)
    v = membrane_of(membrane, partial(rest, x, layer), _room("membrane", lanes, torch.float32))
    rooms = (
        _room("counts", timesteps * filled, torch.int32),
        _room("lists", timesteps * filled * channels + STEP, torch.int32),
        _room("patch", fans * channels + STEP, torch.int32),
    )
    masks = _room("masks", tiles * lanes * timesteps * 2 * words, torch.int32)
    step = layer.kernel.stride
    sizes = (x.samples, x.height * x.width, filled, fans, tiles, layer.every, height, width, step * pitch, step, 2 * words)
    shape = Shape(lanes // LANES, integer, bool(layer.hard), membrane is not None)
    arrays = (x.words, *_places(x.height, x.width, layer.kernel), *rooms, layer.weights, layer.table, sums, v, masks, out)
    program.add(patches_code.layer(shape), *arrays, channels, timesteps, x.words.shape[2], *sizes)
    return SpikeMaps(out[: layer.outputs], x.samples, height, width)


def rest(x: SpikeMaps, layer: PatchLayer) -> Tensor:
    """Give membranes before the first timestep, float32 (N, H W, outputs filled up), of the output's places.

    Raises:
        LayoutError: the layer does not fit the input.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0, start=0.5)
        >>> rest(pack_maps(torch.ones(1, 2, 1, 1, 1)), pack(torch.ones(1, 1, 1, 1), one))[..., 0].flatten()
        tensor([0.5000, 0.5000])
    """
    height, width = _output(x, layer)
    return layer.table[START].repeat(x.samples, height * width, 1)


def _output(x: SpikeMaps, layer: PatchLayer) -> tuple[int, int]:
    """Give height and width of what the layer makes."""
    if len(x.words) != layer.weights.shape[2]:
        raise LayoutError(f"the layer takes {layer.weights.shape[2]} channels, but spikes of {len(x.words)} were given.")
    return layer.kernel.output(x.height, x.width)


@lru_cache(maxsize=256)
def _places(height: int, width: int, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Give where places lie in a map with its padding, and how far taps lie behind the first: int32."""
    pitch = width + 2 * kernel.padding
    y, x = torch.arange(height)[:, None] + kernel.padding, torch.arange(width) + kernel.padding
    taps = torch.arange(kernel.height)[:, None] * pitch + torch.arange(kernel.width)
    return (y * pitch + x).flatten().int(), taps.flatten().int()


def _room(name: str, count: int, dtype: torch.dtype) -> Room:
    return Room(f"patches {name}", count, dtype)
