"""Spikes sent elsewhere bit by bit: pooled, cropped, split, and put side by side.

Each has a form that puts itself at the end of a program, reads what its input holds whenever that runs, and returns what holds the
result afterwards.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import bits
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.once import once
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.spikes import SpikeMaps, needed


def max_pool(maps: SpikeMaps, size: int, stride: int | None = None, padding: int = 0) -> SpikeMaps:
    """Give a spike wherever there is one in a window of size x size; windows that reach over the far border are left out.

    Raises:
        LayoutError: the window is larger than the map with its padding, or the padding more than half a window.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> unpack_maps(max_pool(pack_maps(torch.eye(4).view(1, 1, 1, 4, 4)), 2))
        tensor([[[[[1., 0.],
                   [0., 1.]]]]])
    """
    return once(prepare_max_pool, maps, size, stride, padding)


def prepare_max_pool(program: Program, maps: SpikeMaps, size: int, stride: int | None = None, padding: int = 0) -> SpikeMaps:
    """Put at the end of a program what `max_pool` does.

    Raises:
        LayoutError: the window is larger than the map with its padding, or the padding more than half a window.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> program, x = Program(), pack_maps(torch.zeros(1, 1, 1, 4, 4))
        >>> pooled = prepare_max_pool(program, x, 2)
        >>> x.words[:] = 1 << 15  # the last place
        >>> program.run()
        >>> pooled.words
        tensor([[[8]]])
    """
    stride = size if stride is None else stride
    if not (1 <= size <= min(maps.height, maps.width) + 2 * padding and stride >= 1 and 0 <= 2 * padding <= size):
        raise LayoutError(
            f"windows of {size} every {stride}, padded by {padding}, do not fit maps of {maps.height} x {maps.width}."
        )
    height, width = ((side + 2 * padding - size) // stride + 1 for side in (maps.height, maps.width))
    c, t, _ = maps.words.shape
    words = torch.zeros(c, t, needed(maps.samples * height * width), dtype=torch.int64)
    if size == stride == 2 and not padding and maps.height % 2 == 0 and maps.width in (2, 4, 8, 16, 32):
        program.add(
            bits.halve(),
            maps.words,
            words,
            *_in_rows(c * t, needed(maps.lanes), maps.words.shape[2], 4 * words.shape[2]),
            maps.width,
        )
    else:
        step, windows = words.shape[2] * WORD, _windows(maps.samples, maps.height, maps.width, size, stride, padding)
        prepare_clear(program, words)
        prepare_route(program, maps.words, words, windows, t * step, step)
    return SpikeMaps(words, maps.samples, height, width)


def _in_rows(rows: int, count: int, pitch: int, out_pitch: int) -> tuple[int, int, int, int, int]:
    """Give the sizes of `bits.halve`, all rows as one where the words lie at even distances: a long row takes less time than short ones.

    Example:
        >>> _in_rows(6, 4, 4, 4), _in_rows(6, 1, 1, 4), _in_rows(6, 2, 2, 4)
        ((1, 24, 24, 24, 1), (1, 6, 6, 24, 4), (6, 2, 2, 4, 1))
    """
    if count == pitch == out_pitch:
        return 1, rows * count, rows * count, rows * count, 1
    if count == pitch == 1:
        return 1, rows, rows, rows * out_pitch, out_pitch
    return rows, count, pitch, out_pitch, 1


def join(parts: Sequence[SpikeMaps]) -> SpikeMaps:
    """Put the channels of several maps in a row.

    Raises:
        LayoutError: they differ in timesteps, samples or size.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> one, other = (pack_maps(torch.tensor(x).view(1, 1, 2, 1, 1)) for x in ([1.0, 0.0], [0.0, 1.0]))
        >>> unpack_maps(join([one, other])).flatten()
        tensor([1., 0., 0., 1.])
    """
    program = Program()
    found = prepare_join(program, parts)
    program.run_each()
    return found


def prepare_join(program: Program, parts: Sequence[SpikeMaps]) -> SpikeMaps:
    """Put at the end of a program what `join` does.

    Raises:
        LayoutError: they differ in timesteps, samples or size.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> program, x = Program(), pack_maps(torch.zeros(1, 1, 1, 1, 1))
        >>> both = prepare_join(program, [x, x])
        >>> x.words[:] = 1
        >>> program.run()
        >>> both.words.flatten()
        tensor([1, 1])
    """
    first = parts[0]
    for one in parts[1:]:
        shapes = [(m.words.shape[1], m.samples, m.height, m.width) for m in (first, one)]
        if shapes[0] != shapes[1]:
            raise LayoutError(f"spikes of (T, N, H, W) {shapes[0]} and {shapes[1]} cannot lie side by side.")
    timesteps, width = first.words.shape[1], needed(first.lanes)
    words = torch.zeros(sum(len(one.words) for one in parts), timesteps, width, dtype=torch.int64)
    done = 0
    for one in parts:
        target = words[done : done + len(one.words)]
        program.add(bits.copy(), one.words, target, len(one.words) * timesteps, one.words.shape[2], width)
        done += len(one.words)
    return SpikeMaps(words, first.samples, first.height, first.width)


def split(maps: SpikeMaps) -> SpikeMaps:
    """Make four maps of each: even rows and columns, even rows and odd columns, odd and even, odd and odd; channel 4 c + phase.

    Raises:
        LayoutError: height or width is odd.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> unpack_maps(split(pack_maps(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 1, 2, 2)))).flatten()
        tensor([1., 0., 0., 1.])
    """
    return once(prepare_split, maps)


def prepare_split(program: Program, maps: SpikeMaps) -> SpikeMaps:
    """Put at the end of a program what `split` does.

    Raises:
        LayoutError: height or width is odd.
    """
    if maps.height % 2 or maps.width % 2:
        raise LayoutError(f"maps of {maps.height} x {maps.width} cannot be split; both must be even.")
    c, t, pitch = maps.words.shape
    height, width = maps.height // 2, maps.width // 2
    words = torch.zeros(4 * c, t, needed(maps.samples * height * width), dtype=torch.int64)
    if maps.width in (2, 4, 8, 16, 32):
        program.add(bits.split(), maps.words, words, c, t, needed(maps.lanes), pitch, 4 * words.shape[2], maps.width)
    else:
        step = words.shape[2] * WORD
        prepare_clear(program, words)
        prepare_route(program, maps.words, words, _halves(maps.samples, maps.height, maps.width, t * step), 4 * t * step, step)
    return SpikeMaps(words, maps.samples, height, width)


@lru_cache(maxsize=64)
def _halves(samples: int, height: int, width: int, step: int) -> Tensor:
    """For each place of all samples, where it goes, the maps of phases being `step` bits apart."""
    n, y, x = torch.meshgrid(torch.arange(samples), torch.arange(height), torch.arange(width), indexing="ij")
    return ((y % 2 * 2 + x % 2) * step + (n * (height // 2) + y // 2) * (width // 2) + x // 2).flatten()


def crop(maps: SpikeMaps, height: int, width: int) -> SpikeMaps:
    """Keep the first rows and columns of every map.

    Raises:
        LayoutError: the maps are smaller.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_maps
        >>> unpack_maps(crop(pack_maps(torch.tensor([[1.0, 0.0, 1.0]]).view(1, 1, 1, 1, 3)), 1, 2)).flatten()
        tensor([1., 0.])
    """
    return once(prepare_crop, maps, height, width)


def prepare_crop(program: Program, maps: SpikeMaps, height: int, width: int) -> SpikeMaps:
    """Put at the end of a program what `crop` does.

    Raises:
        LayoutError: the maps are smaller.
    """
    if height > maps.height or width > maps.width:
        raise LayoutError(f"maps of {maps.height} x {maps.width} have no {height} x {width} to keep.")
    c, t, _ = maps.words.shape
    words = torch.zeros(c, t, needed(maps.samples * height * width), dtype=torch.int64)
    table, step = torch.full((maps.samples, maps.height, maps.width), -1), words.shape[2] * WORD
    table[:, :height, :width] = torch.arange(maps.samples * height * width).view(-1, height, width)
    prepare_clear(program, words)
    prepare_route(program, maps.words, words, table.flatten(), t * step, step)
    return SpikeMaps(words, maps.samples, height, width)


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
    once(prepare_route, source, target, table, outer_step, inner_step)


def prepare_route(
    program: Program, source: Tensor, target: Tensor | Room, table: Tensor, outer_step: int, inner_step: int
) -> None:
    """Put at the end of a program what `route` does; the target keeps the bits that it has, so it may want `prepare_clear` before.

    Raises:
        LayoutError: the target has more bits than a table can address.

    Example:
        >>> program, source, target = Program(), torch.tensor([[[0]]]), torch.tensor([16])
        >>> prepare_route(program, source, target, torch.tensor([3, -1, 0]), 0, 0)
        >>> source[:] = 5
        >>> program.run()
        >>> target
        tensor([25])
    """
    if _count(target) >= 2**31 // WORD:
        raise LayoutError(f"{_count(target)} words of spikes are more than one call takes; give fewer samples at a time.")
    table = table.view(len(table), -1).int()
    program.add(bits.route(), source, target, table, *source.shape, table.shape[1], outer_step, inner_step)


def prepare_clear(program: Program, words: Tensor | Room) -> None:
    """Put at the end of a program that words, int64, become 0.

    Example:
        >>> program, words = Program(), torch.tensor([3, 4])
        >>> prepare_clear(program, words)
        >>> program.run()
        >>> words
        tensor([0, 0])
    """
    program.add(bits.clear(), words, _count(words))


def _count(words: Tensor | Room) -> int:
    return words.count if isinstance(words, Room) else words.numel()


@lru_cache(maxsize=256)
def _windows(samples: int, height: int, width: int, size: int, stride: int, padding: int) -> Tensor:
    """For each place of all samples, the windows that it lies in, -1 for none: (N H W, fans)."""
    rows, columns = (_covering(side, size, stride, padding) for side in (height, width))
    down, across = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    both = rows[:, None, :, None] * across + columns[None, :, None, :]
    both = both.masked_fill((rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :], -1).reshape(height * width, -1)
    first = torch.arange(samples)[:, None, None] * (down * across)
    return torch.where(both < 0, -1, both + first).reshape(samples * height * width, -1).int()


def _covering(side: int, size: int, stride: int, padding: int) -> Tensor:
    """For each place of one axis, the windows that it lies in, -1 for none: (side, fans)."""
    place, fan = torch.arange(side)[:, None] + padding, torch.arange(-(-size // stride))
    window = place // stride - fan
    inside = (window >= 0) & (window * stride + size > place) & (window <= (side + 2 * padding - size) // stride)
    return torch.where(inside, window, -1)
