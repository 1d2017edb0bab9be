"""A synapse as native code takes it: what lies between spikes and it, averages and reshapes, becomes part of its weights."""

from dataclasses import dataclass, replace

from torch import Tensor

from spikeprune.engine.plan import Operation, Pool, Reshape, Synapse
from spikeprune.runtime import direct
from spikeprune.runtime.planes import WIDEST
from spikeprune.runtime.program import Program


@dataclass(frozen=True, eq=False)
class Connection:
    """Weights between a value and currents.

    Attributes:
        source: number of the value.
        weight: float64, (C_out, C_in, height, width) of maps, or (C_out, features) of a value that is read flat, whatever its shape.
        bias: float64 (C_out,).
        stride: of maps.
        padding: of maps.
    """

    source: int
    weight: Tensor
    bias: Tensor
    stride: int = 1
    padding: int = 0

    @property
    def flat(self) -> bool:
        """Whether the source is read flat."""
        return self.weight.dim() == 2


def connect(operations: tuple[Operation, ...], synapse: Synapse) -> Connection | str:
    """Give a synapse as weights of the value that it really reads, or say why native code has none like it.

    Groups and dilation become zeros among the weights. An average whose windows lie side by side becomes a larger kernel with a longer
    stride, or more features: each spike is counted where it is.

    Example:
        >>> import torch
        >>> from spikeprune.engine.plan import Input
        >>> given = Input(inputs=(), shape=(1, 2, 2), over_time=True, time_axis=0)
        >>> mean = Pool(inputs=(0,), shape=(1, 1, 1), over_time=True, kind="average", kernel=(2, 2), stride=(2, 2), padding=(0, 0))
        >>> flat = Reshape(inputs=(1,), shape=(1,), over_time=True)
        >>> one = Synapse(inputs=(2,), shape=(1,), over_time=True, name="fc", weight=torch.ones(1, 1), bias=None)
        >>> found = connect((given, mean, flat, one), one)
        >>> found.source, found.weight
        (0, tensor([[0.2500, 0.2500, 0.2500, 0.2500]]))
    """
    bias = synapse.weight.new_zeros(synapse.weight.shape[0]) if synapse.bias is None else synapse.bias
    found = Connection(synapse.inputs[0], synapse.weight, bias)
    if synapse.stride:
        if len(synapse.stride) != 2 or len(set(synapse.stride)) > 1 or len(set(synapse.padding)) > 1:
            return "not a convolution of two axes with one stride and one padding"
        weight = dilated(ungrouped(synapse.weight, synapse.groups), synapse.dilation)
        found = replace(found, weight=weight, stride=synapse.stride[0], padding=synapse.padding[0])
    while (before := _before(operations, found)) is not None:
        found = before
    if not found.flat and max(found.weight.shape[2:]) > WIDEST:
        return f"a kernel of {' x '.join(map(str, found.weight.shape[2:]))} is wider than native ones, of {WIDEST}"
    return found


def directly(op: Synapse, x: Tensor) -> tuple[Program, Tensor] | None:
    """Give native code for a convolution of real numbers, and where its currents go; None if there is none."""
    plain = len(op.stride) == 2 and len({*op.stride}) == len({*op.padding}) == 1 and {*op.dilation} == {1} and op.groups == 1
    if not plain or direct.refuses(op.weight) or not x.is_contiguous():
        return None
    program, weight, bias = Program(), op.weight.float(), None if op.bias is None else op.bias.float()
    maps = x.view(-1, *x.shape[-3:])
    return program, direct.prepare(program, maps, weight, bias, stride=op.stride[0], padding=op.padding[0])


def ungrouped(weight: Tensor, groups: int) -> Tensor:
    """Give the weight of a convolution in groups as that of one without, zeros between the groups.

    Example:
        >>> import torch
        >>> ungrouped(torch.tensor([[[[1.0]]], [[[2.0]]]]), groups=2)[..., 0, 0]
        tensor([[1., 0.],
                [0., 2.]])
    """
    if groups == 1:
        return weight
    outputs, inputs = len(weight) // groups, weight.shape[1]
    whole = weight.new_zeros(len(weight), inputs * groups, *weight.shape[2:])
    for g in range(groups):
        rows = slice(g * outputs, (g + 1) * outputs)
        whole[rows, g * inputs : (g + 1) * inputs] = weight[rows]
    return whole


def dilated(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """Give the weight of a dilated convolution as that of one that is not, zeros between the taps.

    Example:
        >>> import torch
        >>> dilated(torch.ones(1, 1, 1, 2), (1, 2))
        tensor([[[[1., 0., 1.]]]])
    """
    if set(dilation) == {1}:
        return weight
    sides = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], dilation, strict=True)]
    whole = weight.new_zeros(*weight.shape[:2], *sides)
    whole[..., :: dilation[0], :: dilation[1]] = weight
    return whole


def _before(operations: tuple[Operation, ...], found: Connection) -> Connection | None:
    """Go one operation back, if it can be part of the weights."""
    op = operations[found.source]
    if isinstance(op, Reshape) and found.flat:
        return replace(found, source=op.inputs[0])
    if not isinstance(op, Pool) or op.kind != "average":
        return None
    before = operations[op.inputs[0]].shape
    whole = len(before) == 3 and all(
        side == size * count for side, size, count in zip(before[1:], op.kernel, op.shape[1:], strict=True)
    )
    if op.kernel != op.stride or any(op.padding) or not whole or (not found.flat and len(set(op.kernel)) > 1):
        return None
    size, share = op.kernel[0], 1 / (op.kernel[0] * op.kernel[1])
    maps = found.weight.view(len(found.weight), *op.shape) if found.flat else found.weight
    spread = maps.repeat_interleave(size, 2).repeat_interleave(op.kernel[1], 3) * share
    if found.flat:
        return replace(found, source=op.inputs[0], weight=spread.flatten(1))
    return replace(found, source=op.inputs[0], weight=spread, stride=found.stride * size, padding=found.padding * size)
