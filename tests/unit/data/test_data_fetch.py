"""Downloads, against a local server; nothing here leaves the machine."""

import hashlib
import io
import stat
import sys
from dataclasses import replace

import pytest

from spikeprune.data.fetch import download
from spikeprune.data.loading import read
from spikeprune.errors import DownloadError, MissingExtra, StorageError


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if not path.is_dir())


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_what_is_nowhere_is_fetched_once(tiny, folders, serve):
    server = serve(tiny.packed)
    source = tiny.source(server.url)

    first = read(source)

    assert first.source == str(folders[1] / "tiny")
    assert first.test.y.tolist() == [2, 1]
    assert files_in(folders[1]) == sorted(tiny.packed)
    assert sorted(server.asked) == sorted(tiny.packed)

    assert read(source).test.y.tolist() == [2, 1]
    assert len(server.asked) == 4


def test_without_a_cache_it_is_fetched_again(tiny, folders, serve):
    server = serve(tiny.packed)
    read(tiny.source(server.url))
    for path in (folders[1] / "tiny").iterdir():
        path.unlink()

    read(tiny.source(server.url))

    assert len(server.asked) == 8


def test_only_missing_files_are_fetched(tiny, folders, serve, put):
    put(folders[1] / "tiny", {name: content for name, content in tiny.packed.items() if name != "test-labels.gz"})
    server = serve(tiny.packed)

    read(tiny.source(server.url))

    assert server.asked == ["test-labels.gz"]


def test_the_own_folder_is_never_written(tiny, folders, serve):
    read(tiny.source(serve(tiny.packed).url))

    assert files_in(folders[0]) == []


def test_fetched_files_can_be_read_by_others(tiny, folders, serve):
    read(tiny.source(serve(tiny.packed).url))
    (folders[1] / "plain").touch()

    expected = stat.S_IMODE((folders[1] / "plain").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folders[1] / "tiny").iterdir()} == {expected}


def test_a_wrong_checksum_shows_both_sums_and_keeps_nothing(tiny, folders, serve):
    served = tiny.packed | {"train-images.gz": b"<html>Log in to the hotel's network</html>"}
    server = serve(served)
    source = tiny.source(server.url)

    with pytest.raises(DownloadError, match="wrong checksum") as caught:
        read(source)

    message = str(caught.value)
    assert f"{server.url}train-images.gz: wrong checksum, sha256 of its 42 bytes is " in message
    assert hashlib.sha256(served["train-images.gz"]).hexdigest() in message
    assert source.train[0].published.removeprefix("sha256:") in message
    assert files_in(folders[1]) == []


def test_md5_sums_are_checked_too(tiny, folders, serve):
    server = serve(tiny.packed)
    right, wrong = tiny.source(server.url).train
    right = replace(right, published=f"md5:{hashlib.md5(tiny.packed[right.name]).hexdigest()}")
    wrong = replace(wrong, published=f"md5:{'0' * 32}")

    assert download(tiny.source(server.url), right, [folders[1]]).read_bytes() == tiny.packed[right.name]
    with pytest.raises(DownloadError, match=f"md5 of its .* published is {'0' * 32}"):
        download(tiny.source(server.url), wrong, [folders[1]])


def test_a_cut_connection_keeps_nothing(tiny, folders, serve):
    server = serve(tiny.packed, extra_bytes=900)

    with pytest.raises(DownloadError, match=r"train-images\.gz: .*IncompleteRead\(\d+ bytes read, 900 more expected\)"):
        read(tiny.source(server.url))

    assert files_in(folders[1]) == []


def test_a_missing_file_is_named_with_its_status(tiny, folders, serve):
    server = serve({})

    with pytest.raises(DownloadError, match=f"not from {server.url}train-images.gz: HTTP 404 Not Found"):
        read(tiny.source(server.url))

    assert files_in(folders[1]) == []


def test_no_network_says_where_it_looked_and_what_to_do(tiny, folders, closed_port):
    with pytest.raises(DownloadError, match="Connection refused") as caught:
        read(tiny.source(closed_port))

    message = str(caught.value)
    assert "cannot get train-images.gz of data set 'tiny'" in message
    assert f"not in {folders[0] / 'tiny'}\n" in message
    assert f"not in {folders[1] / 'tiny'}\n" in message
    assert f"not from {closed_port}train-images.gz" in message
    assert "train-images.gz, train-labels.gz, test-images.gz, test-labels.gz into $SPIKEPRUNE_DATA/tiny/" in message


def test_a_name_that_does_not_resolve_is_a_download_error(tiny, folders):
    with pytest.raises(DownloadError, match=r"nowhere\.invalid/train-images\.gz: ConnectionError"):
        read(tiny.source("http://nowhere.invalid/"))


def test_without_mirrors_it_still_says_what_to_do(tiny, folders):
    with pytest.raises(DownloadError, match=r"put the files .* into \$SPIKEPRUNE_DATA/tiny/"):
        read(tiny.source())


def test_mirrors_are_tried_in_turn(tiny, folders, serve, closed_port):
    missing, cut = serve({}), serve(tiny.packed, extra_bytes=1)
    wrong, good, unasked = serve(dict.fromkeys(tiny.packed, b"?")), serve(tiny.packed), serve(tiny.packed)
    mirrors = (closed_port, missing.url, cut.url, wrong.url, good.url.rstrip("/"), unasked.url)

    data = read(tiny.source(*mirrors))

    assert data.train.y.tolist() == [0, 1, 2, 0]
    assert [len(server.asked) for server in (missing, cut, wrong, good, unasked)] == [4, 4, 4, 4, 0]


def test_when_all_mirrors_fail_each_is_listed(tiny, folders, serve, closed_port):
    missing, cut = serve({}), serve(tiny.packed, extra_bytes=1)

    with pytest.raises(DownloadError) as caught:
        read(tiny.source(closed_port, missing.url, cut.url))

    assert [line.split()[2] for line in str(caught.value).splitlines() if "not from" in line] == [
        f"{url}train-images.gz:" for url in (closed_port, missing.url, cut.url)
    ]


def test_what_was_cached_outlives_a_failure(tiny, folders, serve, put):
    whole = {name: content for name, content in tiny.packed.items() if name != "test-labels.gz"}
    put(folders[1] / "tiny", whole)
    server = serve({"test-labels.gz": b"?"})

    with pytest.raises(DownloadError, match=r"cannot get test-labels\.gz"):
        read(tiny.source(server.url))

    assert {path.name: path.read_bytes() for path in (folders[1] / "tiny").iterdir()} == whole


def test_an_earlier_file_outlives_a_failed_download_of_the_same_name(tiny, folders, serve, put):
    put(folders[1], {"train-images.gz": b"earlier"})
    source = tiny.source(serve(tiny.packed, extra_bytes=1).url)

    with pytest.raises(DownloadError):
        download(source, source.train[0], [folders[1]])

    assert (folders[1] / "train-images.gz").read_bytes() == b"earlier"
    assert files_in(folders[1]) == ["train-images.gz"]


def test_and_gives_way_to_one_that_succeeds(tiny, folders, serve, put):
    put(folders[1], {"train-images.gz": b"earlier"})
    source = tiny.source(serve(tiny.packed).url)

    download(source, source.train[0], [folders[1]])

    assert (folders[1] / "train-images.gz").read_bytes() == tiny.packed["train-images.gz"]


def test_a_cache_that_cannot_be_written_is_refused_before_the_download(tiny, folders, serve, monkeypatch):
    (folders[0] / "file").touch()
    monkeypatch.setenv("SPIKEPRUNE_CACHE", str(folders[0] / "file"))
    server = serve(tiny.packed)

    with pytest.raises(StorageError, match=f"cache folder {folders[0] / 'file' / 'tiny'}: Not a dir.*SPIKEPRUNE_CACHE"):
        read(tiny.source(server.url))

    assert server.asked == []


def test_without_pooch_the_extra_is_named(tiny, folders, serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)

    with pytest.raises(MissingExtra, match=r"downloading tiny .*needs pooch.*pip install 'spikeprune\[recipes\]'"):
        read(tiny.source(serve(tiny.packed).url))


def test_files_on_disk_need_no_pooch(tiny, folders, put, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    put(folders[0] / "tiny", tiny.packed)

    assert len(read(tiny.source()).train) == 4


def test_progress_is_drawn_on_a_terminal(tiny, folders, serve, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())

    read(tiny.source(serve(tiny.packed).url))

    assert "train-images.gz" in sys.stderr.getvalue()


def test_and_only_there(tiny, folders, serve, capfd):
    read(tiny.source(serve(tiny.packed).url))

    assert capfd.readouterr() == ("", "")
