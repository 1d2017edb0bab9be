"""From a name to a data set: find the files, decode them, and check that they are what was published."""

import difflib
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from spikeprune.data import cifar, idx
from spikeprune.data.event_sources import EVENT_SOURCES, SIMULATED
from spikeprune.data.find import locate
from spikeprune.data.images import DataSet, Images
from spikeprune.data.sources import SOURCES, File, Source
from spikeprune.errors import DataError


def names() -> tuple[str, ...]:
    """Return the names that `load` knows, sorted: the image sets; `event_names` lists the others.

    Example:
        >>> names()
        ('cifar10', 'cifar100', 'fashion-mnist', 'fashion-sample', 'mnist')
    """
    return tuple(sorted([*SOURCES, *cifar.CIFARS]))


def load(name: str) -> DataSet:
    """Load an image set by name, from disk, from the network, or from the package.

    The guide docs/guides/data.md says where its files are looked for. Event sets are loaded by `load_events`: images
    come whole, as tensors; recordings come one at a time, as events, and become tensors by a choice of frames.

    Raises:
        DataError: no data set has that name, or a file is not what was published.
        DownloadError: a file is nowhere on disk and could not be fetched.
        StorageError: the cache folder cannot be written.
        MissingExtra: a file must be fetched and pooch is not installed.

    Example:
        >>> sample = load("fashion-sample")
        >>> len(sample.train), len(sample.test), tuple(sample.train.x.shape[1:])
        (5000, 1000, (1, 28, 28))
    """
    if name in cifar.CIFARS:
        return cifar.read(cifar.CIFARS[name])
    if name in EVENT_SOURCES or name == SIMULATED:
        raise DataError(f"{name!r} holds events, not images: load it with load_events({name!r}).")
    if name not in SOURCES:
        nearest = difflib.get_close_matches(name, names(), n=1)
        hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
        raise DataError(f"no data set is named {name!r}. {hint}There are: {', '.join(names())}.")
    return read(SOURCES[name])


def read(source: Source) -> DataSet:
    """Read the data set that `source` describes; errors as in `load`."""
    if source.embedded:
        folder = files("spikeprune.data") / "sample"
        return _read(source, {file: folder / file.name for file in source.files}, "package")
    found = locate(source)
    return _read(source, found, ", ".join(dict.fromkeys(str(path.parent) for path in found.values())))


def _read(source: Source, where: Mapping[File, Traversable], origin: str) -> DataSet:
    return DataSet(
        name=source.name,
        classes=source.classes,
        train=_part(source.train, where, source.classes),
        test=_part(source.test, where, source.classes),
        source=origin,
        licence=source.licence,
    )


def _part(part: tuple[File, File], where: Mapping[File, Traversable], classes: int) -> Images:
    """Read images and labels, and check that they belong together and are the published ones."""
    places = [where[file] for file in part]
    contents = [_content(place) for place in places]
    images = Images(idx.images(contents[0], str(places[0])), idx.labels(contents[1], str(places[1]), classes))
    if len(images.x) != len(images.y):
        raise DataError(
            f"{places[0]} holds {len(images.x):,} images, {places[1]} holds {len(images.y):,} labels. "
            "Delete both so that they are fetched again, or copy them again."
        )
    for file, place, content in zip(part, places, contents, strict=True):
        _require_published(file, place, content)
    return images


def _content(place: Traversable) -> bytes:
    try:
        content = place.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}. {idx.REMEDY}") from error
    return idx.unpack(content, str(place))


def _require_published(file: File, place: Traversable, content: bytes) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != file.content:
        raise DataError(
            f"{place} is not the published {file.name}: sha256 of its uncompressed {len(content):,} bytes is {found}, "
            f"published is {file.content}. {idx.REMEDY}"
        )
