"""Native calls in a row as one: written once for fixed shapes and places, then run again and again.

A call of a native function from Python costs microseconds, and its tensors' as many again; small networks would be made of little else.
So a program keeps every call's arguments, lends calls that follow each other the same rooms, and compiles the whole row into one
function without arguments.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.jit import Function, ir, unshared


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
        self._whole: Function | None = None

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def bytes(self) -> int:
        """Memory of all tensors and rooms that it reads and writes; each counted once."""
        self._furnish()
        given = {x.data_ptr(): x.nbytes for _, arguments in self._calls for x in arguments if isinstance(x, Tensor)}
        return sum(given.values()) + sum(room.nbytes for room in self._rooms.values())

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
        """Run all calls; the first time they are compiled into one."""
        if not self._calls:
            return
        if self._whole is None:
            self._furnish()
            self._whole = unshared(partial(_write, [(place(f), self._plain(arguments)) for f, arguments in self._calls]))
        self._whole()

    def run_each(self, around: Callable[[Callable[[], None]], object] | None = None) -> None:
        """Run call by call, without compiling anything.

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


def _write(calls: list[tuple[int, list[int]]], module: Any) -> None:
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), "program")
    code = ir.IRBuilder(function.append_basic_block("entry"))
    for address, arguments in calls:  # an address is passed like a whole number of 64 bits
        kind = ir.FunctionType(ir.VoidType(), [word] * len(arguments))
        code.call(code.inttoptr(word(address), kind.as_pointer()), [word(x) for x in arguments])
    code.ret_void()
