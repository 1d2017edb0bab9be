"""Where the files of a data set are looked for: the user's own folder, then the cache, then the network."""

import logging
import os
from pathlib import Path

from spikeprune.data.fetch import download
from spikeprune.data.sources import File, Published, Source

_log = logging.getLogger(__name__)


def places(name: str) -> tuple[Path, ...]:
    """Folders in which the files of data set `name` may lie, in order; the last one is the cache.

    They are `$SPIKEPRUNE_DATA/<name>` when that variable is set, and `<cache>/<name>`, the cache being
    `$SPIKEPRUNE_CACHE`, else `$XDG_CACHE_HOME/spikeprune`, else `~/.cache/spikeprune`.
    """
    own = os.environ.get("SPIKEPRUNE_DATA")
    folders = (Path(own).expanduser(), _cache()) if own else (_cache(),)
    return tuple(folder / name for folder in folders)


def locate(source: Source) -> dict[File, Path]:
    """Find every file of `source`, each compressed or plain, and download those that are nowhere.

    Raises:
        DownloadError: a file is nowhere and no mirror gave it.
        StorageError: the cache folder cannot be written.
        MissingExtra: a file is nowhere and pooch, which downloads it, is not installed.
    """
    folders = places(source.name)
    found = {file: _first(file, folders) for file in source.files}
    warn_of_holes(source, folders, found)
    return {file: path or download(source, file, folders) for file, path in found.items()}


def warn_of_holes(source: Published, folders: tuple[Path, ...], found: dict[File, Path | None]) -> None:
    """Say so when the user's own folder holds some of the files: a copy that was not finished, most likely."""
    *own, _ = folders
    for folder in own:
        missing = [file.name for file, path in found.items() if path is None or path.parent != folder]
        if missing and (folder.is_dir() or not folder.parent.is_dir()):
            _log.warning(
                "SPIKEPRUNE_DATA: %s lacks %s; taking them from the cache or the network instead", folder, ", ".join(missing)
            )


def _cache() -> Path:
    chosen = os.environ.get("SPIKEPRUNE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spikeprune"


def _first(file: File, folders: tuple[Path, ...]) -> Path | None:
    candidates = (folder / name for folder in folders for name in (file.name, file.name.removesuffix(".gz")))
    return next((path for path in candidates if os.path.isfile(path)), None)
