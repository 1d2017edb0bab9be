"""AEDAT files of a DVS128 sensor: version 2.0 as CIFAR10-DVS comes in, version 3.1 as DVS128 Gesture does.

Both open with lines that start with '#'. What follows is (address, time) pairs in 2.0, typed packets in 3.1.

Format: https://docs.inivation.com/software/software-advanced-usage/file-formats/
"""

import csv
import io
import struct
from dataclasses import dataclass

import numpy as np

from spikeprune.data.events import REMEDY, Columns, Events, checked, cut
from spikeprune.errors import DataError

SIDE = 128
EVENT_BYTES = 8
GESTURES = 11

_VERSION_2, _VERSION_3 = b"#!AER-DAT2.0", b"#!AER-DAT3.1"
_HEADER_END = b"#!END-HEADER"
_EXTERNAL = 1 << 15
_PACKET = struct.Struct("<2h6i")
_POLARITY = 1


def aedat2(content: bytes, file: str) -> Events:
    r"""Decode an AEDAT 2.0 recording of CIFAR10-DVS: big-endian pairs of a 32-bit address and 32-bit microseconds.

    Address bits: 0 polarity, 1 to 7 and 8 to 14 the two coordinates, 15 an event of the input pin, which is no pixel's
    and is left out; any bit above is refused. Orientation: column = 127 - bits 8 to 14, row = 127 - bits 1 to 7,
    polarity = 1 - bit 0. That is the picture upright and as jAER shows it, and what SpikingJelly reads; the Matlab
    script that comes with the data gives it turned.

    Args:
        content: the file.
        file: its name in errors.

    Raises:
        DataError: no AEDAT 2.0, an event is cut, an address is no DVS128 address, or time runs backwards.

    Example:
        >>> address = (127 - 5) << 8 | (127 - 9) << 1 | 0
        >>> events = aedat2(b"#!AER-DAT2.0\r\n" + struct.pack(">2i", address, 70), "a.aedat")
        >>> events.x.item(), events.y.item(), events.p.item(), events.t.item()
        (5, 9, 1, 70)
    """
    start = _comments(content, file, _VERSION_2)
    if (len(content) - start) % EVENT_BYTES:
        raise cut(file, start, len(content), EVENT_BYTES)
    pairs = np.frombuffer(content, dtype=">i4", offset=start).reshape(-1, 2).astype(np.int64)
    address, t = pairs[:, 0], pairs[:, 1]
    offsets = start + np.arange(len(pairs)) * EVENT_BYTES
    unknown = np.flatnonzero((address < 0) | (address >= 2 * _EXTERNAL))
    if len(unknown):
        at = unknown[0]
        raise DataError(
            f"{file}, byte {offsets[at]:,}: event {at:,} has address {address[at] & 0xFFFFFFFF:#010x}, and a DVS128 uses the "
            f"lower 16 bits only ({len(unknown):,} of {len(pairs):,} events). It is a recording of another sensor, or damaged. "
            f"{REMEDY}"
        )
    pixel = address & _EXTERNAL == 0
    address, t, offsets = address[pixel], t[pixel], offsets[pixel]
    columns = (t, SIDE - 1 - (address >> 8 & 0x7F), SIDE - 1 - (address >> 1 & 0x7F), 1 - (address & 1))
    return checked(file, offsets, columns, (SIDE, SIDE))


def aedat3(content: bytes, file: str) -> Events:
    r"""Decode an AEDAT 3.1 recording of DVS128 Gesture: little-endian packets, of which those of polarity events count.

    A packet has 28 bytes of header (type, source, event size, where in an event its time is, clock overflows, capacity,
    number, valid number) and then its events. Event bits: 0 valid, 1 polarity, 2 to 16 row, 17 to 31 column; then 31
    bits of microseconds, above which the overflows count. Events marked invalid are left out, as the format asks.

    Args:
        content: the file.
        file: its name in errors.

    Raises:
        DataError: no AEDAT 3.1, a packet is cut or contradicts itself, a pixel outside 128 x 128, or time backwards.

    Example:
        >>> packet = struct.pack("<2h6i", 1, 0, 8, 4, 0, 1, 1, 1) + struct.pack("<2I", 5 << 17 | 9 << 2 | 0b11, 70)
        >>> events = aedat3(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + packet, "a.aedat")
        >>> events.x.item(), events.y.item(), events.p.item(), events.t.item()
        (5, 9, 1, 70)
    """
    at, found, offsets = _comments(content, file, _VERSION_3), [], []
    while at < len(content):
        if at + _PACKET.size > len(content):
            left = len(content) - at
            raise DataError(f"{file}, byte {at:,}: cut in a packet header of {_PACKET.size} bytes; {left} are left. {REMEDY}")
        kind, _, size, _, overflows, capacity, number, _ = _PACKET.unpack_from(content, at)
        start, end = at + _PACKET.size, at + _PACKET.size + capacity * size
        if size < 1 or overflows < 0 or not 0 <= number <= capacity or (kind == _POLARITY and size != EVENT_BYTES):
            raise DataError(
                f"{file}, byte {at:,}: a packet of type {kind} says {number:,} of {capacity:,} events of {size} bytes, "
                f"{overflows} clock overflows; that is no AEDAT 3.1 packet. {REMEDY}"
            )
        if end > len(content):
            raise cut(file, start, len(content), size)
        if kind == _POLARITY:
            words = np.frombuffer(content, dtype="<u4", count=2 * number, offset=start).reshape(-1, 2).astype(np.int64)
            words[:, 1] |= overflows << 31
            found.append(words)
            offsets.append(start + np.arange(number) * EVENT_BYTES)
        at = end
    words = np.concatenate([np.empty((0, 2), np.int64), *found])
    places = np.concatenate([np.empty(0, np.int64), *offsets])
    valid = words[:, 0] & 1 == 1
    data, t = words[valid, 0], words[valid, 1]
    columns: Columns = (t, data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1)
    return checked(file, places[valid], columns, (SIDE, SIDE))


@dataclass(frozen=True)
class Window:
    """When a gesture was made: its class from 0, and start <= t < end in microseconds."""

    label: int
    start: int
    end: int


def windows(content: bytes, file: str) -> tuple[Window, ...]:
    r"""Decode the labels of a DVS128 Gesture trial: a csv of class (from 1), start and end in microseconds.

    Windows are taken as published, even where one reaches into the next (class 9 of user22_led does).

    Args:
        content: the file.
        file: its name in errors.

    Raises:
        DataError: not that csv, a class outside 1 to 11, or a window that ends before it starts.

    Example:
        >>> windows(b"class,startTime_usec,endTime_usec\n2,100,250\n", "a_labels.csv")
        (Window(label=1, start=100, end=250),)
    """
    rows = list(csv.reader(io.StringIO(content.decode("utf-8", "replace"))))
    if not rows or [cell.strip() for cell in rows[0]] != ["class", "startTime_usec", "endTime_usec"]:
        raise DataError(f"{file} does not start with the line class,startTime_usec,endTime_usec. {REMEDY}")
    found = []
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            label, start, end = (int(cell) for cell in row)
        except ValueError as error:
            raise DataError(f"{file}, line {line}: {','.join(row)!r} is not a class, a start and an end. {REMEDY}") from error
        if not 1 <= label <= GESTURES or not 0 <= start < end:
            raise DataError(
                f"{file}, line {line}: class {label} from {start:,} to {end:,} us; classes go from 1 to {GESTURES}, and a "
                f"window ends after it starts. {REMEDY}"
            )
        found.append(Window(label - 1, start, end))
    return tuple(found)


def _comments(content: bytes, file: str, version: bytes) -> int:
    """Where the lines that start with '#' end; 3.1 says so itself, since its first byte of data may be a '#'."""
    if not content.startswith(version):
        raise DataError(f"{file} starts with {content[:14]!r}, not with {version!r}. {REMEDY}")
    at = 0
    while content[at : at + 1] == b"#":
        newline = content.find(b"\n", at)
        if newline < 0:
            raise DataError(f"{file}, byte {at:,}: cut in its header. {REMEDY}")
        line, at = content[at:newline].rstrip(b"\r"), newline + 1
        if line == _HEADER_END:
            return at
    if version == _VERSION_3:
        raise DataError(f"{file}, byte {at:,}: its header has no line {_HEADER_END!r}. {REMEDY}")
    return at
