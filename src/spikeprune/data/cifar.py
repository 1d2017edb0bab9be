"""CIFAR-10 and CIFAR-100 in their binary versions: label bytes, then 3,072 pixel bytes, one image after the other.

The Python versions are pickles, which run code as they are read; these are bytes. They are read from the published
.tar.gz where it lies, or from its members when somebody has unpacked them.

Format: https://www.cs.toronto.edu/~kriz/cifar.html (sections "binary version"); the planes are red, green and blue,
each 32 rows of 32. CIFAR-100 has two label bytes, of which the first, one of 20 superclasses, is checked and dropped.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from spikeprune.data import archives
from spikeprune.data.fetch import download
from spikeprune.data.find import places
from spikeprune.data.idx import REMEDY
from spikeprune.data.images import DataSet, Images
from spikeprune.data.sources import File
from spikeprune.errors import DataError

SIDE, PLANES = 32, 3
PIXELS = PLANES * SIDE * SIDE
SUPERCLASSES = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """One file of images.

    Args:
        name: its name as published.
        images: how many it holds.
        content: SHA-256, hexadecimal; empty where no sum of the file itself is published or at hand.
    """

    name: str
    images: int
    content: str = ""


@dataclass(frozen=True)
class Cifar:
    """A data set in the CIFAR binary format, as it is published.

    Args:
        name: the name it is loaded by, and the name of its folder.
        classes: how many classes it has, each with equally many images in either part.
        archive: the published .tar.gz.
        folder: the folder in the archive.
        train: its training files.
        test: its test files.
        label_bytes: label bytes before each image; the last one is the class.
        mirrors: base URLs, tried in this order.
        licence: the terms in one line.
    """

    name: str
    classes: int
    archive: File
    folder: str
    train: tuple[Batch, ...]
    test: tuple[Batch, ...]
    label_bytes: int
    mirrors: tuple[str, ...]
    licence: str

    @property
    def files(self) -> tuple[File, ...]:
        """What is fetched: the archive."""
        return (self.archive,)

    def size(self, batch: Batch) -> int:
        """Return how many bytes `batch` has."""
        return batch.images * (self.label_bytes + PIXELS)


# MD5 of the archives: https://www.cs.toronto.edu/~kriz/cifar.html. It guards against accidents only; for CIFAR-10 the
# SHA-256 of each member, computed from the published files, guards against the rest.
CIFAR10 = Cifar(
    name="cifar10",
    classes=10,
    archive=File("cifar-10-binary.tar.gz", content="", published="md5:c32a1d4ab5d03f1284b67883e8d87530"),
    folder="cifar-10-batches-bin",
    train=(
        Batch("data_batch_1.bin", 10_000, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
        Batch("data_batch_2.bin", 10_000, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
        Batch("data_batch_3.bin", 10_000, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
        Batch("data_batch_4.bin", 10_000, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
        Batch("data_batch_5.bin", 10_000, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ),
    test=(Batch("test_batch.bin", 10_000, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),),
    label_bytes=1,
    mirrors=("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"),
    licence="no licence stated; Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009), asks to be cited",
)

CIFAR100 = Cifar(
    name="cifar100",
    classes=100,
    archive=File("cifar-100-binary.tar.gz", content="", published="md5:03b5dce01913d631647c71ecec9e9cb8"),
    folder="cifar-100-binary",
    train=(Batch("train.bin", 50_000),),
    test=(Batch("test.bin", 10_000),),
    label_bytes=2,
    mirrors=CIFAR10.mirrors,
    licence=CIFAR10.licence,
)

CIFARS: Mapping[str, Cifar] = MappingProxyType({c.name: c for c in (CIFAR10, CIFAR100)})


def read(spec: Cifar) -> DataSet:
    """Read the data set that `spec` describes, from its unpacked files or its archive, fetched if need be.

    The tensors take 184 MB; reading an archive takes three times that while it lasts.

    Raises:
        DataError: a file is damaged or not what was published.
        DownloadError: the archive is nowhere on disk and could not be fetched.
        StorageError: the cache folder cannot be written.
        MissingExtra: the archive must be fetched and pooch is not installed.
    """
    contents, origin = _contents(spec)
    train, test = ([_decode(spec, batch, *contents[batch]) for batch in part] for part in (spec.train, spec.test))
    parts = [_joined(spec, part, origin) for part in (train, test)]
    return DataSet(spec.name, spec.classes, parts[0], parts[1], origin, spec.licence)


def _contents(spec: Cifar) -> tuple[dict[Batch, tuple[str, bytes]], str]:
    """The name in errors and the bytes of every batch, and the folder that they came from."""
    batches, looked = spec.train + spec.test, places(spec.name)
    for place in looked:
        for folder in (place / spec.folder, place):
            missing = [batch.name for batch in batches if not (folder / batch.name).is_file()]
            if not missing:
                return {batch: (str(folder / batch.name), _bytes(folder / batch.name)) for batch in batches}, str(folder)
            if len(missing) < len(batches):
                _log.warning("%s lacks %s; looking for %s instead", folder, ", ".join(missing), spec.archive.name)
        if (place / spec.archive.name).is_file():
            return _from_archive(spec, place / spec.archive.name), str(place)
    return _from_archive(spec, download(spec, spec.archive, looked)), str(looked[-1])


def _from_archive(spec: Cifar, path: Path) -> dict[Batch, tuple[str, bytes]]:
    content = _bytes(path)
    batches = {f"{spec.folder}/{batch.name}": batch for batch in spec.train + spec.test}
    # Members with sums of their own may come in an archive that was packed anew.
    if not all(batch.content for batch in batches.values()):
        _require_archive(spec.archive, path, content)
    found = archives.members(content, str(path), {name: spec.size(batch) for name, batch in batches.items()})
    return {batch: (f"{path}: {name}", found[name]) for name, batch in batches.items()}


def _require_archive(file: File, path: Path, content: bytes) -> None:
    algorithm, _, published = file.published.partition(":")
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != published:
        raise DataError(
            f"{path} is not the published {file.name}: {algorithm} of its {len(content):,} bytes is {found}, "
            f"published is {published}. {REMEDY}"
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}. {REMEDY}") from error


def _decode(spec: Cifar, batch: Batch, file: str, content: bytes) -> tuple[Tensor, Tensor]:
    """Pixels (N, 3, 32, 32) and label bytes (N, label_bytes) of one file, both uint8, once it is what it should be."""
    size = spec.size(batch)
    if len(content) != size:
        fault = "is cut short" if len(content) < size else "has trailing bytes"
        raise DataError(f"{file} {fault}: {len(content):,} bytes where {batch.images:,} images make {size:,}. {REMEDY}")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(batch.images, -1)
    labels, limits = records[:, : spec.label_bytes], (SUPERCLASSES, spec.classes)[-spec.label_bytes :]
    for column, limit in enumerate(limits):
        outside = (labels[:, column] >= limit).nonzero().flatten()
        if len(outside):
            first = int(outside[0])
            raise DataError(
                f"{file} has label {int(labels[first, column])} at image {first}; labels go from 0 to {limit - 1} "
                f"({len(outside):,} of {batch.images:,} are out of range). {REMEDY}"
            )
    found = hashlib.sha256(content).hexdigest() if batch.content else ""
    if found != batch.content:
        raise DataError(
            f"{file} is not the published {batch.name}: sha256 of its {len(content):,} bytes is {found}, "
            f"published is {batch.content}. {REMEDY}"
        )
    return records[:, spec.label_bytes :].reshape(-1, PLANES, SIDE, SIDE), labels.clone()


def _joined(spec: Cifar, batches: list[tuple[Tensor, Tensor]], origin: str) -> Images:
    """One part from its files; as many images of each class as published, each class in one superclass."""
    labels = torch.cat([label for _, label in batches]).long()
    y = labels[:, -1].clone()
    counts = y.bincount(minlength=spec.classes)
    if counts.min() != counts.max():
        raise DataError(
            f"{origin}: {spec.name} has equally many images of each class, here class {int(counts.argmin())} has "
            f"{int(counts.min()):,} and class {int(counts.argmax())} has {int(counts.max()):,}. {REMEDY}"
        )
    pairs = int((labels[:, 0] * spec.classes + y).bincount().count_nonzero())
    if pairs != spec.classes:
        raise DataError(
            f"{origin}: {spec.classes} classes come with {pairs} pairs of superclass and class; each class of "
            f"{spec.name} lies in one superclass. {REMEDY}"
        )
    return Images(torch.cat([x for x, _ in batches]), y)
