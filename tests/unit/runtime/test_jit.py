import ctypes
import threading
import time

import pytest

from spikeprune.errors import MissingExtra
from spikeprune.runtime import jit
from spikeprune.runtime.jit import ir


def adds(amount, written=None):
    def write(module):
        if written is not None:
            time.sleep(0.05)  # long enough for every thread to arrive
            written.append(amount)
        whole = ir.IntType(64)
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [whole.as_pointer(), whole]), "add")
        code = ir.IRBuilder(function.append_basic_block())
        code.store(code.add(function.args[1], whole(amount)), function.args[0])
        code.ret_void()

    return write


def result(function, given):
    place = ctypes.c_int64()
    function(ctypes.addressof(place), given)
    return place.value


def test_functions_of_other_keys_are_others():
    one, two = jit.compiled("adds 1", adds(1)), jit.compiled("adds 2", adds(2))
    assert (result(one, 40), result(two, 40), result(one, -(2**40))) == (41, 42, 1 - 2**40)


def test_a_key_is_compiled_once_whoever_asks():
    written, found = [], []
    threads = [threading.Thread(target=lambda: found.append(jit.compiled("adds 3", adds(3, written)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [3]
    assert len(set(map(id, found))) == 1
    assert result(found[0], 4) == 7


def test_without_llvmlite_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(jit, "llvm", None)
    assert not jit.available()
    with pytest.raises(MissingExtra, match=r"native code needs llvmlite.*spikeprune\[runtime\]"):
        jit.compiled("adds 5", adds(5))
