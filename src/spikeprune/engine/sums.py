"""Sums of spikes, as residual connections make them, turned into spikes side by side: W (a + b) = [W W] [a b].

A sum of spikes is no spikes, and so nothing that native code takes. But a layer that reads one is a layer of twice as many inputs that
reads both parts, and a spike in each of them is added twice, as it should be.
"""

from collections import Counter
from collections.abc import Set
from dataclasses import replace

import torch
from torch import Tensor

from spikeprune.engine.connect import ungrouped
from spikeprune.engine.plan import Add, Concatenate, Operation, Plan, Pool, Reshape, Synapse


def side_by_side(plan: Plan, spikes: Set[int]) -> Plan:
    """Let every layer that reads a sum of spikes read its parts instead.

    What lies between sum and layer may be averages and reshapes, which are part of it. Sums that nothing else reads are gone.

    Args:
        plan: of any network.
        spikes: numbers of the values that are nothing but spikes.

    Returns:
        a plan of the same answers; the plan itself if no layer reads such a sum.

    Example:
        >>> from spikeprune.engine.plan import Input
        >>> given = Input(inputs=(), shape=(3,), over_time=True, time_axis=0)
        >>> other = Reshape(inputs=(0,), shape=(3,), over_time=True)
        >>> both = Add(inputs=(0, 1), shape=(3,), over_time=True)
        >>> fc = Synapse(inputs=(2,), shape=(2,), over_time=True, name="fc", weight=torch.ones(2, 3), bias=None)
        >>> print(side_by_side(Plan((given, other, both, fc), outputs=(3,), timesteps=1), {0, 1}).explain())
        0 Input (T, 3)
        1 Reshape of 0 (T, 3)
        2 Concatenate of 0, 1 (T, 6)
        3 Synapse fc of 2 (T, 2)
        returns 3
    """
    written = _Written(plan, spikes)
    return plan if written.same else written.pruned()


class _Written:
    """A plan that is being written anew, operation by operation."""

    def __init__(self, plan: Plan, spikes: Set[int]) -> None:
        self._plan, self._spikes, self.same = plan, spikes, True
        self._operations: list[Operation] = []
        self._place: dict[int, int] = {}  # of a value of the plan, here
        self._made: dict[tuple[object, ...], int] = {}  # what was put before a layer, for others that read the same
        for number, op in enumerate(plan.operations):
            op = self._apart(op) if isinstance(op, Synapse) else self._moved(op)
            self._place[number] = self._put(op)

    def pruned(self) -> Plan:
        """Give the plan without what nothing reads any more."""
        needed = {0, *(self._place[i] for i in self._plan.outputs)}
        for number in reversed(range(len(self._operations))):
            if number in needed:
                needed.update(self._operations[number].inputs)
        place = {old: new for new, old in enumerate(sorted(needed))}
        operations = [
            replace(self._operations[old], inputs=tuple(place[i] for i in self._operations[old].inputs)) for old in sorted(needed)
        ]
        return replace(self._plan, operations=tuple(operations), outputs=tuple(place[self._place[i]] for i in self._plan.outputs))

    def _put(self, op: Operation) -> int:
        self._operations.append(op)
        return len(self._operations) - 1

    def _moved(self, op: Operation) -> Operation:
        return replace(op, inputs=tuple(self._place[i] for i in op.inputs))

    def _apart(self, op: Synapse) -> Operation:
        """Give a layer on the parts of the sum that it reads, if it reads one of spikes."""
        path: list[Pool | Reshape] = []
        source = op.inputs[0]
        while isinstance(below := self._plan.operations[source], Pool | Reshape) and _spreads(below):
            path.insert(0, below)
            source = below.inputs[0]
        parts = self._parts(source)
        if parts is None or len(self._plan.operations[source].shape) not in (1, 3):
            return self._moved(op)
        self.same = False
        times = list(Counter(parts).items())
        value = self._joined([part for part, _ in times])
        for one in path:
            key = (value, one.inputs, one.shape)
            if key not in self._made:
                self._made[key] = self._put(replace(one, inputs=(value,), shape=(one.shape[0] * len(times), *one.shape[1:])))
            value = self._made[key]
        weight = op.weight if not op.stride else ungrouped(op.weight, op.groups)
        return replace(op, inputs=(value,), weight=_repeated(weight, [count for _, count in times]), groups=1)

    def _parts(self, number: int) -> list[int] | None:
        """Give the spikes that a sum consists of; None for what is no sum, or not of spikes alone."""
        op = self._plan.operations[number]
        if not isinstance(op, Add):
            return None
        found: list[int] = []
        for i in op.inputs:
            more = [i] if i in self._spikes else self._parts(i)
            if more is None:
                return None
            found += more
        return found

    def _joined(self, parts: list[int]) -> int:
        if len(parts) == 1:
            return self._place[parts[0]]
        key = ("parts", *parts)
        if key not in self._made:
            first = self._plan.operations[parts[0]]
            shape = (first.shape[0] * len(parts), *first.shape[1:])
            self._made[key] = self._put(
                Concatenate(inputs=tuple(self._place[i] for i in parts), shape=shape, over_time=first.over_time)
            )
        return self._made[key]


def _spreads(op: Pool | Reshape) -> bool:
    """Whether an operation on values side by side is that on each of them, side by side."""
    return (isinstance(op, Reshape) and len(op.shape) == 1) or (isinstance(op, Pool) and op.kind == "average")


def _repeated(weight: Tensor, times: list[int]) -> Tensor:
    """Put a weight beside itself, each time so many times as large."""
    return torch.cat([weight * count for count in times], 1)
