"""Averages that leave a border over read maps without it, so that they can be part of the weights behind them.

An average over windows side by side is a larger kernel with a longer stride (`connect`). Where windows do not fill a map, such a kernel
would read, at the far end, what no window has, in place of the padding.
"""

from collections.abc import Set
from dataclasses import replace

from spikeprune.engine.plan import Crop, Operation, Plan, Pool


def cropped(plan: Plan, spikes: Set[int]) -> Plan:
    """Put a crop before every average of spikes over windows side by side that leave rows or columns over.

    Args:
        plan: of any network.
        spikes: numbers of the values that are nothing but spikes.

    Returns:
        a plan of the same answers; the plan itself if there is no such average.

    Example:
        >>> from spikeprune.engine.plan import Input
        >>> given = Input(inputs=(), shape=(1, 5, 4), over_time=True, time_axis=0)
        >>> windows = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
        >>> mean = Pool(inputs=(0,), shape=(1, 2, 2), over_time=True, kind="average", **windows)
        >>> print(cropped(Plan((given, mean), outputs=(1,), timesteps=3), {0}).explain())
        0 Input (T, 1, 5, 4)
        1 Crop of 0 (T, 1, 4, 4)
        2 Pool of 1 (T, 1, 2, 2)
        returns 2
    """
    operations: list[Operation] = []
    place: dict[int, int] = {}  # of a value of the plan, here
    for number, op in enumerate(plan.operations):
        inputs = tuple(place[i] for i in op.inputs)
        shape = plan.operations[op.inputs[0]].shape if op.inputs else ()
        if isinstance(op, Pool) and op.inputs[0] in spikes and (filled := _filled(op)) not in (None, shape):
            operations.append(Crop(inputs=inputs, shape=filled, over_time=op.over_time))
            inputs = (len(operations) - 1,)
        place[number] = len(operations)
        operations.append(replace(op, inputs=inputs))
    if len(operations) == len(plan.operations):
        return plan
    return replace(plan, operations=tuple(operations), outputs=tuple(place[i] for i in plan.outputs))


def _filled(op: Pool) -> tuple[int, ...] | None:
    """Give the shape that the windows of an average fill; None if they do not lie side by side on maps."""
    if op.kind != "average" or op.kernel != op.stride or any(op.padding) or op.ceil_mode or len(op.shape) != 3:
        return None
    return op.shape[0], *(size * count for size, count in zip(op.kernel, op.shape[1:], strict=True))
