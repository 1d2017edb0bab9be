"""Spikes as bits, the form in which they go from layer to layer: a bit for each neuron and timestep, 64 to a word.

Two layouts, each with what lies innermost ready for its kernels. Bit i of a row is bit i % 64 of word i // 64, and bits behind the
last are 0::

    SpikeRows  int64 (N, T, words)  a row holds the features of one sample at one timestep
    SpikeMaps  int64 (C, T, words)  a row holds the places of one channel, of all samples: bit n H W + y W + x

Rows are what a linear layer reads event by event; maps what a convolution reads, and a linear layer over many samples, whose
features are channels of one place.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import bits
from spikeprune.runtime.bits import WORD


@dataclass(frozen=True, eq=False)
class SpikeRows:
    """Spikes of features.

    Attributes:
        words: int64 (N, T, words), contiguous; there may be more words than the features need.
        features: how many bits of a row count.
    """

    words: Tensor
    features: int

    def __post_init__(self) -> None:
        _check(self.words, self.features)


@dataclass(frozen=True, eq=False)
class SpikeMaps:
    """Spikes of channels, of which each is a map.

    Attributes:
        words: int64 (C, T, words), contiguous; there may be more words than the places need.
        samples: N.
        height: of a map.
        width: of a map.
    """

    words: Tensor
    samples: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _check(self.words, self.lanes)

    @property
    def lanes(self) -> int:
        """How many bits of a row count: places of all samples."""
        return self.samples * self.height * self.width


def pack_rows(x: Tensor) -> SpikeRows:
    """Pack spikes (T, N, F); what is not 0 is a spike.

    Raises:
        LayoutError: x has no three axes.

    Example:
        >>> pack_rows(torch.tensor([[[1.0, 0.0, 1.0, 1.0]]])).words
        tensor([[[13]]])
    """
    if x.dim() != 3:
        raise LayoutError(f"rows of spikes are (T, N, F), but {tuple(x.shape)} was given.")
    return SpikeRows(_pack(x.transpose(0, 1)), x.shape[2])


def unpack_rows(rows: SpikeRows) -> Tensor:
    """Give spikes back as float32 (T, N, F).

    Example:
        >>> unpack_rows(pack_rows(torch.tensor([[[1.0, 0.0, 1.0]]])))
        tensor([[[1., 0., 1.]]])
    """
    return _unpack(rows.words, rows.features).transpose(0, 1).contiguous()


def pack_maps(x: Tensor) -> SpikeMaps:
    """Pack spikes (T, N, C, H, W), or (T, N, F) as features of one place; what is not 0 is a spike.

    Raises:
        LayoutError: x has neither five axes nor three.

    Example:
        >>> pack_maps(torch.tensor([[[[[1.0, 0.0], [1.0, 1.0]]]]])).words
        tensor([[[13]]])
    """
    if x.dim() not in (3, 5):
        raise LayoutError(f"maps of spikes are (T, N, C, H, W) or (T, N, F), but {tuple(x.shape)} was given.")
    t, n, c, h, w = shape = (*x.shape, 1, 1)[:5]
    return SpikeMaps(_pack(x.reshape(shape).permute(2, 0, 1, 3, 4).reshape(c, t, n * h * w)), n, h, w)


def unpack_maps(maps: SpikeMaps) -> Tensor:
    """Give spikes back as float32 (T, N, C, H, W).

    Example:
        >>> unpack_maps(pack_maps(torch.eye(2).view(1, 1, 1, 2, 2)))
        tensor([[[[[1., 0.],
                   [0., 1.]]]]])
    """
    c, t, _ = maps.words.shape
    x = _unpack(maps.words, maps.lanes).view(c, t, maps.samples, maps.height, maps.width)
    return x.permute(1, 2, 0, 3, 4).contiguous()


def max_pool(maps: SpikeMaps, size: int, stride: int | None = None) -> SpikeMaps:
    """Give a spike wherever there is one in a window of size x size; windows that reach over the border are left out.

    Raises:
        LayoutError: the window is larger than the map.

    Example:
        >>> unpack_maps(max_pool(pack_maps(torch.eye(4).view(1, 1, 1, 4, 4)), 2))
        tensor([[[[[1., 0.],
                   [0., 1.]]]]])
    """
    stride = size if stride is None else stride
    if not (1 <= size <= min(maps.height, maps.width) and stride >= 1):
        raise LayoutError(f"windows of {size} every {stride} do not fit maps of {maps.height} x {maps.width}.")
    height, width = ((side - size) // stride + 1 for side in (maps.height, maps.width))
    c, t, _ = maps.words.shape
    words = torch.zeros(c, t, needed(maps.samples * height * width), dtype=torch.int64)
    if size == stride == 2 and maps.height % 2 == 0 and maps.width in (2, 4, 8, 16, 32):
        sizes = (c * t, needed(maps.lanes), maps.words.shape[2], 4 * words.shape[2])
        bits.halve(maps.width)(maps.words.data_ptr(), words.data_ptr(), *sizes)
        return SpikeMaps(words, maps.samples, height, width)
    step = words.shape[2] * WORD
    route(maps.words, words, _windows(maps.samples, maps.height, maps.width, size, stride), t * step, step)
    return SpikeMaps(words, maps.samples, height, width)


def flatten(maps: SpikeMaps) -> SpikeRows:
    """Turn maps into the features c H W + y W + x, the order of `torch.flatten`.

    Example:
        >>> unpack_rows(flatten(pack_maps(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]).view(1, 1, 3, 1, 2))))
        tensor([[[1., 0., 0., 1., 1., 1.]]])
    """
    c, t, _ = maps.words.shape
    places = maps.height * maps.width
    words = torch.zeros(maps.samples, t, needed(c * places), dtype=torch.int64)
    lane = torch.arange(maps.lanes)
    route(maps.words, words, lane // places * (t * words.shape[2] * WORD) + lane % places, places, words.shape[2] * WORD)
    return SpikeRows(words, c * places)


def spread(rows: SpikeRows) -> SpikeMaps:
    """Turn features into channels of one place, the inverse of `flatten` of such.

    Example:
        >>> unpack_maps(spread(pack_rows(torch.tensor([[[1.0, 0.0, 1.0]]])))).flatten()
        tensor([1., 0., 1.])
    """
    n, t, _ = rows.words.shape
    words = torch.zeros(rows.features, t, needed(n), dtype=torch.int64)
    step = words.shape[2] * WORD
    route(rows.words, words, torch.arange(rows.features) * (t * step), 1, step)
    return SpikeMaps(words, n, 1, 1)


def any_of(one: SpikeMaps, other: SpikeMaps) -> SpikeMaps:
    """Give a spike wherever one of two has one.

    Raises:
        LayoutError: their shapes differ.

    Example:
        >>> one, other = (pack_maps(torch.tensor(x).view(1, 1, 3, 1, 1)) for x in ([1.0, 0.0, 0.0], [1.0, 1.0, 0.0]))
        >>> unpack_maps(any_of(one, other)).flatten()
        tensor([1., 1., 0.])
    """
    shapes = [(*m.words.shape[:2], m.samples, m.height, m.width) for m in (one, other)]
    if shapes[0] != shapes[1]:
        raise LayoutError(f"spikes of (C, T, N, H, W) {shapes[0]} and {shapes[1]} do not fit each other.")
    width = needed(one.lanes)
    return SpikeMaps(one.words[..., :width] | other.words[..., :width], one.samples, one.height, one.width)


def counts(spikes: SpikeRows | SpikeMaps) -> Tensor:
    """Count the spikes of each row of the layout: int64 (N, T) of rows, (C, T) of maps.

    Example:
        >>> counts(pack_rows(torch.tensor([[[1.0, 0.0, 1.0]], [[0.0, 0.0, 0.0]]])))
        tensor([[2, 0]])
    """
    found = torch.empty(spikes.words.shape[:2], dtype=torch.int64)
    bits.count()(spikes.words.data_ptr(), found.data_ptr(), found.numel(), spikes.words.shape[2])
    return found


def needed(count: int) -> int:
    """Say how many words so many bits take.

    Example:
        >>> [needed(count) for count in (1, 64, 65)]
        [1, 1, 2]
    """
    return -(-count // WORD)


@lru_cache(maxsize=64)
def lanes_of(count: int) -> Tensor:
    """Give so many bits that are set, int64 (words,).

    Example:
        >>> lanes_of(66)
        tensor([-1,  3])
    """
    return pack_rows(torch.ones(1, 1, count)).words.flatten()


def route(source: Tensor, target: Tensor, table: Tensor, outer_step: int, inner_step: int) -> None:
    """Send bits to others, as `bits.route` says.

    Args:
        source: int64 (outer, inner, words).
        target: int64, contiguous; bits are added to those that it has.
        table: whole numbers (bits, fans) or (bits,), for the bits of a row that may be set.
        outer_step: in bits of the target.
        inner_step: in bits of the target.

    Raises:
        LayoutError: the target has more bits than a table can address.

    Example:
        >>> target = torch.zeros(1, dtype=torch.int64)
        >>> route(torch.tensor([[[5]]]), target, torch.tensor([3, -1, 0]), 0, 0)  # bits 0 and 2 go to 3 and 0
        >>> target
        tensor([9])
    """
    if target.numel() >= 2**31 // WORD:
        raise LayoutError(f"{target.numel()} words of spikes are more than one call takes; give fewer samples at a time.")
    table = table.view(len(table), -1).int()
    outer, inner, width = source.shape
    places = (source.data_ptr(), target.data_ptr(), table.data_ptr())
    bits.route()(*places, outer, inner, width, table.shape[1], outer_step, inner_step)


@lru_cache(maxsize=256)
def _windows(samples: int, height: int, width: int, size: int, stride: int) -> Tensor:
    """For each place of all samples, the windows that it lies in, -1 for none: (N H W, fans)."""
    rows, columns = (_covering(side, size, stride) for side in (height, width))
    down, across = ((side - size) // stride + 1 for side in (height, width))
    both = rows[:, None, :, None] * across + columns[None, :, None, :]
    both = both.masked_fill((rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :], -1).reshape(height * width, -1)
    first = torch.arange(samples)[:, None, None] * (down * across)
    return torch.where(both < 0, -1, both + first).reshape(samples * height * width, -1).int()


def _covering(side: int, size: int, stride: int) -> Tensor:
    """For each place of one axis, the windows that it lies in, -1 for none: (side, fans)."""
    place, fan = torch.arange(side)[:, None], torch.arange(-(-size // stride))
    window = place // stride - fan
    inside = (window >= 0) & (window * stride + size > place) & (window <= (side - size) // stride)
    return torch.where(inside, window, -1)


def _pack(x: Tensor) -> Tensor:
    x = x.detach().to("cpu", torch.float32).contiguous()
    outer, inner, count = x.shape
    words = torch.zeros(outer, inner, needed(count), dtype=torch.int64)
    bits.pack()(x.data_ptr(), words.data_ptr(), outer * inner, count, words.shape[2])
    return words


def _unpack(words: Tensor, count: int) -> Tensor:
    outer, inner, width = words.shape
    x = torch.empty(outer, inner, count)
    bits.unpack()(words.data_ptr(), x.data_ptr(), outer * inner, count, width)
    return x


def _check(words: Tensor, count: int) -> None:
    if words.dim() != 3 or words.dtype != torch.int64 or not words.is_contiguous() or words.device.type != "cpu":
        raise LayoutError(
            f"words of spikes are contiguous int64 of three axes on the CPU, but {words.dtype} {tuple(words.shape)} on "
            f"{words.device} was given."
        )
    if count < 1 or words.shape[2] * WORD < count or not words.numel():
        raise LayoutError(f"{count} spikes a row do not fit words {tuple(words.shape)}; none of these may be empty.")
