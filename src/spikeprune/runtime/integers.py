"""Weights of native layers, whole numbers or float32: what 16 and 32 bits hold of their sums, and what is refused."""

import torch
from torch import Tensor

from spikeprune.errors import QuantizeError
from spikeprune.runtime.neurons import check_finite

SHORT = (1 << 15) - 1  # the most that 16 bits hold; the least is one further from 0
LONG = (1 << 31) - 1
SOME = 1 << 16  # weights that are looked at together, so that looking takes little memory


def check_weight(weight: Tensor, axes: tuple[int, ...]) -> None:
    """Refuse what is no weight of a native layer.

    Raises:
        QuantizeError: it is neither int8 nor float32, has another number of axes, or is so large that 32 bits cannot hold its sums.
        NonFinite: it has NaN or infinity.

    Example:
        >>> check_weight(torch.zeros(2, 2, dtype=torch.float64), (2,))
        Traceback (most recent call last):
        spikeprune.errors.QuantizeError: the weight is torch.float64 (2, 2), but must be int8 or float32 of 2 axes, not empty.
    """
    if weight.dtype not in (torch.int8, torch.float32) or weight.dim() not in axes or not weight.numel():
        wanted = " or ".join(map(str, axes))
        raise QuantizeError(
            f"the weight is {weight.dtype} {tuple(weight.shape)}, but must be int8 or float32 of {wanted} axes, not empty."
        )
    if weight.dtype == torch.float32:
        check_finite("the weight", weight)
    elif weight[0].numel() > LONG // 128:
        raise QuantizeError(f"{weight[0].numel()} int8 weights may sum to more than 32 bits hold.")


def affine(weight: Tensor, scale: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Give scale and bias of each output, 1 and 0 where there are none.

    Args:
        weight: (C_out, ...).
        scale: float32 (C_out,), or None.
        bias: float32 (C_out,), or None.

    Raises:
        QuantizeError: one of them is not of this length or dtype.
        NonFinite: it has NaN or infinity.

    Example:
        >>> affine(torch.zeros(2, 2), None, torch.tensor([0.5, 1.0]))
        (tensor([1., 1.]), tensor([0.5000, 1.0000]))
    """
    scale = torch.ones(len(weight), dtype=torch.float32) if scale is None else scale.detach()
    bias = torch.zeros(len(weight), dtype=torch.float32) if bias is None else bias.detach()
    for name, found in (("scale", scale), ("bias", bias)):
        if found.shape != weight.shape[:1] or found.dtype != torch.float32:
            raise QuantizeError(f"the {name} is {found.dtype} {tuple(found.shape)}, but must be float32 ({len(weight)},).")
        check_finite(f"the {name}", found)
    return scale, bias


def some_rows(weight: Tensor) -> tuple[Tensor, ...]:
    """Cut weights (C_out, terms) into groups of rows that are small enough for 64 bits a weight.

    Example:
        >>> [tuple(rows.shape) for rows in some_rows(torch.zeros(5, 1 << 15))]
        [(2, 32768), (2, 32768), (1, 32768)]
    """
    return torch.split(weight, max(1, SOME // weight.shape[1]))


def extremes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Give the least and the most that sums of each row can be, whichever inputs fire: int64 (C_out,).

    Args:
        weight: whole numbers (C_out, terms).

    Example:
        >>> extremes(torch.tensor([[3, -1, -2], [1, 1, 0]]))
        (tensor([-3,  0]), tensor([3, 2]))
    """
    sides = [(rows.clamp(max=0).sum(1), rows.clamp(min=0).sum(1)) for rows in some_rows(weight)]
    least, most = zip(*sides, strict=True)
    return torch.cat(least), torch.cat(most)
