"""Native code of convolutions fed place by place: the spikes of each patch are listed, their rows of weights summed in registers."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from spikeprune.runtime import scatter_code
from spikeprune.runtime.bits import WORD
from spikeprune.runtime.event_rows_code import summed
from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, begin, constant, fill, ones, over, variable
from spikeprune.runtime.neurons import LANES, START, Cells
from spikeprune.runtime.scatter_code import within

ARRAYS = "words starts taps counts lists patch weights table sums membrane masks out"
KINDS = "i64 i32 i32 i32 i32 i32 {} f32 {} f32 i32 i32"
WHOLES = "channels timesteps width samples places filled fans tiles every height across down right words"
STEP = 16  # entries of a list that are copied at a time


@dataclass(frozen=True)
class Shape:
    """What compiled code of a layer depends on.

    Attributes:
        vectors: of LANES outputs, in a tile; their sums stay in registers.
        integer: whether weights are int8 rather than float32.
        hard: which reset.
        kept: whether membranes are kept between runs.
    """

    vectors: int
    integer: bool
    hard: bool
    kept: bool


def layer(shape: Shape) -> Function:
    """Compile f of addresses, those of ARRAYS, and of numbers, those of WHOLES, in their order.

    ::

        words     int64 (channels, T, width), the spikes
        starts    int32 (places,), where each place of a map lies among the `filled` places of one with its padding
        taps      int32 (fans,), how far each tap lies behind the first, among those
        counts    room for T * filled int32
        lists     room for T * filled * channels + STEP int32; what lies behind the end of a list is read, and forgotten
        patch     room for fans * channels + STEP int32
        weights   int8 or float32 (tiles, fans, channels, vectors * LANES)
        table     float32 (6, tiles * vectors * LANES), of the neurons
        sums      room for vectors * LANES int32 or float32
        membrane  room for vectors * LANES float32; (samples, height * across, tiles * vectors * LANES) if kept
        masks     room for tiles * vectors * T * words * LANES int32
        out       int32 (tiles * vectors * LANES, T, words), the spikes

    Outputs are `height` by `across`; a step down is `down` filled places, one to the right `right`.
    """
    return compiled(("event patches", shape), partial(_write, shape))


@dataclass(frozen=True, eq=False)
class Writer:
    """The code of one layer: its shape, arrays and numbers by name."""

    shape: Shape
    code: Any
    arrays: dict[str, Memory]
    wholes: dict[str, Value]

    def __getitem__(self, name: str) -> Value:
        return self.wholes[name]

    @property
    def tile(self) -> int:
        """Outputs of a tile."""
        return self.shape.vectors * LANES


def _write(shape: Shape, module: Any) -> None:
    kinds = KINDS.format(*("i8", "i32") if shape.integer else ("f32", "f32"))
    code, arrays, wholes = begin(module, kinds, len(WHOLES.split()))
    to = Writer(shape, code, dict(zip(ARRAYS.split(), arrays, strict=True)), dict(zip(WHOLES.split(), wholes, strict=True)))
    blocks = to["tiles"] * shape.vectors
    fill(to.arrays["masks"], blocks * to["timesteps"] * to["words"] * LANES, LANES)
    with over(code, 0, to["samples"]) as n:
        _list(to, n)
        with over(code, 0, to["tiles"]) as tile, over(code, 0, to["height"]) as y, over(code, 0, to["across"]) as x:
            _place(to, n, tile, (y, x))
    with over(code, 0, blocks) as block:
        masks = to.arrays["masks"].at(block * to["timesteps"] * to["words"] * LANES)
        scatter_code.turn(
            code, masks, to.arrays["out"].at(block * LANES * to["timesteps"] * to["words"]), to["timesteps"], to["words"]
        )
    code.ret_void()


def _list(to: Writer, n: Value) -> None:
    """Write the lists of one sample: for each timestep and place, where the rows of the channels begin that fired."""
    counts, first = to.arrays["counts"], n * to["places"]
    fill(counts, to["timesteps"] * to["filled"], 1)
    with over(to.code, 0, to["channels"]) as c, over(to.code, 0, to["timesteps"]) as t:
        row, begins = to.arrays["words"].at((c * to["timesteps"] + t) * to["width"]), (c * to.tile).narrow("i32")
        last = first + to["places"]
        with (
            over(to.code, first // WORD, (last + WORD - 1) // WORD) as w,
            ones(within(row.load(w), w * WORD, first, last)) as bit,
        ):
            place = t * to["filled"] + to.arrays["starts"].load(w * WORD + bit - first).wide("i64")
            count = counts.load(place)
            to.arrays["lists"].store(place * to["channels"] + count.wide("i64"), begins)
            counts.store(place, count + 1)


def _place(to: Writer, n: Value, tile: Value, at: tuple[Value, Value]) -> None:
    """Write the neurons of one tile at one place, at all timesteps."""
    place, outputs = at[0] * to["across"] + at[1], to["tiles"] * to.tile
    first, table, sums, membrane = tile * to.tile, to.arrays["table"], to.arrays["sums"], to.arrays["membrane"]
    if to.shape.kept:
        membrane = membrane.at((n * to["height"] * to["across"] + place) * outputs + first)
    else:
        with over(to.code, 0, to.shape.vectors) as j:
            membrane.store(j * LANES, table.load(outputs * START + first + j * LANES, LANES))
    rows = to.arrays["weights"].at(tile * to["fans"] * to["channels"] * to.tile)
    lanes = to["words"] * LANES
    with over(to.code, 0, to["timesteps"]) as t:
        count = _patch(to, t * to["filled"] + at[0] * to["down"] + at[1] * to["right"])
        for i, one in enumerate(summed(rows, to.arrays["patch"], count, to["every"], to.shape.vectors)):
            sums.store(first.of(i * LANES), one)
        with over(to.code, 0, to.shape.vectors) as j:
            cells = Cells.of_channels(table, first + j * LANES, outputs, to.shape.hard)
            v, fires = cells.update(membrane.load(j * LANES, LANES), sums.load(j * LANES, LANES))
            membrane.store(j * LANES, v)
            block = tile * to.shape.vectors + j
            to.arrays["masks"].store(
                (block * to["timesteps"] + t) * lanes + n * (to["height"] * to["across"]) + place, fires.bits("i32")
            )


def _patch(to: Writer, base: Value) -> Value:
    """Write the list of one patch: those of its places in a row, each with where its tap's rows begin; return how many there are."""
    total, patch = variable(constant(to.code, 0)), to.arrays["patch"]
    with over(to.code, 0, to["fans"]) as k:
        place = base + to.arrays["taps"].load(k).wide("i64")
        count, begins = to.arrays["counts"].load(place).wide("i64"), (k * to["channels"] * to.tile).narrow("i32").everywhere(STEP)
        done = total.value
        with over(to.code, 0, (count + STEP - 1) // STEP) as j:
            patch.store(done + j * STEP, to.arrays["lists"].load(place * to["channels"] + j * STEP, STEP) + begins)
        total.put(done + count)
    return total.value
