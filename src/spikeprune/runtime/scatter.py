"""A convolution fed by spikes, scattered: each spike adds its taps' weights to the sums of 32 channels, in a plane that stays in cache.

The cost goes with the spikes, and not with the weights' sparsity. int8 weights are summed in 16 bits, and moved to 32 before the first
channel with which sums could leave these, whichever inputs fire; so they are exact.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import scatter_code, spikes
from spikeprune.runtime.integers import SHORT, affine, check_weight
from spikeprune.runtime.neurons import LANES, Neurons, constants
from spikeprune.runtime.planes import Kernel, Plane, plane
from spikeprune.runtime.scatter_code import Shape
from spikeprune.runtime.spikes import SpikeMaps, needed

ROOM = 24 << 10  # bytes of sums, so that the first-level cache holds them beside the weights


@dataclass(frozen=True, eq=False)
class ScatterLayer:
    """A convolution and its neurons, made by `pack`.

    Attributes:
        weights: int8 or float32 (blocks of 32 outputs, C_in, taps phase by phase, 32).
        flushes: int8 (blocks, C_in), 1 where sums are moved to 32 bits before this channel.
        table: float32 (6, blocks * 32), what `neurons.constants` gives.
        kernel: the shape of the convolution.
        hard: which reset.
        outputs: C_out.
    """

    weights: Tensor
    flushes: Tensor
    table: Tensor
    kernel: Kernel
    hard: bool
    outputs: int


def pack(
    weight: Tensor,
    neurons: Neurons,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
) -> ScatterLayer:
    """Lay a layer out.

    Args:
        weight: (C_out, C_in, height, width), int8 or float32.
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
    return ScatterLayer(weights, flushes(weights), table, kernel, neurons.hard, len(weight))


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


def run(x: SpikeMaps, layer: ScatterLayer) -> SpikeMaps:
    """Run a layer and its neurons over all timesteps of all samples.

    Raises:
        LayoutError: the input has another number of channels than the layer, or is smaller than the kernel.

    Example:
        >>> one = Neurons.alike(1, decay=1.0, threshold=2.0, reset=2.0)
        >>> layer = pack(torch.ones(1, 1, 1, 2), one)
        >>> spikes.unpack_maps(run(spikes.pack_maps(torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 1, 3)), layer))
        tensor([[[[[1., 0.]]]]])
    """
    channels, timesteps, _ = x.words.shape
    blocks, inputs, _, _ = layer.weights.shape
    if channels != inputs:
        raise LayoutError(f"the layer takes {inputs} channels, but spikes of {channels} were given.")
    to = plane(layer.kernel, x.height, x.width)
    integer = layer.weights.dtype == torch.int8
    size = ROOM // (to.size * LANES * (2 if integer else 4))
    slots = max(1, min(size, x.samples * timesteps))
    events, firsts = _events(x, to, slots)
    words = needed(x.samples * to.height * to.width)
    out = torch.empty(blocks * LANES, timesteps, words, dtype=torch.int64)
    wide = bool(layer.flushes.any())
    room = _room(slots * to.size * LANES, to, integer=integer, wide=wide)
    masks = torch.empty(timesteps * words * 64, dtype=torch.int32)
    tensors = (events, firsts, layer.weights, layer.flushes, layer.table, *room, masks, out)
    shape = Shape(replace(layer.kernel, padding=0), integer, wide, layer.hard)
    sizes = (channels, blocks, x.samples, timesteps, slots, to.size, to.pitch, to.height, to.width, to.origin, 2 * words)
    scatter_code.convolution(shape)(*(one.data_ptr() for one in tensors), *sizes)
    return SpikeMaps(out[: layer.outputs], x.samples, to.height, to.width)


def _events(x: SpikeMaps, to: Plane, slots: int) -> tuple[Tensor, Tensor]:
    channels, timesteps, width = x.words.shape
    phases, places = to.starts.shape
    events = torch.empty(int(spikes.counts(x).sum()) + 1, dtype=torch.int32)  # one is written ahead, and then not counted
    firsts = torch.empty(-(-x.samples * timesteps // slots) * channels * phases + 1, dtype=torch.int32)
    tensors = (x.words, to.starts, events, firsts)
    sizes = (channels, timesteps, width, x.samples, places, phases, slots, to.size)
    scatter_code.listing()(*(one.data_ptr() for one in tensors), *sizes)
    return events, firsts


def _room(sums: int, to: Plane, *, integer: bool, wide: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Make room for sums, wide sums and membranes."""
    narrow = torch.empty(sums, dtype=torch.int16 if integer else torch.float32)
    return narrow, torch.empty(sums if wide else 0, dtype=torch.int32), torch.empty(to.height * to.width * LANES)
