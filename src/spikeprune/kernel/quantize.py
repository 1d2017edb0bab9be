"""Weights as a step times small integers, symmetric about zero, of 1 to 8 bits.

A weight of k bits is step * q with q in [-Q, Q], Q = 2^(k-1) - 1; of 1 bit it is step * sign. Zero stays exactly zero at any k.

Steps have 17 significant bits, so that step * q, of 7 more, is exact in float32. In float64 every sum of such products with
inputs that are multiples of 2^-f is exact as well, in whatever order it is taken, as long as |sum of q * input * 2^f| < 2^31: that is
17 + 31 of its 53 bits. So a network of such weights can be computed in integers and in floating point with the same result.
"""

from typing import Literal

import torch
from torch import Tensor

from spikeprune.errors import QuantizeError

Clip = Literal["max", "mse"]
CLIPS = ("max", "mse")
SIGNIFICANT = 17
"""Bits of a step's mantissa."""
LEAST = 2.0**-80
"""The least step; of weights that are smaller throughout nothing is left."""
SHARES = torch.linspace(0.1, 1.0, 100, dtype=torch.double)
"""What clip "mse" tries, as shares of the largest weight."""


def check_bits(bits: object) -> int:
    """Return bits if they are a whole number from 1 to 8.

    Raises:
        QuantizeError: they are not.
    """
    if isinstance(bits, int) and not isinstance(bits, bool) and 1 <= bits <= 8:
        return bits
    raise QuantizeError(f"bits is {bits!r}, but must be a whole number from 1 to 8.")


def largest(bits: int) -> int:
    """Give the largest integer of so many bits: 1 of one bit.

    Example:
        >>> [largest(bits) for bits in (8, 4, 2, 1)]
        [127, 7, 1, 1]
    """
    return max(1, (1 << (check_bits(bits) - 1)) - 1)


def step_of(weight: Tensor, bits: int, *, clip: Clip = "max", per_channel: bool = False) -> Tensor:
    """Choose the step of a weight.

    Args:
        weight: (C_out, ...), finite.
        bits: 1 to 8. Of one bit the step is the mean of |weight| over what is not zero, whatever the clip.
        clip: "max": max |weight| / Q. "mse": of 100 steps from a tenth of that to all of it the one of least squared error; zeros
            are exact, and do not count.
        per_channel: a step for each output channel.

    Returns:
        float32 of shape (), or (C_out,); 1 where all weights are zero.

    Raises:
        QuantizeError: impossible bits, or an unknown clip.

    Example:
        >>> step_of(torch.tensor([[0.5, -1.0], [0.0, 0.0]]), 2, per_channel=True)
        tensor([1., 1.])
    """
    top = largest(bits)
    if clip not in CLIPS:
        raise QuantizeError(f"there is no clip {clip!r}; choose one of {', '.join(CLIPS)}.")
    rows = weight.detach().double().abs().reshape(len(weight) if per_channel else 1, -1)
    alive = rows.count_nonzero(1)
    if bits == 1:
        step = rows.sum(1) / alive.clamp(min=1)
    else:
        step = rows.amax(1) / top
        step = step if clip == "max" else _least_error(rows, step, top)
    step = exact_step(torch.where(alive > 0, step, 1.0))
    return step if per_channel else step[0]


def exact_step(step: Tensor) -> Tensor:
    """Round steps to 17 significant bits, and to 2^-80 at least, as float32."""
    fraction, exponent = torch.frexp(step.detach().double().clamp(min=LEAST))
    return torch.ldexp((fraction * 2**SIGNIFICANT).round(), exponent - SIGNIFICANT).float()


def exact_bias(bias: Tensor, step: Tensor) -> Tensor:
    """Round biases to the last place of their step, some 2^-17 of it, so that they add to sums of steps without rounding.

    Example:
        >>> exact_bias(torch.tensor([0.3, 1e-9]), torch.tensor(0.25))
        tensor([0.3000, 0.0000])
    """
    _, exponent = torch.frexp(step.double())
    place = torch.ldexp(torch.ones_like(step, dtype=torch.double), exponent - SIGNIFICANT)
    return ((bias.detach().double() / place).round() * place).to(bias.dtype)


def to_integers(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """Give the nearest integers, ties to even, clipped to those of so many bits: int8 of the weight's shape.

    Example:
        >>> to_integers(torch.tensor([[0.5, -3.0, 0.1]]), torch.tensor(0.25), 4)
        tensor([[ 2, -7,  0]], dtype=torch.int8)
    """
    top = largest(bits)
    scaled = weight.detach().double()
    scaled = scaled.sign() if bits == 1 else (scaled / _along(step, weight).double()).round().clamp(-top, top)
    return scaled.to(torch.int8)


def from_integers(integers: Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    """Give step * integers: exact in float32 and float64."""
    return integers.to(dtype) * _along(step, integers).to(dtype)


def _along(step: Tensor, weight: Tensor) -> Tensor:
    """Shape steps so that each meets the weights of its output channel."""
    return step.view(-1, *[1] * (weight.dim() - 1)) if step.dim() else step


def _least_error(rows: Tensor, widest: Tensor, top: int) -> Tensor:
    """Give for each row the step of least squared error."""
    best, least = widest, torch.full_like(widest, torch.inf)
    for share in SHARES.flip(0).tolist():
        step = (widest * share).clamp(min=LEAST)
        error = (rows - (rows / step[:, None]).round().clamp(max=top) * step[:, None]).square().sum(1)
        best, least = torch.where(error < least, step, best), torch.minimum(least, error)
    return best
