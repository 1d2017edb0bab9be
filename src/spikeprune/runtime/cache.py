"""Machine code on disk, so that a function is compiled once for a processor and not once a process.

A file is named by what its code depends on: the function's key, the source of the kernels, the processor and its features, and
LLVM. It begins with its checksum; one that is damaged, or whose folder cannot be written, is as good as none.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

CHECKSUM = hashlib.sha256().digest_size


def folder() -> Path:
    """Give the folder: `native` in `$SPIKEPRUNE_CACHE`, else in `$XDG_CACHE_HOME/spikeprune`, else in `~/.cache/spikeprune`."""
    chosen = os.environ.get("SPIKEPRUNE_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "spikeprune"
    return base.expanduser() / "native"


def name_of(*parts: object) -> str:
    """Name the code that depends on these, and on the source of the kernels.

    Example:
        >>> name_of("scatter", 3) == name_of("scatter", 3) != name_of("scatter", 4)
        True
    """
    return hashlib.sha256(repr((_source(), parts)).encode()).hexdigest()


def read(name: str) -> tuple[list[str], bytes] | None:
    """Give the kinds of a function's arguments and its machine code; None if there is none that is whole."""
    try:
        content = (folder() / name).read_bytes()
    except OSError:
        return None
    checksum, rest = content[:CHECKSUM], content[CHECKSUM:]
    if hashlib.sha256(name.encode() + rest).digest() != checksum:
        return None
    head, _, code = rest.partition(b"\n")
    return list(json.loads(head)), code


def write(name: str, kinds: Sequence[str], code: bytes) -> None:
    """Keep machine code, in one step, so that whoever reads at that time sees all of it or none; quietly not, if the disk refuses."""
    rest = json.dumps(list(kinds)).encode() + b"\n" + code
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, part = tempfile.mkstemp(dir=folder(), suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(name.encode() + rest).digest() + rest)
            os.replace(part, folder() / name)
        finally:
            Path(part).unlink(missing_ok=True)
    except OSError:
        return


@lru_cache(maxsize=1)
def _source() -> str:
    """Give a digest of the files that write code: any change of them makes all code anew."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
