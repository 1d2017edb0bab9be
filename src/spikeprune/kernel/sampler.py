"""A differentiable draw of n of every m: Gumbel noise, n draws without replacement, straight through.

    noisy = logits + noise                 hard = its n largest: n draws without replacement from a softmax
    z1 = noisy,   y_k = softmax(z_k / temperature),   z_k+1 = z_k + log(1 - y_k)
    soft = 1 - product over k of (1 - y_k), which becomes hard as the temperature falls

A block is a column: so every step is over long rows, which is ten times faster than over short ones. The forward value is the hard mask, the gradient that of the soft one. The union of the largest of each y_k would be another hard
mask; at a high temperature its draws meet, so that it holds hardly more than one.

Source: Xie and Ermon, Reparameterizable Subset Sampling via Continuous Relaxations, IJCAI 2019, arXiv:1901.10517; the n largest:
Kool, van Hoof, Welling, ICML 2019, arXiv:1903.06059; straight through: Bengio, Leonard, Courville 2013, arXiv:1308.3432.
"""

import torch
from torch import Tensor

from spikeprune.errors import NonFinite, SparsityError

NEVER = 1e-30  # stands for 1 - y where float32 cannot tell y from 1: its logarithm is below any logit


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw standard Gumbel noise, float32, on the generator's device, and move it."""
    uniform = torch.rand(shape, generator=generator, device=generator.device).clamp_(1e-20, 1 - 1e-7)
    return uniform.log_().neg_().log_().neg_().to(device)


def draws(logits: Tensor, n: int, temperature: float) -> list[Tensor]:
    """Give the n relaxed draws without replacement of logits (m, B), noise included: each (m, B), columns summing to 1."""
    z = logits.float()
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
    rest = values
    for _ in range(n - 1):
        rest = torch.where(rest < rest.amax(0), rest, -torch.inf)
    mask = (values >= rest.amax(0)) & (values > -torch.inf)
    tied = (mask.sum(0) != n).nonzero()[:, 0]  # equal values went together: one by one, where there are any
    order = values[:, tied].argsort(dim=0, descending=True, stable=True)[:n]
    few = torch.zeros_like(mask[:, tied]).scatter_(0, order, True)
    mask[:, tied] = few & (values[:, tied] > -torch.inf)
    return mask


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
        return hard + (soft - soft.detach())  # in this order: exactly 0 or 1
