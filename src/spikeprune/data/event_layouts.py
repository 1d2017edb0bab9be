"""How the published event sets lie in a folder: which file is which recording, of which class, in which part.

A layout reads names only, and the short lists that come with the files; events are read when a recording is.
"""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from spikeprune.data import archives
from spikeprune.data.aedat import Window, aedat2, aedat3, windows
from spikeprune.data.event_set import Recording
from spikeprune.data.events import REMEDY, Events, nmnist
from spikeprune.errors import DataError
from spikeprune.files import write_bytes

Parts = tuple[tuple[Recording, ...], tuple[Recording, ...]]
Layout = Callable[[Path, tuple[str, ...]], Parts | None]
"""Recordings (train, test) in a folder, given the names of the classes; None when the folder has nothing of the kind."""

LISTS = ("trials_to_train.txt", "trials_to_test.txt")


def digits(folder: Path, classes: tuple[str, ...]) -> Parts | None:
    """N-MNIST: Train/LABEL/NUMBER.bin and Test/LABEL/NUMBER.bin, or the same in Train.zip and Test.zip.

    They come in the order of the numbers, which are MNIST's.
    """
    train, test = (_digits(folder, part, classes) for part in ("Train", "Test"))
    return None if train is None and test is None else (train or (), test or ())


def _digits(folder: Path, part: str, classes: tuple[str, ...]) -> tuple[Recording, ...] | None:
    """The recordings of one part, from its folder if that is there, else from its zip."""
    packed = folder / f"{part}.zip"
    found: list[tuple[str, int, Callable[[], Events]]] = []
    if (folder / part).is_dir():
        paths = [(path, label) for label, name in enumerate(classes) for path in (folder / part / name).glob("*.bin")]
        found = [(path.stem, label, partial(_decoded, nmnist, path)) for path, label in paths]
    elif packed.is_file():
        # Only these names: what else an archive holds is no recording of this part, wherever its path leads.
        pattern = re.compile(rf"{part}/({'|'.join(map(re.escape, classes))})/(\w+)\.bin")
        for name in archives.zipped(packed, ".bin"):
            if match := pattern.fullmatch(name):
                found.append((match[2], classes.index(match[1]), partial(_unzipped, nmnist, packed, name)))
    else:
        return None
    found.sort(key=lambda each: each[:2])
    return tuple(Recording(f"{part}/{label}/{number}", label, read) for number, label, read in found)


def classes_of_aedat(folder: Path, classes: tuple[str, ...]) -> Parts | None:
    """CIFAR10-DVS: CLASS/cifar10_CLASS_NUMBER.aedat, or the same in CLASS.zip.

    The authors publish no split. The first nine tenths of each class by number are for training, as is usual; others
    split at random, which is another data set.
    """
    train: list[Recording] = []
    test: list[Recording] = []
    for label, name in enumerate(classes):
        found = _numbered(folder, name, label)
        border = len(found) * 9 // 10
        train += found[:border]
        test += found[border:]
    return (tuple(train), tuple(test)) if train or test else None


def _numbered(folder: Path, name: str, label: int) -> list[Recording]:
    """The recordings of one class in the order of their numbers, from its folder if that is there, else from its zip."""
    pattern = re.compile(rf"cifar10_{re.escape(name)}_(\d+)\.aedat")
    packed = folder / f"{name}.zip"
    readers: dict[str, Callable[[], Events]] = {}
    if (folder / name).is_dir():
        readers = {path.name: partial(_decoded, aedat2, path) for path in (folder / name).glob("*.aedat")}
    elif packed.is_file():
        readers = {Path(each).name: partial(_unzipped, aedat2, packed, each) for each in archives.zipped(packed, ".aedat")}
    numbers = {file: int(match[1]) for file in readers if (match := pattern.fullmatch(file))}
    return [Recording(f"{name}/{file}", label, readers[file]) for file in sorted(numbers, key=numbers.__getitem__)]


def trials(folder: Path, classes: tuple[str, ...]) -> Parts | None:
    """DVS128 Gesture: two lists of trials, and for each trial its events and the windows of its gestures.

    The files lie in the folder or in its folder DvsGesture. A recording is one window of one trial.
    """
    for place in (folder, folder / "DvsGesture"):
        if all((place / name).is_file() for name in LISTS):
            train, test = (_trials(place, name, len(classes)) for name in LISTS)
            return train, test
    return None


def _trials(folder: Path, name: str, classes: int) -> tuple[Recording, ...]:
    found = []
    for line in _bytes(folder / name).decode("utf-8", "replace").split():
        trial = re.fullmatch(r"(\w+)\.aedat", line)
        if not trial or not (folder / line).is_file():
            raise DataError(f"{folder / name} lists {line!r}, which is no trial in {folder}. {REMEDY}")
        labels = folder / f"{trial[1]}_labels.csv"
        for index, window in enumerate(windows(_bytes(labels), str(labels))):
            found.append(Recording(f"{trial[1]}/{index:02d}", window.label, partial(_gesture, folder / line, window)))
    assert all(recording.label < classes for recording in found)
    return tuple(found)


def unpack_trials(archive: Path, folder: Path) -> None:
    """Unpack DvsGesture.tar.gz into `folder`: the trials, each written whole, and then the lists, which say it is done.

    Members go by the last part of their names, whatever folder the archive says; others are left out. A run that was
    stopped is taken up by the next: what is there with its full size is not written again.
    """
    lists = {}
    for name, content in archives.stream(archive, _is_of_trials):
        if name in LISTS:
            lists[name] = content
        elif not (folder / name).is_file() or (folder / name).stat().st_size != len(content):
            write_bytes(folder / name, content)
    missing = [name for name in LISTS if name not in lists]
    if missing:
        raise DataError(f"{archive} lacks {' and '.join(missing)}: it is not the published archive. {REMEDY}")
    for name, content in lists.items():
        write_bytes(folder / name, content)


def _is_of_trials(name: str) -> bool:
    return name in LISTS or bool(re.fullmatch(r"\w+(\.aedat|_labels\.csv)", name))


def _decoded(decode: Callable[[bytes, str], Events], path: Path) -> Events:
    return decode(_bytes(path), str(path))


def _unzipped(decode: Callable[[bytes, str], Events], path: Path, name: str) -> Events:
    return decode(archives.unzip(path, name), f"{path}: {name}")


def _gesture(path: Path, window: Window) -> Events:
    return _trial(path, path.stat().st_mtime_ns).between(window.start, window.end)


@lru_cache(maxsize=1)
def _trial(path: Path, changed: int) -> Events:
    """A whole trial, kept until another is read: a dozen gestures come out of one file, and are asked for in turn."""
    return _decoded(aedat3, path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}. {REMEDY}") from error
