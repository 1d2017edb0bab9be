"""What the native layers compute, written plainly in torch: the oracle of their tests, and the way without llvmlite.

Sums are taken in float64, so that those of int8 weights are exact.
"""

import torch.nn.functional as F
from torch import Tensor

from spikeprune.runtime.integers import affine
from spikeprune.runtime.neurons import Neurons, fire


def linear(x: Tensor, weight: Tensor, neurons: Neurons, scale: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Give the spikes (T, N, C_out) of a linear layer and its neurons.

    Args:
        x: spikes (T, N, C_in).
        weight: (C_out, C_in), int8 or float32.
        neurons: of C_out channels.
        scale: float32 (C_out,).
        bias: float32 (C_out,).

    Example:
        >>> import torch
        >>> two = Neurons.alike(2, decay=1.0, threshold=1.0, reset=1.0)
        >>> linear(torch.ones(1, 1, 2), torch.tensor([[1.0, 1.0], [0.5, 0.0]]), two)
        tensor([[[1., 0.]]])
    """
    sums = F.linear(x.double(), weight.double())
    return fire(sums, neurons, *affine(weight, scale, bias))


def conv2d(
    x: Tensor, weight: Tensor, neurons: Neurons, scale: Tensor | None = None, bias: Tensor | None = None,
    *, stride: int = 1, padding: int = 0,
) -> Tensor:  # fmt: skip
    """Give the spikes (T, N, C_out, H, W) of a convolution and its neurons.

    Args:
        x: spikes (T, N, C_in, H, W).
        weight: (C_out, C_in, kernel, kernel), int8 or float32.
        neurons: of C_out channels.
        scale: float32 (C_out,).
        bias: float32 (C_out,).
        stride: of the kernel.
        padding: zeros on each side.

    Example:
        >>> import torch
        >>> one = Neurons.alike(1, decay=1.0, threshold=3.0, reset=3.0)
        >>> conv2d(torch.ones(1, 1, 1, 2, 2), torch.ones(1, 1, 2, 2), one)
        tensor([[[[[1.]]]]])
    """
    sums = F.conv2d(x.flatten(0, 1).double(), weight.double(), stride=stride, padding=padding)
    return fire(sums.view(*x.shape[:2], *sums.shape[1:]), neurons, *affine(weight, scale, bias))
