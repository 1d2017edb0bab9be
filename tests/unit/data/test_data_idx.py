import gzip
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeprune.data import idx
from spikeprune.errors import DataError

TWO_IMAGES = struct.pack(">4I", 0x803, 2, 28, 28) + bytes(range(256)) * 6 + bytes(32)
THREE_LABELS = struct.pack(">2I", 0x801, 3) + bytes([7, 0, 9])


def test_images_are_bytes_in_rows_with_one_channel():
    x = idx.images(TWO_IMAGES, "a")

    assert x.dtype == torch.uint8
    assert x.shape == (2, 1, 28, 28)
    assert x[0, 0, 0, :3].tolist() == [0, 1, 2]
    assert x[0, 0, 1, 0] == 28
    assert x[1, 0, 0, 0] == 784 % 256


def test_decoded_tensors_are_writable_and_own_their_memory():
    x = idx.images(TWO_IMAGES, "a")

    x.fill_(5)

    assert idx.images(TWO_IMAGES, "a")[0, 0, 0, 1] == 1


def test_labels_are_int64():
    y = idx.labels(THREE_LABELS, "a", classes=10)

    assert y.dtype == torch.int64
    assert y.tolist() == [7, 0, 9]


def test_compression_is_read_from_the_content():
    assert idx.unpack(THREE_LABELS, "a") == THREE_LABELS
    assert idx.unpack(gzip.compress(THREE_LABELS), "a") == THREE_LABELS


@pytest.mark.parametrize("size", [0, 1, 3, 4, 15, 16, 17, len(TWO_IMAGES) - 1])
def test_a_cut_file_is_refused_with_its_size(size):
    with pytest.raises(DataError, match=r"^a/b .*(cut short: [\d,]+ bytes)(.|\n)*fetched again"):
        idx.images(TWO_IMAGES[:size], "a/b")


def test_the_size_of_a_cut_file_and_the_size_it_should_have_are_shown():
    with pytest.raises(DataError, match=r"cut short: 1,583 bytes where its header \(2 x 28 x 28\) makes 1,584"):
        idx.images(TWO_IMAGES[:-1], "a")


def test_trailing_bytes_are_refused():
    with pytest.raises(DataError, match=r"^a has trailing bytes: 12 bytes where its header \(3\) makes 11"):
        idx.labels(THREE_LABELS + b"\0", "a", classes=10)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"\0\0\x09\x03" + TWO_IMAGES[4:], THREE_LABELS])
def test_a_wrong_magic_number_is_refused(content):
    with pytest.raises(DataError, match=r"^a starts with the bytes .* not 00 00 08 03.*3 dimensions.*fetched again"):
        idx.images(content, "a")


def test_images_are_not_labels():
    with pytest.raises(DataError, match=r"00 00 08 03, not 00 00 08 01.* 1 dimension\."):
        idx.labels(TWO_IMAGES, "a", classes=10)


def test_images_of_another_size_are_refused():
    with pytest.raises(DataError, match="a holds images of 2 x 14 pixels, not 28 x 28"):
        idx.images(struct.pack(">4I", 0x803, 1, 2, 14) + bytes(28), "a")


def test_a_label_out_of_range_is_named_with_its_index():
    with pytest.raises(DataError, match=r"a has label 9 at index 2; labels go from 0 to 8 \(1 of 3 are out of range\)"):
        idx.labels(THREE_LABELS, "a", classes=9)


def test_a_gzip_stream_cut_anywhere_is_refused():
    whole = gzip.compress(THREE_LABELS, mtime=0)

    for size in range(2, len(whole)):
        with pytest.raises(DataError, match=f"a .{size} bytes. is not a whole gzip file: .*fetched again"):
            idx.unpack(whole[:size], "a")


@given(position=st.integers(-8, -5), flip=st.integers(1, 255))
def test_a_gzip_stream_that_fails_its_own_checksum_is_refused(position, flip):
    damaged = bytearray(gzip.compress(THREE_LABELS, mtime=0))
    damaged[position] ^= flip

    with pytest.raises(DataError, match="is not a whole gzip file: CRC check failed"):
        idx.unpack(bytes(damaged), "a")
