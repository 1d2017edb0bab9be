"""Native calls in a row: the same whether run one by one or as one, on what their tensors hold at the time."""

import pytest
import torch

from spikeprune.errors import LayoutError
from spikeprune.runtime import IntegrateAndFire, bits, jit, lif, program
from spikeprune.runtime.program import Program, Room

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")


def packed_and_counted():
    x, words, found = torch.zeros(2, 70), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    made = Program()
    made.add(bits.pack(), x, words, 2, 70, 2)
    made.add(bits.count(), words, found, 2, 2)
    return made, x, words, found


@pytest.mark.parametrize("run", [Program.run, Program.run_each])
def test_calls_run_in_their_order_on_what_tensors_hold_then(run):
    made, x, _, found = packed_and_counted()
    run(made)
    assert found.tolist() == [0, 0]
    x[0, ::7], x[1, 69] = 1.0, 1.0
    run(made)
    assert found.tolist() == [10, 1]


def test_rooms_of_one_name_are_one_and_as_large_as_the_largest():
    made, x, _, _ = packed_and_counted()
    x[:] = 1.0
    small, large = (Room("words", count, torch.int64) for count in (2, 300))
    again = torch.zeros(1, dtype=torch.int64)
    made.add(bits.count(), Room("words", 0, torch.int64), again, 1, 0)  # nothing to count
    made.add(bits.pack(), x, small, 1, 64, 1)
    made.add(bits.count(), large, again, 1, 1)  # the same words, read where they were written
    made.run()
    assert again.tolist() == [64]
    assert [room.nbytes for room in made._rooms.values()] == [300 * 8]


def test_a_call_that_is_added_later_runs_as_well():
    made, x, words, found = packed_and_counted()
    made.run()
    x[:] = 1.0
    other = torch.zeros(2, dtype=torch.int64)
    made.add(bits.count(), words, other, 2, 2)
    made.run()
    assert other.tolist() == found.tolist() == [70, 70]


def test_each_call_can_be_clocked():
    made, x, _, found = packed_and_counted()
    x[:] = 1.0
    seen = []
    made.run_each(lambda call: seen.append(call()))
    assert len(seen) == len(made) == 2
    assert found.tolist() == [70, 70]


def test_what_would_read_other_memory_is_refused():
    made, x, words, _ = packed_and_counted()
    with pytest.raises(LayoutError, match="of 5 arguments was given 4"):
        made.add(bits.pack(), x, words, 2, 70)
    with pytest.raises(LayoutError, match="contiguous tensors on the CPU"):
        made.add(bits.pack(), x.T, words, 2, 70, 2)
    with pytest.raises(LayoutError, match="takes a float"):
        made.add(lif.kernels.forward(IntegrateAndFire(threshold=1.0), half=False), *[x] * 4, 0, 1, 1, 1, 1, 1)
    made.run()
    assert len(made) == 2


def test_a_whole_program_is_one_native_call_of_a_function_that_all_share(monkeypatch):
    made, x, _, found = packed_and_counted()
    made.run()
    shared = program.runner(program.STEP)
    monkeypatch.setattr(program, "compiled", None)  # compiling again would fail
    x[:] = 1.0
    made.run()
    assert found.tolist() == [70, 70]
    monkeypatch.setattr(program, "runner", lambda most: shared if most == program.STEP else pytest.fail(f"calls of {most}"))
    other, x, _, found = packed_and_counted()
    x[:] = 1.0
    other.run()
    assert found.tolist() == [70, 70]


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 9, 30, 31, 32, 33])
def test_calls_of_any_number_of_arguments_get_them_all_in_their_order(count):
    found, made = torch.full((count + 1,), -1), Program()
    made.add(numbers(count), found, *range(5, 5 + count))
    made.add(numbers(1), found[count:], 77)  # the row behind begins where this one ends
    made.run()
    assert found.tolist() == [*range(5, 5 + count), 77]


def numbers(count):
    """A function that writes so many arguments where the first says."""

    def write(module):
        word = jit.ir.IntType(64)
        kind = jit.ir.FunctionType(jit.ir.VoidType(), [word.as_pointer(), *[word] * count])
        function = jit.ir.Function(module, kind, "numbers")
        code = jit.ir.IRBuilder(function.append_basic_block())
        for i, value in enumerate(function.args[1:]):
            code.store(value, code.gep(function.args[0], [word(i)]))
        code.ret_void()

    return jit.compiled(("numbers", count), write)
