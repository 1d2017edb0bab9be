"""From events to frames: a recording cut into T pieces, each counted pixel by pixel.

Two cuts are in use, and results differ: into pieces of equally many events, or of equally long time.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.data.events import Events
from spikeprune.errors import DataError

By = Literal["count", "time"]
Resize = Literal["area", "bilinear"]


def frames(events: Events, timesteps: int, size: tuple[int, int], by: By = "count") -> Tensor:
    """Count events per pixel and polarity in `timesteps` pieces: float32 (T, 2, H, W), channel 0 OFF, channel 1 ON.

    By count, each piece has E // T events and the last one the remaining E % T as well, as SpikingJelly's
    split_by='number' has it; with fewer events than pieces, all come in the last. By time, piece i has the events with
    floor((t - t_first) * T / (t_last - t_first + 1)) = i, so the pieces are equally long to the microsecond.

    Args:
        events: a recording of at least one event.
        timesteps: how many pieces, T.
        size: height and width of the sensor, in pixels.
        by: what the pieces have in common.

    Raises:
        DataError: no event, no timestep, another `by`, or a pixel or polarity outside `size` and 0..1.

    Example:
        >>> t, x, y, p = torch.tensor([[0, 1, 2, 9], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0]])
        >>> frames(Events(t, x, y, p), timesteps=2, size=(1, 2))[:, 1].tolist()
        [[[0.0, 1.0]], [[0.0, 1.0]]]
        >>> frames(Events(t, x, y, p), timesteps=2, size=(1, 2), by="time")[:, 1].tolist()
        [[[0.0, 2.0]], [[0.0, 0.0]]]
    """
    height, width = size
    _require_timesteps(timesteps)
    _require_by(by)
    _require_frameable(events, size)
    if by == "count":
        piece = torch.arange(len(events)).div(max(len(events) // timesteps, 1), rounding_mode="floor").clamp_max(timesteps - 1)
        if len(events) < timesteps:
            piece = torch.full_like(piece, timesteps - 1)
    else:
        passed = events.t - events.t[0]
        piece = passed * timesteps // (passed[-1] + 1)
    cell = ((piece * 2 + events.p) * height + events.y) * width + events.x
    # Counts are integers until the end: float32 stops counting at 2^24.
    return cell.bincount(minlength=timesteps * 2 * height * width).view(timesteps, 2, height, width).float()


def resize(x: Tensor, side: int, by: Resize = "area") -> Tensor:
    """Resize frames (..., H, W) to (..., side, side) with `torch.nn.functional.interpolate`.

    A cell of the result is a mean over cells, not a sum: counts become counts per original pixel. "area" averages all
    that a cell covers; "bilinear" reads four cells around its centre, without antialiasing, so that it skips some when
    it shrinks by more than two.

    Raises:
        DataError: `side` below 1, or another `by`.

    Example:
        >>> resize(torch.tensor([[[1.0, 3.0], [5.0, 7.0]]]), 1).tolist()
        [[[4.0]]]
    """
    _require_resize(side, by)
    flat = x.reshape(-1, 1, *x.shape[-2:])
    smooth = {"align_corners": False} if by == "bilinear" else {}
    return F.interpolate(flat, size=(side, side), mode=by, **smooth).reshape(*x.shape[:-2], side, side)


@dataclass(frozen=True)
class Framing:
    """How recordings become frames; the value under which they are cached.

    Args:
        timesteps: frames per recording, T.
        by: cut into pieces of equally many events ("count") or equally long time ("time"), see `frames`.
        side: pixels to resize to, see `resize`; None keeps the sensor's.
        resize: how to resize.

    Raises:
        DataError: no timestep, `side` below 1, or another `by` or `resize`.

    Example:
        >>> t, x, y, p = torch.tensor([[0, 1], [0, 1], [0, 1], [0, 1]])
        >>> Framing(timesteps=2, side=4)(Events(t, x, y, p), (8, 8)).shape
        torch.Size([2, 2, 4, 4])
    """

    timesteps: int
    by: By = "count"
    side: int | None = None
    resize: Resize = "area"

    def __post_init__(self) -> None:
        _require_timesteps(self.timesteps)
        _require_by(self.by)
        if self.side is not None:
            _require_resize(self.side, self.resize)

    def __call__(self, events: Events, size: tuple[int, int]) -> Tensor:
        """Return the frames of one recording, float32 (T, 2, H, W); errors as in `frames` and `resize`."""
        whole = frames(events, self.timesteps, size, self.by)
        return whole if self.side is None else resize(whole, self.side, self.resize)

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return (T, 2, H, W) for a sensor of (height, width)."""
        height, width = size if self.side is None else (self.side, self.side)
        return self.timesteps, 2, height, width

    def key(self) -> str:
        """Return the choices as a short name for files.

        Example:
            >>> Framing(10, side=48).key()
            '10-count-48-area'
        """
        choices = asdict(self) if self.side is not None else {"timesteps": self.timesteps, "by": self.by, "side": "sensor"}
        return "-".join(map(str, choices.values()))


def _require_timesteps(timesteps: int) -> None:
    if timesteps < 1:
        raise DataError(f"cannot cut a recording into {timesteps} frames; choose at least 1.")


def _require_by(by: str) -> None:
    if by not in ("count", "time"):
        raise DataError(f"frames are cut by 'count' or by 'time', not by {by!r}.")


def _require_resize(side: int, by: str) -> None:
    if side < 1:
        raise DataError(f"cannot resize frames to {side} x {side} pixels; choose a side of at least 1.")
    if by not in ("area", "bilinear"):
        raise DataError(f"frames are resized by 'area' or by 'bilinear', not by {by!r}.")


def _require_frameable(events: Events, size: tuple[int, int]) -> None:
    if not len(events):
        raise DataError("a recording without events has no frames.")
    for name, column, limit in (("x", events.x, size[1]), ("y", events.y, size[0]), ("p", events.p, 2)):
        low, high = column.min().item(), column.max().item()
        if low < 0 or high >= limit:
            raise DataError(
                f"{name} goes from {low} to {high} in these events; for a sensor of {size} it lies in 0 to {limit - 1}."
            )
