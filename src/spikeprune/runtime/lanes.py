"""Writing LLVM code over vectors: values with operators, whole or real, one number or many lanes of them.

Vectors are LLVM's own, of any length, so that each processor gets the instructions that it has. Nothing is reordered, and a product
and a sum stay two roundings, so that results equal those of torch bit by bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Union

from spikeprune.runtime.code import counting
from spikeprune.runtime.jit import ir

Whole = Union["Value", int]


def kind(name: str, lanes: int = 0) -> Any:
    """Give LLVM's type of "f32", or of whole numbers "i1" to "i64"; a vector of it if there are lanes."""
    one = ir.FloatType() if name == "f32" else ir.IntType(int(name[1:]))
    return ir.VectorType(one, lanes) if lanes else one


@dataclass(frozen=True, eq=False)
class Value:
    """A number, or a vector of them, in code being written; the operators write the instruction, for all lanes alike.

    Args:
        code: the `llvmlite.ir.IRBuilder` that writes.
        raw: the `llvmlite.ir.Value`.
    """

    code: Any
    raw: Any

    def of(self, other: "Value | float") -> "Value":
        """Make a Python number a value like this one, in every lane."""
        if isinstance(other, Value):
            return other
        lanes = getattr(self.raw.type, "count", 0)
        return Value(self.code, ir.Constant(self.raw.type, [other] * lanes if lanes else other))

    def _real(self) -> bool:
        return isinstance(getattr(self.raw.type, "element", self.raw.type), ir.FloatType)

    def _binary(self, other: "Value | float", whole: str, real: str = "") -> "Value":
        return Value(self.code, getattr(self.code, real if self._real() else whole)(self.raw, self.of(other).raw))

    def __add__(self, other: "Value | float") -> "Value":
        return self._binary(other, "add", "fadd")

    def __sub__(self, other: "Value | float") -> "Value":
        return self._binary(other, "sub", "fsub")

    def __mul__(self, other: "Value | float") -> "Value":
        return self._binary(other, "mul", "fmul")

    def __floordiv__(self, other: Whole) -> "Value":
        return self._binary(other, "udiv")

    def __mod__(self, other: Whole) -> "Value":
        return self._binary(other, "urem")

    def __and__(self, other: Whole) -> "Value":
        return self._binary(other, "and_")

    def __or__(self, other: Whole) -> "Value":
        return self._binary(other, "or_")

    def __xor__(self, other: Whole) -> "Value":
        return self._binary(other, "xor")

    def __lshift__(self, other: Whole) -> "Value":
        return self._binary(other, "shl")

    def __rshift__(self, other: Whole) -> "Value":
        """Shift right; zeros come in from the left."""
        return self._binary(other, "lshr")

    def compare(self, sign: str, other: "Value | float") -> "Value":
        """Give i1 by "<", ">=", "==" ...; whole numbers are signed, and a comparison with NaN is false, but for "!="."""
        write = self.code.icmp_signed
        if self._real():
            write = self.code.fcmp_unordered if sign == "!=" else self.code.fcmp_ordered
        return Value(self.code, write(sign, self.raw, self.of(other).raw))

    def choose(self, yes: "Value", no: "Value | float") -> "Value":
        """Take, where this i1 is true, the first, elsewhere the second."""
        return Value(self.code, self.code.select(self.raw, yes.raw, yes.of(no).raw))

    def least(self, other: Whole) -> "Value":
        """Take the smaller of two whole numbers."""
        return self.compare("<", other).choose(self, other)

    def wide(self, name: str) -> "Value":
        """Turn into a wider whole number of the same sign, or into float32."""
        lanes = getattr(self.raw.type, "count", 0)
        return Value(self.code, (self.code.sitofp if name == "f32" else self.code.sext)(self.raw, kind(name, lanes)))

    def zero_extended(self, name: str) -> "Value":
        """Turn into a wider whole number, zeros in front."""
        return Value(self.code, self.code.zext(self.raw, kind(name)))

    def narrow(self, name: str) -> "Value":
        """Keep the low bits of a whole number."""
        return Value(self.code, self.code.trunc(self.raw, kind(name)))

    def part(self, lane: int) -> "Value":
        """Take one lane of a vector."""
        return Value(self.code, self.code.extract_element(self.raw, kind("i32")(lane)))

    def bits(self, name: str, lanes: int = 0) -> "Value":
        """Read the same bits as another type: lane i of i1 is bit i of a number."""
        return Value(self.code, self.code.bitcast(self.raw, kind(name, lanes)))

    def everywhere(self, lanes: int) -> "Value":
        """Put a number into each of so many lanes."""
        one = self.code.insert_element(ir.Constant(ir.VectorType(self.raw.type, lanes), ir.Undefined), self.raw, kind("i32")(0))
        zeros = ir.Constant(kind("i32", lanes), [0] * lanes)
        return Value(self.code, self.code.shuffle_vector(one, ir.Constant(one.type, ir.Undefined), zeros))

    def pick(self, other: "Value", lanes: Sequence[int]) -> "Value":
        """Take these lanes of two vectors, those of the second numbered on."""
        return Value(self.code, self.code.shuffle_vector(self.raw, other.raw, ir.Constant(kind("i32", len(lanes)), list(lanes))))

    def lowest(self) -> "Value":
        """Count the zeros below the lowest bit that is set; one is."""
        return Value(self.code, self.code.cttz(self.raw, kind("i1")(1)))

    def count(self) -> "Value":
        """Count the bits that are set."""
        return Value(self.code, self.code.ctpop(self.raw))


@dataclass(frozen=True, eq=False)
class Memory:
    """Elements of one kind behind an address.

    Args:
        code: the `llvmlite.ir.IRBuilder` that writes.
        address: of the first element.
        name: their kind, as of `kind`.
    """

    code: Any
    address: Any
    name: str

    def at(self, index: Value) -> "Memory":
        """Begin at another element."""
        return Memory(self.code, self.code.gep(self.address, [index.raw]), self.name)

    def load(self, index: Value, lanes: int = 0) -> Value:
        """Read one element, or as many in a row as there are lanes."""
        return Value(self.code, self.code.load(self._place(index, lanes), align=self._size()))

    def store(self, index: Value, value: Value) -> None:
        """Write one element, or as many in a row as the value has lanes."""
        self.code.store(value.raw, self._place(index, getattr(value.raw.type, "count", 0)), align=self._size())

    def add(self, index: Value, value: Value) -> None:
        """Add to what is there, lane by lane."""
        self.store(index, self.load(index, getattr(value.raw.type, "count", 0)) + value)

    def _place(self, index: Value, lanes: int) -> Any:
        place = self.code.gep(self.address, [index.raw])
        return self.code.bitcast(place, kind(self.name, lanes).as_pointer()) if lanes else place

    def _size(self) -> int:
        return int(self.name[1:]) // 8


@dataclass(frozen=True, eq=False)
class Variable:
    """A value that changes while the code runs; LLVM keeps it in a register."""

    code: Any
    place: Any

    @property
    def value(self) -> Value:
        """What it holds."""
        return Value(self.code, self.code.load(self.place))

    def put(self, value: Value) -> None:
        """Change what it holds."""
        self.code.store(value.raw, self.place)


def variable(first: Value) -> Variable:
    """Begin a variable with a value."""
    with first.code.goto_entry_block():
        place = first.code.alloca(first.raw.type)
    found = Variable(first.code, place)
    found.put(first)
    return found


def constant(code: Any, number: float, name: str = "i64", lanes: int = 0) -> Value:
    """Write a number of Python, into every lane."""
    return Value(code, ir.Constant(kind(name, lanes), [number] * lanes if lanes else number))


@contextmanager
def over(code: Any, first: Whole, last: Whole) -> Iterator[Value]:
    """Write a loop over first, ..., last - 1; its body is what is written meanwhile, given the index."""
    ends = [end.raw if isinstance(end, Value) else kind("i64")(end) for end in (first, last)]
    with counting(code, *ends) as index:
        yield Value(code, index)


@contextmanager
def ones(word: Value) -> Iterator[Value]:
    """Write a loop over the bits that are set in a number of 64 bits, from the lowest; its body is given the bit's place."""
    code, left = word.code, variable(word)
    with over(code, 0, word.count()):
        now = left.value
        left.put(now & (now - 1))
        yield now.lowest()


@contextmanager
def where(condition: Value) -> Iterator[None]:
    """Write what is done only where an i1 is true."""
    with condition.code.if_then(condition.raw):
        yield


def begin(module: Any, arrays: str, wholes: int) -> tuple[Any, list[Memory], list[Value]]:
    """Begin a function of arrays that do not overlap and of 64-bit numbers; return what writes it, and its arguments.

    Args:
        module: the `llvmlite.ir.Module`.
        arrays: the kinds of their elements, as "i64 i8 f32".
        wholes: how many numbers follow.
    """
    names = arrays.split()
    kinds = [kind(name).as_pointer() for name in names] + [kind("i64")] * wholes
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "kernel")
    code = ir.IRBuilder(function.append_basic_block("entry"))
    for argument in function.args[: len(names)]:
        argument.add_attribute("noalias")
    found = [Memory(code, address, name) for address, name in zip(function.args, names, strict=False)]
    return code, found, [Value(code, argument) for argument in function.args[len(names) :]]


@contextmanager
def apart(code: Any, *given: Memory | Value) -> Iterator[list[Any]]:
    """Write a function of its own and a call of it; its body is what is written meanwhile, handed what is given.

    What is inside has all registers to itself. In one long function, addresses and bounds lie on the stack, and a processor that has just
    written sums waits to see that these are not the same place.
    """
    kinds = [one.address.type if isinstance(one, Memory) else one.raw.type for one in given]
    module = code.module
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), module.get_unique_name("apart"))
    function.linkage = "internal"
    function.attributes.add("noinline")
    inside = ir.IRBuilder(function.append_basic_block("entry"))
    found: list[Memory | Value] = []
    for one, argument in zip(given, function.args, strict=True):
        if isinstance(one, Memory):
            argument.add_attribute("noalias")
        found.append(Memory(inside, argument, one.name) if isinstance(one, Memory) else Value(inside, argument))
    yield found
    inside.ret_void()
    code.call(function, [one.address if isinstance(one, Memory) else one.raw for one in given])


def fill(target: Memory, count: Value, lanes: int) -> None:
    """Put zeros into so many elements, a multiple of the lanes."""
    zero = constant(target.code, 0, target.name, lanes)
    with over(target.code, 0, count // lanes) as i:
        target.store(i * lanes, zero)
