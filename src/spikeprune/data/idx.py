"""IDX files, the format of MNIST and its kin: a magic number, the dimensions, then the bytes.

Nothing in a file is taken on trust: its length must follow from its header, to the byte. Whether it is compressed is
read from the content, not from the name.

Format: http://yann.lecun.com/exdb/mnist/ (section "file formats"); all header numbers are big-endian, 32 bits.
"""

import gzip
import math
import struct
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikeprune.errors import DataError

REMEDY = "Delete it so that it is fetched again, or copy it again."
SIDE = 28

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTES = 0x0800


def unpack(content: bytes, file: str) -> bytes:
    """Return `content` uncompressed, and as it is when it is not gzip; `file` names it in errors.

    Raises:
        DataError: the gzip stream is cut short, or fails its own checksum.
    """
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file} ({len(content):,} bytes) is not a whole gzip file: {error}. {REMEDY}") from error


def images(content: bytes, file: str) -> Tensor:
    """Decode uncompressed IDX images: uint8 (N, 1, 28, 28).

    Raises:
        DataError: wrong magic number, wrong length, or images of another size.
    """
    pixels = _decode(content, file, dims=3)
    if pixels.shape[1:] != (SIDE, SIDE):
        height, width = pixels.shape[1:]
        raise DataError(f"{file} holds images of {height} x {width} pixels, not {SIDE} x {SIDE}. {REMEDY}")
    return torch.from_numpy(pixels).unsqueeze(1)


def labels(content: bytes, file: str, classes: int) -> Tensor:
    """Decode uncompressed IDX labels: int64 (N,), each below `classes`.

    Raises:
        DataError: wrong magic number, wrong length, or a label out of range.
    """
    found = torch.from_numpy(_decode(content, file, dims=1)).long()
    outside = (found >= classes).nonzero().flatten()
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"{file} has label {int(found[first])} at index {first}; labels go from 0 to {classes - 1} "
            f"({len(outside):,} of {len(found):,} are out of range). {REMEDY}"
        )
    return found


def _decode(content: bytes, file: str, dims: int) -> NDArray[np.uint8]:
    """Check the header against the content and return a writable array of `dims` dimensions."""
    magic = struct.pack(">I", _UNSIGNED_BYTES | dims)
    if content[:4] != magic[: len(content)]:
        raise DataError(
            f"{file} starts with the bytes {content[:4].hex(' ')}, not {magic.hex(' ')}: it is not an IDX file of "
            f"unsigned bytes with {dims} dimension{'s' * (dims > 1)}. {REMEDY}"
        )
    start = 4 + 4 * dims
    if len(content) < start:
        raise DataError(f"{file} is cut short: {len(content)} bytes, and its header alone takes {start}. {REMEDY}")
    shape = struct.unpack(f">{dims}I", content[4:start])
    size = start + math.prod(shape)
    if len(content) != size:
        fault = "is cut short" if len(content) < size else "has trailing bytes"
        shown = " x ".join(map(str, shape))
        raise DataError(f"{file} {fault}: {len(content):,} bytes where its header ({shown}) makes {size:,}. {REMEDY}")
    # A copy, since torch wants memory that may be written to, and `content` may not.
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()
