"""Native code of convolutions whose weights live in blocks: lists of events, and the sums of the taps that live."""

from functools import partial
from typing import Any

from spikeprune.runtime.bits import WORD
from spikeprune.runtime.block_entries import MOST
from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, Variable, begin, constant, fill, kind, over, variable, where
from spikeprune.runtime.neurons import LANES
from spikeprune.runtime.scatter_code import Shape, Writer, fire, flush, pass_on, turn

AHEAD = 8  # events are written so many at once, before it is known whether there are as many
TOGETHER = 4  # events are added so many at once; a list is filled up to a multiple of it

ARRAYS = "events firsts lists bounds offsets weights flushes table sums wide membrane masks out"
WHOLES = "every blocks samples timesteps slots size spare pitch height width origin words"


def listing() -> Function:
    """Compile f of addresses and numbers, which lists where in planes of sums spikes begin.

    A slot is a timestep of a sample, slot n T + t, and as many in a row as `slots` are a group. For each group, channel and phase, in
    this order, events are the elements of the group's planes, of `step` elements each, at which its spikes begin. A list is filled up
    to a multiple of TOGETHER with `spare`, the element behind the planes::

        words   int64, the spikes
        rows    int64 (channels,), where the words of each channel that is listed begin
        places  int64 (samples * T, 2), the word in a channel's, and the bit of it, at which each slot begins
        starts  int32 (phases * chunks * 64 + 64), where a spike of this place of a sample begins
        masks   int64 (phases, chunks), the places of each phase: a bit each, 64 to a chunk
        events  room for what may be listed, and AHEAD + TOGETHER more
        firsts  int32, where in the events each list begins, and at last their number
        channels, total (slots of all), phases, chunks, slots, step, spare, last (word of all)
    """
    return compiled("block scatter events", _listing)


def convolution(shape: Shape) -> Function:
    """Compile f of addresses, those of ARRAYS, and of numbers, those of WHOLES, in their order.

    ::

        events, firsts  as of `listing`, which makes `every` lists for a group
        lists           int32 (entries,), the list of each entry within a group
        bounds          int32 (blocks * MOST + 1, 2), as of `Entries`
        offsets         int32 (living,), how many elements behind its event a tap adds
        weights         int8 or float32 (living, 32)
        flushes         int8 (entries,), 1 where 16 bits might overflow if sums were not moved before this entry
        table           float32 (6, blocks * 32), of the neurons
        sums            room of one group: slots * size * 32 + spare, int16 or float32
        wide            room for slots * size * 32 int32, unused if not `wide`
        the rest        as of `scatter_code.convolution`

    Args:
        shape: what it depends on; its kernel is not looked at.
    """
    return compiled(("block scatter", shape), partial(_convolution, shape))


def _listing(module: Any) -> None:
    code, (words, rows, places, *arrays), parts = begin(module, "i64 i64 i64 i32 i64 i32 i32", 8)
    (starts, masks, events, firsts), (channels, total, phases, chunks, slots, step, spare, last) = arrays, parts
    count, lists = variable(constant(code, 0)), variable(constant(code, 0))
    with over(code, 0, (total + slots - 1) // slots) as g, over(code, 0, channels) as c, over(code, 0, phases) as f:
        firsts.store(lists.value, _short(count.value))
        lists.put(lists.value + 1)
        row, base = rows.load(c), variable(constant(code, 0))
        with over(code, g * slots, (g * slots + slots).least(total)) as slot:
            word, shift = row + places.load(slot * 2), places.load(slot * 2 + 1)
            with over(code, 0, chunks) as j:
                # A sample begins anywhere in a word; what follows the last word is not there, and its bits are not of the mask.
                high = words.load((word + j + 1).least(last)) << 1 << shift.of(WORD - 1) - shift
                bits = (words.load(word + j) >> shift | high) & masks.load(f * chunks + j)
                _emit(bits, starts.at((f * chunks + j) * WORD), base.value, events, count)
            base.put(base.value + step)
        now = count.value
        events.store(now, _short(spare).everywhere(TOGETHER))
        count.put((now + TOGETHER - 1) // TOGETHER * TOGETHER)
    firsts.store(lists.value, _short(count.value))
    code.ret_void()


def _emit(bits: Value, starts: Memory, base: Value, events: Memory, count: Variable) -> None:
    """Write the events of the bits that are set.

    How many there are cannot be foreseen, and a loop that ends where it was not expected costs as much as many events.
    """
    found, left, first = bits.count(), variable(bits), _short(base)
    with over(bits.code, 0, (found + AHEAD - 1) // AHEAD) as i:
        at = count.value + i * AHEAD
        for u in range(AHEAD):
            now = left.value
            place = Value(now.code, now.code.cttz(now.raw, kind("i1")(0)))  # WORD when none is left
            events.store(at + u, starts.load(place) + first)
            left.put(now & (now - 1))
    count.put(count.value + found)


def _short(value: Value) -> Value:
    return Value(value.code, value.code.trunc(value.raw, kind("i32")))


def _convolution(shape: Shape, module: Any) -> None:
    weights, sums = ("i8", "i16") if shape.integer else ("f32", "f32")
    kinds = f"i32 i32 i32 i32 i32 {weights} i8 f32 {sums} i32 f32 i32 {'f32' if shape.hard is None else 'i32'}"
    code, arrays, wholes = begin(module, kinds, len(WHOLES.split()))
    to = Writer(shape, code, dict(zip(ARRAYS.split(), arrays, strict=True)), dict(zip(WHOLES.split(), wholes, strict=True)))
    total, room = to["samples"] * to["timesteps"], to["slots"] * to["size"] * LANES
    if shape.hard is not None:
        fill(to.arrays["masks"], to["timesteps"] * to["words"] * LANES, LANES)
    with over(code, 0, to["blocks"]) as block:
        with over(code, 0, (total + to["slots"] - 1) // to["slots"]) as group:
            fill(to.arrays["sums"], room + to["spare"], LANES)
            if shape.wide:
                fill(to.arrays["wide"], room, LANES)
            for taps in range(1, MOST + 1):
                _entries(to, block * MOST + (taps - 1), group * to["every"], taps)
            first = group * to["slots"]
            with over(code, first, (first + to["slots"]).least(total)) as slot:
                write = pass_on if shape.hard is None else fire
                write(to, block, slot, (slot - first) * to["size"])
        if shape.hard is not None:
            rows = block * (to["timesteps"] * to["words"] * LANES)
            turn(code, to.arrays["masks"], to.arrays["out"].at(rows), to["timesteps"], to["words"])
    code.ret_void()


def _entries(to: Writer, row: Value, lists: Value, taps: int) -> None:
    """Write the sums of one block's entries of so many taps, given their row of the bounds and a group's first list."""
    bounds, firsts = to.arrays["bounds"], to.arrays["firsts"]
    first, last, living = (bounds.load(at).wide("i64") for at in (row * 2, row * 2 + 2, row * 2 + 1))
    with over(to.code, first, last) as entry:
        if to.shape.wide:
            with where(to.arrays["flushes"].load(entry).compare("!=", 0)):
                flush(to)
        mine = lists + to.arrays["lists"].load(entry).wide("i64")
        begins, ends = (firsts.load(at).wide("i64") for at in (mine, mine + 1))
        with where(begins.compare("<", ends)):
            _events(to, living + (entry - first) * taps, taps, begins // TOGETHER, ends // TOGETHER)


def _events(to: Writer, tap: Value, taps: int, begins: Value, ends: Value) -> None:
    """Write the sums of one entry, given its first tap: its weights stay in registers while its events pass."""
    offsets = [to.arrays["offsets"].load(tap + q).wide("i64") for q in range(taps)]
    weights = [to.arrays["weights"].load((tap + q) * LANES, LANES) for q in range(taps)]
    if to.shape.integer:
        weights = [weight.wide("i16") for weight in weights]
    with over(to.code, begins, ends) as few:
        for u in range(TOGETHER):
            sums = to.arrays["sums"].at(to.arrays["events"].load(few * TOGETHER + u).wide("i64"))
            for offset, weight in zip(offsets, weights, strict=True):
                sums.add(offset, weight)
