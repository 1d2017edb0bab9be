"""Where threads that run native programs wait for each other, without going back to Python."""

import ctypes
import sys
from functools import lru_cache
from typing import Any

from spikeprune.runtime.jit import Function, compiled, ir

LOOKS = 2000  # at the count, before a thread gives way to others at each: some microseconds


def meeting() -> Function:
    """Compile f(count, wanted, give_way): add 1 to the int64 at an address, and wait until it is `wanted` or more.

    `give_way` is what the function of that name gives.
    """
    return compiled(("meeting", LOOKS), _meeting)


@lru_cache(maxsize=1)
def give_way() -> int:
    """Give the address of the system's function by which a thread lets others run first.

    Example:
        >>> give_way() > 0
        True
    """
    system: Any = ctypes.CDLL("kernel32").SwitchToThread if sys.platform == "win32" else ctypes.CDLL(None).sched_yield
    address = ctypes.cast(system, ctypes.c_void_p).value
    assert address is not None
    return address


def _meeting(module: Any) -> None:
    word = ir.IntType(64)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word.as_pointer(), word, word]), "meeting")
    count, wanted, other = function.args
    entry, look, wait, yielding, again, end = (
        function.append_basic_block(name) for name in ("entry", "look", "wait", "yielding", "again", "end")
    )
    code = ir.IRBuilder(entry)
    code.atomic_rmw("add", count, word(1), "seq_cst")
    code.branch(look)
    code.position_at_end(look)
    looks = code.phi(word)
    code.cbranch(code.icmp_signed(">=", code.load_atomic(count, "acquire", 8), wanted), end, wait)
    code.position_at_end(wait)
    code.cbranch(code.icmp_signed("<", looks, word(LOOKS)), again, yielding)
    code.position_at_end(yielding)
    code.call(code.inttoptr(other, ir.FunctionType(ir.IntType(32), []).as_pointer()), [])
    code.branch(again)
    code.position_at_end(again)
    looks.add_incoming(word(0), entry)
    looks.add_incoming(code.add(looks, word(1)), again)
    code.branch(look)
    ir.IRBuilder(end).ret_void()
