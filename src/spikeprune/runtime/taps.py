"""Where the taps of a convolution find their inputs among the bits of maps: tables for kernels that gather."""

from functools import lru_cache

import torch
from torch import Tensor

from spikeprune.runtime.bits import WORD
from spikeprune.runtime.planes import Kernel
from spikeprune.runtime.spikes import pack_rows


@lru_cache(maxsize=64)
def outputs(kernel: Kernel, samples: int, height: int, width: int) -> Tensor:
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
def shifts(kernel: Kernel, samples: int, height: int, width: int, words: int) -> tuple[Tensor, Tensor]:
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
