"""Scales fold into the synapses before them: gain and shift of a channel belong into its weight and bias."""

from dataclasses import replace

import torch

from spikeprune.engine.book import simplest
from spikeprune.engine.plan import Operation, Scale, Synapse


def fold_scales(operations: tuple[Operation, ...], outputs: tuple[int, ...]) -> tuple[tuple[Operation, ...], tuple[int, ...]]:
    """Fold each scale whose input is a synapse, or a scale, that nothing else reads and the network does not return.

    Example:
        >>> one, half = torch.ones(2, 2), torch.tensor([0.5, 2.0])
        >>> synapse = Synapse(inputs=(0,), shape=(2,), over_time=False, name="fc", weight=one, bias=None)
        >>> scale = Scale(inputs=(1,), shape=(2,), over_time=False, gain=half, shift=torch.zeros(()))
        >>> from spikeprune.engine.plan import Input
        >>> given = Input(inputs=(), shape=(2,), over_time=False, time_axis=None)
        >>> fold_scales((given, synapse, scale), (2,))[0][1].weight
        tensor([[0.5000, 0.5000],
                [2.0000, 2.0000]])
    """
    found = list(operations)
    readers = [number for op in operations for number in op.inputs] + list(outputs)
    for number, op in enumerate(found):
        if isinstance(op, Scale) and readers.count(op.inputs[0]) == 1:
            before = found[op.inputs[0]]
            if isinstance(before, Synapse):
                found[number] = _into_synapse(before, op)
            elif isinstance(before, Scale):
                found[number] = replace(before, gain=before.gain * op.gain, shift=before.shift * op.gain + op.shift)
    return simplest(found, list(outputs))


def _into_synapse(synapse: Synapse, scale: Scale) -> Synapse:
    channels = len(synapse.weight)
    gain = scale.gain.expand(channels)
    bias = scale.shift.expand(channels) if synapse.bias is None else synapse.bias * gain + scale.shift
    if synapse.bias is None and not bool(torch.count_nonzero(scale.shift)):
        return replace(synapse, weight=synapse.weight * gain.view(-1, *[1] * (synapse.weight.dim() - 1)))
    return replace(synapse, weight=synapse.weight * gain.view(-1, *[1] * (synapse.weight.dim() - 1)), bias=bias.clone())
