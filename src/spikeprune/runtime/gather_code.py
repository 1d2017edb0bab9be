"""Native code of layers that gather: each weight that lives is added in up to 256 lanes at once, where its input fired.

A tile is 4 words of bits for each input and tap: 256 lanes of one timestep, or, where a timestep has few lanes, those of several.
Sums of a tile stay in registers while the weights of one output pass. Tiles of the same lanes and all timesteps are a group.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from spikeprune.runtime.bits import WORD
from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, Variable, begin, constant, kind, over, variable
from spikeprune.runtime.neurons import LANES, START, Cells

WORDS = 4  # of a tile
TILE = WORDS * WORD
VECTORS = TILE // LANES
WHOLES = "outputs terms groups tiles timesteps words step"


def shifting(step: int) -> Function:
    """Compile f(words, offsets, masks, row, tiles, channels, timesteps, width, taps, groups, group_tiles, guard).

    Tap k of channel c at timestep t is, bit i, bit i + offsets[k] of the channel's row where masks say so. words is int64 (channels,
    timesteps, width), masks (taps, groups * step), row room for guard + width + guard words of zeros, tiles (groups, group_tiles,
    channels * taps, WORDS), of which `step` words are of one timestep.
    """
    return compiled(("gather shifts", step), partial(_shifting, step))


def _shifting(step: int, module: Any) -> None:
    code, arrays, parts = begin(module, "i64 i64 i64 i64 i64", 7)
    words, offsets, masks, row, tiles = arrays
    channels, timesteps, width, taps, groups, group_tiles, guard = parts
    each = WORDS // step
    with over(code, 0, channels) as c, over(code, 0, timesteps) as t:
        with over(code, 0, width) as w:
            row.store(guard + w, words.load((c * timesteps + t) * width + w))
        with over(code, 0, groups) as g, over(code, 0, taps) as k:
            found = _shifted(row, guard * WORD + g * (step * WORD) + offsets.load(k), step)
            tile = (g * group_tiles + t // each) * (channels * taps) + c * taps + k
            mask = masks.load((k * groups + g) * step, step)
            tiles.store(tile * WORDS + t % each * step, found & mask)
    code.ret_void()


def _shifted(row: Memory, first: Value, count: int) -> Value:
    """Read words that begin at any bit."""
    word, shift = first // WORD, first % WORD
    low, high = (row.load(word + i, count) for i in (0, 1))
    rest = shift.of(WORD - 1) - shift
    return low >> shift.everywhere(count) | high << 1 << rest.everywhere(count)


@dataclass(frozen=True)
class Shape:
    """What compiled code of a layer depends on.

    Attributes:
        integer: whether weights are whole numbers rather than float32.
        wide: whether rows have several parts, whose sums of 16 bits are added in 32.
        hard: which reset.
    """

    integer: bool
    wide: bool
    hard: bool

    @property
    def sums(self) -> str:
        """The kind of the sums that it keeps."""
        return "f32" if not self.integer else "i32" if self.wide else "i16"


def layer(shape: Shape) -> Function:
    """Compile f(tiles, entries, parts, rows, table, valid, sums, out, and numbers, those of WHOLES, in their order).

    ::

        tiles    int64 (groups, tiles, terms, WORDS)
        entries  int32 (weights, 2): the term, and the bits of float32, or a whole number of 16 bits twice
        parts    int32, where in the entries each part of a row begins, and their number
        rows     int32 (outputs + 1,), where in the parts each row begins, and their number
        table    float32 (6, outputs), of the neurons
        valid    int32 (2 * words,), a bit for each lane that counts
        sums     room for tiles * TILE of `Shape.sums`
        out      int32 (outputs, T, 2 * words), the spikes
    """
    return compiled(("gather", shape), partial(_layer, shape))


def _layer(shape: Shape, module: Any) -> None:
    code, arrays, wholes = begin(module, f"i64 i32 i32 i32 f32 i32 {shape.sums} i32", len(WHOLES.split()))
    tiles, entries, parts, rows, table, valid, sums, out = arrays
    outputs, terms, groups, group_tiles, timesteps, words, step = wholes
    with over(code, 0, groups) as g, over(code, 0, outputs) as o:
        ends = [rows.load(o + i).wide("i64") for i in (0, 1)]
        with over(code, 0, group_tiles) as i:
            tile = tiles.at((g * group_tiles + i) * terms * WORDS)
            _sum(shape, tile, entries, parts, (ends[0], ends[1]), sums.at(i * TILE))
        cells = Cells.of_channel(table, o, outputs, shape.hard)
        start = table.load(outputs * START + o).everywhere(LANES)
        with over(code, g * step * 2, (g * step * 2 + step * 2).least(words * 2)) as half:
            lane, v = (half - g * step * 2) * LANES, variable(start)
            with over(code, 0, timesteps) as t:
                found = sums.load(t * step * WORD + lane, LANES)
                after, fires = cells.update(v.value, found)
                v.put(after)
                out.store((o * timesteps + t) * words * 2 + half, fires.bits("i32") & valid.load(half))
    code.ret_void()


def _sum(shape: Shape, tile: Memory, entries: Memory, parts: Memory, ends: tuple[Value, Value], to: Memory) -> None:
    """Write the sums of one output in one tile, to memory."""
    code, short = tile.code, "i16" if shape.integer else "f32"
    if not shape.wide:
        sums = [variable(constant(code, 0, short, LANES)) for _ in range(VECTORS)]
        _part(tile, entries, tuple(parts.load(end).wide("i64") for end in ends), sums)
    else:
        sums = [variable(constant(code, 0, "i32", LANES)) for _ in range(VECTORS)]
        with over(code, *ends) as p:
            few = [variable(constant(code, 0, short, LANES)) for _ in range(VECTORS)]
            _part(tile, entries, tuple(parts.load(p + i).wide("i64") for i in (0, 1)), few)
            for one, other in zip(sums, few, strict=True):
                one.put(one.value + other.value.wide("i32"))
    for j, one in enumerate(sums):
        to.store(constant(code, j * LANES), one.value)


def _part(tile: Memory, entries: Memory, ends: tuple[Value, ...], sums: list[Variable]) -> None:
    """Write the sum of some weights of one output."""
    vector = sums[0].value.raw.type
    with over(tile.code, *ends) as e:
        term, weight = entries.load(e * 2).wide("i64"), entries.load(e * 2 + 1)
        if sums[0].value.raw.type == kind("f32", LANES):
            added = weight.bits("f32").everywhere(LANES)
        else:
            added = Value(tile.code, tile.code.bitcast(weight.everywhere(LANES // 2).raw, vector))
        masks = Memory(tile.code, tile.code.bitcast(tile.at(term * WORDS).address, entries.address.type), "i32")
        for j, one in enumerate(sums):
            fired = masks.load(constant(tile.code, j)).bits("i1", LANES)
            one.put(fired.choose(one.value + added, one.value))
