"""What networks are trained and measured on: published data as each kind of network takes it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.bench.networks import TIMESTEPS, Kind
from spikeprune.data import Framing, load, load_events

BRIGHT = 0.42
"""The odds that a white pixel fires; Fashion-MNIST then fires at about 12 %."""


@dataclass(frozen=True, eq=False)
class Part:
    """Samples and labels.

    Attributes:
        x: images (N, C, H, W) in [0, 1]; or frames (N, T, C, H, W) of zeros and ones, uint8.
        y: labels (N,).
    """

    x: Tensor
    y: Tensor

    def first(self, samples: int) -> "Part":
        """Give the first samples."""
        return Part(self.x[:samples], self.y[:samples])


@dataclass(frozen=True, eq=False)
class Samples:
    """A data set for a kind of network.

    Attributes:
        data: its name.
        train: to learn from.
        test: to measure on, once, at the end.
    """

    data: str
    train: Part
    test: Part


def samples(kind: Kind, data: str) -> Samples:
    """Load the data of a kind of network: images, or recordings of events as frames of T = 10.

    Frames of another T are made of these: neighbours are joined.
    """
    if kind == "events":
        found = load_events(data)
        framing = Framing(timesteps=TIMESTEPS["events"])
        parts = [found.frames("train", framing), found.frames("test", framing)]
        return Samples(data, *(Part((part.x > 0).byte(), part.y) for part in parts))
    images = load(data)
    pad = 2 if kind == "vgg" else 0
    return Samples(data, *(Part(F.pad(part.x, [pad] * 4).float() / 255, part.y) for part in (images.train, images.test)))


def fed(kind: Kind, x: Tensor, timesteps: int, generator: torch.Generator) -> Tensor:
    """Give samples as a network takes them: images as they are, drawn spikes (T, N, C, H, W), or frames of so many timesteps.

    Args:
        kind: of the network.
        x: of a `Part`.
        timesteps: T; frames are joined to so many, where a cell is one if any of its frames has one.
        generator: draws the spikes of the MLP.

    Example:
        >>> fed("mlp", torch.zeros(3, 1, 28, 28), 10, torch.Generator()).shape
        torch.Size([10, 3, 1, 28, 28])
    """
    if kind == "vgg":
        return x
    if kind == "mlp":
        odds = (x * BRIGHT).expand(timesteps, *x.shape)
        return torch.bernoulli(odds, generator=generator)
    parts = torch.stack([part.amax(1) for part in x.tensor_split(timesteps, 1)])
    return parts.float()
