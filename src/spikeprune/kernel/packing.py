"""N:M weights as the values of each block's slots and, packed bit by bit, where in the block each value lies.

A block of m weights has n slots, however few of them live: sizes follow from the shape alone, and any block is found without a search.
A slot holds a living weight bit by bit, or +0.0. Indices rise within a block, so none occurs twice; slots that no living weight needs
take the lowest dead indices.

Layout, for a weight (C_out, C_in, kernel ...)::

    values   (C_out, kernel ..., blocks, n), blocks = ceil(C_in / m): blocks lie along the input channels, none spans two rows
    indices  one number from 0 to m - 1 for each value, in the order of values; each takes ceil(log2 m) bits

Indices are one stream of bits: the lowest bit of a number comes first, and bit i of the stream is bit i % 8 of byte i // 8, counted
from the lowest. Bits behind the last number are 0. A block of 2:4 takes half a byte, of which the lower two bits are its first index.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import SparsityError
from spikeprune.kernel.blocks import NM, blocks, unblocks

BYTE = 8


def index_bits(m: int) -> int:
    """Say how many bits an index in a block of m weights takes.

    Example:
        >>> [index_bits(m) for m in (1, 2, 4, 5, 8, 16, 32)]
        [0, 1, 2, 3, 3, 4, 5]
    """
    return (m - 1).bit_length()


def pack_bits(numbers: Tensor, bits: int) -> Tensor:
    """Pack numbers of so many bits without gaps, in the layout above.

    Args:
        numbers: any shape, from 0 to 2^bits - 1.
        bits: 0 to 8.

    Returns:
        uint8 (ceil(numbers * bits / 8),).

    Example:
        >>> pack_bits(torch.tensor([0, 3, 1, 2]), 2)  # 10 01 11 00, the first number rightmost
        tensor([156], dtype=torch.uint8)
    """
    stream = (numbers.reshape(-1, 1).byte() >> _rising(bits, numbers)) & 1
    octets = F.pad(stream.flatten(), (0, -stream.numel() % BYTE)).view(-1, BYTE)
    return (octets << _rising(BYTE, numbers)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """Give the first `count` numbers that `pack_bits` packed, uint8 (count,).

    Example:
        >>> unpack_bits(torch.tensor([156], dtype=torch.uint8), 2, 4)
        tensor([0, 3, 1, 2], dtype=torch.uint8)
    """
    stream = (packed.unsqueeze(1) >> _rising(BYTE, packed)) & 1
    numbers = stream.flatten()[: count * bits].view(count, bits)
    return (numbers << _rising(bits, packed)).sum(1, dtype=torch.uint8)


def pack(weight: Tensor, alive: Tensor, pattern: NM) -> tuple[Tensor, Tensor]:
    """Pack a weight: its living values bit by bit, and their indices.

    Args:
        weight: (C_out, C_in, kernel ...).
        alive: bool of the weight's shape, True where it lives.
        pattern: at most n alive in each block of m.

    Returns:
        values of the weight's dtype, and packed indices, in the layout above.

    Raises:
        SparsityError: more than n are alive in a block, or there are fewer than m inputs.

    Example:
        >>> weight = torch.tensor([[0.0, 0.0, 3.0, 4.0, 5.0, 0.0]])
        >>> pack(weight, weight != 0, NM(2, 4))
        (tensor([[[3., 4.],
                 [5., 0.]]]), tensor([78], dtype=torch.uint8))
    """
    living = blocks(alive, pattern.m, fill=False)
    counts = living.sum(1)
    if (crowded := int((counts > pattern.n).sum())) > 0:
        raise SparsityError(
            f"{crowded} of {len(counts)} blocks of {pattern.m} weights have more than {pattern.n} alive; the fullest has "
            f"{int(counts.max())}."
        )
    # The living first, by index, then the dead, by index: the numbers differ, so that no order of ties matters.
    rank = _rising(pattern.m, living) + pattern.m * ~living
    indices = (rank.topk(pattern.n, dim=1, largest=False).values % pattern.m).sort(dim=1).values.long()
    values = blocks(weight, pattern.m).gather(1, indices).masked_fill(~living.gather(1, indices), 0)
    return values.view(slots(weight.shape, pattern)), pack_bits(indices, index_bits(pattern.m))


def unpack(values: Tensor, packed: Tensor, shape: torch.Size, m: int) -> Tensor:
    """Give the weight of so many inputs that was packed; dead weights are +0.0.

    Example:
        >>> unpack(torch.tensor([[[3.0, 4.0], [5.0, 0.0]]]), torch.tensor([78], dtype=torch.uint8), torch.Size([1, 6]), 4)
        tensor([[0., 0., 3., 4., 5., 0.]])
    """
    n = values.shape[-1]
    indices = unpack_bits(packed, index_bits(m), values.numel()).view(-1, n).long()
    return unblocks(values.new_zeros(len(indices), m).scatter_(1, indices, values.reshape(-1, n)), shape)


def slots(shape: torch.Size, pattern: NM) -> torch.Size:
    """Give the shape of the values of a packed weight.

    Example:
        >>> slots(torch.Size([8, 6, 3, 3]), NM(2, 4))
        torch.Size([8, 3, 3, 2, 2])
    """
    out, inputs, *kernel = shape
    return torch.Size((out, *kernel, -(-inputs // pattern.m), pattern.n))


def fault(values: Tensor, packed: Tensor, shape: torch.Size, pattern: NM) -> str | None:
    """Say why these are no packed weight of that shape; None if they are one.

    Example:
        >>> fault(torch.ones(1, 1, 2), torch.tensor([1], dtype=torch.uint8), torch.Size([1, 4]), NM(2, 4))
        'the indices of 1 of 1 blocks do not rise, or reach beyond 3'
    """
    m = pattern.m
    if not 2 <= len(shape) <= 5 or min(shape) < 1 or shape[1] < m:
        return f"the shape {tuple(shape)} is that of no weight with {m} or more inputs"
    if not values.is_floating_point() or values.shape != slots(shape, pattern):
        return f"the values are {values.dtype} of shape {tuple(values.shape)}, not floats of shape {tuple(slots(shape, pattern))}"
    bits = index_bits(m)
    size = -(-values.numel() * bits // BYTE)
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (size,):
        return f"the indices are {packed.dtype} of shape {tuple(packed.shape)}, not torch.uint8 of shape {(size,)}"
    indices = unpack_bits(packed, bits, values.numel()).view_as(values)
    if not torch.equal(pack_bits(indices, bits), packed):
        return "bits behind the last index are set"
    wrong = (indices >= m).any(-1) | (indices[..., 1:] <= indices[..., :-1]).any(-1)
    if bool(wrong.any()):
        return f"the indices of {int(wrong.sum())} of {wrong.numel()} blocks do not rise, or reach beyond {m - 1}"
    behind = indices[..., -1, :] >= 1 + (shape[1] - 1) % m
    if (lost := int((behind & (values[..., -1, :] != 0)).sum())) > 0:
        return f"{lost} values lie behind the last of {shape[1]} inputs"
    return None


def _rising(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=torch.uint8, device=like.device)
