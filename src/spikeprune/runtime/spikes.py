"""Spikes as bits, the form in which they go from layer to layer: a bit for each neuron and timestep, 64 to a word.

Two layouts, each with what lies innermost ready for its kernels. Bit i of a row is bit i % 64 of word i // 64, and bits behind the
last are 0::

    SpikeRows  int64 (N, T, words)  a row holds the features of one sample at one timestep
    SpikeMaps  int64 (C, T, words)  a row holds the places of one channel, of all samples: bit n H W + y W + x

Rows are what a linear layer reads event by event; maps what a convolution reads, and a linear layer over many samples, whose
features are channels of one place.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import bits
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.once import once
from spikeprune.runtime.program import Program, Room


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
    return once(prepare_pack_rows, x.detach().to("cpu", torch.float32).contiguous())


def prepare_pack_rows(program: Program, x: Tensor) -> SpikeRows:
    """Put at the end of a program what `pack_rows` does, of what x holds whenever it runs.

    Args:
        program: to which it is added.
        x: float32 (T, N, F) on the CPU, contiguous; what is the same at all timesteps may be expanded.

    Returns:
        what holds the spikes after a run.

    Raises:
        LayoutError: x is of another dtype, device or layout, or has no three axes.

    Example:
        >>> program, x = Program(), torch.zeros(1, 1, 3)
        >>> rows = prepare_pack_rows(program, x)
        >>> x[0, 0, 1:] = torch.tensor([1.0, 0.5])
        >>> program.run()
        >>> rows.words
        tensor([[[6]]])
    """
    if x.dim() != 3:
        raise LayoutError(f"rows of spikes are (T, N, F), but {tuple(x.shape)} was given.")
    t, n, features = x.shape
    rows = SpikeRows(torch.zeros(n, t, needed(features), dtype=torch.int64), features)
    _pack(program, x, rows.words, (n, t, 1, features), (features, x.stride(0), 0))
    return rows


def unpack_rows(rows: SpikeRows) -> Tensor:
    """Give spikes back as float32 (T, N, F).

    Example:
        >>> unpack_rows(pack_rows(torch.tensor([[[1.0, 0.0, 1.0]]])))
        tensor([[[1., 0., 1.]]])
    """
    return once(prepare_unpack_rows, rows)


def prepare_unpack_rows(program: Program, rows: SpikeRows) -> Tensor:
    """Put at the end of a program what `unpack_rows` does; return what holds the spikes after a run, float32 (T, N, F).

    Example:
        >>> program, x = Program(), torch.zeros(1, 1, 3)
        >>> again = prepare_unpack_rows(program, prepare_pack_rows(program, x))
        >>> x[0, 0, 2] = 7.0
        >>> program.run()
        >>> again
        tensor([[[0., 0., 1.]]])
    """
    n, t, _ = rows.words.shape
    out = torch.empty(t, n, rows.features, dtype=torch.float32)
    _unpack(program, rows.words, out, (t, n, 1, rows.features), (rows.features, t * rows.features, 0))
    return out


def pack_maps(x: Tensor) -> SpikeMaps:
    """Pack spikes (T, N, C, H, W), or (T, N, F) as features of one place; what is not 0 is a spike.

    Raises:
        LayoutError: x has neither five axes nor three.

    Example:
        >>> pack_maps(torch.tensor([[[[[1.0, 0.0], [1.0, 1.0]]]]])).words
        tensor([[[13]]])
    """
    return once(prepare_pack_maps, x.detach().to("cpu", torch.float32).contiguous())


def prepare_pack_maps(program: Program, x: Tensor) -> SpikeMaps:
    """Put at the end of a program what `pack_maps` does, of what x holds whenever it runs.

    Args:
        program: to which it is added.
        x: float32 (T, N, C, H, W) or (T, N, F) on the CPU, contiguous; what is the same at all timesteps may be expanded.

    Returns:
        what holds the spikes after a run.

    Raises:
        LayoutError: x is of another dtype, device or layout, or has neither five axes nor three.

    Example:
        >>> program, x = Program(), torch.zeros(1, 1, 2, 1, 2)
        >>> maps = prepare_pack_maps(program, x)
        >>> x[0, 0, 1] = torch.tensor([0.0, 1.0])
        >>> program.run()
        >>> maps.words.flatten()
        tensor([0, 2])
    """
    if x.dim() not in (3, 5):
        raise LayoutError(f"maps of spikes are (T, N, C, H, W) or (T, N, F), but {tuple(x.shape)} was given.")
    t, n, c, h, w = (*x.shape, 1, 1)[:5]
    maps = SpikeMaps(torch.zeros(c, t, needed(n * h * w), dtype=torch.int64), n, h, w)
    _pack(program, x, maps.words, (c, t, n, h * w), (h * w, x.stride(0), c * h * w))
    return maps


def unpack_maps(maps: SpikeMaps) -> Tensor:
    """Give spikes back as float32 (T, N, C, H, W).

    Example:
        >>> unpack_maps(pack_maps(torch.eye(2).view(1, 1, 1, 2, 2)))
        tensor([[[[[1., 0.],
                   [0., 1.]]]]])
    """
    return once(prepare_unpack_maps, maps)


def prepare_unpack_maps(program: Program, maps: SpikeMaps) -> Tensor:
    """Put at the end of a program what `unpack_maps` does; return what holds the spikes after a run, float32 (T, N, C, H, W).

    Example:
        >>> program, x = Program(), torch.zeros(1, 1, 1, 1, 2)
        >>> again = prepare_unpack_maps(program, prepare_pack_maps(program, x))
        >>> x[..., 1] = 7.0
        >>> program.run()
        >>> again
        tensor([[[[[0., 1.]]]]])
    """
    c, t, _ = maps.words.shape
    places = maps.height * maps.width
    out = torch.empty(t, maps.samples, c, maps.height, maps.width, dtype=torch.float32)
    _unpack(program, maps.words, out, (t, maps.samples, c, places), (maps.lanes, places, t * maps.lanes))
    return out


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


def _pack(program: Program, x: Tensor, words: Tensor, shape: tuple[int, int, int, int], steps: tuple[int, int, int]) -> None:
    """Pack numbers, of which `bits.arrange` makes rows; shape and steps are its."""
    one = x[0]
    if x.dtype != torch.float32 or x.device.type != "cpu" or not one.is_contiguous():
        raise LayoutError(
            f"numbers to pack are float32 on the CPU, each timestep contiguous, but {x.dtype} {tuple(x.shape)} on {x.device} with strides "
            f"{x.stride()} was given."
        )
    outer, middle, inner, count = shape
    numbers: Tensor | Room = one
    if not _in_order(shape, steps):
        numbers = Room("arranged numbers", math.prod(shape), torch.float32)
        program.add(bits.arrange(), one, numbers, *shape, *steps)
    program.add(bits.pack(), numbers, words, outer * middle, inner * count, words.shape[2])


def _unpack(program: Program, words: Tensor, out: Tensor, shape: tuple[int, int, int, int], steps: tuple[int, int, int]) -> None:
    """Unpack words into rows, of which `bits.arrange` makes what is asked for; shape and steps are its."""
    rows, count = len(words) * words.shape[1], out.numel() // (len(words) * words.shape[1])
    if _in_order(shape, steps):
        program.add(bits.unpack(), words, out, rows, count, words.shape[2])
        return
    numbers = Room("arranged numbers", out.numel(), torch.float32)
    program.add(bits.unpack(), words, numbers, rows, count, words.shape[2])
    program.add(bits.arrange(), numbers, out, *shape, *steps)


def _in_order(shape: tuple[int, int, int, int], steps: tuple[int, int, int]) -> bool:
    """Say whether `bits.arrange` would change nothing; an axis of one may step anyhow."""
    outer, middle, inner, count = shape
    plain = ((outer, middle * inner * count), (middle, inner * count), (inner, count))
    return all(size == 1 or step == found for (size, step), found in zip(plain, steps, strict=True))


def _check(words: Tensor, count: int) -> None:
    if words.dim() != 3 or words.dtype != torch.int64 or not words.is_contiguous() or words.device.type != "cpu":
        raise LayoutError(
            f"words of spikes are contiguous int64 of three axes on the CPU, but {words.dtype} {tuple(words.shape)} on "
            f"{words.device} was given."
        )
    if count < 1 or words.shape[2] * WORD < count or not words.numel():
        raise LayoutError(f"{count} spikes a row do not fit words {tuple(words.shape)}; none of these may be empty.")
