"""From a name to an event set: find its folder, list its recordings, and check that they are as many as published."""

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from spikeprune.data.event_layouts import Parts, unpack_trials
from spikeprune.data.event_set import EventSet, Recording
from spikeprune.data.event_sources import EVENT_SOURCES, SIMULATED, EventSource
from spikeprune.data.find import places
from spikeprune.data.loading import load
from spikeprune.data.simulated import cifar10_dvs_sim
from spikeprune.errors import DataError, DownloadError


def event_names() -> tuple[str, ...]:
    """Return the names that `load_events` knows, sorted.

    Example:
        >>> event_names()
        ('cifar10-dvs', 'cifar10-dvs-sim', 'dvs-gesture', 'nmnist', 'nmnist-1k')
    """
    return tuple(sorted([*EVENT_SOURCES, SIMULATED]))


def load_events(name: str) -> EventSet:
    """Load an event set by name, from disk: its list of recordings; each is read, and checked, when it is asked for.

    Image sets are loaded by `load`. "cifar10-dvs-sim" is simulated from CIFAR-10, and neither is nor replaces the
    recordings of "cifar10-dvs"; errors of `load("cifar10")` are errors of it. The guide docs/guides/data.md says where the files are looked for.

    Raises:
        DataError: no event set has that name, or the folder has other recordings than published.
        DownloadError: its files are nowhere on disk; the message says where to get them.
        StorageError: an archive must be unpacked and the cache folder cannot be written.

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
    """The first folder that has recordings of `source`, and these; an archive counts after every folder."""
    looked = places(source.name)
    for folder in looked:
        if parts := source.layout(folder, source.classes):
            return folder, parts
    for folder in looked:
        if source.archive and (folder / source.archive).is_file():
            unpack_trials(folder / source.archive, looked[-1])
            if parts := source.layout(looked[-1], source.classes):
                return looked[-1], parts
    raise DownloadError(
        "\n".join(
            [
                f"the recordings of {source.name!r} are nowhere, and they must be fetched by hand.",
                *(f"  not in {folder}" for folder in looked),
                f"{source.obtain}. The folder is $SPIKEPRUNE_DATA/{source.name}/ or {looked[-1]}/.",
            ]
        )
    )


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
