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
from spikeprune.runtime.neurons import BIAS, LANES, SCALE, START, Cells

WORDS = 4  # of a tile
TILE = WORDS * WORD
VECTORS = TILE // LANES
ARRAYS = "tiles entries parts rows table valid sums membrane out"
WHOLES = "outputs terms groups tiles timesteps words step samples places"


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
            found = shifted(row, guard * WORD + g * (step * WORD) + offsets.load(k), step)
            tile = (g * group_tiles + t // each) * (channels * taps) + c * taps + k
            mask = masks.load((k * groups + g) * step, step)
            tiles.store(tile * WORDS + t % each * step, found & mask)
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
    """

    integer: bool
    wide: bool
    hard: bool | None
    kept: bool = False

    @property
    def sums(self) -> str:
        """The kind of the sums that it keeps."""
        return "f32" if not self.integer else "i32" if self.wide else "i16"


def layer(shape: Shape) -> Function:
    """Compile f(tiles, entries, parts, rows, table, valid, sums, membrane, out, and numbers, those of WHOLES, in their order).

    ::

        tiles    int64 (groups, tiles, terms, WORDS)
        entries  int32 (weights, 2): the term, and the bits of float32, or a whole number of 16 bits twice
        parts    int32, where in the entries each part of a row begins, and their number
        rows     int32 (outputs + 1,), where in the parts each row begins, and their number
        table    float32 (6, outputs), of the neurons
        valid    int32 (2 * words,), a bit for each lane that counts
        sums     room for tiles * TILE of `Shape.sums`
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
    last = "f32" if shape.hard is None else "i32"
    code, arrays, parts = begin(module, f"i64 i32 i32 i32 f32 i32 {shape.sums} f32 {last}", len(WHOLES.split()))
    to = _Code(shape, code, dict(zip(ARRAYS.split(), arrays, strict=True)), dict(zip(WHOLES.split(), parts, strict=True)))
    rows, terms = to.arrays["rows"], to["terms"]
    with over(code, 0, to["groups"]) as g, over(code, 0, to["outputs"]) as o:
        ends = (rows.load(o).wide("i64"), rows.load(o + 1).wide("i64"))
        with over(code, 0, to["tiles"]) as i:
            tile = to.arrays["tiles"].at((g * to["tiles"] + i) * terms * WORDS)
            _sum(to, tile, ends, to.arrays["sums"].at(i * TILE))
        (_pass if shape.hard is None else _fire)(to, g, o)
    code.ret_void()


def _fire(to: _Code, g: Value, o: Value) -> None:
    """Write the neurons of one output in the lanes of one group."""
    table, membrane, halves = to.arrays["table"], to.arrays["membrane"], to["words"] * 2
    cells = Cells.of_channel(table, o, to["outputs"], bool(to.shape.hard))
    start = table.load(to["outputs"] * START + o).everywhere(LANES)
    first = g * to["step"] * 2
    with over(to.code, first, (first + to["step"] * 2).least(halves)) as half:
        place = (o * halves + half) * LANES
        v = variable(membrane.load(place, LANES) if to.shape.kept else start)
        with over(to.code, 0, to["timesteps"]) as t:
            found = to.arrays["sums"].load(t * to["step"] * WORD + (half - first) * LANES, LANES)
            after, fires = cells.update(v.value, found)
            v.put(after)
            row = o * to["timesteps"] + t
            to.arrays["out"].store(row * halves + half, fires.bits("i32") & to.arrays["valid"].load(half))
        if to.shape.kept:
            membrane.store(place, v.value)


def _pass(to: _Code, g: Value, o: Value) -> None:
    """Write the currents of one output in the lanes of one group, sample by sample."""
    table, places, width = to.arrays["table"], to["places"], to["step"] * WORD
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
    if not to.shape.wide:
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
        target.store(constant(code, j * LANES), one.value)


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
