"""A differentiable draw of n of every m: Gumbel noise, n draws without replacement, straight through.

    noisy = logits + noise                 hard = its n largest: n draws without replacement from a softmax
    z1 = noisy,   y_k = softmax(z_k / temperature),   z_k+1 = z_k + log(1 - y_k)
    soft = 1 - product over k of (1 - y_k), which becomes hard as the temperature falls

The forward value is the hard mask, the gradient that of the soft one. The union of the largest of each y_k would be another hard
mask; at a high temperature its draws meet, so that it holds hardly more than one.

Source: Xie and Ermon, Reparameterizable Subset Sampling via Continuous Relaxations, IJCAI 2019, arXiv:1901.10517; the n largest:
Kool, van Hoof, Welling, ICML 2019, arXiv:1903.06059; straight through: Bengio, Leonard, Courville 2013, arXiv:1308.3432.
"""

import torch
from torch import Tensor

from spikeprune.errors import NonFinite, SparsityError

SURE = -1e-7  # logarithm of a y that float32 cannot tell from 1
NEVER = -1e4  # what then stands for the logarithm of 1 - y: finite, and below any logit


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw standard Gumbel noise, float32, on the generator's device, and move it."""
    uniform = torch.rand(shape, generator=generator, device=generator.device).clamp_(1e-20, 1 - 1e-7)
    return (-(-uniform.log()).log()).to(device)


def draws(logits: Tensor, n: int, temperature: float) -> list[Tensor]:
    """Give the n relaxed draws without replacement of logits (B, m), noise included: each (B, m), rows summing to 1."""
    z, found = logits.float(), []
    for _ in range(n):
        log_y = (z / temperature).log_softmax(1)
        found.append(log_y.exp())
        left = torch.where(log_y < SURE, log_y, -1.0)  # out of the way first: a branch not taken has a gradient too
        z = z + torch.where(log_y < SURE, (-torch.expm1(left)).log(), NEVER)
    return found


def sample(logits: Tensor, n: int, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Draw a mask: 0 or 1 in the forward, the gradient of the relaxed draws in the backward; float32 (B, m), also under autocast.

    Args:
        logits: (B, m); minus infinity for what can never be drawn.
        n: draws a row, 1 to m.
        temperature: above 0; lower is nearer to hard draws.
        noise: Gumbel noise of the logits' shape; None takes the n largest logits.

    Raises:
        SparsityError: n or temperature is impossible.
        NonFinite: a logit is NaN.

    Example:
        >>> sample(torch.tensor([[3.0, 1.0, 2.0, 0.0]]), 2, 0.1)
        tensor([[1., 0., 1., 0.]])
    """
    if not 1 <= n <= logits.shape[1]:
        raise SparsityError(f"cannot draw {n} of {logits.shape[1]}; draw 1 to {logits.shape[1]}.")
    if not temperature > 0:
        raise SparsityError(f"the temperature is {temperature}, but must be above 0.")
    if bool(logits.isnan().any()):
        raise NonFinite(f"{int(logits.isnan().sum())} of {logits.numel()} logits are NaN. Lower the learning rate of the logits.")
    with torch.autocast(logits.device.type, enabled=False):
        noisy = logits.float() if noise is None else logits.float() + noise
        soft = torch.zeros_like(noisy)
        for y in draws(noisy, n, temperature):
            soft = 1 - (1 - soft) * (1 - y)
        top = noisy.detach().topk(n, dim=1)
        hard = torch.zeros_like(noisy).scatter(1, top.indices, (top.values > -torch.inf).float())
        return hard + (soft - soft.detach())  # in this order: exactly 0 or 1
