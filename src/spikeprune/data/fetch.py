"""Download one published file: mirror after mirror, its sum checked before anything is kept.

A file may have gigabytes, so it is received into a hidden file beside its place and summed as it comes; only when the sum
is the published one does it take its place, in one step. Whatever cuts a download short, no part of it is ever found
under its name, and the part is removed.
"""

import hashlib
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from spikeprune.data.sources import File, Published
from spikeprune.errors import DownloadError, MissingExtra, StorageError

CONNECT_SECONDS, SILENCE_SECONDS = 10, 30
CHUNK_BYTES = 1 << 16
LIMIT_BYTES = 4 << 30
"""No file that we know is larger; a server that goes on sending would fill the disk before its sum is known."""

_log = logging.getLogger(__name__)


def download(source: Published, file: File, looked: Sequence[Path]) -> Path:
    """Download `file` into the last folder of `looked`, in which it was looked for in vain, and return its path.

    Raises:
        DownloadError: no mirror gave the file with its published sum.
        StorageError: the folder cannot be written, or the disk is full.
        MissingExtra: pooch is not installed.
    """
    target = looked[-1] / file.name
    _require_pooch(source, looked)
    _require_writable(target.parent)
    failures: list[DownloadError] = []
    for mirror in source.mirrors:
        try:
            with _part(target) as part:
                _receive(f"{mirror.rstrip('/')}/{file.path or file.name}", file, part)
        except DownloadError as failure:
            _log.info("%s", failure)
            failures.append(failure)
            continue
        return target
    raise DownloadError(_report(source, file, looked, failures)) from (failures[-1] if failures else None)


def _receive(url: str, file: File, part: BinaryIO) -> None:
    """Write the bytes at `url` to `part`; they match the published sum, or it is an error."""
    from pooch import HTTPDownloader

    _log.info("downloading %s", url)
    algorithm, _, published = file.published.partition(":")
    received = _Received(url, part, algorithm)
    # "identity" keeps a server from sending the file unpacked, which would never match.
    options = {"timeout": (CONNECT_SECONDS, SILENCE_SECONDS), "headers": {"Accept-Encoding": "identity"}}
    try:
        with _progress(file.name) as bar:
            HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES, **options)(url, received, None)
    except OSError as error:
        raise DownloadError(f"{url}: {_reason(error)}") from error
    found = received.sum.hexdigest()
    if found != published:
        raise DownloadError(
            f"{url}: wrong checksum, {algorithm} of its {received.size:,} bytes is {found}, published is {published}"
        )


@contextmanager
def _part(target: Path) -> Iterator[BinaryIO]:
    """A hidden file beside `target` that takes its place at the end, or is gone when anything goes wrong."""
    target = Path(os.path.realpath(target))
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        with _stored(part), part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _stored(part):
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _stored(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot keep a download in {part.parent}: {error.strerror or error}. Free some space, or set SPIKEPRUNE_CACHE to "
            "another folder, and run again."
        ) from error


class _Received:
    """What pooch writes to: a file on the disk, summed on its way."""

    def __init__(self, url: str, part: BinaryIO, algorithm: str) -> None:
        self._url, self._part = url, part
        self.sum, self.size = hashlib.new(algorithm, usedforsecurity=False), 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > LIMIT_BYTES:
            raise DownloadError(f"{self._url}: more than {LIMIT_BYTES:,} bytes, and no published file has as many")
        self.sum.update(chunk)
        # A full disk is no fault of the mirror: the next one would fill it too.
        with _stored(Path(self._part.name)):
            self._part.write(chunk)

    def flush(self) -> None:
        """Nothing: the file is flushed once, when it is whole."""


def _reason(error: OSError) -> str:
    response = getattr(error, "response", None)
    if response is None:
        return f"{type(error).__name__}: {error}"
    response.close()  # The downloader leaves a refused answer open.
    return f"HTTP {response.status_code} {response.reason}"


def _report(source: Published, file: File, looked: Sequence[Path], failures: Sequence[DownloadError]) -> str:
    names = ", ".join(each.name for each in source.files)
    return "\n".join(
        [
            f"cannot get {file.name} of data set {source.name!r}.",
            *(f"  not in {folder}" for folder in looked),
            *(f"  not from {failure}" for failure in failures),
            f"Check the network and run again, or put the files {names} into $SPIKEPRUNE_DATA/{source.name}/.",
        ]
    )


def _require_pooch(source: Published, looked: Sequence[Path]) -> None:
    try:
        import pooch  # noqa: F401 - only whether it is there
    except ImportError as error:
        folders = " or ".join(map(str, looked))
        raise MissingExtra.of("pooch", "recipes", f"downloading {source.name} (not whole in {folders})") from error


def _require_writable(folder: Path) -> None:
    """Fail before the download rather than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"cannot write to the cache folder {folder}: {error.strerror or error}. "
            "Set SPIKEPRUNE_CACHE to a folder that can be written."
        ) from error


class _Bar:
    """What pooch asks of a progress bar, drawn by rich."""

    def __init__(self, drawn: Progress, task: TaskID) -> None:
        self._drawn, self._task = drawn, task

    @property
    def total(self) -> float | None:
        """Bytes to come."""
        return self._drawn.tasks[0].total

    @total.setter
    def total(self, size: int) -> None:
        self._drawn.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        self._drawn.advance(self._task, size)

    def reset(self) -> None:
        self._drawn.update(self._task, completed=0)

    def close(self) -> None:
        self._drawn.stop()


@contextmanager
def _progress(name: str) -> Iterator[_Bar | bool]:
    """A progress bar on stderr when that is a terminal, else False."""
    if not sys.stderr.isatty():
        yield False
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as drawn:
        yield _Bar(drawn, drawn.add_task(name, total=None))
