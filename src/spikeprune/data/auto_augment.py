"""AutoAugment: the policy that was learned on CIFAR-10, each image its own draw of one of 25 pairs of operations.

Cubuk, Zoph, Mane, Vasudevan, Le. AutoAugment: Learning Augmentation Strategies from Data. CVPR 2019. arXiv:1805.09501

Reading of the paper
  stated    25 sub-policies of two operations, each with a probability and a magnitude (appendix); one is drawn for each
            image, and its operations are applied in order. Magnitudes are ten steps through the range of the operation.
  inferred  what a magnitude is in numbers: from the authors' code for CIFAR-10 (tensorflow/models, research/autoaugment,
            augmentation_transforms.py). Magnitude m shears by 0.03 m, shifts by m pixels of 32, turns by 3 m degrees, each
            with a random sign; enhances by 0.1 + 0.18 m; inverts from byte 256 - 25.6 m up; keeps 4 - 0.4 m bits, where
            the paper's table has 4 to 8. Numbers that must be whole are cut off. Other sizes shift in proportion.
  differs   pixels that come from outside are grey, `fill`. The authors' are transparent: in the end the mean of the data,
            (125, 123, 114), which that grey is near, but black once an operation on bytes follows.
            The authors flip, crop and cut out beside it; `augment` has these as functions of their own.

The operations themselves are Pillow's to the byte (pixels.py), nearest pixels included. Other implementations take other
numbers: torchvision and many papers with spiking networks enhance by 1 +- 0.1 m and turn by 3.3 m degrees, so that their
accuracies are not those of this policy. kornia draws one sub-policy a batch, from the global generator, which is why it
is not used here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from spikeprune.data import pixels
from spikeprune.errors import DataError

Step = tuple[str, float, int]
"""An operation, its probability and its magnitude, 0 to 9; one that has no magnitude ignores it."""

CIFAR10_POLICY: tuple[tuple[Step, Step], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)


def auto_augment(x: Tensor, generator: torch.Generator, fill: int = 128) -> Tensor:
    """Apply AutoAugment's policy for CIFAR-10 to each image (N, C, H, W), with 1 or 3 channels.

    Pixels are bytes, or floats in 0..1, which are rounded to bytes on their way: it goes before any normalization. Every
    image takes five draws whatever comes of them, so that none shifts the draws of another.

    Args:
        x: images, uint8, or floating point in 0..1.
        generator: draws sub-policies, whether an operation is applied, and signs.
        fill: the byte of pixels that come from outside the image.

    Raises:
        DataError: not a batch of grey or coloured images, another dtype, floats outside 0..1, or `fill` no byte.

    Example:
        >>> x = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
        >>> y = auto_augment(x, torch.Generator().manual_seed(0))
        >>> y.shape, y.dtype
        (torch.Size([4, 3, 32, 32]), torch.uint8)
    """
    pixels.require_images(x)
    if not 0 <= fill <= 255:
        raise DataError(f"cannot fill pixels with {fill}; choose a byte, 0 to 255.")
    drawn = torch.randint(len(CIFAR10_POLICY), (len(x),), generator=generator, device=x.device)
    coins = torch.rand(2, len(x), generator=generator, device=x.device)
    signs = torch.randint(2, (2, len(x)), generator=generator, device=x.device) * 2 - 1
    done = _bytes(x)
    for step in range(2):
        kinds, probabilities, magnitudes = (column.to(x.device)[drawn] for column in _columns(step))
        applied = coins[step] < probabilities
        for kind, operation in enumerate(OPERATIONS.values()):
            rows = (applied & (kinds == kind)).nonzero().flatten()
            if len(rows):
                done[rows] = operation(done[rows], Strength(magnitudes[rows], signs[step, rows], fill))
    return done if x.dtype == torch.uint8 else done.to(x.dtype) / 255


@dataclass(frozen=True, eq=False)
class Strength:
    """How strongly an operation is applied to each image.

    Args:
        magnitude: int64 (N,), 0 to 9.
        sign: int64 (N,), 1 or -1, for operations that go both ways.
        fill: the byte of pixels that come from outside the image.
    """

    magnitude: Tensor
    sign: Tensor
    fill: int

    def part(self, most: float) -> Tensor:
        """`most` times the magnitude over 10, float64 (N,)."""
        return self.magnitude.double() * most / 10

    def whole(self, most: int, over: int = 10) -> Tensor:
        """`most` times the magnitude over `over`, int64 (N,), cut off."""
        return self.magnitude * most // over


def _shear(x: Tensor, strength: Strength, along: int) -> Tensor:
    matrix = _identity(x)
    matrix[:, along, 1 - along] = strength.sign * strength.part(0.3)
    return pixels.affine(x, matrix, strength.fill)


def _translate(x: Tensor, strength: Strength, along: int) -> Tensor:
    matrix = _identity(x)
    matrix[:, along, 2] = (strength.sign * strength.whole(x.shape[-1 - along], over=32)).double()
    return pixels.affine(x, matrix, strength.fill)


def _rotate(x: Tensor, strength: Strength) -> Tensor:
    degrees = (strength.sign * strength.whole(30)).double()
    return pixels.affine(x, pixels.rotated(degrees, *x.shape[-2:]), strength.fill)


def _identity(x: Tensor) -> Tensor:
    return torch.eye(2, 3, dtype=torch.float64, device=x.device).repeat(len(x), 1, 1)


def _factor(strength: Strength) -> Tensor:
    return strength.part(1.8) + 0.1


Operation = Callable[[Tensor, Strength], Tensor]
OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "shear_y": lambda x, strength: _shear(x, strength, along=1),
        "translate_x": lambda x, strength: _translate(x, strength, along=0),
        "translate_y": lambda x, strength: _translate(x, strength, along=1),
        "rotate": _rotate,
        "autocontrast": lambda x, strength: pixels.autocontrast(x),
        "invert": lambda x, strength: pixels.invert(x),
        "equalize": lambda x, strength: pixels.equalize(x),
        "solarize": lambda x, strength: pixels.solarize(x, 256 - strength.whole(256)),
        "posterize": lambda x, strength: pixels.posterize(x, 4 - strength.whole(4)),
        "contrast": lambda x, strength: pixels.contrast(x, _factor(strength)),
        "color": lambda x, strength: pixels.color(x, _factor(strength)),
        "brightness": lambda x, strength: pixels.brightness(x, _factor(strength)),
        "sharpness": lambda x, strength: pixels.sharpness(x, _factor(strength)),
    }
)


def _columns(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Operation, probability and magnitude of each sub-policy at `step`, (25,) each."""
    kinds = {name: kind for kind, name in enumerate(OPERATIONS)}
    steps = [pair[step] for pair in CIFAR10_POLICY]
    columns = zip(*((kinds[name], probability, magnitude) for name, probability, magnitude in steps), strict=True)
    kind, probability, magnitude = (torch.tensor(column) for column in columns)
    return kind, probability, magnitude


def _bytes(x: Tensor) -> Tensor:
    """A copy as uint8."""
    if x.dtype == torch.uint8:
        return x.clone()
    if not x.is_floating_point():
        raise DataError(f"AutoAugment needs pixels as uint8 or as floats in 0..1, here they are {x.dtype}.")
    outside = ~((x >= 0) & (x <= 1))
    if outside.any():
        raise DataError(
            f"AutoAugment needs floats in 0..1, here {int(outside.sum()):,} of {x.numel():,} pixels are not, the first is "
            f"{x[outside][0].item():g}. Augment first and normalize after."
        )
    return (x.float() * 255).round().to(torch.uint8)
