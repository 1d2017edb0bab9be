import errno
import json
import os
import stat
import subprocess
import sys

import pytest
import torch

from spikeprune import files
from spikeprune.errors import StorageError
from spikeprune.files import read_json, read_tensors, write_bytes, write_json, write_tensors, write_text

FULL = """
import resource, sys
from spikeprune.errors import StorageError
from spikeprune.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(sys.argv[1], b"new" * 10_000)
except StorageError as error:
    sys.exit(str(error))
"""


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def earlier(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"earlier")
    return path


def fail_with(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_what_is_written_is_read(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "Erdős")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "Erdős".encode()
    write_json(tmp_path / "c.json", {"x": [1, None]})
    assert read_json(tmp_path / "c.json") == {"x": [1, None]}
    assert listing(tmp_path) == ["a", "c.json"]


def test_a_path_may_be_a_string(tmp_path):
    write_json(str(tmp_path / "c.json"), 1)
    assert read_json(str(tmp_path / "c.json")) == 1


def test_a_file_is_replaced_as_a_whole(earlier):
    write_bytes(earlier, b"new")
    assert earlier.read_bytes() == b"new"
    assert listing(earlier.parent) == [earlier.name]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "x", b"")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_earlier_file(earlier, monkeypatch, call):
    monkeypatch.setattr(files.os, call, fail_with(errno.ENOSPC))
    with pytest.raises(StorageError, match=r"weights\.bin \(3 bytes\): No space left on device.*untouched.*free some space"):
        write_bytes(earlier, b"new")
    assert earlier.read_bytes() == b"earlier"
    assert listing(earlier.parent) == [earlier.name]


def test_a_truly_full_disk_leaves_the_earlier_file(earlier):
    done = subprocess.run([sys.executable, "-c", FULL, str(earlier)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert "(30,000 bytes): File too large" in done.stderr
    assert earlier.read_bytes() == b"earlier"
    assert listing(earlier.parent) == [earlier.name]


def test_an_interrupt_leaves_the_earlier_file(earlier, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(earlier, b"new")
    assert earlier.read_bytes() == b"earlier"
    assert listing(earlier.parent) == [earlier.name]


def test_a_folder_that_cannot_be_written_is_named(earlier, monkeypatch):
    monkeypatch.setattr(files.tempfile, "mkstemp", lambda **_: fail_with(errno.EACCES)())
    with pytest.raises(StorageError, match=r"cannot write .*weights\.bin: Permission denied\. Choose a folder"):
        write_bytes(earlier, b"new")
    assert earlier.read_bytes() == b"earlier"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        write_bytes(tmp_path / "x", b"")


def test_a_file_in_place_of_a_folder_is_refused(earlier):
    with pytest.raises(StorageError, match=r"cannot write .*Choose a folder"):
        write_bytes(earlier / "x", b"")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError, match=r"x: .* is a folder or a device, not a file\. Choose another name"):
        write_bytes(tmp_path / "x", b"")
    assert listing(tmp_path) == ["x"]


def test_a_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(StorageError, match=r"pipe: it is a folder or a device, not a file"):
            write_bytes(tmp_path / name, b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert listing(tmp_path) == ["link", "pipe"]


def test_a_link_stays_a_link_to_the_new_content(earlier):
    folder = earlier.parent / "links"
    folder.mkdir()
    (folder / "latest").symlink_to("../weights.bin")
    (folder / "next").symlink_to("../absent.bin")
    for name in ("latest", "next"):
        write_bytes(folder / name, b"new")
        assert (folder / name).is_symlink()
    assert earlier.read_bytes() == b"new"
    assert listing(folder) == ["latest", "next"]
    assert listing(earlier.parent) == ["absent.bin", "links", "weights.bin"]


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "x").symlink_to("x")
    with pytest.raises(StorageError, match="cannot write"):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").is_symlink()


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(StorageError, match=r"cannot read .*nothing: No such file or directory"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b"\xff\xfe", b'{"a": 1} x'])
def test_wrong_json_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"x\.json is not valid JSON \("):
        read_json(tmp_path / "x.json")


def test_tensors_return_bit_for_bit(tmp_path):
    grid = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "view": grid.t(),
        "strided": grid[:, ::2],
        "twice": grid,
        "half": torch.tensor([1.5, -0.0, torch.nan, torch.inf], dtype=torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "none": torch.empty(0, 3),
        "learned": torch.nn.Parameter(torch.tensor([0.1])),
        "": torch.tensor([1]),
    }
    write_tensors(tmp_path / "x", tensors, {"format": "here"})
    found, metadata = read_tensors(tmp_path / "x")
    assert metadata == {"format": "here"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name].nan_to_num(9), tensor.nan_to_num(9))
    assert not found["learned"].requires_grad


def test_no_tensor_and_no_metadata_is_a_file_too(tmp_path):
    write_tensors(tmp_path / "x", {})
    assert read_tensors(tmp_path / "x") == ({}, {})


def test_a_truncated_tensor_file_is_refused_wherever_it_is_cut(tmp_path):
    write_tensors(tmp_path / "x", {"a": torch.arange(4.0)}, {"format": "here"})
    whole = (tmp_path / "x").read_bytes()
    for cut in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:cut])
        with pytest.raises(StorageError, match="is not a whole safetensors file"):
            read_tensors(tmp_path / "x")


@pytest.mark.parametrize("content", [b"\x80\x04}q\x00.", b"PK\x03\x04" + b"\0" * 50, json.dumps({"a": 1}).encode(), b"\xff" * 64])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(StorageError, match="is not a whole safetensors file"):
        read_tensors(tmp_path / "x")


def test_a_pickle_is_never_run(tmp_path):
    marker = tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    torch.save({"a": Trap()}, tmp_path / "x")
    with pytest.raises(StorageError):
        read_tensors(tmp_path / "x")
    assert not marker.exists()
