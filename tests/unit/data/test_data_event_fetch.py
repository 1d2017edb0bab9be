"""Event sets fetched from a local server, and read in the archives that come; nothing here leaves the machine."""

import errno
import hashlib
import io
import os
import re
import sys
import zipfile
from dataclasses import replace

import pytest

from spikeprune.data import archives, fetch
from spikeprune.data.event_loading import read_events
from spikeprune.data.event_sources import CIFAR10_DVS, EVENT_SOURCES, NMNIST
from spikeprune.data.sources import File
from spikeprune.errors import DataError, DownloadError, MissingExtra, StorageError


def atis(x):
    return bytes([x, 0, 0, 0, x])


def zipped(contents, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


TRAIN = {"Train/0/00003.bin": atis(3), "Train/1/00002.bin": atis(2), "Train/0/00001.bin": atis(1)}
TEST = {"Test/0/00002.bin": atis(5), "Test/1/00001.bin": atis(4)}
PACKED = {"Train.zip": zipped(TRAIN), "Test.zip": zipped(TEST)}
"""The published archives by name; they lie on the server as "a/file" and "b/file"."""

PATHS = {"Train.zip": "a/file", "Test.zip": "b/file"}


def digits(*mirrors, packed=PACKED):
    files = tuple(
        File(name, content="", published=f"md5:{hashlib.md5(content).hexdigest()}", path=PATHS[name])
        for name, content in packed.items()
    )
    return replace(NMNIST, name="tiny", classes=("0", "1"), train=(2, 1), test=(1, 1), obtain="Ask", files=files, mirrors=mirrors)


def served(packed=PACKED):
    return {PATHS[name]: content for name, content in packed.items()}


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if not path.is_dir())


def test_what_is_fetched_has_sums_addresses_and_a_mirror():
    for source in EVENT_SOURCES.values():
        assert bool(source.files) == bool(source.mirrors)
        assert not (source.files and source.archive)
        for file in source.files:
            assert re.fullmatch("md5:[0-9a-f]{32}", file.published)
            assert file.path
        assert len({file.path for file in source.files} | {file.published for file in source.files}) == 2 * len(source.files)
        assert all(re.match("https://.*/$", mirror) for mirror in source.mirrors)
    assert [file.name for file in CIFAR10_DVS.files] == [f"{name}.zip" for name in CIFAR10_DVS.classes]


def test_archives_are_fetched_once_and_read_where_they_lie(folders, serve):
    server = serve(served())
    data = read_events(digits(server.url))

    assert data.source == str(folders[1] / "tiny")
    assert [(r.name, r.label, r.read().x.item()) for r in data.train] == [
        ("Train/0/00001", 0, 1),
        ("Train/1/00002", 1, 2),
        ("Train/0/00003", 0, 3),
    ]
    assert [(r.label, r.read().x.item()) for r in data.test] == [(1, 4), (0, 5)]
    assert files_in(folders[1]) == ["Test.zip", "Train.zip"]
    assert files_in(folders[0]) == []

    read_events(digits(server.url))
    assert server.asked == ["a/file", "b/file"]


def test_a_stopped_fetch_is_taken_up(folders, serve):
    server = serve({"a/file": PACKED["Train.zip"]})
    with pytest.raises(
        DownloadError, match=f"cannot get Test.zip of data set 'tiny'(.|\n)*{server.url}b/file: HTTP 404 Not Found"
    ):
        read_events(digits(server.url))
    assert files_in(folders[1]) == ["Train.zip"]

    server.contents["b/file"] = PACKED["Test.zip"]
    assert len(read_events(digits(server.url)).test) == 2
    assert server.asked == ["a/file", "b/file", "b/file"]


def test_the_own_folder_comes_first_packed_or_not(folders, put):
    put(folders[0] / "tiny", {"Train.zip": PACKED["Train.zip"]})
    for name, content in TEST.items():
        put((folders[0] / "tiny" / name).parent, {name.rpartition("/")[2]: content})

    data = read_events(digits())

    assert data.source == str(folders[0] / "tiny")
    assert [recording.read().x.item() for recording in (*data.train, *data.test)] == [1, 2, 3, 4, 5]
    assert not folders[1].exists()


def test_an_archive_unpacked_in_the_cache_is_not_fetched_again(folders, serve, put):
    for name, content in TRAIN.items():
        put((folders[1] / "tiny" / name).parent, {name.rpartition("/")[2]: content})
    server = serve(served())

    assert len(read_events(digits(server.url)).train) == 3
    assert server.asked == ["b/file"]


def test_half_of_the_own_folder_is_said(folders, put):
    put(folders[0] / "tiny", {"Train.zip": PACKED["Train.zip"]})

    with pytest.raises(DataError, match=r"own/tiny holds 3 training and 0 test recordings .*\. Ask\."):
        read_events(digits())


def test_an_own_folder_with_other_files_is_said_before_the_fetch(folders, serve, put, caplog):
    put(folders[0] / "tiny", {"README.txt": b""})

    read_events(digits(serve(served()).url))

    assert f"{folders[0] / 'tiny'} lacks Train.zip, Test.zip; taking them from the cache or the network" in caplog.text


def test_a_wrong_sum_keeps_nothing(folders, serve):
    server = serve(served() | {"a/file": b"<html>Log in</html>"})

    with pytest.raises(DownloadError, match=rf"{server.url}a/file: wrong checksum, md5 of its 19 bytes is ") as caught:
        read_events(digits(server.url))

    assert "put the files Train.zip, Test.zip into $SPIKEPRUNE_DATA/tiny/" in str(caught.value)
    assert files_in(folders[1]) == []


def test_a_cut_connection_keeps_nothing(folders, serve):
    server = serve(served(), extra_bytes=900)

    with pytest.raises(DownloadError, match=r"a/file: .*IncompleteRead\(\d+ bytes read, 900 more expected\)"):
        read_events(digits(server.url))

    assert files_in(folders[1]) == []


def test_no_network_says_where_it_looked(folders, closed_port):
    with pytest.raises(DownloadError, match="Connection refused") as caught:
        read_events(digits(closed_port))

    assert f"not in {folders[0] / 'tiny'}\n  not in {folders[1] / 'tiny'}\n  not from {closed_port}a/file" in str(caught.value)
    assert files_in(folders[1]) == []


def test_without_pooch_the_extra_is_named(folders, serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)

    with pytest.raises(MissingExtra, match=r"downloading tiny .*needs pooch"):
        read_events(digits(serve(served()).url))


def test_a_download_without_end_is_cut_off(folders, serve, monkeypatch):
    monkeypatch.setattr(fetch, "LIMIT_BYTES", 100)

    with pytest.raises(DownloadError, match="a/file: more than 100 bytes, and no published file has as many"):
        read_events(digits(serve(served()).url))

    assert files_in(folders[1]) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_a_storage_error_and_keeps_nothing(folders, serve, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetch.os, step, full)
    first, second = serve(served()), serve(served())

    with pytest.raises(StorageError, match=r"cannot keep a download in .*tiny: No space left on device"):
        read_events(digits(first.url, second.url))

    assert files_in(folders[1]) == []
    assert second.asked == []


def test_a_disk_that_fills_up_on_the_way_is_no_fault_of_the_mirror(folders, serve, monkeypatch):
    class Full(io.BytesIO):
        name = "cache/tiny/part"

        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="cannot keep a download in cache/tiny: No space left on device"):
        fetch._receive(f"{serve(served()).url}a/file", digits().files[0], Full())


def test_nothing_is_held_under_the_name_while_it_comes(folders, serve, monkeypatch):
    server = serve(served())
    seen = []
    receive = fetch._receive

    def watched(url, file, part):
        receive(url, file, part)
        seen.append(files_in(folders[1]))

    monkeypatch.setattr(fetch, "_receive", watched)
    read_events(digits(server.url))

    (hidden,), (other, kept) = seen
    assert (hidden.startswith(".Train.zip."), other.startswith(".Test.zip."), kept) == (True, True, "Train.zip")


def changed(old, new):
    """Archives as published whose training part is damaged; the sum is that of the damaged file."""
    assert old in PACKED["Train.zip"]
    return PACKED | {"Train.zip": PACKED["Train.zip"].replace(old, new, 1)}


@pytest.mark.parametrize("size", [0, 1, 60, len(PACKED["Train.zip"]) - 1])
def test_a_truncated_archive_is_refused(folders, put, size):
    put(folders[1] / "tiny", PACKED | {"Train.zip": PACKED["Train.zip"][:size]})

    with pytest.raises(DataError, match=r"tiny/Train\.zip is not a whole \.zip archive: .*Delete it so that it is fetched again"):
        read_events(digits())


def test_a_changed_recording_fails_its_crc_when_it_is_read(folders, put):
    put(folders[1] / "tiny", changed(atis(2), atis(9)))

    data = read_events(digits())
    assert data.train[0].read().x.item() == 1
    with pytest.raises(DataError, match=r"Train\.zip is not a whole \.zip archive: Bad CRC-32 for file 'Train/1/00002\.bin'"):
        data.train[1].read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (atis(3)[:-1], r"Train\.zip: Train/0/00003\.bin, byte 0: cut in the middle of an event"),
        (bytes([3, 0, 0, 0, 9]) + atis(3), r"byte 5: event 1 comes at 3 us, after one at 9 us"),
        (atis(34), r"byte 0: event 0 lies at x = 34, y = 0, outside the sensor of 34 x 34"),
    ],
)
def test_a_damaged_recording_names_its_archive(folders, put, content, message):
    put(folders[1] / "tiny", PACKED | {"Train.zip": zipped(TRAIN | {"Train/0/00003.bin": content})})

    with pytest.raises(DataError, match=message):
        read_events(digits()).train[2].read()


def test_members_outside_the_folder_are_no_recordings(folders, put, tmp_path):
    outside = {"../Train/0/00009.bin": atis(1), "/Train/0/00009.bin": atis(1), "Test/0/00009.bin": atis(1), "Train/2/1.bin": b""}
    put(folders[1] / "tiny", PACKED | {"Train.zip": zipped(TRAIN | outside)})
    before = files_in(tmp_path)

    data = read_events(digits())

    assert [recording.name for recording in data.train] == ["Train/0/00001", "Train/1/00002", "Train/0/00003"]
    assert [recording.read().x.item() for recording in data.train] == [1, 2, 3]
    assert files_in(tmp_path) == before


def test_a_bomb_is_refused_before_it_is_unpacked(folders, put, monkeypatch):
    monkeypatch.setattr(archives, "MEMBER_BYTES", 1000)
    bomb = zipped(TRAIN | {"Train/1/00002.bin": bytes(5000)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1000
    put(folders[1] / "tiny", PACKED | {"Train.zip": bomb})

    with pytest.raises(DataError, match=r"its member Train/1/00002\.bin has 5,000 bytes, more than any recording \(1,000\)"):
        read_events(digits()).train[1].read()


def test_an_archive_is_indexed_once_and_again_when_it_changed(folders, put, monkeypatch):
    put(folders[1] / "tiny", PACKED)
    anew = zipped(TRAIN | {"Train/0/00001.bin": atis(8) * 2})
    archives._indexed.cache_clear()
    opened = []
    original = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda path: opened.append(path.name) or original(path))
    data = read_events(digits())

    assert [recording.read().x.item() for recording in (*data.train, *data.test)] == [1, 2, 3, 4, 5]
    assert opened == ["Train.zip", "Test.zip"]

    put(folders[1] / "tiny", {"Train.zip": anew})
    assert data.train[0].read().x.tolist() == [8, 8]
    assert opened == ["Train.zip", "Test.zip", "Train.zip"]

    # A fork shares the place at which the file is read, so it must not share the file.
    monkeypatch.setattr(archives.os, "getpid", lambda: -1)
    assert data.train[0].read().x.tolist() == [8, 8]
    assert len(opened) == 4
