"""Between rows and maps: features of samples, and places of channels.

Each has a form that puts itself at the end of a program, as those of `moves` have.
"""

import torch
from torch import Tensor

from spikeprune.runtime import bits
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.moves import prepare_clear, prepare_route
from spikeprune.runtime.once import once
from spikeprune.runtime.program import Program, Room
from spikeprune.runtime.spikes import SpikeMaps, SpikeRows, needed


def flatten(maps: SpikeMaps) -> SpikeRows:
    """Turn maps into the features c H W + y W + x, the order of `torch.flatten`.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps, unpack_rows
        >>> unpack_rows(flatten(pack_maps(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]).view(1, 1, 3, 1, 2))))
        tensor([[[1., 0., 0., 1., 1., 1.]]])
    """
    return once(prepare_flatten, maps)


def prepare_flatten(program: Program, maps: SpikeMaps) -> SpikeRows:
    """Put at the end of a program what `flatten` does.

    Example:
        >>> from spikeprune.runtime.spikes import pack_maps
        >>> program, x = Program(), pack_maps(torch.zeros(1, 1, 3, 1, 2))
        >>> rows = prepare_flatten(program, x)
        >>> x.words[1] = 1
        >>> program.run()
        >>> rows.words
        tensor([[[4]]])
    """
    c, t, width = maps.words.shape
    places = maps.height * maps.width
    if c == maps.samples == 1 and width == needed(places):  # the order is the same
        return SpikeRows(maps.words, places)
    words = torch.zeros(maps.samples, t, needed(c * places), dtype=torch.int64)
    if places == 1:
        _transpose(program, maps.words, words, c, maps.samples)
        return SpikeRows(words, c)
    lane, step = torch.arange(maps.lanes), words.shape[2] * WORD
    prepare_clear(program, words)
    prepare_route(program, maps.words, words, lane // places * (t * step) + lane % places, places, step)
    return SpikeRows(words, c * places)


def spread(rows: SpikeRows) -> SpikeMaps:
    """Turn features into channels of one place, the inverse of `flatten` of such.

    Example:
        >>> from spikeprune.runtime.spikes import pack_rows, unpack_maps
        >>> unpack_maps(spread(pack_rows(torch.tensor([[[1.0, 0.0, 1.0]]])))).flatten()
        tensor([1., 0., 1.])
    """
    return once(prepare_spread, rows)


def prepare_spread(program: Program, rows: SpikeRows) -> SpikeMaps:
    """Put at the end of a program what `spread` does.

    Example:
        >>> from spikeprune.runtime.spikes import pack_rows
        >>> program, x = Program(), pack_rows(torch.zeros(1, 1, 3))
        >>> maps = prepare_spread(program, x)
        >>> x.words[:] = 6
        >>> program.run()
        >>> maps.words.flatten()
        tensor([0, 1, 1])
    """
    n, t, _ = rows.words.shape
    words = torch.zeros(rows.features, t, needed(n), dtype=torch.int64)
    _transpose(program, rows.words, words, n, rows.features)
    return SpikeMaps(words, n, 1, 1)


def _transpose(program: Program, words: Tensor, out: Tensor, rows: int, columns: int) -> None:
    """Add a call that makes of a bit for each column in each row one for each row in each column."""
    square = Room("turns square", WORD, torch.int64)
    program.add(bits.transpose(), words, out, square, rows, words.shape[1], columns, words.shape[2], out.shape[2])
