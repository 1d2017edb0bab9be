"""Operations on images of bytes, each image by its own amount: what Pillow computes, to the byte, a batch at a time.

AutoAugment is stated in these operations. All take bytes, uint8 (N, C, H, W) with 1 or 3 channels, and return new ones;
an amount is one number an image, (N,). Rounding is Pillow's: integers where it has integers, float32 cut off towards zero
where it blends. The bytes are those of a CPU; elsewhere a sine or a quotient may round otherwise, and a pixel with it.
"""

import torch
from torch import Tensor

from spikeprune.errors import DataError

FIXED = 1 << 16
"""Pillow samples at coordinates of 16 binary places, so that nearest pixels are decided alike on every machine."""


def affine(x: Tensor, matrix: Tensor, fill: int = 0) -> Tensor:
    """Give each pixel (column, row) of the result the nearest pixel of `x` at `matrix` times its centre (column, row, 1).

    Args:
        x: images.
        matrix: float64 (N, 2, 3), in pixels: the rows give the source's column and row.
        fill: the byte of what comes from outside the image.

    Example:
        >>> x = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8)
        >>> affine(x, torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]], dtype=torch.float64))
        tensor([[[[2, 3, 0]]]], dtype=torch.uint8)
    """
    height, width = x.shape[-2:]
    corner = matrix[:, :, 2] + matrix[:, :, 0] * 0.5 + matrix[:, :, 1] * 0.5
    steps = torch.stack([matrix[:, :, 0], matrix[:, :, 1], corner]).mul(FIXED).add(0.5).floor().long()[..., None, None]
    rows = torch.arange(height, device=x.device).view(-1, 1)
    sources = (steps[0] * torch.arange(width, device=x.device) + steps[1] * rows + steps[2]) >> 16
    column, row = sources.unbind(1)
    known = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = torch.where(known, row * width + column, 0).flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, at).view_as(x).masked_fill(~known.unsqueeze(1), fill)


def rotated(degrees: Tensor, height: int, width: int) -> Tensor:
    """Return the matrices (N, 2, 3) that turn images by `degrees`, float64 (N,), counter-clockwise about their centre.

    Example:
        >>> rotated(torch.full((1,), 180.0, dtype=torch.float64), 8, 6)[0].long().tolist()
        [[-1, 0, 6], [0, -1, 8]]
    """
    angle = degrees.remainder(360).neg().deg2rad()
    # 15 decimals, as Pillow: the sine of 180 degrees is 0, not 1e-16.
    cos, sin = angle.cos().round(decimals=15), angle.sin().round(decimals=15)
    x, y = width / 2, height / 2
    first = torch.stack([cos, sin, cos * -x + sin * -y + x], dim=1)
    second = torch.stack([-sin, cos, -sin * -x + cos * -y + y], dim=1)
    return torch.stack([first, second], dim=1)


def invert(x: Tensor) -> Tensor:
    """Turn each byte b into 255 - b."""
    return 255 - x


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert the bytes of at least `threshold`."""
    return torch.where(x >= _each(threshold), 255 - x, x)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` of each byte, from 0 to 8."""
    return x & _each(256 - (1 << (8 - bits))).to(torch.uint8)


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel of each image to 0..255; a channel of one value stays."""
    low, high = x.flatten(2).amin(2).double(), x.flatten(2).amax(2).double()
    # A number over a tensor would be its reciprocal times the number, which rounds twice.
    scale = torch.where(high > low, torch.full_like(low, 255.0) / (high - low), 1.0)
    offset = torch.where(high > low, -low * scale, 0.0)
    stretched = x.double() * scale[..., None, None] + offset[..., None, None]
    return stretched.trunc().clamp(0, 255).to(torch.uint8)


def equalize(x: Tensor) -> Tensor:
    """Make the histogram of each channel of each image flat; a channel with too few pixels below its top stays."""
    flat = x.flatten(2).long().flatten(0, 1)
    counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=x.device).scatter_add_(1, flat, torch.ones_like(flat))
    top = counts.gather(1, flat.amax(1, keepdim=True))
    step = (counts.sum(1, keepdim=True) - top) // 255
    below = counts.cumsum(1) - counts
    table = torch.where(step > 0, (step // 2 + below) // step.clamp_min(1), torch.arange(256, device=x.device))
    return table.gather(1, flat).clamp_max(255).to(torch.uint8).view_as(x)


def color(x: Tensor, factor: Tensor) -> Tensor:
    """Move away from grey (0) past the image (1)."""
    return _blend(_grey(x).expand_as(x), x, factor)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Move away from the mean grey (0) past the image (1)."""
    mean = _grey(x).double().mean((1, 2, 3), keepdim=True).add(0.5).floor()
    return _blend(mean.expand_as(x), x, factor)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Move away from black (0) past the image (1)."""
    return _blend(torch.zeros_like(x), x, factor)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Move away from a smoothed image (0) past the image (1); smoothing weighs a pixel 5 and its 8 neighbours 1."""
    smooth = x.long()
    if min(x.shape[-2:]) > 2:
        whole = x.long()
        around = whole.unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5))
        smooth = whole.clone()
        # The nearest integer: 13 is odd, so that there are no halves. The border is left as it is.
        smooth[:, :, 1:-1, 1:-1] = (2 * (around + 4 * whole[:, :, 1:-1, 1:-1]) + 13) // 26
    return _blend(smooth, x, factor)


def require_images(x: Tensor) -> None:
    """Raise DataError unless `x` is a batch of grey or coloured images of at least one pixel."""
    if x.dim() != 4 or x.shape[1] not in (1, 3) or 0 in x.shape[2:]:
        raise DataError(
            f"augmentation needs a batch (N, C, H, W) of images with 1 or 3 channels, here the shape is {tuple(x.shape)}."
        )


def _each(amount: Tensor) -> Tensor:
    return amount.view(-1, 1, 1, 1)


def _grey(x: Tensor) -> Tensor:
    """Luma (N, 1, H, W), ITU-R 601-2 in 16 binary places."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.long().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).unsqueeze(1)


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    start = start.float()
    return (start + _each(factor.float()) * (end.float() - start)).trunc().clamp(0, 255).to(torch.uint8)
