"""A set of recordings, each read when it is asked for, and their frames, all at once or one by one."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from spikeprune.data.events import Events
from spikeprune.data.framing import Framing
from spikeprune.errors import DataError
from spikeprune.files import read_tensors, write_tensors

Part = Literal["train", "test"]
STORED = (torch.float32, torch.float16)


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording that is not read yet.

    Args:
        name: which one it is, unique in its set.
        label: its class.
        read: reads it; nothing is kept, so that a second call reads it again.

    Example:
        >>> one = torch.tensor([1])
        >>> len(Recording("a", 0, lambda: Events(one, one, one, one)).read())
        1
    """

    name: str
    label: int
    read: Callable[[], Events]


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames with their labels, in the order of the recordings.

    Args:
        x: event counts (N, T, 2, H, W), float32 or float16; channel 0 OFF, channel 1 ON. Networks here take time
            first: `x.transpose(0, 1)` of a batch.
        y: classes, int64 (N,).

    Example:
        >>> len(Frames(torch.zeros(3, 4, 2, 8, 8), torch.tensor([0, 1, 1])))
        3
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, eq=False)
class EventSet:
    """A training and a test part of recordings, with where they came from and on what terms.

    Args:
        name: the name it was loaded by.
        classes: how many classes there are; labels lie in 0..classes - 1.
        size: height and width of the sensor, in pixels.
        train: the training part.
        test: the test part.
        source: the folder it is read from, or what made it when it is simulated.
        licence: the terms it comes under, in one line.

    Example:
        >>> one = torch.tensor([1])
        >>> recording = Recording("a", 0, lambda: Events(one, one, one, one))
        >>> made = EventSet("made", 2, (8, 8), (recording,), (recording,), "here", "none")
        >>> made.frames("test", Framing(timesteps=3)).x.shape
        torch.Size([1, 3, 2, 8, 8])
    """

    name: str
    classes: int
    size: tuple[int, int]
    train: tuple[Recording, ...]
    test: tuple[Recording, ...]
    source: str
    licence: str

    def part(self, part: Part) -> tuple[Recording, ...]:
        """Return the recordings of "train" or "test"."""
        if part not in ("train", "test"):
            raise DataError(f"{self.name} has the parts 'train' and 'test', not {part!r}.")
        return self.train if part == "train" else self.test

    def each(self, part: Part, framing: Framing) -> Iterator[tuple[Tensor, int]]:
        """Yield (frames (T, 2, H, W) float32, label) of one recording after the other; one is held at a time."""
        for recording in self.part(part):
            yield _framed(recording, framing, self.size), recording.label

    def frames(self, part: Part, framing: Framing, *, cache: Path | None = None, dtype: torch.dtype = torch.float32) -> Frames:
        """Return the frames of a whole part, from the folder `cache` if they were made before, else made and kept there.

        The tensor takes N * T * 2 * H * W * 4 bytes, half of that in float16, and writing or reading its file three
        times as much for a moment: the training part of CIFAR10-DVS, 10 frames of 48 x 48, is 1.7 GB. `each` needs
        next to nothing. The file is named after the set, the part, the choices and the recordings' names, so another
        choice never meets it; the recordings themselves are not read again to see whether they changed.

        Args:
            part: which part.
            framing: how recordings become frames.
            cache: a folder for the file, a safetensors file written in one step; None keeps nothing.
            dtype: float32, or float16, in which counts above 2,048 are rounded.

        Raises:
            DataError: a recording is damaged, another part or dtype, or the file is not the one it is named after.
            StorageError: the file cannot be written or read back.
        """
        recordings = self.part(part)
        if dtype not in STORED:
            raise DataError(f"frames are kept as {' or '.join(map(str, STORED))}, not as {dtype}.")
        if cache is None:
            return _made(recordings, framing, self.size, dtype)
        facts = self._facts(part, framing, dtype)
        path = cache / f"{self.name}-{part}-{framing.key()}-{facts['digest'][:12]}.safetensors"
        if path.is_file():
            return _reread(path, facts, (len(recordings), *framing.shape(self.size)), dtype)
        made = _made(recordings, framing, self.size, dtype)
        write_tensors(path, {"x": made.x, "y": made.y}, facts)
        return made

    def _facts(self, part: Part, framing: Framing, dtype: torch.dtype) -> dict[str, str]:
        """What decides the frames; the source counts, so that two folders of one name do not share a file."""
        facts = {"set": self.name, "part": part, "framing": framing.key(), "dtype": str(dtype), "source": self.source}
        listed = "\n".join(f"{recording.name}\t{recording.label}" for recording in self.part(part))
        facts["recordings"] = hashlib.sha256(listed.encode()).hexdigest()
        return facts | {"digest": hashlib.sha256("\n".join(facts.values()).encode()).hexdigest()}


def _framed(recording: Recording, framing: Framing, size: tuple[int, int]) -> Tensor:
    try:
        return framing(recording.read(), size)
    except DataError as error:
        if recording.name in str(error):
            raise
        raise DataError(f"recording {recording.name}: {error}") from error


def _made(recordings: Sequence[Recording], framing: Framing, size: tuple[int, int], dtype: torch.dtype) -> Frames:
    # Filled in place: a list of frames and their stack would be twice the memory.
    x = torch.empty(len(recordings), *framing.shape(size), dtype=dtype)
    for index, recording in enumerate(recordings):
        x[index] = _framed(recording, framing, size)
    return Frames(x, torch.tensor([recording.label for recording in recordings], dtype=torch.int64))


def _reread(path: Path, facts: dict[str, str], shape: tuple[int, ...], dtype: torch.dtype) -> Frames:
    tensors, found = read_tensors(path)
    x, y = tensors.get("x"), tensors.get("y")
    if found != facts or x is None or y is None or x.shape != shape or x.dtype != dtype or y.shape != shape[:1]:
        raise DataError(f"{path} does not hold the frames that its name says. Delete it so that they are made again.")
    return Frames(x, y)
