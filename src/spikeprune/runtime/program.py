"""Native calls in a row as one: written once for fixed shapes and places, then run again and again.

A call of a native function from Python costs microseconds, and its tensors' as many again; small networks would be made of little else.
So a program keeps every call's arguments in a table, lends calls that follow each other the same rooms, and has one native function
go through the table. That function is the same for all programs: none is compiled for itself.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.jit import Function, compiled, ir

STEP = 32  # of the number of arguments that a runner's calls may have; few programs need more, and so share one runner


@dataclass(frozen=True)
class Room:
    """Memory that a call needs while it runs, of no content before or after.

    Attributes:
        name: rooms of one name are one, as large as the largest; a call names its own apart.
        count: how many elements, 0 or more.
        dtype: of an element.
    """

    name: str
    count: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """How large it is."""
        return self.count * self.dtype.itemsize


@final
class Program:
    """Native calls, one after the other.

    Example:
        >>> from spikeprune.runtime import bits
        >>> x, words = torch.tensor([1.0, 0.0, 2.0]), torch.zeros(1, dtype=torch.int64)
        >>> program = Program()
        >>> program.add(bits.pack(), x, words, 1, 3, 1)
        >>> program.run()
        >>> words
        tensor([5])
        >>> x[1] = 1.0
        >>> program.run()
        >>> words
        tensor([7])
    """

    def __init__(self) -> None:
        self._calls: list[tuple[Function, tuple[Tensor | Room | int, ...]]] = []
        self._rooms: dict[str, Tensor] = {}
        self._table = torch.zeros(0, dtype=torch.int64)
        self._whole: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, function: Function, *arguments: Tensor | Room | int) -> None:
        """Put a call at the end.

        Args:
            function: of `jit.compiled`.
            arguments: whole numbers, rooms, and contiguous tensors on the CPU, whose memory the program reads or writes at each run
                and keeps.

        Raises:
            LayoutError: there are more or fewer arguments than the function has, one of its arguments is no address and no whole
                number, or a tensor is not contiguous or not on the CPU.
        """
        kinds: Any = function.argtypes  # type: ignore[attr-defined]
        if ctypes.c_float in kinds:
            raise LayoutError("a program passes addresses and whole numbers, and this native function takes a float.")
        if len(kinds) != len(arguments):
            raise LayoutError(f"a native function of {len(kinds)} arguments was given {len(arguments)}.")
        for one in arguments:
            if isinstance(one, Tensor) and not (one.is_contiguous() and one.device.type == "cpu"):
                raise LayoutError(
                    f"native code takes contiguous tensors on the CPU, but {tuple(one.shape)} on {one.device} with strides {one.stride()} was given."
                )
        self._calls.append((function, arguments))
        self._whole = None

    def join(self, other: "Program") -> None:
        """Put the calls of another at the end; rooms of one name become one."""
        self._calls += other._calls
        self._whole = None

    def run(self) -> None:
        """Run all calls; the first time their table is written."""
        if self._whole is None:
            self.ready()
        if self._whole is not None:
            self._whole()

    def ready(self) -> None:
        """Write the table of all calls, if that is to be done yet."""
        if self._whole is not None or not self._calls:
            return
        self._furnish()
        rows = [[place(f), len(arguments), *self._plain(arguments)] for f, arguments in self._calls]
        most = -(-max(len(arguments) for _, arguments in self._calls) // STEP) * STEP
        self._table = torch.tensor([*(word for row in rows for word in row), *[0] * most])
        self._whole = partial(runner(most), self._table.data_ptr(), len(rows))

    def run_each(self, around: Callable[[Callable[[], None]], object] | None = None) -> None:
        """Run call by call, from Python.

        Args:
            around: is given each call, to make it, such as a clock.
        """
        self._furnish()
        for function, arguments in self._calls:
            call = partial(function, *self._plain(arguments))
            call() if around is None else around(call)

    def _furnish(self) -> None:
        needed: dict[str, int] = {}
        for room in (x for _, arguments in self._calls for x in arguments if isinstance(x, Room)):
            needed[room.name] = max(needed.get(room.name, 0), room.bytes)
        for name, count in needed.items():
            if name not in self._rooms or self._rooms[name].nbytes < count:
                self._rooms[name] = torch.empty(count, dtype=torch.uint8)
                self._whole = None

    def _plain(self, arguments: tuple[Tensor | Room | int, ...]) -> list[int]:
        return [
            x.data_ptr() if isinstance(x, Tensor) else self._rooms[x.name].data_ptr() if isinstance(x, Room) else x
            for x in arguments
        ]


def spanned(x: Tensor) -> Tensor:
    """Give all memory that a tensor of any strides lies in, in a row.

    Example:
        >>> spanned(torch.arange(6).view(2, 3)[:, :2])
        tensor([0, 1, 2, 3, 4])
    """
    span = 1 + sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    return x.detach().as_strided((span,), (1,))


def place(function: Function) -> int:
    """Give the address of a native function."""
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return address


def runner(most: int) -> Function:
    """Give the function that makes calls one after the other: table, count.

    Args:
        most: how many arguments a call may have. The table is int64, call by call: address, number of arguments, arguments; and as many
            numbers behind the last call, which are read with it.
    """
    return compiled(("program", most), partial(_write, most))


def _write(most: int, module: Any) -> None:
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word.as_pointer(), word]), "program")
    entry, head, body, after, end = (function.append_basic_block(name) for name in ("entry", "head", "body", "after", "end"))
    ir.IRBuilder(entry).branch(head)
    code = ir.IRBuilder(head)
    row, done = code.phi(word.as_pointer()), code.phi(word)
    code.cbranch(code.icmp_signed("<", done, function.args[1]), body, end)
    code.position_at_end(body)
    address, size, *words = (code.load(code.gep(row, [word(i)])) for i in range(2 + most))
    cases = code.switch(size, end)
    for count in range(most + 1):
        block = function.append_basic_block(f"of {count}")
        cases.add_case(word(count), block)
        code.position_at_end(block)
        kind = ir.FunctionType(ir.VoidType(), [word] * count)  # an address is passed like a whole number of 64 bits
        code.call(code.inttoptr(address, kind.as_pointer()), words[:count])
        code.branch(after)
    code.position_at_end(after)
    for value, first, later in (
        (row, function.args[0], code.gep(row, [code.add(size, word(2))])),
        (done, word(0), code.add(done, word(1))),
    ):
        value.add_incoming(first, entry)
        value.add_incoming(later, after)
    code.branch(head)
    ir.IRBuilder(end).ret_void()
