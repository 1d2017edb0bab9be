"""What a data set is to us: images and labels as tensors, and a way to set some of them aside."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeprune.errors import DataError


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels, in the order in which they were published.

    Args:
        x: pixels, uint8 in 0..255 (N, C, H, W); C is 1 for grey, 3 for red, green, blue.
        y: classes, int64 (N,).

    Example:
        >>> len(Images(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 1])))
        3
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A training and a test part, with where they came from and on what terms.

    Args:
        name: the name it was loaded by.
        classes: how many classes there are; labels lie in 0..classes - 1.
        train: the published training part.
        test: the published test part.
        source: the folder it was read from (several are joined by ", "), or "package" for an embedded one.
        licence: the terms it comes under, in one line.

    Example:
        >>> from spikeprune.data import load
        >>> load("fashion-sample").source
        'package'
    """

    name: str
    classes: int
    train: Images
    test: Images
    source: str
    licence: str


def holdout(images: Images, size: int, seed: int) -> tuple[Images, Images]:
    """Split off `size` images, stratified by class, and return (the rest, the held-out part).

    Each class gives its share `size * count / len(images)`, rounded so that the total is exact: the largest remainders
    are rounded up, ties going to the lower class. Both parts keep the order of `images`. The draw comes from a
    generator of its own, so the same seed gives the same split and the process's generator is left alone.

    Raises:
        DataError: `size` is not between 1 and len(images) - 1.

    Example:
        >>> images = Images(torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0, 1]))
        >>> train, validation = holdout(images, 2, seed=0)
        >>> sorted(validation.y.tolist()), len(train)
        ([0, 1], 4)
    """
    if not 0 < size < len(images):
        raise DataError(
            f"cannot hold out {size} of {len(images)} images: both parts need at least one. "
            f"Choose a size between 1 and {len(images) - 1}."
        )
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(images), dtype=torch.bool)
    for label, share in enumerate(_shares(images.y, size)):
        members = (images.y == label).nonzero().flatten()
        held[members[torch.randperm(len(members), generator=generator)[:share]]] = True
    return Images(images.x[~held], images.y[~held]), Images(images.x[held], images.y[held])


def _shares(y: Tensor, size: int) -> list[int]:
    """How many of each class to hold out, so that they sum to `size`; integers throughout, so nothing drifts."""
    whole = [divmod(size * count, len(y)) for count in y.bincount().tolist()]
    missing = size - sum(share for share, _ in whole)
    rounded_up = sorted(range(len(whole)), key=lambda label: (-whole[label][1], label))[:missing]
    return [share + (label in rounded_up) for label, (share, _) in enumerate(whole)]
