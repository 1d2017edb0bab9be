"""Readers of recordings, on bytes in the published formats."""

import struct

import pytest
import torch

from spikeprune.data import Events
from spikeprune.data.aedat import Window, aedat2, aedat3, windows
from spikeprune.data.events import nmnist
from spikeprune.errors import DataError

HEAD_2 = b"#!AER-DAT2.0\r\n# Timestamps tick is 1 us\r\n"
HEAD_3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def atis(*events):
    """N-MNIST bytes of (t, x, y, p)."""
    return b"".join(struct.pack(">BB", x, y) + (p << 23 | t).to_bytes(3, "big") for t, x, y, p in events)


def dvs128(*events):
    """AEDAT 2.0 of (t, address)."""
    return HEAD_2 + b"".join(struct.pack(">Ii", address, t) for t, address in events)


def packet(*events, kind=1, size=8, overflows=0, number=None):
    """One AEDAT 3.1 packet of (t, x, y, p) or (t, x, y, p, valid)."""
    words = b"".join(struct.pack("<2I", x << 17 | y << 2 | p << 1 | (valid or [1])[0], t) for t, x, y, p, *valid in events)
    count = len(events) if number is None else number
    return struct.pack("<2h6i", kind, 1, size, 4, overflows, len(events), count, count) + words


def rows(events):
    return torch.stack([events.t, events.x, events.y, events.p], 1).tolist()


def test_nmnist_has_x_y_polarity_and_23_bits_of_time():
    events = nmnist(atis((0, 0, 0, 0), (258, 33, 7, 1), (2**23 - 1, 1, 33, 0)), "a")

    assert rows(events) == [[0, 0, 0, 0], [258, 33, 7, 1], [8_388_607, 1, 33, 0]]
    assert {part.dtype for part in (events.t, events.x, events.y, events.p)} == {torch.int64}


def test_an_empty_recording_has_no_events():
    assert [len(events) for events in (nmnist(b"", "a"), aedat2(HEAD_2, "a"), aedat3(HEAD_3, "a"))] == [0, 0, 0]


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_nmnist_cut_in_an_event_says_where(left):
    with pytest.raises(DataError, match=rf"^a/b\.bin, byte 5: cut in the middle of an event.* 5 bytes; {left} (is|are) left"):
        nmnist(atis((1, 2, 3, 0), (4, 5, 6, 1))[: 5 + left], "a/b.bin")


def test_time_running_backwards_says_where():
    with pytest.raises(DataError, match=r"^a, byte 10: event 2 comes at 6 us, after one at 7 us \(.* 1 times in 3 events"):
        nmnist(atis((5, 0, 0, 0), (7, 0, 0, 0), (6, 0, 0, 0)), "a")


def test_equal_times_are_in_order():
    assert nmnist(atis((5, 0, 0, 0), (5, 1, 0, 0)), "a").x.tolist() == [0, 1]


@pytest.mark.parametrize(("x", "y"), [(34, 0), (0, 34), (0, 240), (255, 255)])
def test_a_pixel_outside_the_sensor_says_where_and_an_overflow_mark_is_one(x, y):
    with pytest.raises(DataError, match=rf"^a, byte 5: event 1 lies at x = {x}, y = {y}, outside the sensor of 34 x 34"):
        nmnist(atis((1, 0, 0, 0), (2, x, y, 0)), "a")


def test_aedat2_is_turned_upright():
    # Bits 8 to 14 hold 127 - column, bits 1 to 7 hold 127 - row, bit 0 is 0 where it grew brighter.
    events = aedat2(dvs128((3, 127 << 8 | 127 << 1 | 0), (4, 0 << 8 | 126 << 1 | 1)), "a")

    assert rows(events) == [[3, 0, 0, 1], [4, 127, 1, 0]]


def test_aedat2_without_more_than_its_version_line():
    assert aedat2(b"#!AER-DAT2.0\r\n" + struct.pack(">2i", 0, 9), "a").t.tolist() == [9]


def test_events_of_the_input_pin_are_left_out():
    assert aedat2(dvs128((3, 1 << 15), (4, 0)), "a").t.tolist() == [4]


def test_aedat2_of_another_sensor_is_refused():
    at = len(HEAD_2) + 8
    with pytest.raises(DataError, match=rf"^a, byte {at}: event 1 has address 0x80000000.*lower 16 bits only \(1 of 2 events\)"):
        aedat2(dvs128((3, 0), (4, 1 << 31)), "a")


def test_aedat2_cut_or_backwards_says_where():
    at = len(HEAD_2) + 8
    with pytest.raises(DataError, match=rf"^a, byte {at}: cut in the middle of an event, which takes 8 bytes; 7 are left"):
        aedat2(dvs128((3, 0), (4, 0))[:-1], "a")
    with pytest.raises(DataError, match=rf"^a, byte {at}: event 1 comes at -1 us, after one at 3 us"):
        aedat2(dvs128((3, 0), (-1, 0)), "a")


@pytest.mark.parametrize("decode", [aedat2, aedat3])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"#!AER-DAT1.0\r\n"])
def test_another_format_is_refused(decode, content):
    with pytest.raises(DataError, match=r"^a starts with b'.*, not with b'#!AER-DAT"):
        decode(content, "a")


def test_a_cut_header_is_refused():
    with pytest.raises(DataError, match="byte 14: cut in its header"):
        aedat2(HEAD_2[:-1], "a")
    with pytest.raises(DataError, match=r"its header has no line b'#!END-HEADER'"):
        aedat3(HEAD_3.removesuffix(b"#!END-HEADER\r\n"), "a")


def test_aedat3_joins_the_packets_of_polarity_events_only():
    content = HEAD_3 + packet((5, 3, 4, 1), (6, 127, 0, 0)) + packet((9, 500, 500, 1), kind=0) + packet((7, 0, 127, 1))

    assert rows(aedat3(content, "a")) == [[5, 3, 4, 1], [6, 127, 0, 0], [7, 0, 127, 1]]


def test_data_may_begin_with_the_byte_of_a_comment():
    # A packet of type 0x23 is of no polarity events; its first byte is "#".
    assert rows(aedat3(HEAD_3 + packet(kind=0x23) + packet((5, 3, 4, 1)), "a")) == [[5, 3, 4, 1]]


def test_overflows_count_above_31_bits():
    content = HEAD_3 + packet((2**31 - 1, 0, 0, 0)) + packet((1, 0, 0, 0), overflows=1)

    assert aedat3(content, "a").t.tolist() == [2**31 - 1, 2**31 + 1]


def test_invalid_events_and_unused_room_are_left_out():
    assert aedat3(HEAD_3 + packet((5, 1, 1, 1, 0), (6, 2, 2, 1, 1)), "a").t.tolist() == [6]
    assert aedat3(HEAD_3 + packet((5, 1, 1, 1), (0, 0, 0, 0), number=1) + packet((6, 1, 1, 1)), "a").t.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (packet((5, 1, 1, 1))[:20], r"byte {0}: cut in a packet header of 28 bytes; 20 are left"),
        (
            packet((5, 1, 1, 1), (6, 1, 1, 1))[:-3],
            r"byte {2}: cut in the middle of an event, which takes 8 bytes; 5 are left after 1 ",
        ),
        (packet((5, 1, 1, 1), size=9), r"byte {0}: a packet of type 1 says 1 of 1 events of 9 bytes"),
        (packet((5, 1, 1, 1), number=2), r"byte {0}: a packet of type 1 says 2 of 1 events"),
        (packet((5, 1, 1, 1), overflows=-1), r"byte {0}: .* -1 clock overflows"),
        (packet((5, 128, 1, 1)), r"byte {1}: event 0 lies at x = 128, y = 1, outside the sensor of 128 x 128"),
        (packet((5, 1, 1, 1), (4, 1, 1, 1)), r"byte {2}: event 1 comes at 4 us, after one at 5 us"),
        (packet((5, 1, 1, 1, 0), (5, 1, 128, 1)), r"byte {2}: event 0 lies at x = 1, y = 128"),
    ],
)
def test_aedat3_that_is_wrong_says_where(tail, message):
    start = len(HEAD_3)
    with pytest.raises(DataError, match="^a, " + message.format(start, start + 28, start + 36)):
        aedat3(HEAD_3 + tail, "a")


def test_windows_count_classes_from_zero():
    content = b"class,startTime_usec,endTime_usec\r\n11,0,5\r\n\r\n1,3,9\r\n"

    assert windows(content, "a") == (Window(10, 0, 5), Window(0, 3, 9))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a does not start with the line class,startTime_usec,endTime_usec"),
        (b"class,start,end\n", "a does not start with the line"),
        (b"class,startTime_usec,endTime_usec\n1,2\n", "a, line 2: '1,2' is not a class, a start and an end"),
        (b"class,startTime_usec,endTime_usec\n1,2,x\n", "a, line 2: '1,2,x' is not"),
        (b"class,startTime_usec,endTime_usec\n12,2,3\n", "a, line 2: class 12 from 2 to 3 us; classes go from 1 to 11"),
        (b"class,startTime_usec,endTime_usec\n0,2,3\n", "a, line 2: class 0"),
        (b"class,startTime_usec,endTime_usec\n1,2,3\n1,4,4\n", "a, line 3: class 1 from 4 to 4 us"),
    ],
)
def test_wrong_labels_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        windows(content, "a")


def test_events_are_checked_when_they_are_made():
    one = torch.tensor([1])
    with pytest.raises(DataError, match=r"int64 tensors of one length; here \{'p': 'torch\.int64 \(2,\)'\}, t holds 1"):
        Events(one, one, one, torch.tensor([1, 2]))
    with pytest.raises(DataError, match=r"here \{'x': 'torch\.float32 \(1,\)'\}"):
        Events(one, one.float(), one, one)
    with pytest.raises(DataError, match=r"'t': 'torch\.int64 \(1, 1\)'"):
        Events(one.view(1, 1), one, one, one)
    with pytest.raises(DataError, match="event 1 comes at 1 us, after one at 2 us"):
        Events(*torch.tensor([[2, 1], [0, 0], [0, 0], [0, 0]]))


def test_between_takes_the_start_and_leaves_the_end():
    events = Events(*torch.tensor([[1, 2, 2, 3], [0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0]]))

    assert events.between(2, 3).x.tolist() == [1, 2]
    assert len(events.between(4, 9)) == 0
