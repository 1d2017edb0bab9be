"""Native code of layers that gather: each weight that lives is added in up to 256 lanes at once, where its input fired.

A field is the lanes of one timestep: places of all samples, filled up to a power of 2, or 256 of them. A tile is, for each input and tap,
as many bits as it has lanes, 16 to 256: those of one field, or of several timesteps where these are small. Sums of a tile stay in
registers while the weights of one output pass. Tiles of the same lanes and all timesteps are a group.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from spikeprune.runtime.bits import WORD
from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, Variable, begin, constant, kind, over, variable
from spikeprune.runtime.neurons import BIAS, LANES, SCALE, START, Cells

MOST, LEAST = 256, 16  # lanes of a tile
FIELD = 4  # lanes of a field, at least
ARRAYS = "tiles entries parts rows table valid sums membrane out"
WHOLES = "outputs terms groups tiles timesteps words samples places"


@dataclass(frozen=True)
class Tiling:
    """How lanes and timesteps are cut into tiles.

    Attributes:
        lanes: of a tile.
        field: lanes of a timestep in it.
        groups: how many fields all lanes fill.
        tiles: of a group.
    """

    lanes: int
    field: int
    groups: int
    tiles: int

    @staticmethod
    def of(lanes: int, timesteps: int, *, alone: bool = False) -> "Tiling":
        """Cut so many lanes and timesteps up.

        Args:
            lanes: of a timestep.
            timesteps: T.
            alone: whether a tile must hold all timesteps or one.

        Example:
            >>> Tiling.of(4, 4), Tiling.of(16, 40), Tiling.of(1000, 4)  # doctest: +NORMALIZE_WHITESPACE
            (Tiling(lanes=16, field=4, groups=1, tiles=1), Tiling(lanes=256, field=16, groups=1, tiles=3),
             Tiling(lanes=256, field=256, groups=4, tiles=4))
        """
        field = min(MOST, max(FIELD, 1 << (lanes - 1).bit_length()))
        tile = min(MOST, max(LEAST, 1 << (field * timesteps - 1).bit_length()))
        if alone and field * timesteps > tile:
            field = tile = max(field, LEAST)
        return Tiling(tile, field, -(-lanes // field), -(-timesteps // (tile // field)))

    @property
    def each(self) -> int:
        """How many timesteps a tile has room for."""
        return self.lanes // self.field

    @property
    def words(self) -> int:
        """Words of a tile; one if it is less."""
        return max(1, self.lanes // WORD)


def shifting(tiling: Tiling) -> Function:
    """Compile f(words, offsets, masks, row, tiles, channels, timesteps, width, taps, groups, group_tiles, guard), for fields of whole words.

    Tap k of channel c at timestep t is, bit i, bit i + offsets[k] of the channel's row where masks say so. words is int64 (channels,
    timesteps, width), masks (taps, groups * words of a field), row room for guard + width + guard words of zeros, tiles (groups,
    group_tiles, channels * taps, words of a tile).
    """
    return compiled(("gather shifts", tiling.lanes, tiling.field), partial(_shifting, tiling.words, tiling.field // WORD))


def folding(tiling: Tiling) -> Function:
    """Compile f(words, offsets, masks, row, tiles, channels, timesteps, taps, group_tiles, guard), for fields of less than a word.

    Tap k of channel c at timestep t is as of `shifting`. words is int64 (channels, timesteps, 1), masks (taps, words of a tile) for all
    its fields, row room for guard + words of a tile + guard words of zeros, tiles (group_tiles, channels * taps) of as many bits as a
    tile has lanes.
    """
    return compiled(("gather folds", tiling.lanes, tiling.field), partial(_folding, tiling))


def _shifting(words_of_tile: int, step: int, module: Any) -> None:
    code, arrays, parts = begin(module, "i64 i64 i64 i64 i64", 7)
    words, offsets, masks, row, tiles = arrays
    channels, timesteps, width, taps, groups, group_tiles, guard = parts
    each = words_of_tile // step
    with over(code, 0, channels) as c, over(code, 0, timesteps) as t:
        with over(code, 0, width) as w:
            row.store(guard + w, words.load((c * timesteps + t) * width + w))
        with over(code, 0, groups) as g, over(code, 0, taps) as k:
            found = shifted(row, guard * WORD + g * (step * WORD) + offsets.load(k), step)
            tile = (g * group_tiles + t // each) * (channels * taps) + c * taps + k
            mask = masks.load((k * groups + g) * step, step)
            tiles.store(tile * words_of_tile + t % each * step, found & mask)
    code.ret_void()


def _folding(tiling: Tiling, module: Any) -> None:
    size = tiling.words
    code, arrays, parts = begin(module, f"i64 i64 i64 i64 i{min(tiling.lanes, WORD)}", 5)
    words, offsets, masks, row, tiles = arrays
    channels, timesteps, taps, group_tiles, guard = parts
    with over(code, 0, channels) as c, over(code, 0, group_tiles) as i:
        row.store(guard, constant(code, 0, "i64", size))
        first = i * tiling.each
        with over(code, first, (first + tiling.each).least(timesteps)) as t:
            bit = (t - first) * tiling.field
            at = guard + bit // WORD
            row.store(at, row.load(at) | words.load(c * timesteps + t) << bit % WORD)
        with over(code, 0, taps) as k:
            found = shifted(row, guard * WORD + offsets.load(k), size) & masks.load(k * size, size)
            tile = (i * channels + c) * taps + k
            tiles.store(tile * size, found if tiling.lanes >= WORD else found.part(0).narrow(tiles.name))
    code.ret_void()


def shifted(row: Memory, first: Value, count: int) -> Value:
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
        hard: which reset; None for currents.
        kept: whether membranes are kept between runs.
        lanes: of a tile.
        field: lanes of a timestep in it.
    """

    integer: bool
    wide: bool
    hard: bool | None
    kept: bool = False
    lanes: int = MOST
    field: int = MOST

    @property
    def width(self) -> int:
        """Lanes that are added at a time."""
        return min(self.lanes, LANES)

    @property
    def sums(self) -> str:
        """The kind of the sums that it keeps."""
        return "f32" if not self.integer else "i32" if self.wide else "i16"


def layer(shape: Shape) -> Function:
    """Compile f(tiles, entries, parts, rows, table, valid, sums, membrane, out, and numbers, those of WHOLES, in their order).

    ::

        tiles    (groups, tiles, terms) of as many bits as a tile has lanes
        entries  int32 (weights, 2): the term, and the bits of float32; int16 (weights, 2): the term, unsigned, and a whole number
        parts    int32, where in the entries each part of a row begins, and their number
        rows     int32 (outputs + 1,), where in the parts each row begins, and their number
        table    float32 (6, outputs), of the neurons
        valid    int32 (2 * words,), a bit for each lane that counts
        sums     room for all lanes of a group's tiles, of `Shape.sums`
        membrane float32 (outputs, 64 * words), if kept
        out      int32 (outputs, T, 2 * words), the spikes; float32 (T, samples, outputs, places) for currents
    """
    return compiled(("gather", shape), partial(_layer, shape))


@dataclass(frozen=True, eq=False)
class _Code:
    """The code of one layer: its shape, arrays and numbers by name."""

    shape: Shape
    code: Any
    arrays: dict[str, Memory]
    wholes: dict[str, Value]

    def __getitem__(self, name: str) -> Value:
        return self.wholes[name]


def _layer(shape: Shape, module: Any) -> None:
    last, entry = "f32" if shape.hard is None else "i32", "i16" if shape.integer else "i32"
    kinds = f"i{shape.width} {entry} i32 i32 f32 i32 {shape.sums} f32 {last}"
    code, arrays, parts = begin(module, kinds, len(WHOLES.split()))
    to = _Code(shape, code, dict(zip(ARRAYS.split(), arrays, strict=True)), dict(zip(WHOLES.split(), parts, strict=True)))
    rows, terms = to.arrays["rows"], to["terms"]
    with over(code, 0, to["groups"]) as g, over(code, 0, to["outputs"]) as o:
        ends = (rows.load(o).wide("i64"), rows.load(o + 1).wide("i64"))
        with over(code, 0, to["tiles"]) as i:
            tile = to.arrays["tiles"].at((g * to["tiles"] + i) * terms * (shape.lanes // shape.width))
            _sum(to, tile, ends, to.arrays["sums"].at(i * shape.lanes))
        (_pass if shape.hard is None else _fire)(to, g, o)
    code.ret_void()


def _fire(to: _Code, g: Value, o: Value) -> None:
    """Write the neurons of one output in the lanes of one group, at most LANES at a time."""
    table, membrane, halves = to.arrays["table"], to.arrays["membrane"], to["words"] * 2
    width, steps = min(to.shape.field, LANES), max(1, to.shape.field // LANES)
    cells = Cells.of_channel(table, o, to["outputs"], bool(to.shape.hard), width)
    start = table.load(to["outputs"] * START + o).everywhere(width)
    first = g * steps
    with over(to.code, first, (first + steps).least(halves)) as half:
        place = (o * halves + half) * LANES
        v = variable(membrane.load(place, width) if to.shape.kept else start)
        with over(to.code, 0, to["timesteps"]) as t:
            found = to.arrays["sums"].load(t * to.shape.field + (half - first) * LANES, width)
            after, fires = cells.update(v.value, found)
            v.put(after)
            bits = fires.bits(f"i{width}")
            fired = bits if width == LANES else bits.zero_extended("i32")
            to.arrays["out"].store((o * to["timesteps"] + t) * halves + half, fired & to.arrays["valid"].load(half))
        if to.shape.kept:
            membrane.store(place, v.value)


def _pass(to: _Code, g: Value, o: Value) -> None:
    """Write the currents of one output in the lanes of one group, sample by sample."""
    table, places, width = to.arrays["table"], to["places"], to.shape.field
    scale, bias = (table.load(to["outputs"] * row + o) for row in (SCALE, BIAS))
    first = g * width
    last = (first + width).least(to["samples"] * places)
    with over(to.code, 0, to["timesteps"]) as t, over(to.code, first // places, (last + places - 1) // places) as n:
        sums = to.arrays["sums"].at(t * width - first)
        out = to.arrays["out"].at(((t * to["samples"] + n) * to["outputs"] + o) * places - n * places)
        begins = (n * places).compare(">", first).choose(n * places, first)
        with over(to.code, begins, (n * places + places).least(last)) as lane:
            one = sums.load(lane)
            out.store(lane, (one.wide("f32") if to.shape.integer else one) * scale + bias)


def _sum(to: _Code, tile: Memory, ends: tuple[Value, Value], target: Memory) -> None:
    """Write the sums of one output in one tile, to memory."""
    code, short, entries, parts = to.code, "i16" if to.shape.integer else "f32", to.arrays["entries"], to.arrays["parts"]
    width, count = to.shape.width, to.shape.lanes // to.shape.width
    if not to.shape.wide:
        sums = [variable(constant(code, 0, short, width)) for _ in range(count)]
        _part(tile, entries, tuple(parts.load(end).wide("i64") for end in ends), sums)
    else:
        sums = [variable(constant(code, 0, "i32", width)) for _ in range(count)]
        with over(code, *ends) as p:
            few = [variable(constant(code, 0, short, width)) for _ in range(count)]
            _part(tile, entries, tuple(parts.load(p + i).wide("i64") for i in (0, 1)), few)
            for one, other in zip(sums, few, strict=True):
                one.put(one.value + other.value.wide("i32"))
    for j, one in enumerate(sums):
        target.store(constant(code, j * width), one.value)


def _part(tile: Memory, entries: Memory, ends: tuple[Value, ...], sums: list[Variable]) -> None:
    """Write the sum of some weights of one output."""
    lanes = sums[0].value.raw.type.count
    with over(tile.code, *ends) as e:
        term, weight = entries.load(e * 2).zero_extended("i64"), entries.load(e * 2 + 1)
        added = (weight if sums[0].value.raw.type == kind("i16", lanes) else weight.bits("f32")).everywhere(lanes)
        masks = tile.at(term * len(sums))
        for j, one in enumerate(sums):
            fired = masks.load(constant(tile.code, j)).bits("i1", lanes)
            one.put(fired.choose(one.value + added, one.value))
