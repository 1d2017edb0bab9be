"""A simulated stand-in for CIFAR10-DVS, made from CIFAR-10 where the recordings are not at hand. It is not CIFAR10-DVS.

Li, Liu, Ji, Li, Shi. CIFAR10-DVS: An Event-Stream Dataset for Object Classification. Frontiers in Neuroscience 11:309
(2017), doi:10.3389/fnins.2017.00309

Reading of the paper
  stated    images are upscaled by bicubic interpolation to 512 x 512 on a monitor, and move along a closed loop that is
            repeated; a DVS of 128 x 128 pixels watches.
  inferred  the loop is a diamond of four 45 degree paths, 10 monitor pixels along each axis in 50 ms each, six times
            over (reported by others who rebuilt the recording): 2.5 pixels of the sensor, if the image fills it.
  differs   the image is scaled straight to 128 x 128 and is grey; beyond its border it goes on as it ends; a pixel is an
            ideal threshold on the logarithm of the light: no noise, no dead time, no spread of thresholds, no flicker
            of the monitor. Which images: the first 900 training and the first 100 test images of each class.

Accuracies on it say nothing about accuracies on the recordings.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.data.event_set import EventSet, Recording
from spikeprune.data.event_sources import SIMULATED
from spikeprune.data.events import Events
from spikeprune.data.images import DataSet, Images

SIDE = 128
TRAIN, TEST = 900, 100

_LUMINANCE = (0.299, 0.587, 0.114)
_GAMMA, _STRAY_LIGHT = 2.2, 0.02


@dataclass(frozen=True)
class ClosedLoop:
    """Moves an image along a diamond, over and over, and returns the events of an ideal sensor that watches.

    Args:
        threshold: change of the natural logarithm of the light that makes an event.
        loops: how often the loop is run through.
        steps: steps of a loop between which the light is linear in time; a multiple of 4 meets the corners.
        duration: microseconds a loop.
        reach: sensor pixels that a side of the diamond spans along either axis.

    Example:
        >>> edge = torch.zeros(3, 32, 32, dtype=torch.uint8)
        >>> edge[:, :, 16:] = 255
        >>> events = ClosedLoop(loops=1)(edge)
        >>> bool((events.x > 50).all() and (events.x < 80).all()), events.t[-1].item() <= 200_000
        (True, True)
    """

    threshold: float = 0.2
    loops: int = 6
    steps: int = 40
    duration: int = 200_000
    reach: float = 2.5

    def __call__(self, image: Tensor) -> Events:
        """Return the events of one image, uint8 (3, H, W), on 128 x 128 pixels."""
        light = self._light(image)
        level, found = light[0].clone(), []
        for step in range(self.loops * self.steps):
            before, after = light[step % self.steps], light[step % self.steps + 1]
            change = ((after - level) / self.threshold).trunc()
            found.append(self._crossings(step, level, before, after, change))
            level += change * self.threshold
        t, pixel, p = torch.cat(found, dim=1)
        return Events(t, pixel % SIDE, pixel // SIDE, p)

    def _light(self, image: Tensor) -> Tensor:
        """Logarithm of the light at every pixel, at every step of a loop and back at its start: (steps + 1, H * W)."""
        grey = (image.double() / 255 * torch.tensor(_LUMINANCE, dtype=torch.float64).view(3, 1, 1)).sum(0)
        large = F.interpolate(grey[None, None], size=(SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
        corners = torch.tensor([[0, 0], [1, -1], [2, 0], [1, 1], [0, 0]], dtype=torch.float64) * self.reach
        side = torch.linspace(0, 4, self.steps + 1, dtype=torch.float64)
        first = side.long().clamp_max(3)
        shift = corners[first] + (side - first).unsqueeze(1) * (corners[first + 1] - corners[first])
        axis = torch.arange(SIDE, dtype=torch.float64)
        columns, rows = ((2 * (axis - shift[:, [along]]) + 1) / SIDE - 1 for along in (0, 1))
        shape = (self.steps + 1, SIDE, SIDE)
        grid = torch.stack([columns.unsqueeze(1).expand(shape), rows.unsqueeze(2).expand(shape)], dim=-1)
        moved = F.grid_sample(large.expand(len(grid), -1, -1, -1), grid, padding_mode="border", align_corners=False)
        return (moved.pow(_GAMMA) + _STRAY_LIGHT).log().flatten(1)

    def _crossings(self, step: int, level: Tensor, before: Tensor, after: Tensor, change: Tensor) -> Tensor:
        """Time, pixel and polarity (3, E) of one step's events, in the order of time, each when its level is crossed."""
        count = change.abs().long()
        pixel = torch.arange(count.numel()).repeat_interleave(count)
        number = torch.arange(1, len(pixel) + 1) - (count.cumsum(0) - count)[pixel]
        crossed = level[pixel] + change[pixel].sign() * number * self.threshold
        part = ((crossed - before[pixel]) / (after - before)[pixel]).clamp(0, 1)
        start, end = (self.duration * at // self.steps for at in (step, step + 1))
        t = start + (part * (end - start)).long()
        order = t.argsort(stable=True)
        return torch.stack([t, pixel, (change[pixel] > 0).long()])[:, order]


def cifar10_dvs_sim(images: DataSet, simulation: ClosedLoop = ClosedLoop()) -> EventSet:
    """Return the simulated set; each recording is simulated when it is read, a tenth of a second of one core.

    Args:
        images: CIFAR-10.
        simulation: how an image becomes events.
    """
    train, test = (
        _recordings(part, name, count, images.classes, simulation)
        for part, name, count in ((images.train, "train", TRAIN), (images.test, "test", TEST))
    )
    source = f"simulated, not recorded: {simulation} on {images.name} of {images.source}"
    return EventSet(SIMULATED, images.classes, (SIDE, SIDE), train, test, source, images.licence)


def _recordings(images: Images, name: str, count: int, classes: int, simulation: ClosedLoop) -> tuple[Recording, ...]:
    """The first `count` images of each class, class after class."""
    chosen = torch.cat([(images.y == label).nonzero().flatten()[:count] for label in range(classes)])
    # A copy of what is used, so that the rest can go.
    x, y = images.x[chosen], images.y[chosen].tolist()
    return tuple(
        Recording(f"simulated/{name}/{index:05d}", label, partial(simulation, x[at]))
        for at, (index, label) in enumerate(zip(chosen.tolist(), y, strict=True))
    )
