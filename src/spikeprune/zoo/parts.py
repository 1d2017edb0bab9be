"""What the deep networks are made of.

Time is folded into the batch for all that has no memory: (T, N, ...) goes through convolutions, norms and pools as
(T * N, ...), and is a sequence again for the neurons. A norm's statistics are therefore over timesteps as well.
"""

import math
from collections.abc import Mapping
from typing import Literal, final

import torch
from torch import Tensor, nn

from spikeprune.errors import MissingExtra, RecipeError
from spikeprune.zoo.names import unknown

try:
    from spikingjelly.activation_based.base import MemoryModule
    from spikingjelly.activation_based.layer import Dropout
except ImportError as error:
    raise MissingExtra.of("spikingjelly", "spikingjelly", "the deep networks") from error

Image = tuple[int, int, int]
Coding = Literal["direct", "poisson", "events"]
CODINGS = ("direct", "poisson", "events")
Norm = Literal["batch", "gain", "none"]
NORMS = ("batch", "gain", "none")


class Block(nn.Module):
    """A part of several layers and neurons, which takes (T, N, ...) and folds time itself."""


class SpikingNet(nn.Module):
    """Named parts in a row, run over all timesteps from rest; the output is the mean of the last part's over time.

    Codings:

    - direct: an image (N, C, H, W) is the constant current of the first layer, which is computed once for all timesteps.
    - poisson: an image (N, C, H, W) of pixels in [-1, 1] becomes spikes, drawn anew at each timestep from torch's random state:
      a pixel fires with the probability of its size, and its spike has its sign.
    - events: frames (T, N, C, H, W), time first, are taken as they are.

    Attributes:
        image: channels, height and width of what it is given.
        timesteps: T.
        coding: of the input.

    Example:
        >>> from spikeprune.zoo import Neuron
        >>> parts = {"flat": nn.Flatten(), "fc": nn.Linear(4, 2), "neuron": Neuron("if").build()}
        >>> net = SpikingNet(parts, image=(1, 2, 2), timesteps=3, coding="direct")
        >>> net(torch.rand(5, 1, 2, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(self, parts: Mapping[str, nn.Module], *, image: Image, timesteps: int, coding: Coding) -> None:
        super().__init__()
        if coding not in CODINGS:
            raise RecipeError(unknown("coding", coding, CODINGS))
        if timesteps < 1 or timesteps != int(timesteps):
            raise RecipeError(f"a spiking network needs one timestep or more, a whole number; got T = {timesteps}.")
        if not any(isinstance(part, MemoryModule | Block) for part in parts.values()):
            raise RecipeError(f"a spiking network needs a neuron among its parts; got {', '.join(parts)}.")
        self.image, self.timesteps, self.coding = tuple(image), timesteps, coding
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, batch: Tensor) -> Tensor:
        """Run all timesteps from rest; a batch as the coding has it to (N, classes), the mean of `over_time`."""
        return self.over_time(batch).mean(0)

    def over_time(self, batch: Tensor) -> Tensor:
        """Run all timesteps from rest; a batch as the coding has it to each timestep's output (T, N, classes)."""
        for module in self.modules():
            if isinstance(module, MemoryModule):
                module.reset()
        x = self._encode(batch)
        once = self.coding == "direct"
        for part in self.children():
            sequence = isinstance(part, MemoryModule | Block)
            if once and sequence:
                x, once = x.expand(self.timesteps, *x.shape), False
            x = part(x) if once or sequence else folded(x, part)
        return x

    def _encode(self, batch: Tensor) -> Tensor:
        lead = 2 if self.coding == "events" else 1
        wrong_steps = self.coding == "events" and batch.shape[:1] != (self.timesteps,)
        if batch.dim() != lead + 3 or tuple(batch.shape[lead:]) != self.image or wrong_steps:
            c, h, w = self.image
            wanted = f"(T = {self.timesteps}, N, {c}, {h}, {w})" if lead == 2 else f"(N, {c}, {h}, {w})"
            raise RecipeError(
                f"the network takes {wanted} under {self.coding} coding, but was given {tuple(batch.shape)}. Resize or transpose the "
                "data, or build the network with image=(channels, height, width) and timesteps to fit."
            )
        if self.coding != "poisson":
            return batch
        if (top := float(batch.abs().max())) > 1:
            raise RecipeError(
                f"poisson coding takes pixels in [-1, 1], as probabilities; this batch reaches {top:.4g}. Scale it."
            )
        odds = batch.abs().expand(self.timesteps, *batch.shape)
        return torch.bernoulli(odds) * batch.sign()


def folded(x: Tensor, *modules: nn.Module) -> Tensor:
    """Run modules that have no memory on all timesteps at once: (T, N, ...) as (T * N, ...), and back.

    Example:
        >>> folded(torch.ones(3, 2, 4), nn.Linear(4, 5)).shape
        torch.Size([3, 2, 5])
    """
    y = x.flatten(0, 1)
    for module in modules:
        y = module(y)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def conv(c_in: int, c_out: int, *, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    """Make a padded convolution without bias, drawn from a normal distribution of variance 2 / (kernel^2 c_out)."""
    layer = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def linear(n_in: int, n_out: int) -> nn.Linear:
    """Make a linear layer without bias that feeds neurons, drawn from a normal distribution of variance 2 / n_out."""
    layer = nn.Linear(n_in, n_out, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def dropout(share: float) -> nn.Module:
    """Make a dropout over (T, N, ...), whose mask is anew in each pass and one for all its timesteps."""
    if not 0 <= share < 1:
        raise RecipeError(f"dropout is {share}, but is a share of what a neuron gives, so it must lie in [0, 1).")
    layer: nn.Module = Dropout(share, step_mode="m")
    return layer


def norm(channels: int, scale: float = 1.0) -> nn.BatchNorm2d:
    """Make a batch norm over timesteps and batch whose gain starts at `scale`: tdBN's is alpha * threshold."""
    layer = nn.BatchNorm2d(channels)
    nn.init.constant_(layer.weight, scale)
    return layer


@final
class Gain(nn.Module):
    """One trainable gain for a whole layer, above zero: y = x exp(log_gain). A gain g is a threshold of 1 / g.

    Example:
        >>> gain = Gain()
        >>> gain.scale_(0.5)
        >>> gain(torch.tensor(3.0)).item()
        1.5
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the gain; any shape."""
        return x * self.log_gain.exp()

    def scale_(self, factor: float) -> None:
        """Multiply the gain, and so the output, by a factor above zero."""
        with torch.no_grad():
            self.log_gain.add_(math.log(factor))


def widened(channels: int, width: float) -> int:
    """Multiply a layer's channels by the width; one stays.

    Example:
        >>> widened(64, 0.25), widened(2, 0.1)
        (16, 1)
    """
    if not 0 < width < math.inf:
        raise RecipeError(f"width is {width}, but multiplies the channels, so it must be a number above 0.")
    return max(1, round(channels * width))


def check(image: Image, classes: int, *, halvings: int = 0) -> None:
    """Refuse an image that is none, or too small to be halved so often, and a network without outputs."""
    if len(image) != 3 or min(image) < 1:
        raise RecipeError(f"image must be (channels, height, width), each 1 or more; got {tuple(image)}.")
    if min(image[1:]) < (least := 2**halvings):
        raise RecipeError(
            f"the network pools {halvings} times and needs images of {least}x{least} or more; got {image[1]}x{image[2]}. Pad or enlarge them."
        )
    if classes < 1:
        raise RecipeError(f"a network needs one class or more; got {classes}.")
