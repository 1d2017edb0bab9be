"""Augmentation of a batch, drawn from the generator it is given: each image its own draw, all at once.

Every function takes a batch and a generator on the batch's device, and returns a new batch of the same shape and dtype;
the one it was given is left alone. Masks, sums and labels are the caller's: none of these changes a class.

`auto_augment` lies in a file of its own, beside the operations on bytes that its policy is stated in.
"""

import torch
from torch import Tensor

from spikeprune.data.auto_augment import auto_augment as auto_augment
from spikeprune.errors import DataError


def crop(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Pad each image (N, C, H, W) by zeros on all sides and cut H x W out of it at a random place.

    Raises:
        DataError: not a batch of images, or a negative padding.

    Example:
        >>> x = torch.ones(2, 3, 8, 8, dtype=torch.uint8)
        >>> crop(x, torch.Generator().manual_seed(0), padding=0).equal(x)
        True
    """
    _require(x, 4, "(N, C, H, W)")
    if padding < 0:
        raise DataError(f"cannot crop with a padding of {padding} pixels; choose 0 or more.")
    shifts = torch.randint(-padding, padding + 1, (2, len(x)), generator=generator, device=x.device)
    return _moved(x, shifts[0], shifts[1])


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image (N, C, H, W), left to right, with probability one half.

    Raises:
        DataError: not a batch of images.

    Example:
        >>> x = torch.arange(4).view(2, 1, 1, 2)
        >>> sorted(flip(x, torch.Generator().manual_seed(0)).flatten().tolist())
        [0, 1, 2, 3]
    """
    _require(x, 4, "(N, C, H, W)")
    return torch.where(_coins(len(x), generator, x).view(-1, 1, 1, 1), x.flip(-1), x)


def cutout(x: Tensor, generator: torch.Generator, side: int = 16) -> Tensor:
    """Set a square of `side` pixels of each image (N, C, H, W) to zero, in all channels.

    Its centre is drawn from all pixels, so that it may reach over the border. On normalized pixels zero is the mean;
    on raw ones it is black. DeVries and Taylor, arXiv:1708.04552; 16 is their side for CIFAR-10, 8 for CIFAR-100.

    Raises:
        DataError: not a batch of images, or a side below 1.

    Example:
        >>> x = torch.ones(1, 3, 8, 8)
        >>> cutout(x, torch.Generator().manual_seed(0), side=1).sum().item()
        189.0
    """
    _require(x, 4, "(N, C, H, W)")
    if side < 1:
        raise DataError(f"cannot cut out a square of {side} pixels; choose a side of at least 1.")
    inside = []
    for length in x.shape[2:]:
        first = torch.randint(length, (len(x), 1), generator=generator, device=x.device) - side // 2
        at = torch.arange(length, device=x.device)
        inside.append((at >= first) & (at < first + side))
    square = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    return x.masked_fill(square.unsqueeze(1), 0)


def flip_frames(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each recording (T, N, C, H, W), left to right, with probability one half, alike in all timesteps.

    It changes the class of left and right gestures: leave it out for DVS128 Gesture.

    Raises:
        DataError: not a batch of frames.

    Example:
        >>> x = torch.arange(4.0).view(2, 1, 1, 1, 2)
        >>> flip_frames(x, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 1, 1, 2])
    """
    _require(x, 5, "(T, N, C, H, W)")
    return torch.where(_coins(x.shape[1], generator, x).view(1, -1, 1, 1, 1), x.flip(-1), x)


def roll_frames(x: Tensor, generator: torch.Generator, reach: int = 5) -> Tensor:
    """Shift each recording (T, N, C, H, W) by up to `reach` pixels down and right, alike in all timesteps.

    What leaves on one side comes back on the other, as in torch.roll, which is what the literature on CIFAR10-DVS does.

    Raises:
        DataError: not a batch of frames, or a negative reach.

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 1, 2, 2)
        >>> sorted(roll_frames(x, torch.Generator().manual_seed(0), reach=1).flatten().tolist())
        [0.0, 1.0, 2.0, 3.0]
    """
    _require(x, 5, "(T, N, C, H, W)")
    if reach < 0:
        raise DataError(f"cannot roll by up to {reach} pixels; choose 0 or more.")
    down, right = torch.randint(-reach, reach + 1, (2, x.shape[1]), generator=generator, device=x.device)
    rows, columns = _sources(x, down) % x.shape[-2], _sources(x.transpose(-1, -2), right) % x.shape[-1]
    each = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1)
    # Indices apart come first in the result: (N, H, W, T, C).
    return x[:, each, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(3, 0, 4, 1, 2).contiguous()


def _moved(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images (N, C, H, W) shifted by their own (N,) pixels, zeros coming in."""
    rows, columns = _sources(x, down), _sources(x.transpose(-1, -2), right)
    known = ((rows >= 0) & (rows < x.shape[-2])).unsqueeze(2) & ((columns >= 0) & (columns < x.shape[-1])).unsqueeze(1)
    rows, columns = rows.clamp(0, x.shape[-2] - 1), columns.clamp(0, x.shape[-1] - 1)
    each = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    # Indices apart come first in the result: (N, H, W, C).
    moved = x[each, :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
    return moved.masked_fill(~known.unsqueeze(1), 0).contiguous()


def _sources(x: Tensor, shift: Tensor) -> Tensor:
    """Which row each row of the result comes from: (N, H)."""
    return torch.arange(x.shape[-2], device=x.device) - shift.unsqueeze(1)


def _coins(count: int, generator: torch.Generator, x: Tensor) -> Tensor:
    return torch.randint(2, (count,), generator=generator, device=x.device).bool()


def _require(x: Tensor, dims: int, layout: str) -> None:
    if x.dim() != dims:
        raise DataError(f"augmentation needs a batch {layout}, here the shape is {tuple(x.shape)}.")
