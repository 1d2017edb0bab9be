"""Native code of linear layers fed event by event: a list of rows, their sums tile by tile, and the neurons in the same pass."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from spikeprune.runtime.bits import WORD
from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, begin, constant, ones, over, variable
from spikeprune.runtime.neurons import LANES, START, Cells

ARRAYS = "words living rows table events membrane out"
WHOLES = "samples timesteps width living channels tiles every pitch"


@dataclass(frozen=True)
class Shape:
    """What the compiled code of a layer depends on.

    Attributes:
        vectors: of LANES outputs, in a tile; their sums stay in registers.
        integer: whether weights are int8 rather than float32.
        hard: which reset; None for currents.
        kept: whether membranes are kept between runs.
    """

    vectors: int
    integer: bool
    hard: bool | None
    kept: bool


def layer(shape: Shape) -> Function:
    """Compile f of addresses, those of ARRAYS, and of numbers, those of WHOLES, in their order; `living` is a number of words, too.

    ::

        words     int64 (samples, T, width), the spikes
        living    int64 (living,), a bit for each input that is not passed over
        rows      int8 or float32 (inputs, channels), with channels = tiles * vectors * LANES
        table     float32 (6, channels), of the neurons
        events    room for an int64 of each input
        membrane  room for channels float32; (samples, channels) if kept
        out       int32, or float32 for currents: rows (samples, T), each of which begins `pitch` elements after the last
    """
    return compiled(("event rows", shape), partial(_write, shape))


def _write(shape: Shape, module: Any) -> None:
    kinds = f"i64 i64 {'i8' if shape.integer else 'f32'} f32 i64 f32 {'f32' if shape.hard is None else 'i32'}"
    code, arrays, (samples, timesteps, width, living_width, channels, tiles, every, pitch) = begin(module, kinds, 8)
    words, living, rows, table, events, membranes, out = arrays
    with over(code, 0, samples) as n:
        membrane = membranes.at(n * channels) if shape.kept else membranes
        if not shape.kept:
            with over(code, 0, channels // LANES) as i:
                membrane.store(i * LANES, table.load(channels * START + i * LANES, LANES))
        with over(code, 0, timesteps) as t:
            row = n * timesteps + t
            count = _list(words.at(row * width), living, living_width, events, channels)
            with over(code, 0, tiles) as tile:
                first = tile * (shape.vectors * LANES)
                for j, one in enumerate(summed(rows.at(first), events, count, every, shape.vectors)):
                    place = first + j * LANES
                    cells = Cells.of_channels(table, place, channels, bool(shape.hard))
                    if shape.hard is None:
                        out.store(row * pitch + place, cells.current(one))
                    else:
                        v, fires = cells.update(membrane.load(place, LANES), one)
                        membrane.store(place, v)
                        out.store(row * pitch + place // LANES, fires.bits("i32"))
    code.ret_void()


def _list(words: Memory, living: Memory, width: Value, events: Memory, pitch: Value) -> Value:
    """Write code that lists where the rows of the inputs that fired begin; return how many."""
    count = variable(constant(words.code, 0))
    with over(words.code, 0, width) as w, ones(words.load(w) & living.load(w)) as bit:
        now = count.value
        events.store(now, (w * WORD + bit) * pitch)
        count.put(now + 1)
    return count.value


def summed(rows: Memory, events: Memory, count: Value, every: Value, vectors: int) -> list[Value]:
    """Write the sums of so many listed rows, LANES times `vectors` outputs; whole numbers are moved to 32 bits before 16 could overflow.

    Args:
        rows: int8 or float32.
        events: where each row begins.
        count: of events.
        every: how many sums of 16 bits hold.
        vectors: of LANES outputs.
    """
    code, integer = rows.code, rows.name == "i8"
    sums = [variable(constant(code, 0, "i32" if integer else "f32", LANES)) for _ in range(vectors)]
    if not integer:
        _add(rows, events, constant(code, 0), count, sums)
        return [one.value for one in sums]
    with over(code, 0, (count + every - 1) // every) as part:
        short = [variable(constant(code, 0, "i16", LANES)) for _ in range(vectors)]
        _add(rows, events, part * every, (part * every + every).least(count), short)
        for one, few in zip(sums, short, strict=True):
            one.put(one.value + few.value.wide("i32"))
    return [one.value for one in sums]


def _add(rows: Memory, events: Memory, first: Value, last: Value, sums: list[Any]) -> None:
    with over(rows.code, first, last) as e:
        row = rows.at(events.load(e))
        for j, one in enumerate(sums):
            found = row.load(constant(rows.code, j * LANES), LANES)
            one.put(one.value + (found.wide("i16") if rows.name == "i8" else found))
