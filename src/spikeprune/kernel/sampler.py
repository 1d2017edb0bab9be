"""A differentiable draw of n of every m: Gumbel noise, n draws without replacement, straight through.

    noisy = logits + noise                 hard = its n largest: n draws without replacement from a softmax
    z1 = noisy,   y_k = softmax(z_k / temperature),   z_k+1 = z_k + log(1 - y_k)
    soft = 1 - product over k of (1 - y_k), which becomes hard as the temperature falls

A block is a column: so every step is over long rows, which is ten times faster than over short ones. The forward value is the hard
mask, the gradient that of the soft one, in float64: where a draw is nearly sure, float32 cannot tell 1 - y from 0. The union of the
largest of each y_k would be another hard mask; at a high temperature its draws meet, so that it holds hardly more than one.

`sample` is the draw for autograd; a search that keeps no graph takes its two halves, `top` and `slopes`.

Source: Xie and Ermon, Reparameterizable Subset Sampling via Continuous Relaxations, IJCAI 2019, arXiv:1901.10517; the n largest:
Kool, van Hoof, Welling, ICML 2019, arXiv:1903.06059; straight through: Bengio, Leonard, Courville 2013, arXiv:1308.3432.
"""

import math
from itertools import accumulate

import torch
from torch import Tensor

from spikeprune.errors import NonFinite, SparsityError

NEVER = 1e-30  # stands for 1 - y where float64 cannot tell y from 1: its logarithm is below any logit
BEHIND = 1e30  # puts what was drawn behind all others, but before minus infinity
SURE = 1e-12  # where all but one have less of a draw, being 27 logits behind, later draws get no gradient


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw standard Gumbel noise, float32, on the generator's device, and move it: one of 65,536 values, -2.5 to 11.8.

    A number of 64 bits makes four of them, since it is the generator that takes most of the time.
    """
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device).random_(-(2**63), None, generator=generator)
    uniform = bits.view(torch.int16)[:count].view(shape).float().add_(2**15 + 0.5).mul_(2**-16)
    return uniform.log_().neg_().log_().neg_().to(device)


def draws(logits: Tensor, n: int, temperature: float) -> list[Tensor]:
    """Give the n relaxed draws without replacement of logits (m, B), noise included: each float64 (m, B), columns summing to 1."""
    z = logits.double()
    found = [_softmax(z, temperature)]
    for _ in range(n - 1):
        z = z + (1 - found[-1]).clamp_min(NEVER).log()
        found.append(_softmax(z, temperature))
    return found


def _softmax(z: Tensor, temperature: float) -> Tensor:
    return (z if temperature == 1 else z / temperature).softmax(0)


def top(values: Tensor, n: int) -> Tensor:
    """Mark the n largest of each column, none of minus infinity: bool of the shape of (m, B) values.

    Example:
        >>> top(torch.tensor([[3.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), 2).int()
        tensor([[1, 1],
                [0, 1],
                [1, 0]], dtype=torch.int32)
    """
    values = values.float() if values.itemsize < 4 else values
    rest = values
    for _ in range(n - 1):
        rest = rest.sub(_at_least(rest, rest.amax(0)), alpha=BEHIND)
    bound = rest.amax(0)
    found = _at_least(values, bound)
    mask, amiss = found.bool(), (found.sum(0) != n) | (bound == -torch.inf)
    if amiss.any():  # equal values went together, or too few are above minus infinity: one by one
        tied = amiss.nonzero()[:, 0]
        order = values[:, tied].argsort(dim=0, descending=True, stable=True)[:n]
        few = torch.zeros_like(mask[:, tied]).scatter_(0, order, True)
        mask[:, tied] = few & (values[:, tied] > -torch.inf)
    return mask


def _at_least(values: Tensor, bound: Tensor) -> Tensor:
    """Give 1 where a value is at least the bound and 0 elsewhere, in the values' own type, which takes less time than bool."""
    return torch.ge(values, bound, out=torch.empty_like(values))


def sample(logits: Tensor, n: int, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Draw a mask: 0 or 1 in the forward, the gradient of the relaxed draws in the backward; float32 (m, B), also under autocast.

    Args:
        logits: (m, B), a block a column; minus infinity for what can never be drawn.
        n: draws a block, 1 to m.
        temperature: above 0; lower is nearer to hard draws.
        noise: Gumbel noise of the logits' shape; None takes the n largest logits.

    Raises:
        SparsityError: n or temperature is impossible.
        NonFinite: a logit is NaN.

    Example:
        >>> sample(torch.tensor([[3.0], [1.0], [2.0], [0.0]]), 2, 0.1).flatten()
        tensor([1., 0., 1., 0.])
    """
    if not 1 <= n <= logits.shape[0]:
        raise SparsityError(f"cannot draw {n} of {logits.shape[0]}; draw 1 to {logits.shape[0]}.")
    if not temperature > 0:
        raise SparsityError(f"the temperature is {temperature}, but must be above 0.")
    if bool(logits.isnan().any()):
        raise NonFinite(f"{int(logits.isnan().sum())} of {logits.numel()} logits are NaN. Lower the learning rate of the logits.")
    with torch.autocast(logits.device.type, enabled=False):
        noisy = logits.float() if noise is None else logits.float() + noise
        left = torch.ones_like(noisy)
        for y in draws(noisy, n, temperature):
            left = left * (1 - y)
        soft = 1 - left
        hard = top(noisy.detach(), n).float()
        return hard + (soft - soft.detach()).float()  # in this order: exactly 0 or 1


def slopes(noisy: Tensor, n: int, felt: Tensor) -> Tensor:
    """Give dL/d(logits) of what is dL/d(mask), float32 (m, B): the gradient of `sample` at temperature 1, without a graph.

    At this temperature the next draw is y (1 - y) over its sum, so that no logarithm is left. Where one is far ahead see `SURE`.

    Args:
        noisy: (m, B) logits, noise included.
        n: draws a block.
        felt: (m, B), dL/d(mask).

    Example:
        >>> slopes(torch.tensor([[0.0], [0.0]]), 1, torch.tensor([[1.0], [0.0]])).flatten()
        tensor([ 0.2500, -0.2500])
    """
    felt = felt.double()
    odds = noisy.float().sub(noisy.amax(0)).exp_().double()
    drawn, left, scales = [odds / odds.sum(0)], [], []
    for _ in range(n - 1):
        left.append(1 - drawn[-1])
        unscaled = drawn[-1] * left[-1]
        total = unscaled.sum(0)
        scales.append(torch.where(total > SURE, 1 / total, 0.0))
        drawn.append(unscaled.mul_(scales[-1]))
    left.append(1 - drawn[-1])
    before = list(accumulate(left[:-1], torch.mul, initial=felt))  # felt times what all earlier draws left
    grad, after = before[-1], left[-1]
    for k in reversed(range(n)):
        if k < n - 1:
            grad = grad.add_(before[k] * after)
            after = after * left[k]
        grad = grad - (grad * drawn[k]).sum(0)
        if k:
            grad.mul_(scales[k - 1]).mul_(left[k - 1] - drawn[k - 1])
    return grad.mul_(drawn[0]).float()
