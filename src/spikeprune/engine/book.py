"""Every entry of every value has an address, and every tensor that a network makes is known by the addresses of its entries.

The address of an entry tells the value, the timestep, the sample and the place in the sample. Functions that only move entries
(reshape, stack, index, repeat, cat) are not understood one by one: they are run on addresses as they were on values. Whoever reads a
tensor asks the addresses whether its rows are whole samples, and of which timesteps; so layouts of time and batch need no rules.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType

import torch
from torch import Tensor

from spikeprune.engine.plan import Concatenate, Operation, Reshape, Synapse

NOWHERE = -1
NONE: Mapping[Hashable, Synapse] = MappingProxyType({})


class Unknown(Exception):
    """A rule's word for what it cannot follow; the text says what happened, with the function as its subject."""


@dataclass(frozen=True, eq=False)
class Entries:
    """What addresses mean, each a tensor of their shape; `t` is -1 in values that are the same at all timesteps."""

    number: Tensor
    t: Tensor
    n: Tensor
    place: Tensor

    def where(self, chosen: Tensor) -> "Entries":
        """Pick some entries by a mask, or by what else an index may be."""
        return Entries(self.number[chosen], self.t[chosen], self.n[chosen], self.place[chosen])


@dataclass(frozen=True, eq=False)
class Rows:
    """A tensor as rows, each a whole sample of one value: its number, and timestep (-1: all) and sample of each row."""

    number: int
    t: Tensor
    n: Tensor


class Book:
    """The values of a plan in the making.

    Attributes:
        timesteps: T.
        samples: N of the example.
        operations: so far; a value's number is its place.

    Args:
        timesteps: T.
        samples: N of the example.
        synapses: by their keys, made before; those that are found again are not made anew, since their weights are large.

    Example:
        >>> from spikeprune.engine.plan import Input
        >>> book = Book(2, 3)
        >>> number = book.add("x", lambda: Input(inputs=(), shape=(4,), over_time=True, time_axis=0))
        >>> book.rows(book.whole(number).flatten(0, 1), 1).t
        tensor([0, 0, 0, 1, 1, 1])
    """

    def __init__(self, timesteps: int, samples: int, synapses: Mapping[Hashable, Synapse] = NONE) -> None:
        self.timesteps, self.samples, self._given = timesteps, samples, synapses
        self.operations: list[Operation] = []
        self._starts: list[int] = []
        self._end = 0
        self._known: dict[Hashable, int] = {}

    def add(self, key: Hashable, make: Callable[[], Operation]) -> int:
        """Number a value. One key, one value: what is done T times in a loop over timesteps is one operation."""
        if key not in self._known:
            op = self._given[key] if key in self._given else make()
            self._known[key] = len(self.operations)
            self.operations.append(op)
            self._starts.append(self._end)
            self._end += (self.timesteps if op.over_time else 1) * self.samples * prod(op.shape)
        return self._known[key]

    @property
    def keys(self) -> list[Hashable]:
        """The keys of all values, in the order of their numbers."""
        return list(self._known)

    @property
    def synapses(self) -> dict[Hashable, Synapse]:
        """The synapses by their keys, which tell all of them."""
        return {key: op for key, op in zip(self._known, self.operations, strict=True) if isinstance(op, Synapse)}

    def whole(self, number: int) -> Tensor:
        """Give the addresses of a whole value, (T, N, *shape) or (N, *shape)."""
        op = self.operations[number]
        lead = (self.timesteps, self.samples) if op.over_time else (self.samples,)
        return torch.arange(prod((*lead, *op.shape))).view(*lead, *op.shape) + self._starts[number]

    def address(self, number: int, t: Tensor, n: Tensor, place: Tensor) -> Tensor:
        """Give addresses by what they mean; of a value that is the same at all timesteps, `t` is not looked at."""
        op = self.operations[number]
        sample = t * self.samples + n if op.over_time else n
        return self._starts[number] + sample * prod(op.shape) + place

    def spread(self, number: int, rows: Rows, lead: tuple[int, ...]) -> Tensor:
        """Give the addresses of those rows of a value, (*lead, *shape)."""
        shape = self.operations[number].shape
        flat = self.address(number, rows.t[:, None], rows.n[:, None], torch.arange(prod(shape)))
        return flat.view(*lead, *shape)

    def read(self, addresses: Tensor) -> Entries:
        """Tell what addresses mean.

        Raises:
            Unknown: one is of no value.
        """
        if bool((addresses == NOWHERE).any()):
            raise Unknown("takes entries that come neither of the input nor of a layer")
        starts = torch.tensor(self._starts)
        number = torch.searchsorted(starts, addresses.contiguous(), right=True) - 1
        # A value without entries starts where the next one does and is never found.
        sizes = torch.tensor([prod(op.shape) for op in self.operations]).clamp_min(1)[number]
        over_time = torch.tensor([op.over_time for op in self.operations])[number]
        offset = addresses - starts[number]
        sample = offset // sizes
        t = torch.where(over_time, sample // self.samples, -1)
        return Entries(number, t, sample % self.samples, offset % sizes)

    def numbers(self, addresses: Tensor) -> list[int]:
        """List the values that addresses are of."""
        return distinct(self.read(addresses).number)

    def onto(self, addresses: Tensor, old: int, new: int) -> Tensor:
        """Move those addresses that are of one value to another of the same size over the same timesteps; leave the rest."""
        e = self.read(addresses)
        return torch.where(e.number == old, self.address(new, e.t, e.n, e.place), addresses)

    def rows(self, addresses: Tensor, lead: int) -> Rows:
        """Read a tensor as rows of whole samples: `lead` axes of rows, all others of the sample.

        Parts of a row that are samples of several values are one after the other, which makes a new value; so does another shape.

        Raises:
            Unknown: its rows are none.
        """
        shape = tuple(addresses.shape[lead:])
        e = self.read(addresses.reshape(-1, prod(shape)))
        if not e.number.numel():
            raise Unknown("takes a tensor without entries")
        starts = (e.place[0] == 0).nonzero().flatten().tolist()
        if not starts or starts[0] != 0:
            raise Unknown("takes rows that begin amid a sample")
        ends = [*starts[1:], prod(shape)]
        parts = [self._part(e.where((slice(None), slice(a, b)))) for a, b in zip(starts, ends, strict=True)]  # type: ignore[arg-type]
        t = torch.stack([part.t for part in parts]).amax(0)
        if any(bool(((part.t != t) & (part.t >= 0)).any()) or not torch.equal(part.n, parts[0].n) for part in parts):
            raise Unknown("takes rows made of several samples or timesteps")
        return Rows(self._joined([part.number for part in parts], shape), t, parts[0].n)

    def _part(self, e: Entries) -> Rows:
        number = int(e.number[0, 0])
        size = prod(self.operations[number].shape)
        whole = e.place.shape[1] == size and bool((e.place == torch.arange(size)).all())
        if not whole or bool((e.number != number).any()):
            raise Unknown("takes rows that are not whole samples of a value, in order")
        if bool((e.t != e.t[:, :1]).any() or (e.n != e.n[:, :1]).any()):
            raise Unknown("takes rows made of several samples or timesteps")
        return Rows(number, e.t[:, 0], e.n[:, 0])

    def _joined(self, numbers: list[int], shape: tuple[int, ...]) -> int:
        if len(numbers) == 1:
            return self.reshaped(numbers[0], shape)
        tail = prod(shape[1:])
        sizes = [prod(self.operations[number].shape) for number in numbers]
        if any(size % tail for size in sizes):
            raise Unknown("takes rows whose parts are no channels")
        inputs = tuple(self.reshaped(i, (size // tail, *shape[1:])) for i, size in zip(numbers, sizes, strict=True))
        over_time = any(self.operations[i].over_time for i in inputs)
        return self.add(("cat", inputs), lambda: Concatenate(inputs=inputs, shape=shape, over_time=over_time))

    def reshaped(self, number: int, shape: tuple[int, ...]) -> int:
        """Give a value in another shape of as many entries; itself, if it has that shape."""
        op = self.operations[number]
        if op.shape == shape:
            return number
        if isinstance(op, Reshape):
            return self.reshaped(op.inputs[0], shape)
        return self.add(("reshape", number, shape), lambda: Reshape(inputs=(number,), shape=shape, over_time=op.over_time))


def distinct(numbers: Tensor) -> list[int]:
    """List the ints that occur in a tensor, none below zero, in order.

    Example:
        >>> distinct(torch.tensor([[3, 1], [1, 1]]))
        [1, 3]
    """
    found: list[int] = torch.bincount(numbers.flatten()).nonzero().flatten().tolist()
    return found


def simplest(operations: list[Operation], outputs: list[int]) -> tuple[tuple[Operation, ...], tuple[int, ...]]:
    """Leave out what no output needs, and number the rest anew."""
    needed = set(outputs)
    for number in reversed(range(len(operations))):
        if number in needed:
            needed.update(operations[number].inputs)
    new = {old: i for i, old in enumerate(sorted(needed))}
    kept = (operations[old] for old in new)
    return tuple(replace(op, inputs=tuple(new[i] for i in op.inputs)) for op in kept), tuple(new[i] for i in outputs)
