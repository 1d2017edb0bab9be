"""Writing LLVM code as arithmetic: numbers with operators, a loop as a `with`, elements of arrays by index.

One loop over single elements is enough: LLVM makes vectors of it. No operation may be reordered, so a sum is rounded as in torch.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from spikeprune.runtime.jit import ir

LN2_HIGH, LN2_LOW = 0.693359375, math.log(2) - 0.693359375  # n LN2_HIGH is exact for every n below
SHIFTER = 1.5 * 2.0**23  # adding it to a float32 rounds that to an integer, which the low bits then hold
LEAST = -87.0  # below it, e^x is no normal float32


@dataclass(frozen=True)
class Number:
    """A float32 in code being written; the operators write the instruction.

    Args:
        code: the `llvmlite.ir.IRBuilder` that writes.
        value: the `llvmlite.ir.Value`.
    """

    code: Any
    value: Any

    def of(self, value: "Number | float") -> "Number":
        """Make a Python number one of this code."""
        return value if isinstance(value, Number) else Number(self.code, ir.FloatType()(float(value)))

    def __add__(self, other: "Number | float") -> "Number":
        return Number(self.code, self.code.fadd(self.value, self.of(other).value))

    def __radd__(self, other: float) -> "Number":
        return self.of(other) + self

    def __sub__(self, other: "Number | float") -> "Number":
        return Number(self.code, self.code.fsub(self.value, self.of(other).value))

    def __rsub__(self, other: float) -> "Number":
        return self.of(other) - self

    def __mul__(self, other: "Number | float") -> "Number":
        return Number(self.code, self.code.fmul(self.value, self.of(other).value))

    def __rmul__(self, other: float) -> "Number":
        return self.of(other) * self

    def __truediv__(self, other: "Number | float") -> "Number":
        return Number(self.code, self.code.fdiv(self.value, self.of(other).value))

    def __rtruediv__(self, other: float) -> "Number":
        return self.of(other) / self

    def __neg__(self) -> "Number":
        return Number(self.code, self.code.fneg(self.value))

    def __abs__(self) -> "Number":
        fabs = self.code.module.declare_intrinsic("llvm.fabs", [ir.FloatType()])
        return Number(self.code, self.code.call(fabs, [self.value]))

    def clamp_min(self, least: float) -> "Number":
        """Return it, or `least` where it is smaller; NaN stays."""
        low = self.code.fcmp_ordered("<", self.value, self.of(least).value)
        return Number(self.code, self.code.select(low, self.of(least).value, self.value))

    def at_least(self, least: float) -> "Number":
        """Return 1 where it is `least` or more, 0 elsewhere and for NaN."""
        fires = self.code.fcmp_ordered(">=", self.value, self.of(least).value)
        return Number(self.code, self.code.uitofp(fires, ir.FloatType()))

    def exp(self) -> "Number":
        """Return e to the power of it, to 1e-6 relative, for what is 0 or less; below -87 it is e^-87.

        e^x = 2^n e^r with |r| <= ln(2) / 2, e^r by its series.
        """
        x = self.clamp_min(LEAST)
        shifted = x * (1 / math.log(2)) + SHIFTER
        n = shifted - SHIFTER
        r = x - n * LN2_HIGH - n * LN2_LOW
        series = self.of(1 / math.factorial(7))
        for k in range(6, -1, -1):
            series = series * r + 1 / math.factorial(k)
        word = ir.IntType(32)
        low = self.code.bitcast(shifted.value, word)
        power = self.code.shl(self.code.add(low, word(127)), word(23))  # the sum's high bits leave at the top
        return series * Number(self.code, self.code.bitcast(power, ir.FloatType()))


@contextmanager
def counting(code: Any, first: Any, last: Any, *, down: bool = False) -> Iterator[Any]:
    """Write a loop over first, ..., last - 1, or backwards; its body is what is written meanwhile, given the index."""
    whole = ir.IntType(64)
    before, head = code.block, code.append_basic_block("head")
    body, after = code.append_basic_block("body"), code.append_basic_block("after")
    code.branch(head)
    code.position_at_end(head)
    i = code.phi(whole)
    i.add_incoming(first, before)
    code.cbranch(code.icmp_signed("<", i, last), body, after)
    code.position_at_end(body)
    yield code.sub(code.sub(last, whole(1)), code.sub(i, first)) if down else i
    i.add_incoming(code.add(i, whole(1)), code.block)
    code.branch(head)
    code.position_at_end(after)


@dataclass(frozen=True)
class Array:
    """Elements behind an address, float32 or, at half the width, bfloat16.

    Args:
        code: the `llvmlite.ir.IRBuilder` that writes.
        address: of the first element.
        half: whether the elements are bfloat16: the upper half of a float32.
    """

    code: Any
    address: Any
    half: bool = False

    def __getitem__(self, index: Any) -> Number:
        value = self.code.load(self.code.gep(self.address, [index]))
        if self.half:
            word = ir.IntType(32)
            value = self.code.bitcast(self.code.shl(self.code.zext(value, word), word(16)), ir.FloatType())
        return Number(self.code, value)

    def __setitem__(self, index: Any, number: Number) -> None:
        self.code.store(self._rounded(number.value) if self.half else number.value, self.code.gep(self.address, [index]))

    def _rounded(self, value: Any) -> Any:
        """Round to the nearest, ties to even; a NaN, whose bits might carry into the sign, to one NaN."""
        code, word = self.code, ir.IntType(32)
        bits = code.bitcast(value, word)
        even = code.add(code.and_(code.lshr(bits, word(16)), word(1)), word(0x7FFF))
        half = code.trunc(code.lshr(code.add(bits, even), word(16)), ir.IntType(16))
        return code.select(code.fcmp_unordered("uno", value, value), ir.IntType(16)(0x7FC0), half)
