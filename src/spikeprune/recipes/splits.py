"""The data of a run, as the network takes it: training, validation and test part, on the device.

Images are floats from the start. Frames of events stay in the smallest type that holds them exactly, and become floats,
time first, batch by batch.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.data import DataSet, EventSet, Frames, Framing, Images, augment, holdout, load, load_events
from spikeprune.data.find import places
from spikeprune.recipes.tables import Data

AUGMENT: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "auto_augment": augment.auto_augment,
    "crop": augment.crop,
    "flip": augment.flip,
    "cutout": augment.cutout,
    "flip_frames": augment.flip_frames,
    "roll_frames": augment.roll_frames,
}


@dataclass(frozen=True)
class Part:
    """Samples and labels on the device.

    Attributes:
        x: images (N, C, H, W) as the network takes them; or frames (N, T, C, H, W), in float32, float16 or uint8.
        y: labels (N,).
        augment: what `augmented` does to a batch, by name and in order.
        scale: mean and deviation that images were normalized by, each (C, 1, 1); None for pixels in [0, 1].

    Example:
        >>> part = Part(torch.zeros(5, 3, 2, 8, 8, dtype=torch.uint8), torch.arange(5))
        >>> [tuple(x.shape) for x, _ in part.batches(3)]
        [(3, 3, 2, 8, 8), (3, 2, 2, 8, 8)]
    """

    x: Tensor
    y: Tensor
    augment: tuple[str, ...] = ()
    scale: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, images: Images, device: torch.device) -> "Part":
        """Scale pixels to [0, 1]."""
        return cls((images.x.float() / 255).to(device), images.y.to(device))

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) in the given order, the last batch smaller; in their own order without one; frames as (T, N, C, H, W)."""
        order = torch.arange(len(self.y)) if order is None else order
        for pick in torch.split(order.to(self.y.device), size):
            x = self.x[pick]
            yield (x.transpose(0, 1).contiguous().float() if x.dim() == 5 else x), self.y[pick]

    def augmented(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Change a training batch at random, as the recipe has it."""
        for name in self.augment:
            batch = self._on_pixels(batch, generator) if name == "auto_augment" else AUGMENT[name](batch, generator)
        return batch

    def _on_pixels(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """AutoAugment works on pixels in [0, 1]; the others set what is black or mean to zero, as the network sees it."""
        mean, deviation = self.scale or (0.0, 1.0)
        pixels = (batch * deviation + mean).clamp(0, 1)
        return (augment.auto_augment(pixels, generator) - mean) / deviation


@dataclass(frozen=True)
class Splits:
    """Training, validation and test part of a data set. Every choice is made on validation; test is for the end."""

    train: Part
    validation: Part
    test: Part

    @classmethod
    def of(cls, found: DataSet, validation: int, device: torch.device) -> "Splits":
        """Hold out `validation` images; the same ones for every seed of a run, so that runs compare."""
        train, held = holdout(found.train, validation, seed=0)
        return cls(Part.of(train, device), Part.of(held, device), Part.of(found.test, device))

    @classmethod
    def of_frames(cls, train: Frames, test: Frames, validation: int, device: torch.device) -> "Splits":
        """Hold out `validation` recordings of the training part, as `of` does images."""
        rest, held = holdout(Images(torch.arange(len(train)), train.y), validation, seed=0)
        parts = [(train.x[rest.x], rest.y), (train.x[held.x], held.y), (test.x, test.y)]
        return cls(*(Part(compact(x).to(device), y.to(device)) for x, y in parts))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Splits":
        """Change the samples of all parts."""
        return Splits(*(replace(part, x=change(part.x)) for part in (self.train, self.validation, self.test)))


def opened(table: Data, timesteps: int, device: torch.device) -> tuple[DataSet | EventSet, Splits]:
    """Load a recipe's data: images, or events as frames, which are cached.

    Args:
        table: the recipe's `[data]`.
        timesteps: T, the frames of a recording.
        device: where the samples go.

    Raises:
        DataError, StorageError: the data set is missing or wrong, or its frames cannot be cached.
    """
    found: DataSet | EventSet
    scale = None
    if table.events:
        found = load_events(table.name)
        framing, cache = Framing(timesteps, table.by or "count", table.side), places(table.name)[-1] / "frames"
        train, test = (found.frames(part, framing, cache=cache) for part in ("train", "test"))
        splits = Splits.of_frames(train, test, table.validation, device)
    else:
        found = load(table.name)
        splits = Splits.of(found, table.validation, device).map(lambda x: F.pad(x, [table.pad] * 4))
        if table.normalize == "channel":
            mean, deviation = scale = statistics(splits.train.x)
            splits = splits.map(lambda x: (x - mean) / deviation)
    augmented = replace(splits.train, augment=tuple(table.augment), scale=scale)
    return found, Splits(augmented, splits.validation, splits.test)


def compact(x: Tensor) -> Tensor:
    """Keep counts in the smallest of uint8, float16 and float32 that holds them exactly.

    Example:
        >>> [compact(torch.tensor([value])).dtype for value in (255.0, 256.0, 0.1)]
        [torch.uint8, torch.float16, torch.float32]
    """
    for kind in (torch.uint8, torch.float16):
        # A float beyond uint8 has no defined uint8.
        if (kind is torch.float16 or 0 <= float(x.min()) <= float(x.max()) <= 255) and torch.equal(x.to(kind).to(x.dtype), x):
            return x.to(kind)
    return x


def statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and standard deviation of each channel of images (N, C, H, W), each as (C, 1, 1); 1 where all pixels are equal.

    Example:
        >>> mean, deviation = statistics(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
        >>> mean.item(), deviation.item()
        (0.5, 0.5)
    """
    # One channel at a time: a copy of all pixels in float64 would be large.
    channels = [images[:, i].double() for i in range(images.shape[1])]
    mean = torch.stack([channel.mean() for channel in channels]).view(-1, 1, 1)
    deviation = torch.stack([channel.std(correction=0) for channel in channels]).view(-1, 1, 1)
    return mean.float(), torch.where(deviation > 0, deviation, 1.0).float()
