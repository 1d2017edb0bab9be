"""Native code of bit-sliced layers: the spikes of up to 512 lanes are added at once, each vector holding one bit of every lane's sum.

A tile has a row of words of bits for each input and tap, and one row more, of zeros. Full adders count the rows that meet a digit of
the weights: counter k is bit k of every lane's count. Digits of the lowest place come first; then counter 0 is a bit of the sums, and
the others, each one lower, are what the next place begins with. So no count is added twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from spikeprune.runtime.bits import WORD, put
from spikeprune.runtime.gather_code import shifted
from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, Variable, begin, constant, fill, ones, over, variable, where
from spikeprune.runtime.neurons import LANES, START, Cells

HALVES = (0, 4, 1, 5, 2, 6, 3, 7)  # the order of a word's bytes in which two vectors, interleaved by halves, come out straight


@dataclass(frozen=True)
class Tiling:
    """How lanes lie in tiles.

    Attributes:
        words: of a row of a tile, 4 or 8.
        step: of these, the words of one timestep; tiles of the same lanes and all timesteps are a group.
        groups: how many.
        tiles: of a group.
    """

    words: int
    step: int
    groups: int
    tiles: int

    @property
    def near(self) -> int:
        """How many groups' words of a timestep are shifted at once, a power of 2."""
        return min(self.words // self.step, 1 << (self.groups - 1).bit_length())

    def at_once(self, rows: int, spare: int) -> int:
        """Say how many groups of tiles of so many rows fit so many bytes, a multiple of `near`.

        Example:
            >>> Tiling(words=8, step=2, groups=9, tiles=1).at_once(rows=100, spare=40_000)
            4
        """
        fit = spare // (8 * self.tiles * rows * self.words) // self.near * self.near
        return min(max(fit, self.near), filled(self.groups, self.near))


def tiling(words: int, timesteps: int) -> Tiling:
    """Lay lanes into as few tiles as hold them, and groups of few tiles, which stay near while all outputs pass.

    Args:
        words: of lanes, of one timestep.
        timesteps: T.

    Example:
        >>> tiling(16, 4)
        Tiling(words=8, step=2, groups=8, tiles=1)
        >>> tiling(1, 3)
        Tiling(words=4, step=1, groups=1, tiles=1)
    """
    size = 4 if words * timesteps <= 4 else 8
    steps = [1 << i for i in range(size.bit_length())]
    found = [Tiling(size, step, -(-words // step), -(-timesteps * step // size)) for step in steps]
    return min(found, key=lambda one: (one.groups * one.tiles, one.tiles))


def filled(count: int, whole: int) -> int:
    """Fill up to a multiple.

    Example:
        >>> filled(5, 4), filled(8, 4)
        (8, 8)
    """
    return -(-count // whole) * whole


@dataclass(frozen=True)
class Shape:
    """What compiled code of a layer depends on.

    Attributes:
        levels: of adders: 2^levels rows are added at once, and leave one carry.
        counters: how many bits count the digits of one place, and what is carried to it; more than there are levels.
        planes: how many bits a sum has, with its sign; 32 at most.
        hard: which reset.
        kept: whether membranes are kept between runs.
    """

    levels: int
    counters: int
    planes: int
    hard: bool
    kept: bool = False

    @property
    def sums(self) -> str:
        """The kind of the sums that it keeps."""
        return "i32" if self.planes > 16 else "i16"


def shifting(words: int, step: int, groups: int) -> Function:
    """Compile f(words, offsets, masks, row, tiles, channels, timesteps, width, taps, first, count, pitch, group_tiles, guard).

    Tap k of channel c at timestep t is, bit i, bit i + offsets[k] of the channel's row where masks say so. words is int64 (channels,
    timesteps, width), masks (taps, pitch), row room for as many words as width or pitch, the larger, with `guard` before and behind, and
    tiles (count, group_tiles, channels * taps + 1, `words`): those of `count` groups from the `first`. As many as `groups` are shifted
    at once, a power of 2, of which `count` is a multiple.
    """
    return compiled(("sliced shifts", words, step, groups), partial(_shifting, words, step, groups))


def routing(words: int, step: int) -> Function:
    """Compile f(words, table, tiles, channels, timesteps, width, taps, groups, group_tiles).

    A spike of place i sets, for each tap k at which table, int32 (width * 64, taps), has 0 or more, the bit of that number of the tap's
    tiles as they are of timestep 0; see `shifting`.
    """
    return compiled(("sliced routes", words, step), partial(_routing, words, step))


def layer(shape: Shape, words: int, index: str) -> Function:
    """Compile f(tiles, entries, ends, table, valid, planes, sums, membrane, out, and numbers).

    ::

        tiles    int64 (count, tiles, rows, words)
        entries  `index`, i16 or i32, without a sign: where, in words of a tile, the row of each digit begins; in groups of 2^levels
        ends     int32 (outputs * places * 2 + 1,), where in the groups the digits of each output, place and sign, plus first, begin
        table    float32 (6, outputs), of the neurons
        valid    int32 (2 * width,), a bit for each lane that counts
        planes   room for (places + planes) * words of int64
        sums     room for tiles * words * 64 of `Shape.sums`
        membrane float32 (outputs, 64 * width), if kept
        out      int32 (outputs, T, 2 * width), the spikes

    The numbers are outputs, places, rows, first and count (of the groups), tiles (of a group), timesteps, width (of the spikes, in
    words) and step.
    """
    return compiled(("sliced", shape, words, index), partial(_layer, shape, words, index))


def _shifting(size: int, step: int, wide: int, module: Any) -> None:
    code, arrays, parts = begin(module, "i64 i64 i64 i64 i64", 9)
    words, offsets, masks, row, tiles = arrays
    channels, timesteps, width, taps, first, count, pitch, group_tiles, guard = parts
    each, rows = size // step, channels * taps + 1
    _clear_rest(tiles, count * group_tiles, rows, size)
    low, none = first * step - guard, constant(code, 0)
    begins, ends = low.compare("<", 0).choose(none, low), ((first + count) * step + guard).least(width)
    with over(code, 0, channels) as c, over(code, 0, timesteps) as t:
        with over(code, begins, ends) as w:
            row.store(guard + w, words.load((c * timesteps + t) * width + w))
        with over(code, 0, count // wide) as g, over(code, 0, taps) as k:
            word, lanes = (first + g * wide) * step, wide * step
            found = shifted(row, (guard + word) * WORD + offsets.load(k), lanes) & masks.load(k * pitch + word, lanes)
            for i in range(wide):
                tile = ((g * wide + i) * group_tiles + t // each) * rows + c * taps + k
                tiles.store(tile * size + t % each * step, found.pick(found, range(i * step, i * step + step)))
    code.ret_void()


def _routing(size: int, step: int, module: Any) -> None:
    code, (words, table, tiles), parts = begin(module, "i64 i32 i64", 6)
    channels, timesteps, width, taps, groups, group_tiles = parts
    each, rows = size // step, channels * taps + 1
    fill(tiles, groups * group_tiles * rows * size, size)
    with over(code, 0, channels) as c, over(code, 0, timesteps) as t, over(code, 0, width) as w:
        base = ((t // each * rows + c * taps) * size + t % each * step) * WORD
        with ones(words.load((c * timesteps + t) * width + w)) as bit, over(code, 0, taps) as k:
            to = table.load((w * WORD + bit) * taps + k).wide("i64")
            with where(to.compare(">=", 0)):
                put(tiles, base + to)
    code.ret_void()


def _clear_rest(tiles: Memory, count: Value, rows: Value, size: int) -> None:
    """Make the last row of each tile 0."""
    with over(tiles.code, 0, count) as i:
        tiles.store((i * rows + rows - 1) * size, constant(tiles.code, 0, "i64", size))


def _layer(shape: Shape, size: int, index: str, module: Any) -> None:
    code, arrays, numbers = begin(module, f"i64 {index} i32 f32 i32 i64 {shape.sums} f32 i32", 9)
    tiles, entries, ends, table, valid, planes, sums, membrane, out = arrays
    outputs, places, rows, first, count, group_tiles, timesteps, width, step = numbers
    with over(code, 0, count) as g, over(code, 0, outputs) as o:
        with over(code, 0, group_tiles) as i:
            tile = tiles.at((g * group_tiles + i) * rows * size)
            _count(shape, tile, size, (entries, ends.at(o * places * 2), places), planes)
            _collect(shape.planes, size, planes, sums.at(i * size * WORD))
        cells = Cells.of_channel(table, o, outputs, shape.hard)
        start = table.load(outputs * START + o).everywhere(LANES)
        begins = (first + g) * step * 2
        with over(code, begins, (begins + step * 2).least(width * 2)) as half:
            place = (o * width * 2 + half) * LANES
            v = variable(membrane.load(place, LANES) if shape.kept else start)
            with over(code, 0, timesteps) as t:
                after, fires = cells.update(v.value, sums.load(t * step * WORD + (half - begins) * LANES, LANES))
                v.put(after)
                out.store((o * timesteps + t) * width * 2 + half, fires.bits("i32") & valid.load(half))
            if shape.kept:
                membrane.store(place, v.value)
    code.ret_void()


def _count(shape: Shape, tile: Memory, size: int, lists: tuple[Memory, Memory, Value], planes: Memory) -> None:
    """Write the bits of the sums of one output in one tile, to memory, the lowest first."""
    code, (entries, ends, places) = tile.code, lists
    counters = [variable(constant(code, 0, "i64", size)) for _ in range(shape.counters)]
    with over(code, 0, places) as b:
        with over(code, 0, 2) as sign:
            begins, stops = (ends.load(b * 2 + sign + i).wide("i64") for i in (0, 1))
            with over(code, begins, stops) as group:
                _add(tile, entries.at(group << shape.levels), counters, shape.levels)
            for one in counters:  # a - n is not (not a + n)
                one.put(one.value ^ -1)
        planes.store(b * size, _straight(counters[0].value))
        for one, higher in pairwise(counters):
            one.put(higher.value)
    for k in range(shape.planes - 1):
        planes.store((places + k) * size, _straight(counters[min(k, shape.counters - 1)].value))


def _straight(words: Value) -> Value:
    """Put the bytes of each word in the order of HALVES."""
    size = words.raw.type.count
    found = words.bits("i8", 8 * size)
    return found.pick(found, [8 * w + b for w in range(size) for b in HALVES]).bits("i64", size)


def _add(tile: Memory, entries: Memory, counters: list[Variable], levels: int) -> None:
    """Write the sum of counters and of 2^levels rows."""
    size, numbers = counters[0].value.raw.type.count, iter(range(1 << levels))

    def row() -> Value:
        return tile.load(entries.load(constant(tile.code, next(numbers))).zero_extended("i64"), size)

    carry = _tree(levels, row, counters)
    for one in counters[levels:]:
        before = one.value
        one.put(before ^ carry)
        carry = before & carry


def _tree(level: int, row: Callable[[], Value], counters: list[Variable]) -> Value:
    """Write the sum of the lowest counters and of 2^level rows; return the carry, which is worth as much."""
    if not level:
        return row()
    one, other = (_tree(level - 1, row, counters) for _ in range(2))
    counter = counters[level - 1]
    before = counter.value
    counter.put(before ^ one ^ other)
    return one ^ ((before ^ one) & (one ^ other))  # where two agree, they are the carry; LLVM needs fewest instructions for it so


def _collect(count: int, size: int, planes: Memory, sums: Memory) -> None:
    """Write the sums of one output in one tile, of so many bits, to memory."""
    with over(planes.code, 0, size) as w:
        masks = [planes.load(w + p * size).bits("i1", WORD) for p in range(count)]
        found = _shorts(masks, 0)
        if count > 16:
            found = [
                low.wide("i32") & 0xFFFF | high.wide("i32") << 16 for low, high in zip(found, _shorts(masks, 16), strict=True)
            ]
        for half, one in enumerate(found):
            sums.store((w * 2 + half) * LANES, one)


def _shorts(masks: list[Value], first: int) -> list[Value]:
    """Write 16 bits of the sums of a word's lanes, from bit `first`, as two vectors of LANES."""
    low, high = (_byte(masks, first + 8 * i) for i in (0, 1))
    halves = [[i for i in range(WORD) if i // 8 % 2 == half] for half in (0, 1)]
    return [low.pick(high, [i + other for i in half for other in (0, WORD)]).bits("i16", LANES) for half in halves]


def _byte(masks: list[Value], first: int) -> Value:
    """Write 8 bits of the sums of a word's lanes, from bit `first`; the last mask is that of the sign."""
    code, top = masks[0].code, len(masks) - 1
    found = constant(code, 0, "i8", WORD)
    for p in range(min(first, top), min(first + 8, len(masks))):
        bit = 1 << max(p - first, 0)
        number = -bit if p == top else bit
        found = masks[p].choose(found + number, found)
    return found
