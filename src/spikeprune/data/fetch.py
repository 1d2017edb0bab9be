"""Download one published file: mirror after mirror, its sum checked before anything is kept.

A file is at most 170 MB, so it is received in memory and written whole, in one step: whatever cuts a download short,
the disk never holds a part of it.
"""

import hashlib
import io
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from spikeprune.data.sources import File, Published
from spikeprune.errors import DownloadError, MissingExtra, StorageError
from spikeprune.files import write_bytes

CONNECT_SECONDS, SILENCE_SECONDS = 10, 30
CHUNK_BYTES = 1 << 16

_log = logging.getLogger(__name__)


def download(source: Published, file: File, looked: Sequence[Path]) -> Path:
    """Download `file` into the last folder of `looked`, in which it was looked for in vain, and return its path.

    Raises:
        DownloadError: no mirror gave the file with its published sum.
        StorageError: the folder cannot be written.
        MissingExtra: pooch is not installed.
    """
    target = looked[-1] / file.name
    _require_pooch(source, looked)
    _require_writable(target.parent)
    failures: list[DownloadError] = []
    for mirror in source.mirrors:
        try:
            content = _receive(f"{mirror.rstrip('/')}/{file.name}", file)
        except DownloadError as failure:
            _log.info("%s", failure)
            failures.append(failure)
            continue
        write_bytes(target, content)
        return target
    raise DownloadError(_report(source, file, looked, failures)) from (failures[-1] if failures else None)


def _receive(url: str, file: File) -> bytes:
    """The bytes at `url`, once they match the published sum."""
    from pooch import HTTPDownloader

    _log.info("downloading %s", url)
    received = io.BytesIO()
    # "identity" keeps a server from sending the file unpacked, which would never match.
    options = {"timeout": (CONNECT_SECONDS, SILENCE_SECONDS), "headers": {"Accept-Encoding": "identity"}}
    try:
        with _progress(file.name) as bar:
            HTTPDownloader(progressbar=bar, chunk_size=CHUNK_BYTES, **options)(url, received, None)
    except OSError as error:
        raise DownloadError(f"{url}: {_reason(error)}") from error
    algorithm, _, published = file.published.partition(":")
    found = hashlib.new(algorithm, received.getvalue(), usedforsecurity=False).hexdigest()
    if found != published:
        size = len(received.getvalue())
        raise DownloadError(f"{url}: wrong checksum, {algorithm} of its {size:,} bytes is {found}, published is {published}")
    return received.getvalue()


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
