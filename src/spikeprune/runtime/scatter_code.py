"""Native code of convolutions that spikes scatter: lists of events, sums in planes, and the neurons of 32 channels at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from spikeprune.runtime.bits import WORD
from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, apart, begin, constant, fill, ones, over, variable, where
from spikeprune.runtime.neurons import LANES, START, Cells
from spikeprune.runtime.planes import Kernel, reach

ARRAYS = "events starts weights cuts table sums wide membrane masks out"
TILE = 16  # places and channels that are turned at a time
WHOLES = "channels runs blocks samples timesteps slots size pitch height width origin words"


def listing() -> Function:
    """Compile f(words, starts, events, firsts, channels, timesteps, width, samples, places, phases, slots, size).

    A slot is a timestep of a sample, slot n T + t, and as many in a row as `slots` are a group. For each group, channel and phase, in
    this order, events are the places in the group's planes, each of `size`, where its spikes begin; firsts is where in the events
    each list begins, and at last their number. starts is (phases, places), as of `Plane`.
    """
    return compiled("scatter events", _listing)


@dataclass(frozen=True)
class Shape:
    """What a compiled convolution depends on.

    Attributes:
        kernel: its shape, without the padding.
        integer: whether weights are int8 rather than float32.
        wide: whether sums are moved from 16 to 32 bits on the way.
        hard: which reset; None for currents.
        kept: whether membranes are kept between runs.
    """

    kernel: Kernel
    integer: bool
    wide: bool
    hard: bool | None
    kept: bool


def convolution(shape: Shape) -> Function:
    """Compile f of addresses, those of ARRAYS, and of numbers, those of WHOLES, in their order.

    ::

        events, firsts  as of `listing`
        weights         int8 or float32 (blocks, channels, taps phase by phase, 32)
        cuts            int32 (blocks, runs + 1), where the runs of channels begin, and their end: between two of them, sums are moved from
                        16 bits to 32; one run if not `wide`
        table           float32 (6, blocks * 32), of the neurons
        sums, wide      room of one group: slots * size * 32, int16 or float32; int32, unused if not `wide`
        membrane        room for height * width * 32 float32; (blocks, samples, height * width, 32) if kept
        masks           room for T * words * 32 int32; unused for currents
        out             int32 (blocks * 32, T, words), the spikes; float32 (T, samples, blocks * 32, height * width) for currents
    """
    return compiled(("scatter", shape), partial(_convolution, shape))


def _listing(module: Any) -> None:
    code, (words, starts, events, firsts), parts = begin(module, "i64 i32 i32 i32", 8)
    channels, timesteps, width, samples, places, phases, slots, size = parts
    count, lists = variable(constant(code, 0, "i32")), variable(constant(code, 0))
    total = samples * timesteps
    with over(code, 0, (total + slots - 1) // slots) as g, over(code, 0, channels) as c, over(code, 0, phases) as f:
        firsts.store(lists.value, count.value)
        lists.put(lists.value + 1)
        with over(code, g * slots, (g * slots + slots).least(total)) as slot:
            row = words.at((c * timesteps + slot % timesteps) * width)
            base = Value(code, code.trunc(((slot - g * slots) * size).raw, count.value.raw.type))
            sample = slot // timesteps * places
            words_of = over(code, sample // WORD, (sample + places + WORD - 1) // WORD)
            with words_of as w, ones(within(row.load(w), w * WORD, sample, sample + places)) as bit:
                start = starts.load(f * places + w * WORD + bit - sample)
                events.store(count.value.zero_extended("i64"), base + start)
                count.put(count.value + start.compare(">=", 0).zero_extended("i32"))
    firsts.store(lists.value, count.value)
    code.ret_void()


def within(word: Value, place: Value, first: Value, last: Value) -> Value:
    """Keep, of the 64 bits that begin at a place, those from first to last - 1, of which there is one."""
    low, high = first - place, (last - place).least(WORD)
    every = constant(word.code, -1)
    return word & every << low.compare("<", 0).choose(low.of(0), low) & every >> high.of(WORD) - high


@dataclass(frozen=True, eq=False)
class Writer:
    """The code of one convolution: its shape, arrays and numbers by name."""

    shape: Shape
    code: Any
    arrays: dict[str, Memory]
    wholes: dict[str, Value]

    def __getitem__(self, name: str) -> Value:
        return self.wholes[name]


def _convolution(shape: Shape, module: Any) -> None:
    weights, sums = ("i8", "i16") if shape.integer else ("f32", "f32")
    kinds = f"i32 i32 {weights} i32 f32 {sums} i32 f32 i32 {'f32' if shape.hard is None else 'i32'}"
    code, arrays, wholes = begin(module, kinds, len(WHOLES.split()))
    to = Writer(shape, code, dict(zip(ARRAYS.split(), arrays, strict=True)), dict(zip(WHOLES.split(), wholes, strict=True)))
    total, room = to["samples"] * to["timesteps"], to["slots"] * to["size"] * LANES
    if shape.hard is not None:
        fill(to.arrays["masks"], to["timesteps"] * to["words"] * LANES, LANES)
    with over(code, 0, to["blocks"]) as block:
        with over(code, 0, (total + to["slots"] - 1) // to["slots"]) as group:
            fill(to.arrays["sums"], room, LANES)
            if shape.wide:
                fill(to.arrays["wide"], room, LANES)
            _scatter(to, block, group)
            first = group * to["slots"]
            with over(code, first, (first + to["slots"]).least(total)) as slot:
                write = pass_on if shape.hard is None else fire
                write(to, block, slot, (slot - first) * to["size"])
        if shape.hard is not None:
            rows = block * (to["timesteps"] * to["words"] * LANES)
            turn(code, to.arrays["masks"], to.arrays["out"].at(rows), to["timesteps"], to["words"])
    code.ret_void()


def _scatter(to: Writer, block: Value, group: Value) -> None:
    """Write the sums of one group's planes, run by run."""
    starts = to.arrays["starts"].at(group * to["channels"] * len(to.shape.kernel.phases()))
    weights = to.arrays["weights"].at(block * to["channels"] * (to.shape.kernel.taps * LANES))
    with over(to.code, 0, to["runs"]) as run:
        cut = block * (to["runs"] + 1) + run
        ends = [to.arrays["cuts"].load(at).wide("i64") for at in (cut, cut + 1)]
        if to.shape.wide:
            with where(run.compare(">", 0)), where(ends[0].compare("<", ends[1])):
                flush(to)
        with apart(to.code, to.arrays["events"], starts, weights, to.arrays["sums"], to["pitch"], *ends) as given:
            arrays = dict(zip(("events", "starts", "weights", "sums"), given[:4], strict=True))
            _channels(Writer(to.shape, given[0].code, arrays, {"pitch": given[4]}), *given[5:])


def _channels(to: Writer, first: Value, last: Value) -> None:
    """Write the sums of some channels: the weights of one stay in registers while its events pass."""
    phases, kernel = to.shape.kernel.phases(), to.shape.kernel
    with over(to.code, first, last) as c:
        done = 0
        for f, taps in enumerate(phases):
            place = c * len(phases) + f
            begins, ends = (to.arrays["starts"].load(at).wide("i64") for at in (place, place + 1))
            with where(begins.compare("<", ends)):
                weights = to.arrays["weights"].at((c * kernel.taps + done) * LANES)
                _events(to, taps, [weights.load(c.of(q * LANES), LANES) for q in range(len(taps))], (begins, ends))
            done += len(taps)


def _events(to: Writer, taps: list[tuple[int, int]], weights: list[Value], ends: tuple[Value, Value]) -> None:
    kernel, stride = to.shape.kernel, to.shape.kernel.stride
    if to.shape.integer:
        weights = [weight.wide("i16") for weight in weights]
    down, across = reach(kernel.height, stride), reach(kernel.width, stride)
    offsets = [(to["pitch"] * (down - y // stride) + (across - x // stride)) * LANES for y, x in taps]
    with over(to.code, *ends) as e:
        sums = to.arrays["sums"].at(to.arrays["events"].load(e).wide("i64") * LANES)
        for offset, weight in zip(offsets, weights, strict=True):
            sums.add(offset, weight)


def flush(to: Writer) -> None:
    """Write the move of all sums from 16 bits to 32."""
    sums, zero = to.arrays["sums"], constant(to.code, 0, "i16", LANES)
    with over(to.code, 0, to["slots"] * to["size"]) as i:
        to.arrays["wide"].add(i * LANES, sums.load(i * LANES, LANES).wide("i32"))
        sums.store(i * LANES, zero)


def fire(to: Writer, block: Value, slot: Value, base: Value) -> None:
    """Write the neurons of one slot, whose plane begins at a base: 32 channels of every place."""
    membrane, channels, first = to.arrays["membrane"], to["blocks"] * LANES, block * LANES
    places, sample, t = to["height"] * to["width"], slot // to["timesteps"], slot % to["timesteps"]
    if to.shape.kept:
        membrane = membrane.at((block * to["samples"] + sample) * places * LANES)
    else:
        with where(t.compare("==", 0)):
            start = to.arrays["table"].load(channels * START + first, LANES)
            with over(to.code, 0, places) as p:
                membrane.store(p * LANES, start)
    cells = Cells.of_channels(to.arrays["table"], first, channels, bool(to.shape.hard))
    masks = to.arrays["masks"].at(t * to["words"] * LANES + sample * places)
    with _sums(to, base) as (p, sums):
        v, fires = cells.update(membrane.load(p * LANES, LANES), sums)
        membrane.store(p * LANES, v)
        masks.store(p, fires.bits("i32"))


def pass_on(to: Writer, block: Value, slot: Value, base: Value) -> None:
    """Write the currents of one slot, whose plane begins at a base: those of 32 channels, place by place, then turned."""
    channels, sample, t = to["blocks"] * LANES, slot // to["timesteps"], slot % to["timesteps"]
    cells, room = Cells.of_channels(to.arrays["table"], block * LANES, channels, False), to.arrays["membrane"]
    with _sums(to, base) as (p, sums):
        room.store(p * LANES, cells.current(sums))
    places = to["height"] * to["width"]
    out = to.arrays["out"].at(((t * to["samples"] + sample) * channels + block * LANES) * places)
    with where(places.compare(">=", TILE)), over(to.code, 0, (places + TILE - 1) // TILE) as i:
        first = (i * TILE).least(places - TILE)  # the last tile may take some places twice
        for half in range(0, LANES, TILE):
            rows = [room.load((first + k) * LANES + half, TILE) for k in range(TILE)]
            for k, row in enumerate(transposed(rows)):
                out.store(places * (half + k) + first, row)
    with where(places.compare("<", TILE)), over(to.code, 0, LANES) as c, over(to.code, 0, places) as p:
        out.store(places * c + p, room.load(p * LANES + c))


def transposed(rows: list[Value]) -> list[Value]:
    """Write the columns of a square of a power of 2 of lanes: blocks beside the diagonal change places, then those within."""
    count = len(rows)
    step = count // 2
    while step:
        kept = [lane for lane in range(count) if not lane & step]
        upper = sorted([(lane, lane) for lane in kept] + [(lane + step, count + lane) for lane in kept])
        lower = sorted([(lane, lane + step) for lane in kept] + [(lane + step, count + lane + step) for lane in kept])
        found = list(rows)
        for k in kept:
            for row, lanes in ((k, upper), (k + step, lower)):
                found[row] = rows[k].pick(rows[k + step], [source for _, source in lanes])
        rows, step = found, step // 2
    return rows


@contextmanager
def _sums(to: Writer, base: Value) -> Iterator[tuple[Value, Value]]:
    """Write a loop over the places of a plane that begins at a base; its body is given the place and the sums of 32 channels."""
    with over(to.code, 0, to["height"]) as y, over(to.code, 0, to["width"]) as x:
        place = (base + to["origin"] + y * to["pitch"] + x) * LANES
        sums = to.arrays["sums"].load(place, LANES)
        if to.shape.integer:
            sums = sums.wide("i32")
        if to.shape.wide:
            sums = sums + to.arrays["wide"].load(place, LANES)
        yield y * to["width"] + x, sums


def turn(code: Any, masks: Memory, out: Memory, timesteps: Value, words: Value) -> None:
    """Write the spikes of 32 channels, a number for each place, as rows of bits, one for each channel.

    Args:
        code: the builder.
        masks: int32 (T, words, 32), of which bit c is of channel c.
        out: int32 (32, T, words).
        timesteps: T.
        words: of a row.
    """
    with over(code, 0, timesteps) as t, over(code, 0, words) as w:
        found = masks.load((t * words + w) * LANES, LANES)
        with over(code, 0, LANES) as c:
            bit = (constant(code, 1) << c).narrow("i32").everywhere(LANES)
            out.store((timesteps * c + t) * words + w, (found & bit).compare("!=", 0).bits("i32"))
