"""Files that are whole or absent: written beside their place, then moved into it in one step.

A crash or a full disk leaves the earlier file as it was. Tensors travel as safetensors; nothing is ever pickled.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as decode_tensors
from safetensors.torch import save as encode_tensors
from torch import Tensor

from spikeprune.errors import StorageError

METADATA = "spikeprune"


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` in one step; on failure the earlier file stays and StorageError is raised.

    A link stays a link: the file that it points to is written. Folders, devices and pipes are refused.
    """
    path = Path(os.path.realpath(path))
    try:
        _refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}. Choose a folder that can be written.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({len(content):,} bytes): {error.strerror or error}. What was there before is untouched; "
            "free some space, or write to another folder, and run again."
        ) from error
    finally:
        Path(part).unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write text as UTF-8 in one step."""
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a JSON value, indented, in one step."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; StorageError says what is wrong with it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise StorageError(
            f"{path} is not valid JSON ({error}). It was not written by spikeprune, or was changed since."
        ) from error


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors and string metadata as one safetensors file, in one step.

    Metadata goes in as one JSON entry: safetensors writes several in an order that changes, and equal content should be
    equal bytes.
    """
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    packed = {METADATA: json.dumps(dict(metadata), sort_keys=True)} if metadata else None
    write_bytes(path, encode_tensors(whole, metadata=packed))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors (on the CPU) and its metadata."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}.") from error
    try:
        tensors: dict[str, Tensor] = decode_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header.get("__metadata__", {}).get(METADATA, "{}"))
    except (SafetensorError, ValueError) as error:
        raise StorageError(f"{path} is not a whole safetensors file ({error}). Copy it again, or make it anew.") from error
    return tensors, metadata


def _refuse_special(path: Path) -> None:
    """Refuse what a new file may not replace; a link that is still one after resolving leads round in a circle."""
    if path.is_symlink():
        raise StorageError(f"cannot write {path}: the link leads back to itself. Remove it, or choose another name.")
    if path.exists() and not path.is_file():
        raise StorageError(f"cannot write {path}: it is a folder or a device, not a file. Choose another name.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
