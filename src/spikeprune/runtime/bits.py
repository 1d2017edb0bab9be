"""Native code for rows of bits: made from numbers, made into numbers, counted, and sent elsewhere one by one."""

from typing import Any

from spikeprune.runtime.jit import Function, compiled, ir
from spikeprune.runtime.lanes import Memory, Value, begin, constant, fill, kind, ones, over, variable, where

WORD = 64
ROWS = 8  # of 64 bits, that a vector holds when bits are turned


def pack() -> Function:
    """Compile f(x, words, rows, count, width): bit i of a row is whether number i of the row is not 0.

    x is float32 (rows, count), words int64 (rows, width) with width * 64 >= count, of which those without any of these bits are left
    as they are.
    """
    return compiled("pack bits", _pack)


def arrange() -> Function:
    """Compile f(x, out, outer, middle, inner, count, outer_step, middle_step, inner_step), which copies numbers into another order.

    out is float32 (outer, middle, inner, count), and its row (i, j, k) the numbers of x, float32, that begin at i outer_step +
    j middle_step + k inner_step.
    """
    return compiled("arrange numbers", _arrange)


def odd() -> Function:
    """Compile f(x, odd, rows, count, step): how many numbers are neither 0 nor 1, int64 (1,).

    x is float32 (rows, count), of which a row begins each `step` numbers.
    """
    return compiled("odd numbers", _odd)


def clear() -> Function:
    """Compile f(words, count), which makes so many words 0."""
    return compiled("clear bits", _clear)


def copy() -> Function:
    """Compile f(words, out, rows, pitch, width): the first words of each row of int64 (rows, pitch) become a row of int64 (rows, width)."""
    return compiled("copy bits", _copy)


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


def transpose() -> Function:
    """Compile f(words, out, square, rows, timesteps, columns, pitch, out_pitch): bit (r, t, c) becomes bit (c, t, r).

    words is int64 (rows, timesteps, pitch) with a bit for each column, out int64 (columns, timesteps, out_pitch) with one for each row, of which
    the words that rows need are written; square is room for 64 words.
    """
    return compiled("transpose bits", _transpose)


def halve() -> Function:
    """Compile f(words, out, rows, count, pitch, out_pitch, gap, width): the spikes of 2 x 2 places become one.

    The bits of a row are those of maps of an even height and of this width, a power of 2 from 2 to 32. Of words, int64 (rows, pitch),
    the first `count` of a row are read, and as many numbers written of out, int16 (rows, out_pitch): every `gap`-th.
    """
    return compiled("halve bits", _halve)


def split() -> Function:
    """Compile f(words, out, channels, timesteps, count, pitch, out_pitch, width): maps become four, of every other row and column.

    Widths and heights are those of `halve`. words is int64 (channels, timesteps, pitch), of which the first `count` of a row are read; out int16
    (channels, 4, timesteps, out_pitch), of which as many numbers of a row are written: of even rows and columns, even rows and odd columns,
    and so on.
    """
    return compiled("split bits", _split)


def _pack(module: Any) -> None:
    code, (x, words), (rows, count, width) = begin(module, "f32 i64", 3)
    with over(code, 0, rows) as r:
        source, target = x.at(r * count), words.at(r * width)
        with over(code, 0, count // WORD) as w:
            target.store(w, source.load(w * WORD, WORD).compare("!=", 0.0).bits("i64"))
        with where((count % WORD).compare("!=", 0)):
            last = variable(constant(code, 0))
            with over(code, count - count % WORD, count) as i:
                last.put(last.value | source.load(i).compare("!=", 0.0).zero_extended("i64") << i % WORD)
            target.store(count // WORD, last.value)
    code.ret_void()


def _copy(module: Any) -> None:
    code, (words, out), (rows, pitch, width) = begin(module, "i64 i64", 3)
    with over(code, 0, rows) as r, over(code, 0, width) as w:
        out.store(r * width + w, words.load(r * pitch + w))
    code.ret_void()


def _arrange(module: Any) -> None:
    code, (x, out), parts = begin(module, "f32 f32", 7)
    outer, middle, inner, count, *steps = parts
    with over(code, 0, outer) as i, over(code, 0, middle) as j, over(code, 0, inner) as k:
        source = x.at(i * steps[0] + j * steps[1] + k * steps[2])
        target = out.at(((i * middle + j) * inner + k) * count)
        with over(code, 0, count) as p:
            target.store(p, source.load(p))
    code.ret_void()


def _odd(module: Any) -> None:
    code, (x, odd), (rows, count, step) = begin(module, "f32 i64", 3)
    found = variable(constant(code, 0))
    with over(code, 0, rows) as r, over(code, 0, count) as i:
        one = x.load(r * step + i)
        found.put(found.value + (one.compare("!=", 0.0) & one.compare("!=", 1.0)).zero_extended("i64"))
    odd.store(constant(code, 0), found.value)
    code.ret_void()


def _clear(module: Any) -> None:
    code, (words,), (count,) = begin(module, "i64", 1)
    fill(words, count, 1)
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


def _transpose(module: Any) -> None:
    code, (words, out, square), (rows, timesteps, columns, pitch, out_pitch) = begin(module, "i64 i64 i64", 5)
    with (
        over(code, 0, timesteps) as t,
        over(code, 0, (columns + WORD - 1) // WORD) as w,
        over(code, 0, (rows + WORD - 1) // WORD) as v,
    ):
        fill(square, constant(code, WORD), WORD)
        with over(code, 0, (rows - v * WORD).least(WORD)) as k:
            square.store(k, words.load(((v * WORD + k) * timesteps + t) * pitch + w))
        _turn(square)
        with over(code, 0, (columns - w * WORD).least(WORD)) as k:
            out.store(((w * WORD + k) * timesteps + t) * out_pitch + v, square.load(k))
    code.ret_void()


def _turn(square: Memory) -> None:
    """Write code that makes rows of 64 words of 64 bits their columns: blocks beside the diagonal change places, then those within."""
    code, step = square.code, WORD // 2
    while step >= ROWS:  # whole vectors change places
        with over(code, 0, WORD // 2 // ROWS) as i:
            place = i * ROWS + i * ROWS // step * step
            upper, lower = square.load(place, ROWS), square.load(place + step, ROWS)
            square.store(place, (upper & _alternating(step)) | (lower & _alternating(step)) << step)
            square.store(place + step, (upper >> step & _alternating(step)) | lower ^ (lower & _alternating(step)))
        step //= 2
    with over(code, 0, WORD // ROWS) as i:
        square.store(i * ROWS, _turned(square.load(i * ROWS, ROWS)))


def _turned(rows: Value) -> Value:
    """Write what is left to do within a few rows."""
    step = ROWS // 2
    while step:
        other = rows.pick(rows, [k ^ step for k in range(ROWS)])
        low = rows & _alternating(step)
        upper = low | (other & _alternating(step)) << step
        lower = rows ^ low | other >> step & _alternating(step)
        above = Value(rows.code, ir.Constant(kind("i1", ROWS), [not k & step for k in range(ROWS)]))
        rows, step = above.choose(upper, lower), step // 2
    return rows


def _halve(module: Any) -> None:
    code, (words, out), (rows, count, pitch, out_pitch, gap, width) = begin(module, "i64 i16", 6)
    moves = _rows_together(width)
    with over(code, 0, rows) as r, over(code, 0, count) as w:
        word = words.load(r * pitch + w)
        pairs = word | word >> 1
        out.store(r * out_pitch + w * gap, _quarter(pairs | pairs >> width, moves))
    code.ret_void()


def _split(module: Any) -> None:
    code, (words, out), (channels, timesteps, count, pitch, out_pitch, width) = begin(module, "i64 i16", 6)
    moves = _rows_together(width)
    with over(code, 0, channels) as c, over(code, 0, timesteps) as t, over(code, 0, count) as w:
        word = words.load((c * timesteps + t) * pitch + w)
        for phase, shifted in enumerate((word, word >> 1, word >> width, word >> width + 1)):
            out.store(((c * 4 + phase) * timesteps + t) * out_pitch + w, _quarter(shifted, moves))
    code.ret_void()


def _quarter(word: Value, moves: list[tuple[Value, Value]]) -> Value:
    """Write code that moves the bits of even rows and columns together: 16 of 64."""
    word = word & _alternating(1)
    for block in (1, 2, 4, 8, 16):
        word = (word | word >> block) & _alternating(2 * block)
    for shift, mask in moves:
        word = (word | word >> shift) & mask
    return Value(word.code, word.code.trunc(word.raw, kind("i16")))


def _rows_together(width: Value) -> list[tuple[Value, Value]]:
    """Write what moves every other row of half the width together: shifts, and masks after each, the first of none; below that width 0 and all."""
    code, half = width.code, width >> 1
    every, none = constant(code, -1), constant(code, 0)
    first = every
    for block in (1, 2, 4, 8):
        first = half.compare("==", block).choose(constant(code, _alternating(block)), first)
    moves = [(none, first)]
    for block in (1, 2, 4, 8):
        moving = half.compare("<=", block)
        moves.append((moving.choose(constant(code, block), none), moving.choose(constant(code, _alternating(2 * block)), every)))
    return moves


def _alternating(block: int) -> int:
    """Give a number of 64 bits: so many ones, as many zeros, and so on, from the lowest."""
    return sum(((1 << block) - 1) << first for first in range(0, WORD, 2 * block))


def put(words: Memory, place: Value) -> None:
    """Write code that sets one bit in rows of 64."""
    word = place // WORD
    words.store(word, words.load(word) | constant(words.code, 1) << place % WORD)
