"""The native kernels of integrate and fire: all timesteps in one call, in blocks that stay in the first-level cache.

Elements do not see each other, so a kernel takes a range of them, and time is a stride. The charge is not kept for the gradient:
computing it again from the input costs less than writing it and reading it back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from spikeprune.runtime.code import Array, Number, counting
from spikeprune.runtime.equations import IntegrateAndFire
from spikeprune.runtime.jit import Function, compiled, ir

BLOCK = 1024  # elements; a few arrays of 4 kB each


def forward(neuron: IntegrateAndFire, *, half: bool) -> Function:
    """Compile f(x, v0, s, v, start, timesteps, size, x_step, first, last) for elements first, ..., last - 1.

    Addresses of x (T, size) whose timesteps lie x_step elements apart, of v0 (size) or 0 for `start` everywhere, of the spikes
    s (T, size) and of the membrane v (size). x and s are bfloat16 if `half`, float32 otherwise; v0 and v are float32.
    """
    return compiled(("forward", neuron, half), partial(_forward, neuron, half))


def backward(neuron: IntegrateAndFire, *, half: bool) -> Function:
    """Compile f(x, v0, ds, dv, dx, dv0, h, start, timesteps, size, x_step, ds_step, first, last); see `forward`.

    Given are the gradients ds (T, size), its timesteps ds_step elements apart, and dv (size), or 0 for none; it writes dx (T, size)
    and dv0 (size). h is room for T * BLOCK float32, of this call alone. x, ds and dx are bfloat16 if `half`.
    """
    return compiled(("backward", neuron, half), partial(_backward, neuron, half))


def _forward(neuron: IntegrateAndFire, half: bool, module: Any) -> None:
    code, (x, v0, s, v, start, timesteps, size, x_step, first, last) = _function(module, 4, 5, (half, False, half, False))
    with _blocks(code, first, last) as (low, high):
        _fill(code, v, v0, start, low, high)
        with counting(code, _whole(0), timesteps) as t:
            here, there = code.mul(t, size), code.mul(t, x_step)
            with counting(code, low, high) as i:
                h = neuron.charge(v[i], x[code.add(there, i)])
                fires = h.at_least(neuron.threshold)
                s[code.add(here, i)] = fires
                v[i] = neuron.membrane(h, fires)
    code.ret_void()


def _backward(neuron: IntegrateAndFire, half: bool, module: Any) -> None:
    halves = (half, False, half, False, half, False, False)
    code, parts = _function(module, 7, 6, halves)
    x, v0, ds, dv, dx, carry, room, start, timesteps, size, x_step, ds_step, first, last = parts
    with _blocks(code, first, last) as (low, high):
        _fill(code, carry, v0, start, low, high)
        with counting(code, _whole(0), timesteps) as t:  # `carry` is the membrane on the way up, its gradient on the way down
            there, place = code.mul(t, x_step), code.sub(code.mul(t, _whole(BLOCK)), low)
            with counting(code, low, high) as i:
                h = neuron.charge(carry[i], x[code.add(there, i)])
                room[code.add(place, i)] = h
                carry[i] = neuron.membrane(h, h.at_least(neuron.threshold))
        _fill(code, carry, dv, Number(code, ir.FloatType()(0.0)), low, high)
        with counting(code, _whole(0), timesteps, down=True) as t:
            here, there, place = code.mul(t, size), code.mul(t, ds_step), code.sub(code.mul(t, _whole(BLOCK)), low)
            with counting(code, low, high) as i:
                h = room[code.add(place, i)]
                dh = neuron.to_charge(ds[code.add(there, i)], carry[i], h, h.at_least(neuron.threshold))
                dx[code.add(here, i)] = neuron.to_input(dh)
                carry[i] = neuron.to_before(dh)
    code.ret_void()


def _whole(value: int) -> Any:
    return ir.IntType(64)(value)


def _function(module: Any, arrays: int, integers: int, halves: tuple[bool, ...]) -> tuple[Any, list[Any]]:
    """Begin a function of arrays, one float and integers; return what writes it and its arguments."""
    kinds = [(ir.IntType(16) if half else ir.FloatType()).as_pointer() for half in halves]
    kinds += [ir.FloatType()] + [ir.IntType(64)] * integers
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), "kernel")
    code = ir.IRBuilder(function.append_basic_block("entry"))
    for argument in function.args[:arrays]:
        argument.add_attribute("noalias")
    parts: list[Any] = [Array(code, a, half) for a, half in zip(function.args[:arrays], halves, strict=True)]
    return code, [*parts, Number(code, function.args[arrays]), *function.args[arrays + 1 :]]


@contextmanager
def _blocks(code: Any, first: Any, last: Any) -> Iterator[tuple[Any, Any]]:
    """Write a loop over the blocks of first, ..., last - 1; its body is given their bounds."""
    count = code.sdiv(code.add(code.sub(last, first), _whole(BLOCK - 1)), _whole(BLOCK))
    with counting(code, _whole(0), count) as block:
        low = code.add(first, code.mul(block, _whole(BLOCK)))
        end = code.add(low, _whole(BLOCK))
        yield low, code.select(code.icmp_signed("<", end, last), end, last)


def _fill(code: Any, target: Array, source: Array, value: Number, low: Any, high: Any) -> None:
    """Fill a block from a source, or with a value where the source's address is 0."""
    missing = code.icmp_unsigned("==", source.address, source.address.type(None))
    with code.if_else(missing) as (without, given):
        with without, counting(code, low, high) as i:
            target[i] = value
        with given, counting(code, low, high) as i:
            target[i] = source[i]
