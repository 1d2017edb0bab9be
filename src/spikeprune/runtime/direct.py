"""Currents of real numbers: a convolution of few inputs, such as the first layer of direct coding, which spikes do not feed.

Dense: each output row is summed tap by tap in registers. Sums are in float32, in the order of inputs and taps.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime.integers import check_weight
from spikeprune.runtime.jit import compiled
from spikeprune.runtime.lanes import Memory, Value, begin, constant, over, variable
from spikeprune.runtime.once import once
from spikeprune.runtime.planes import WIDEST, Kernel
from spikeprune.runtime.program import Program

MOST = 64  # weights of an output; of more, a library's blocks are faster
LANES = 32  # of a row, at most


def refuses(weight: Tensor) -> str:
    """Say why a layer is none for this, or "".

    Example:
        >>> refuses(torch.ones(4, 3, 3, 3)), refuses(torch.ones(4, 8, 3, 3))
        ('', 'an output has more than 64 weights')
    """
    if weight.dim() != 4 or max(weight.shape[2:]) > WIDEST:
        return f"it is no convolution of two axes with a kernel of up to {WIDEST}"
    return f"an output has more than {MOST} weights" if weight[0].numel() > MOST else ""


def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve.

    Args:
        x: float32 (N, C_in, H, W).
        weight: float32 (C_out, C_in, height, width), as `refuses` takes it.
        bias: float32 (C_out,); None for 0.
        stride: of the kernel, on both axes.
        padding: zeros on each side.

    Returns:
        float32 (N, C_out, H', W').

    Raises:
        LayoutError: x has other axes, dtype, channels or layout, or is too small; or there are too many weights.
        QuantizeError: the weight is not float32.
        NonFinite: it has NaN or infinity.

    Example:
        >>> run(torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[1.0, 10.0]]]]))
        tensor([[[[21., 32.]]]])
    """
    return once(prepare, x.contiguous(), weight, bias, stride=stride, padding=padding)


def prepare(
    program: Program, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """Put at the end of a program what `run` does, of what x holds whenever it runs; return what holds the result.

    Example:
        >>> program, x = Program(), torch.zeros(1, 1, 1, 2)
        >>> found = prepare(program, x, torch.ones(1, 1, 1, 1), torch.tensor([0.5]))
        >>> x[..., 1] = 2
        >>> program.run()
        >>> found
        tensor([[[[0.5000, 2.5000]]]])
    """
    check_weight(weight, (4,))
    weight = weight.detach().float().contiguous()
    if why := refuses(weight):
        raise LayoutError(f"{why}.")
    if x.dim() != 4 or x.dtype != torch.float32 or x.shape[1] != weight.shape[1]:
        raise LayoutError(f"the layer takes float32 (N, {weight.shape[1]}, H, W), but {x.dtype} {tuple(x.shape)} was given.")
    (samples, inputs, height, width), (outputs, _, down, across) = x.shape, weight.shape
    rows, columns = Kernel(down, across, stride, padding).output(height, width)
    bias = torch.zeros(outputs, dtype=torch.float32) if bias is None else bias.detach().float().contiguous()
    padded = torch.zeros(
        samples, inputs, height + 2 * padding, width + 2 * padding, dtype=torch.float32
    )  # what is not written stays 0
    out = torch.empty(samples, outputs, rows, columns, dtype=torch.float32)
    lanes = min(LANES, 1 << (columns.bit_length() - 1)) if stride == 1 else 1
    program.add(compiled("direct padded", _pad), x, padded, samples * inputs, height, width, padding, padded.shape[3])
    sizes = (samples, inputs * padded[0, 0].numel(), outputs, weight[0].numel(), rows, columns, stride, padded.shape[3])
    program.add(compiled(("direct", lanes), partial(_write, lanes)), padded, _taps(weight, padded), weight, bias, out, *sizes)
    return out


def _taps(weight: Tensor, padded: Tensor) -> Tensor:
    """Give how far each input and tap lies behind the first, int32."""
    _, inputs, down, across = weight.shape
    _, area, pitch, _ = padded.stride()
    steps = [torch.arange(count) * step for count, step in ((inputs, area), (down, pitch), (across, 1))]
    return (steps[0][:, None, None] + steps[1][:, None] + steps[2]).flatten().int()


def _pad(module: Any) -> None:
    code, (x, padded), (maps, height, width, padding, pitch) = begin(module, "f32 f32", 5)
    with over(code, 0, maps) as m, over(code, 0, height) as y:
        source = x.at((m * height + y) * width)
        target = padded.at((m * (height + padding * 2) + padding + y) * pitch + padding)
        with over(code, 0, width) as i:
            target.store(i, source.load(i))
    code.ret_void()


def _write(lanes: int, module: Any) -> None:
    code, (x, taps, weights, bias, out), parts = begin(module, "f32 i32 f32 f32 f32", 8)
    samples, size, outputs, count, rows, columns, stride, pitch = parts
    with over(code, 0, samples) as n, over(code, 0, outputs) as o, over(code, 0, rows) as y:
        source, target = x.at(n * size + y * stride * pitch), out.at(((n * outputs + o) * rows + y) * columns)
        with over(code, 0, (columns + lanes - 1) // lanes) as i:
            first = (i * lanes).least(columns - lanes)  # the last lanes may take some places twice
            target.store(first, _sum(source.at(first * stride), taps, weights.at(o * count), bias.load(o), count, lanes))
    code.ret_void()


def _sum(x: Memory, taps: Memory, weights: Memory, bias: Value, count: Value, lanes: int) -> Value:
    total = variable(constant(x.code, 0, "f32", lanes))
    with over(x.code, 0, count) as k:
        weight = weights.load(k).everywhere(lanes)
        total.put(total.value + x.load(taps.load(k).wide("i64"), lanes) * weight)
    return total.value + bias.everywhere(lanes)
