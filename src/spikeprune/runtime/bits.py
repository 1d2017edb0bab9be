"""Native code for rows of bits: made from numbers, made into numbers, counted, and sent elsewhere one by one."""

from functools import partial
from typing import Any

from spikeprune.runtime.jit import Function, compiled
from spikeprune.runtime.lanes import Memory, Value, begin, constant, kind, ones, over, where

WORD = 64


def pack() -> Function:
    """Compile f(x, words, rows, count, width): bit i of a row is whether number i of the row is not 0.

    x is float32 (rows, count), words int64 (rows, width) of zeros, with width * 64 >= count.
    """
    return compiled("pack bits", _pack)


def unpack() -> Function:
    """Compile f(words, x, rows, count, width), which writes 0 and 1 into x; see `pack`."""
    return compiled("unpack bits", _unpack)


def count() -> Function:
    """Compile f(words, counts, rows, width): the bits set in each row, int64."""
    return compiled("count bits", _count)


def route() -> Function:
    """Compile f(source, target, table, outer, inner, width, fans, outer_step, inner_step): every bit sets others.

    source is int64 (outer, inner, width) and table int32 (width * 64, fans). Bit i of row (a, b) sets the bits
    a outer_step + b inner_step + table[i, j] of the target, for each j at which the table is 0 or more.
    """
    return compiled("route bits", _route)


def halve(width: int) -> Function:
    """Compile f(words, out, rows, count, pitch, out_pitch): the spikes of 2 x 2 places become one.

    The bits of a row are those of maps of an even height and of this width, a power of 2 from 2 to 32. Of words, int64 (rows, pitch),
    the first `count` of a row are read, and as many numbers written of out, int16 (rows, out_pitch).
    """
    return compiled(("halve bits", width), partial(_halve, width))


def _pack(module: Any) -> None:
    code, (x, words), (rows, count, width) = begin(module, "f32 i64", 3)
    with over(code, 0, rows) as r:
        source, target = x.at(r * count), words.at(r * width)
        with over(code, 0, count // WORD) as w:
            target.store(w, source.load(w * WORD, WORD).compare("!=", 0.0).bits("i64"))
        with over(code, count - count % WORD, count) as i:
            bit = source.load(i).compare("!=", 0.0).zero_extended("i64")
            w = i // WORD
            target.store(w, target.load(w) | bit << i % WORD)
    code.ret_void()


def _unpack(module: Any) -> None:
    code, (words, x), (rows, count, width) = begin(module, "i64 f32", 3)
    one, none = (constant(code, number, "f32", WORD) for number in (1.0, 0.0))
    with over(code, 0, rows) as r:
        source, target = words.at(r * width), x.at(r * count)
        with over(code, 0, count // WORD) as w:
            target.store(w * WORD, source.load(w).bits("i1", WORD).choose(one, none))
        with over(code, count - count % WORD, count) as i:
            bit = source.load(i // WORD) >> i % WORD & 1
            target.store(i, Value(code, code.uitofp(bit.raw, kind("f32"))))
    code.ret_void()


def _count(module: Any) -> None:
    code, (words, counts), (rows, width) = begin(module, "i64 i64", 2)
    with over(code, 0, rows) as r:
        counts.store(r, constant(code, 0))
        with over(code, 0, width) as w:
            counts.add(r, words.load(r * width + w).count())
    code.ret_void()


def _route(module: Any) -> None:
    code, (source, target, table), parts = begin(module, "i64 i64 i32", 6)
    outer, inner, width, fans, outer_step, inner_step = parts
    with over(code, 0, outer) as a, over(code, 0, inner) as b, over(code, 0, width) as w:
        base = a * outer_step + b * inner_step
        with ones(source.load((a * inner + b) * width + w)) as bit, over(code, 0, fans) as j:
            to = table.load((w * WORD + bit) * fans + j).wide("i64")
            with where(to.compare(">=", 0)):
                put(target, base + to)
    code.ret_void()


def _halve(width: int, module: Any) -> None:
    code, (words, out), (rows, count, pitch, out_pitch) = begin(module, "i64 i16", 4)
    with over(code, 0, rows) as r, over(code, 0, count) as w:
        word = words.load(r * pitch + w)
        pairs = word | word >> 1
        columns = _squeezed(pairs | pairs >> width, 1, WORD)
        out.store(r * out_pitch + w, Value(code, code.trunc(_squeezed(columns, width // 2, WORD // 2).raw, kind("i16"))))
    code.ret_void()


def _squeezed(word: Value, block: int, count: int) -> Value:
    """Write code that moves every other block of bits, of so many bits, together: the first, third ... of `count` bits."""
    word = word & _alternating(block)
    while 2 * block < count:
        word = (word | word >> block) & _alternating(2 * block)
        block *= 2
    return word


def _alternating(block: int) -> int:
    """Give a number of 64 bits: so many ones, as many zeros, and so on, from the lowest."""
    return sum(((1 << block) - 1) << first for first in range(0, WORD, 2 * block))


def put(words: Memory, place: Value) -> None:
    """Write code that sets one bit in rows of 64."""
    word = place // WORD
    words.store(word, words.load(word) | constant(words.code, 1) << place % WORD)
