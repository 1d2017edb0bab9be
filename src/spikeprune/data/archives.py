"""Archives read where they lie: only the members asked for, only plain files, never unpacked by their own names.

A member is looked up by the name that we expect; a path in an archive is never used as a path on the disk. Its size is
read before its content, so that no archive makes us hold more than a recording can be.
"""

import hashlib
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

from spikeprune.data.idx import REMEDY
from spikeprune.data.sources import File
from spikeprune.errors import DataError

MEMBER_BYTES = 1 << 29
"""The largest recording we know, a trial of DVS128 Gesture, has a tenth of it."""


def require_published(path: Path, file: File) -> None:
    """Raise DataError unless the archive at `path` has the sum that is published for `file`; it is read once."""
    algorithm, _, published = file.published.partition(":")
    try:
        with path.open("rb") as archive:
            found = hashlib.file_digest(archive, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}. {REMEDY}") from error
    if found != published:
        raise DataError(
            f"{path} is not the published {file.name}: {algorithm} of its {path.stat().st_size:,} bytes is {found}, "
            f"published is {published}. {REMEDY}"
        )


def members(content: bytes, file: str, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Read the plain members named in `sizes` from a .tar.gz, each exactly as many bytes long.

    Args:
        content: the archive.
        file: its name in errors.
        sizes: bytes by member name, as "folder/file".

    Raises:
        DataError: the archive is damaged, lacks a member, or has one of another size.
    """
    found: dict[str, bytes] = {}
    with _opened(io.BytesIO(content), file) as archive:
        for member in archive:
            name = str(PurePosixPath(member.name))
            if name not in sizes or name in found or not member.isfile():
                continue
            # Before it is read, so that a header cannot make us hold more than the data set is.
            if member.size != sizes[name]:
                raise DataError(f"{file}: its member {name} has {member.size:,} bytes, published are {sizes[name]:,}. {REMEDY}")
            found[name] = _read(archive, member)
            if len(found) == len(sizes):
                return found
    missing = ", ".join(name for name in sizes if name not in found)
    raise DataError(f"{file} lacks {missing}. {REMEDY}")


def stream(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield (last part of the name, content) of the plain members whose last part is `wanted`, in their order.

    One member is held at a time.

    Raises:
        DataError: the archive is damaged or cannot be read, or a member is larger than any recording.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}. {REMEDY}") from error
    with file, _opened(file, str(path)) as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if member.isfile() and wanted(name):
                _require_bounded(str(path), member.name, member.size)
                yield name, _read(archive, member)


def zipped(path: Path, suffix: str) -> list[str]:
    """Return the names in a .zip that end in `suffix`; a name in a hidden folder or file is none.

    Raises:
        DataError: the archive is damaged or cannot be read.
    """
    with _unzipped(path) as archive:
        named = [name for name in archive.namelist() if name.endswith(suffix)]
    return [name for name in named if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)]


def unzip(path: Path, name: str) -> bytes:
    """Return the content of one member of a .zip, its CRC checked.

    Raises:
        DataError: the archive or the member is damaged, or the member is larger than any recording.
    """
    with _unzipped(path) as archive:
        _require_bounded(str(path), name, archive.getinfo(name).file_size)
        return archive.read(name)


@contextmanager
def _opened(file: io.BufferedIOBase | io.BytesIO, name: str) -> Iterator[tarfile.TarFile]:
    """The archive as a stream: forward only, so that nothing is decompressed twice."""
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name} is not a whole .tar.gz archive: {error}. {REMEDY}") from error


@contextmanager
def _unzipped(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        stat = path.stat()
        yield _indexed(path, (stat.st_mtime_ns, stat.st_size), os.getpid())
    except (zipfile.BadZipFile, EOFError, KeyError, OSError, RuntimeError, zlib.error) as error:
        raise DataError(f"{path} is not a whole .zip archive: {error}. {REMEDY}") from error


@lru_cache(maxsize=16)
def _indexed(path: Path, changed: tuple[int, int], process: int) -> zipfile.ZipFile:
    """An open archive, kept with its index, which for the 60,000 recordings of N-MNIST takes longer than a recording.

    A forked process shares the place at which its parent reads a file, so each process opens its own.
    """
    return zipfile.ZipFile(path)


def _require_bounded(archive: str, name: str, size: int) -> None:
    if size > MEMBER_BYTES:
        raise DataError(f"{archive}: its member {name} has {size:,} bytes, more than any recording ({MEMBER_BYTES:,}). {REMEDY}")


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a plain member, which `extractfile` never refuses."""
    opened = archive.extractfile(member)
    assert opened is not None
    return opened.read()
