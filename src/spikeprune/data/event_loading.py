"""From a name to an event set: find or fetch its files, list its recordings, and check that they are as many as published."""

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from spikeprune.data.archives import require_published
from spikeprune.data.event_layouts import Parts, unpack_trials
from spikeprune.data.event_set import EventSet, Recording
from spikeprune.data.event_sources import EVENT_SOURCES, SIMULATED, EventSource
from spikeprune.data.fetch import download
from spikeprune.data.find import places, warn_of_holes
from spikeprune.data.loading import load
from spikeprune.data.simulated import cifar10_dvs_sim
from spikeprune.data.sources import File
from spikeprune.errors import DataError, DownloadError


def event_names() -> tuple[str, ...]:
    """Return the names that `load_events` knows, sorted.

    Example:
        >>> event_names()
        ('cifar10-dvs', 'cifar10-dvs-sim', 'dvs-gesture', 'nmnist', 'nmnist-1k')
    """
    return tuple(sorted([*EVENT_SOURCES, SIMULATED]))


def load_events(name: str) -> EventSet:
    """Load an event set by name, from disk or from the network: its list of recordings, each read when it is asked for.

    A recording is checked as it is read. Image sets are loaded by `load`. "cifar10-dvs-sim" is simulated from CIFAR-10,
    and neither is nor replaces the recordings of "cifar10-dvs"; errors of `load("cifar10")` are errors of it. The guide
    docs/guides/data.md says where the files are looked for, which are fetched and which must be fetched by hand.

    Raises:
        DataError: no event set has that name, the folder has other recordings than published, or an archive is damaged.
        DownloadError: its files are nowhere on disk and could not be fetched; the message says where to get them.
        StorageError: a file must be fetched or unpacked and the cache folder cannot be written.
        MissingExtra: a file must be fetched and pooch is not installed.

    Example:
        >>> load_events("nmist")
        Traceback (most recent call last):
        spikeprune.errors.DataError: no event set is named 'nmist'. Did you mean 'nmnist'? There are: cifar10-dvs, ...
    """
    if name == SIMULATED:
        return cifar10_dvs_sim(load("cifar10"))
    if name not in EVENT_SOURCES:
        nearest = difflib.get_close_matches(name, event_names(), n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        raise DataError(
            f"no event set is named {name!r}. {hint}There are: {', '.join(event_names())}; load() loads the image sets."
        )
    return read_events(EVENT_SOURCES[name])


def read_events(source: EventSource) -> EventSet:
    """Read the event set that `source` describes; errors as in `load_events`."""
    folder, (train, test) = _located(source)
    _require_published(source, folder, train, test)
    return EventSet(source.name, len(source.classes), source.size, train, test, str(folder), source.licence)


def _located(source: EventSource) -> tuple[Path, Parts]:
    """The first folder that has recordings of `source`, and these; files that are nowhere are fetched or unpacked."""
    *own, cache = looked = places(source.name)
    for folder in own:
        if parts := source.layout(folder, source.classes):
            return folder, parts
    if source.files:
        _fetch(source, looked)
    elif source.archive and not source.layout(cache, source.classes):
        _unpack(source.archive, looked)
    if parts := source.layout(cache, source.classes):
        return cache, parts
    raise DownloadError(
        "\n".join(
            [
                f"the recordings of {source.name!r} are nowhere, and they must be fetched by hand.",
                *(f"  not in {folder}" for folder in looked),
                f"{source.obtain}. The folder is $SPIKEPRUNE_DATA/{source.name}/ or {cache}/.",
            ]
        )
    )


def _fetch(source: EventSource, looked: tuple[Path, ...]) -> None:
    """Download the archives that the cache has neither as they are nor unpacked; a stopped run is taken up."""
    found = {file: _lying(file, looked[-1]) for file in source.files}
    warn_of_holes(source, looked, found)
    for file, path in found.items():
        if path is None:
            download(source, file, looked)


def _lying(file: File, folder: Path) -> Path | None:
    packed = folder / file.name
    return next((path for path in (packed.with_suffix(""), packed) if path.exists()), None)


def _unpack(archive: File, looked: tuple[Path, ...]) -> None:
    """Unpack the first `archive` into the cache, once it is the published one."""
    for folder in looked:
        if (folder / archive.name).is_file():
            require_published(folder / archive.name, archive)
            unpack_trials(folder / archive.name, looked[-1])
            return


def _require_published(source: EventSource, folder: Path, train: Sequence[Recording], test: Sequence[Recording]) -> None:
    if _agrees(source, train, test):
        return
    other = next((each.name for each in EVENT_SOURCES.values() if each.size == source.size and _agrees(each, train, test)), None)
    hint = f"These are the counts of {other!r}: rename the folder to that, and load that name." if other else f"{source.obtain}."
    raise DataError(
        f"{folder} holds {len(train):,} training and {len(test):,} test recordings{_by_class(source, train, test)}; "
        f"{source.name} has {sum(source.train):,} and {sum(source.test):,}. {hint}"
    )


def _agrees(source: EventSource, train: Sequence[Recording], test: Sequence[Recording]) -> bool:
    return all(
        list(expected) == (_histogram(source, part) if len(expected) > 1 else [len(part)])
        for expected, part in ((source.train, train), (source.test, test))
    )


def _histogram(source: EventSource, part: Sequence[Recording]) -> list[int]:
    counts = Counter(recording.label for recording in part)
    return [counts[label] for label in range(len(source.classes))]


def _by_class(source: EventSource, train: Sequence[Recording], test: Sequence[Recording]) -> str:
    """The first class whose counts are wrong, since totals may agree by chance."""
    if len(source.train) == 1:
        return ""
    rows = zip(source.classes, _histogram(source, train), _histogram(source, test), source.train, source.test, strict=True)
    name, *found = next(row for row in rows if row[1:3] != row[3:5])
    return f" ({found[0]:,} and {found[1]:,} of class {name!r}, where {found[2]:,} and {found[3]:,} were published)"
