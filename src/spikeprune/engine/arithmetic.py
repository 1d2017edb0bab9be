"""Rules of sums and constants: additions, factors, and sums over timesteps, which are what a network answers with."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from spikeprune.engine.book import Book, Entries, Unknown, distinct
from spikeprune.engine.calls import Call, key
from spikeprune.engine.plan import Add, Pool, Readout, Scale, constant


def added(call: Call) -> Tensor:
    """X + y, x - y and their kin, of two values or of a value and a constant."""
    x, y = call.args[0], call.option(1, "other")
    if call.option(2, "alpha", default=1) != 1:
        raise Unknown("adds a multiple (alpha)")
    if call.name == "rsub":
        x, y = y, x
    a, b = (call.of(value) if isinstance(value, Tensor) else None for value in (x, y))
    if call.name in MINUS and b is not None:
        b = scaled_by(call, b, torch.tensor(-1.0), torch.tensor(0.0))
    elif call.name in MINUS:
        y = -y
    if a is not None and b is not None:
        return _both(call.book, a.expand(call.result.shape), b.expand(call.result.shape))
    kept, plain = (a, y) if a is not None else (b, x)
    assert kept is not None
    kept = kept.expand(call.result.shape)
    if not bool(torch.as_tensor(plain).any()):
        return kept
    return scaled_by(call, kept, torch.tensor(1.0), per_channel(call, kept, plain))


def multiplied(call: Call) -> Tensor:
    """X * c, x / c and -x of a constant c."""
    x = call.args[0]
    if call.name == "neg":
        return scaled_by(call, call.first, torch.tensor(-1.0), torch.tensor(0.0))
    y = call.option(1, "other")
    if not isinstance(x, Tensor) or call.of(x) is None:
        if call.name in DIVISION:
            raise Unknown("divides by a value")
        x, y = y, x
    kept = call.of(x)
    assert kept is not None
    if isinstance(y, Tensor) and call.of(y) is not None:
        raise Unknown("multiplies or divides two values")
    if call.option(2, "rounding_mode") is not None:
        raise Unknown("rounds")
    kept = kept.expand(call.result.shape)
    factor = per_channel(call, kept, y)
    return scaled_by(call, kept, 1 / factor if call.name in DIVISION else factor, torch.tensor(0.0))


def per_channel(call: Call, addresses: Tensor, plain: Any) -> Tensor:
    """Read a constant that is broadcast over a value as a number, or as one for each of its channels: () or (C,).

    Raises:
        Unknown: it differs within a channel.
    """
    values = constant(plain)
    if values.numel() == 1:
        return values.reshape(())
    numbers = call.book.numbers(addresses)
    shape = call.book.operations[numbers[0]].shape
    if len(numbers) > 1 or not shape:
        raise Unknown("takes a constant that is not one number")
    channel = call.book.read(addresses).place // prod(shape[1:])
    values = values.expand(addresses.shape)
    found = torch.full(shape[:1], torch.nan, dtype=torch.double)
    found[channel] = values
    if not torch.equal(found[channel], values):
        raise Unknown("takes a constant that differs within a channel")
    return found


def scaled_by(call: Call, addresses: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Give the addresses of gain * x + shift; the constants are () or, of one value, (C,)."""
    book = call.book
    gain, shift = constant(gain), constant(shift)
    if bool((gain == 1).all()) and not bool(shift.any()):
        return addresses
    for number in book.numbers(addresses):
        op = book.operations[number]
        if isinstance(op, Readout) and not gain.dim() and not shift.any():
            new = readout(book, op.inputs[0], [w * float(gain) for w in op.weights])
        else:
            new = scale(book, number, gain, shift)
        addresses = book.onto(addresses, number, new)
    return addresses


def scale(book: Book, number: int, gain: Tensor, shift: Tensor) -> int:
    """Number a value times a gain plus a shift."""
    op = book.operations[number]
    return book.add(
        ("scale", number, key(gain), key(shift)),
        lambda: Scale(inputs=(number,), shape=op.shape, over_time=op.over_time, gain=gain, shift=shift),
    )


def readout(book: Book, number: int, weights: Sequence[float]) -> int:
    """Number a weighted sum over timesteps."""
    op = book.operations[number]
    return book.add(
        ("readout", number, tuple(weights)),
        lambda: Readout(inputs=(number,), shape=op.shape, over_time=False, weights=tuple(weights)),
    )


def one_step(book: Book, t: int) -> list[float]:
    """Give the weights of a single timestep."""
    return [float(step == t) for step in range(book.timesteps)]


def _both(book: Book, a: Tensor, b: Tensor) -> Tensor:
    """Add entry by entry, pair of values by pair of values."""
    ea, eb = book.read(a), book.read(b)
    if not torch.equal(ea.n, eb.n) or not torch.equal(ea.place, eb.place):
        raise Unknown("joins entries of different samples or places")
    out = torch.empty_like(a)
    size = len(book.operations)
    for one, other in (divmod(pair, size) for pair in distinct(ea.number * size + eb.number)):
        chosen = (ea.number == one) & (eb.number == other)
        out[chosen] = _pair(book, (one, ea.where(chosen)), (other, eb.where(chosen)))
    return out


@dataclass(frozen=True)
class _OverTime:
    """A tensor as a weighted sum over the timesteps of one value."""

    number: int
    weights: tuple[float, ...]


def _pair(book: Book, one: tuple[int, Entries], other: tuple[int, Entries]) -> Tensor:
    (a, ea), (b, eb) = one, other
    sums = _over_time(book, a, ea), _over_time(book, b, eb)
    op_a, op_b = book.operations[a], book.operations[b]
    together = op_a.over_time and op_b.over_time and torch.equal(ea.t, eb.t)
    if not together and sums[0] and sums[1] and sums[0].number == sums[1].number:
        weights = [x + y for x, y in zip(sums[0].weights, sums[1].weights, strict=True)]
        return book.address(readout(book, sums[0].number, weights), ea.t, ea.n, ea.place)
    if op_a.over_time and op_b.over_time and not together:
        raise Unknown("joins different timesteps of two values: a recurrent connection, or a neuron written by hand")
    t = ea.t if op_a.over_time else eb.t
    return book.address(add(book, a, b), t, ea.n, ea.place)


def add(book: Book, a: int, b: int) -> int:
    """Number the sum of two values of as many entries."""
    shape = book.operations[a].shape
    if prod(shape) != prod(book.operations[b].shape):
        raise Unknown("joins values of different shapes")
    inputs = (a, book.reshaped(b, shape))
    over_time = any(book.operations[i].over_time for i in inputs)
    return book.add(("add", *inputs), lambda: Add(inputs=inputs, shape=shape, over_time=over_time))


def _over_time(book: Book, number: int, e: Entries) -> _OverTime | None:
    op = book.operations[number]
    if isinstance(op, Readout):
        return _OverTime(op.inputs[0], op.weights)
    if op.over_time and bool((e.t == e.t.flatten()[0]).all()):
        return _OverTime(number, tuple(one_step(book, int(e.t.flatten()[0]))))
    return None


def reduced(call: Call) -> Tensor:
    """A sum or mean over timesteps, which is a readout; or over all of a sample's space, which is a pool."""
    dims = call.option(1, "dim", "axis")
    if not isinstance(dims, int | list | tuple) or dims in ((), []) or call.kwargs.get("dtype") is not None:
        raise Unknown("reduces all axes to one number")
    a = call.first
    gone = sorted(d % a.dim() for d in ([dims] if isinstance(dims, int) else dims))
    rows = a.movedim(gone, list(range(a.dim() - len(gone), a.dim()))).flatten(a.dim() - len(gone))
    if rows.shape[-1] == 1:
        return rows.view(call.result.shape)
    e = call.book.read(rows)
    number = int(e.number.flatten()[0])
    if bool((e.number != number).any()) or bool((e.n != e.n[..., :1]).any()):
        raise Unknown("reduces over samples or values")
    head = e.where((..., 0))  # type: ignore[arg-type]
    if bool((e.place == e.place[..., :1]).all()):
        new, place = _reduced_time(call, number, e.t), head.place
    else:
        new, place = _reduced_space(call, number, e), head.place // rows.shape[-1]
    return call.book.address(new, head.t, head.n, place).view(call.result.shape)


def _reduced_time(call: Call, number: int, t: Tensor) -> int:
    steps = t.flatten(0, -2)
    share = 1 / steps.shape[1] if call.name == "mean" else 1.0
    if bool((steps != steps[:1]).any()):
        raise Unknown("reduces other timesteps here than there")
    if not call.book.operations[number].over_time:
        return scale(call.book, number, constant(share * steps.shape[1]), constant(0.0))
    counts = torch.bincount(steps[0], minlength=call.book.timesteps)
    return readout(call.book, number, [count * share for count in counts.tolist()])


def _reduced_space(call: Call, number: int, e: Entries) -> int:
    book, op, size = call.book, call.book.operations[number], e.place.shape[-1]
    kernel = op.shape[1:]
    whole = torch.arange(size) + e.place[..., :1]
    if prod(kernel) != size or not torch.equal(e.place, whole) or bool((e.t != e.t[..., :1]).any()):
        raise Unknown("reduces some axes of a sample, but not all behind the channels")
    shape = (op.shape[0], *[1] * len(kernel))
    pooled = book.add(
        ("pool", number),
        lambda: Pool(
            inputs=(number,),
            shape=shape,
            over_time=op.over_time,
            kind="average",
            kernel=kernel,
            stride=kernel,
            padding=(0,) * len(kernel),
        ),
    )
    flat = book.reshaped(pooled, op.shape[:1])
    return flat if call.name == "mean" else scale(book, flat, constant(float(size)), constant(0.0))


MINUS = frozenset({"sub", "rsub", "isub", "subtract"})
SUMS = MINUS | {"add", "radd", "iadd"}
DIVISION = frozenset({"div", "divide", "true_divide", "truediv", "itruediv"})
PRODUCTS = DIVISION | {"mul", "multiply", "rmul", "imul", "neg"}
REDUCTIONS = frozenset({"sum", "mean"})
