"""Recordings of event cameras: which pixel saw the light change, when, and which way.

A reader checks what it reads and says where it is wrong, in bytes from the start of the file: an event cut in two, a
clock that runs backwards, a pixel outside the sensor. Nothing is repaired or dropped in silence.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeprune.errors import DataError

REMEDY = "Copy the file again; spikeprune never repairs a recording."

NMNIST_SIDE = 34
NMNIST_BYTES = 5


@dataclass(frozen=True, eq=False)
class Events:
    """One recording, in the order of time.

    Args:
        t: time in microseconds, int64 (E,), never decreasing.
        x: column, int64 (E,), 0 on the left.
        y: row, int64 (E,), 0 at the top.
        p: polarity, int64 (E,): 1 where it grew brighter (ON), 0 where it grew darker (OFF).

    Raises:
        DataError: the tensors are not int64, one-dimensional and equally long, or time runs backwards.

    Example:
        >>> t, x, y, p = torch.tensor([[5, 9], [0, 1], [3, 3], [1, 0]])
        >>> len(Events(t, x, y, p))
        2
    """

    t: Tensor
    x: Tensor
    y: Tensor
    p: Tensor

    def __post_init__(self) -> None:
        parts = {"t": self.t, "x": self.x, "y": self.y, "p": self.p}
        wrong = {name: f"{part.dtype} {tuple(part.shape)}" for name, part in parts.items() if part.shape != (self.t.numel(),)}
        wrong |= {name: f"{part.dtype} {tuple(part.shape)}" for name, part in parts.items() if part.dtype != torch.int64}
        if wrong:
            raise DataError(f"events need t, x, y and p as int64 tensors of one length; here {wrong}, t holds {self.t.numel()}.")
        back = (self.t.diff() < 0).nonzero().flatten()
        if len(back):
            at = int(back[0]) + 1
            raise DataError(f"event {at} comes at {int(self.t[at])} us, after one at {int(self.t[at - 1])} us; sort them by t.")

    def __len__(self) -> int:
        return self.t.numel()

    def between(self, start: int, end: int) -> "Events":
        """Return the events with start <= t < end, in microseconds.

        Example:
            >>> t, x, y, p = torch.tensor([[5, 9, 12], [0, 1, 2], [3, 3, 3], [1, 0, 1]])
            >>> Events(t, x, y, p).between(9, 12).x.tolist()
            [1]
        """
        first, last = torch.searchsorted(self.t, torch.tensor([start, end])).tolist()
        return Events(self.t[first:last], self.x[first:last], self.y[first:last], self.p[first:last])


def nmnist(content: bytes, file: str) -> Events:
    """Decode one N-MNIST recording: 40 bits an event, big-endian: x (8), y (8), polarity (1), microseconds (23).

    The published format has no event for an overflow of the clock, which holds 8.4 s; recordings last some 0.3 s. Other
    recordings of the same sensor mark an overflow by y = 240, after which some readers add 2^13 us: that is no row of
    this sensor of 34 x 34 pixels, so it is refused like any other.

    Format: https://www.garrickorchard.com/datasets/n-mnist; Orchard, Jayawant, Cohen, Thakor, Frontiers in
    Neuroscience 9:437 (2015).

    Args:
        content: the file.
        file: its name in errors.

    Raises:
        DataError: the last event is cut, time runs backwards, or a pixel lies outside 34 x 34.

    Example:
        >>> events = nmnist(bytes([7, 33, 0x80, 0x01, 0x02]), "00001.bin")
        >>> events.x.item(), events.y.item(), events.p.item(), events.t.item()
        (7, 33, 1, 258)
    """
    if len(content) % NMNIST_BYTES:
        raise cut(file, 0, len(content), NMNIST_BYTES)
    raw = np.frombuffer(content, dtype=np.uint8).reshape(-1, NMNIST_BYTES).astype(np.int64)
    t = (raw[:, 2] & 0x7F) << 16 | raw[:, 3] << 8 | raw[:, 4]
    offsets = np.arange(len(raw)) * NMNIST_BYTES
    return checked(file, offsets, (t, raw[:, 0], raw[:, 1], raw[:, 2] >> 7), (NMNIST_SIDE, NMNIST_SIDE))


Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def checked(file: str, offsets: NDArray[np.int64], columns: Columns, size: tuple[int, int]) -> Events:
    """Make events of t, x, y, p read at `offsets` of `file`, which must be in order and inside (height, width)."""
    t, x, y, p = columns
    height, width = size
    outside = np.flatnonzero((x < 0) | (x >= width) | (y < 0) | (y >= height))
    if len(outside):
        at = outside[0]
        raise DataError(
            f"{file}, byte {offsets[at]:,}: event {at:,} lies at x = {x[at]}, y = {y[at]}, outside the sensor of {width} x "
            f"{height} pixels ({len(outside):,} of {len(x):,} events do). {REMEDY}"
        )
    back = np.flatnonzero(np.diff(t) < 0)
    if len(back):
        at = back[0] + 1
        raise DataError(
            f"{file}, byte {offsets[at]:,}: event {at:,} comes at {t[at]:,} us, after one at {t[at - 1]:,} us "
            f"(time runs backwards {len(back):,} times in {len(t):,} events). {REMEDY}"
        )
    # Contiguous copies: a column is a view of the whole file, which would live as long as it.
    return Events(*(torch.from_numpy(np.ascontiguousarray(column, dtype=np.int64)) for column in (t, x, y, p)))


def cut(file: str, start: int, end: int, size: int) -> DataError:
    """Return the error of a file whose events of `size` bytes, from byte `start`, do not end at `end`."""
    whole, rest = divmod(end - start, size)
    return DataError(
        f"{file}, byte {start + whole * size:,}: cut in the middle of an event, which takes {size} bytes; "
        f"{rest} {'is' if rest == 1 else 'are'} left after {whole:,} whole events. {REMEDY}"
    )
