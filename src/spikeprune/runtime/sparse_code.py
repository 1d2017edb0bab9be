"""Native code of layers with few living weights, forward and backward: each living weight meets many samples at once.

A tensor lies in *lanes*: where a channel has a number at a place, there are `vectors` vectors of 16 samples. A living weight is then an
offset: where, from the place of a sum, its input lies. Sums of a tile of places stay in registers while the weights of one output pass,
channels block by block, so that what a tile reads stays in the first-level cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from spikeprune.runtime.jit import Function, compiled, ir
from spikeprune.runtime.lanes import Memory, Value, Variable, begin, constant, kind, over, variable, where

LANES = 16  # samples of a vector, float32
REGISTERS = 16  # vectors of sums that a tile may hold


@dataclass(frozen=True)
class Tile:
    """The places whose sums are made at once.

    Attributes:
        rows: of places.
        columns: of places.
        vectors: of samples at each place.
        step: places from one column's input to the next one's.
    """

    rows: int
    columns: int
    vectors: int
    step: int

    @property
    def sums(self) -> int:
        """How many vectors."""
        return self.rows * self.columns * self.vectors

    def sources(self, row: Value) -> list[Value]:
        """Say where each vector's input lies, from the first one's; its rows lie `row` numbers apart."""
        return [row * r + (c * self.step * self.vectors + v) * LANES for r, c, v in self._each()]

    def targets(self, row: Value, column: Value) -> list[Value]:
        """Say where each vector's sum lies, from the first one's."""
        return [row * r + column * c + v * LANES for r, c, v in self._each()]

    def _each(self) -> Iterator[tuple[int, int, int]]:
        return ((r, c, v) for r in range(self.rows) for c in range(self.columns) for v in range(self.vectors))


def spread() -> Function:
    """Compile f(x, places, lanes, samples, features, vectors), which puts samples into lanes.

    x is float32 (samples, features) of 16 features or more, with samples of 1 to 16 * vectors; number j of a sample goes to
    lanes[places[j] + sample]. Lanes without a sample become 0.
    """
    return compiled("spread lanes", _spread)


def collect() -> Function:
    """Compile f(lanes, places, x, samples, features), the reverse of `spread`."""
    return compiled("collect lanes", _collect)


def gather(tile: Tile) -> Function:
    """Compile f(source, offsets, values, ends, start, target, and the whole numbers below), which sums over living weights.

    ::

        source   float32, lanes
        offsets  int32 (weights,), where each weight's input lies, from the first one of a tile
        values   float32 (weights,)
        ends     int32 (blocks * sums + 1,), where the weights of a block and a sum begin
        start    float32 (sums,), what each sum begins with
        target   float32, lanes
        sums, blocks, down, across    how many sums a place, blocks, rows of tiles, tiles in a row
        row                           numbers from a row of the source to what the next row of places reads
        plane, target_row, target_column    numbers from one sum of the target to the next, and its row and column
    """
    return compiled(("gather lanes", tile), partial(_gather, tile))


def correlate(tile: Tile) -> Function:
    """Compile f(source, offsets, ends, dy, dw, and the whole numbers below): the gradient of each living weight, added to dw.

    dw is float32 (weights,) and dy float32, lanes, the gradient of sums. Numbers: sums, blocks, down, across, row, plane, dy_row; see
    `gather`. Places of dy follow each other in a row.
    """
    return compiled(("correlate lanes", tile), partial(_correlate, tile))


def _spread(module: Any) -> None:
    code, (x, places, lanes), (samples, features, vectors) = begin(module, "f32 i32 f32", 3)
    zeros = constant(code, 0, "f32", LANES)
    with over(code, 0, vectors) as v:
        numbers = [v * LANES + i for i in range(LANES)]
        there = [number.compare("<", samples) for number in numbers]
        firsts = [number.least(samples - 1) * features for number in numbers]
        with _blocks(features) as at:
            rows = [here.choose(x.load(first + at, LANES), zeros) for here, first in zip(there, firsts, strict=True)]
            for i, lane in enumerate(_transposed(rows)):
                lanes.store(places.load(at + i).wide("i64") + v * LANES, lane)
    code.ret_void()


def _collect(module: Any) -> None:
    code, (lanes, places, x), (samples, features) = begin(module, "f32 i32 f32", 2)
    with over(code, 0, (samples + (LANES - 1)) // LANES) as v, _blocks(features) as at:
        found = [lanes.load(places.load(at + i).wide("i64") + v * LANES, LANES) for i in range(LANES)]
        # From the last: lanes beyond the samples write where the last sample's does, which comes after them.
        for i, row in reversed(list(enumerate(_transposed(found)))):
            x.store((v * LANES + i).least(samples - 1) * features + at, row)
    code.ret_void()


def _gather(tile: Tile, module: Any) -> None:
    code, arrays, wholes = begin(module, "f32 i32 f32 i32 f32 f32", 8)
    source, offsets, values, ends, start, target = arrays
    sums, blocks, down, across, row, plane, target_row, target_column = wholes
    inputs, outputs = tile.sources(row), tile.targets(target_row, target_column)
    with _tiles(tile, down, across) as (y, x):
        here = source.at(row * y + x * (tile.step * tile.vectors * LANES))
        there = target.at(target_row * y + target_column * x)
        with over(code, 0, blocks) as b, over(code, 0, sums) as o:
            first, last = (ends.load(b * sums + o + i).wide("i64") for i in (0, 1))
            fresh = b.compare("==", 0)
            with where(Value(code, code.or_(fresh.raw, first.compare("<", last).raw))):
                to = there.at(o * plane)
                found = _begun(code, fresh, start.load(o), to, outputs)
                with over(code, first, last) as i:
                    at, weight = here.at(offsets.load(i).wide("i64")), values.load(i).everywhere(LANES)
                    for one, place in zip(found, inputs, strict=True):
                        one.put(_fused(at.load(place, LANES), weight, one.value))
                for one, place in zip(found, outputs, strict=True):
                    to.store(place, one.value)
    code.ret_void()


def _begun(code: Any, fresh: Value, start: Value, to: Memory, places: list[Value]) -> list[Variable]:
    """Begin sums: with a number, or with what an earlier block left."""
    found = [variable(start.everywhere(LANES)) for _ in places]
    with where(fresh.compare("==", 0)):
        for one, place in zip(found, places, strict=True):
            one.put(to.load(place, LANES))
    return found


def _correlate(tile: Tile, module: Any) -> None:
    code, (source, offsets, ends, dy, dw), wholes = begin(module, "f32 i32 i32 f32 f32", 7)
    sums, blocks, down, across, row, plane, dy_row = wholes
    column = constant(code, tile.vectors * LANES)
    inputs, outputs = tile.sources(row), tile.targets(dy_row, column)
    with _tiles(tile, down, across) as (y, x), over(code, 0, blocks) as b, over(code, 0, sums) as o:
        here = source.at(row * y + x * (tile.step * tile.vectors * LANES))
        first, last = (ends.load(b * sums + o + i).wide("i64") for i in (0, 1))
        with where(first.compare("<", last)):
            there = dy.at(dy_row * y + column * x + o * plane)
            grads = [there.load(place, LANES) for place in outputs]
            with over(code, first, last) as i:
                at, parts = here.at(offsets.load(i).wide("i64")), []
                for j, (grad, place) in enumerate(zip(grads, inputs, strict=True)):
                    found = at.load(place, LANES)
                    if j < 4:  # sums that do not wait for each other
                        parts.append(found * grad)
                    else:
                        parts[j % 4] = _fused(found, grad, parts[j % 4])
                dw.add(i, _total(parts))
    code.ret_void()


@contextmanager
def _blocks(features: Value) -> Iterator[Value]:
    """Write a loop over features, 16 at once; the last 16 begin earlier if they must."""
    with over(features.code, 0, (features + (LANES - 1)) // LANES) as block:
        yield (block * LANES).least(features - LANES)


@contextmanager
def _tiles(tile: Tile, down: Value, across: Value) -> Iterator[tuple[Value, Value]]:
    """Write a loop over tiles; its body is given the row and the column of the first place."""
    with over(down.code, 0, down) as y, over(down.code, 0, across) as x:
        yield y * tile.rows, x * tile.columns


def _fused(one: Value, other: Value, sum_: Value) -> Value:
    """Add a product, rounded once where the processor can."""
    wide, module = kind("f32", LANES), one.code.module
    name = f"llvm.fmuladd.v{LANES}f32"
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(wide, [wide] * 3), name)
    return Value(one.code, one.code.call(function, [one.raw, other.raw, sum_.raw]))


def _total(parts: list[Value]) -> Value:
    """Add vectors and their lanes to one number."""
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=False)] + parts[len(parts) // 2 * 2 :]
    found, lanes = parts[0], LANES
    while lanes > 1:
        lanes //= 2
        found = _picked(found, found, range(lanes)) + _picked(found, found, range(lanes, 2 * lanes))
    return Value(found.code, found.code.extract_element(found.raw, kind("i32")(0)))


def _picked(one: Value, other: Value, lanes: Any) -> Value:
    """Take lanes of two vectors, those of the second numbered on."""
    chosen = list(lanes)
    mask = ir.Constant(kind("i32", len(chosen)), chosen)
    return Value(one.code, one.code.shuffle_vector(one.raw, other.raw, mask))


def _transposed(rows: list[Value]) -> list[Value]:
    """Turn 16 vectors of 16: lane j of vector i becomes lane i of vector j, one bit of i and j after the other."""
    rows = list(rows)
    for bit in (1, 2, 4, 8):
        low = [lane + LANES - bit if lane & bit else lane for lane in range(LANES)]
        high = [lane + LANES if lane & bit else lane + bit for lane in range(LANES)]
        for i in (i for i in range(LANES) if not i & bit):
            one, other = rows[i], rows[i + bit]
            rows[i], rows[i + bit] = _picked(one, other, low), _picked(one, other, high)
    return rows
