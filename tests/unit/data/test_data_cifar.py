"""CIFAR in its binary version, on a data set of eight images in the real format."""

import gzip
import hashlib
import io
import logging
import tarfile
from dataclasses import dataclass, replace

import pytest
import torch

from spikeprune.data.cifar import CIFARS, PIXELS, Batch, Cifar, read
from spikeprune.data.sources import File
from spikeprune.errors import DataError, DownloadError

ARCHIVE = "tiny-binary.tar.gz"


def record(labels, seed):
    return bytes(labels) + bytes((seed + index) % 251 for index in range(PIXELS))


def packed(members, **changes):
    """A .tar.gz of `members`, each changed by the attributes of its TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        folder = tarfile.TarInfo("tiny-bin")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for attribute, value in changes.items():
                setattr(info, attribute, value)
            archive.addfile(info, io.BytesIO(content) if info.isfile() else None)
    return gzip.compress(out.getvalue(), mtime=0)


@dataclass(frozen=True)
class Tiny:
    batches: dict[str, bytes]
    images: dict[str, int]
    label_bytes: int
    classes: int

    @property
    def archive(self):
        return packed({f"tiny-bin/{name}": content for name, content in self.batches.items()})

    def spec(self, *mirrors, sums=True):
        listed = [
            Batch(name, self.images[name], hashlib.sha256(content).hexdigest() if sums else "")
            for name, content in self.batches.items()
        ]
        file = File(ARCHIVE, content="", published=f"md5:{hashlib.md5(self.archive).hexdigest()}")
        train, test = tuple(listed[:-1]), tuple(listed[-1:])
        return Cifar("tiny", self.classes, file, "tiny-bin", train, test, self.label_bytes, mirrors, "none")


@pytest.fixture
def ten():
    """As CIFAR-10: one label byte, several training files."""
    one = record([1], 0) + record([0], 10)
    return Tiny(
        {"data_1.bin": one, "data_2.bin": record([0], 20) + record([1], 30), "test.bin": one},
        {"data_1.bin": 2, "data_2.bin": 2, "test.bin": 2},
        label_bytes=1,
        classes=2,
    )


@pytest.fixture
def hundred():
    """As CIFAR-100: a superclass before each class."""
    train = record([19, 0], 0) + record([4, 1], 1)
    return Tiny({"train.bin": train, "test.bin": train}, {"train.bin": 2, "test.bin": 2}, label_bytes=2, classes=2)


def test_what_is_published_has_sums_and_mirrors():
    for name, spec in CIFARS.items():
        assert spec.name == name
        assert len(bytes.fromhex(spec.archive.published.removeprefix("md5:"))) == 16
        assert sum(batch.images for batch in spec.train) == 50_000
        assert sum(batch.images for batch in spec.test) == 10_000
        assert {len(batch.content) for batch in spec.train + spec.test} == {64 if name == "cifar10" else 0}
        assert all(mirror.startswith("https://") for mirror in spec.mirrors)


def test_planes_are_red_green_blue_and_rows_run_right(ten, folders, put):
    put(folders[0] / "tiny" / "tiny-bin", ten.batches)

    data = read(ten.spec())

    assert (data.name, data.classes, data.source, data.licence) == ("tiny", 2, str(folders[0] / "tiny" / "tiny-bin"), "none")
    assert (data.train.x.dtype, data.train.x.shape) == (torch.uint8, (4, 3, 32, 32))
    assert data.train.y.tolist() == [1, 0, 0, 1]
    assert data.train.x[0, 0, 0, :3].tolist() == [0, 1, 2]
    assert data.train.x[0, 0, 1, 0] == 32
    assert data.train.x[0, 1, 0, 0] == 1024 % 251
    assert data.train.x[2, 0, 0, 0] == 20
    assert data.test.y.dtype == torch.int64


def test_the_class_is_the_second_label_byte_of_cifar100(hundred, folders, put):
    put(folders[0] / "tiny", hundred.batches)

    data = read(hundred.spec(sums=False))

    assert data.train.y.tolist() == [0, 1]
    assert data.train.x[1, 0, 0, 0] == 1
    assert data.source == str(folders[0] / "tiny")


def test_the_archive_is_read_where_it_lies(ten, folders, put):
    put(folders[0] / "tiny", {ARCHIVE: ten.archive})

    assert read(ten.spec()).train.y.tolist() == [1, 0, 0, 1]
    assert [path.name for path in folders[0].rglob("*")] == ["tiny", ARCHIVE]


def test_it_is_fetched_once(ten, folders, serve):
    server = serve({ARCHIVE: ten.archive})

    assert read(ten.spec(server.url)).source == str(folders[1] / "tiny")
    assert read(ten.spec(server.url)).test.y.tolist() == [1, 0]
    assert server.asked == [ARCHIVE]


def test_a_download_with_another_sum_keeps_nothing(ten, hundred, folders, serve):
    server = serve({ARCHIVE: hundred.archive})

    with pytest.raises(DownloadError, match=r"wrong checksum, md5 of its (.|\n)*put the files tiny-binary\.tar\.gz into"):
        read(ten.spec(server.url))

    assert [path for path in folders[1].rglob("*") if path.is_file()] == []


def test_an_archive_packed_anew_is_the_same_when_its_members_have_sums(ten, folders, put):
    put(folders[0] / "tiny", {ARCHIVE: gzip.compress(gzip.decompress(ten.archive), compresslevel=1, mtime=7)})

    assert len(read(ten.spec()).train) == 4


def test_and_refused_when_they_have_none(hundred, folders, put):
    put(folders[0] / "tiny", {ARCHIVE: gzip.compress(gzip.decompress(hundred.archive), compresslevel=1, mtime=7)})

    with pytest.raises(DataError, match=rf"{ARCHIVE} is not the published {ARCHIVE}: md5 of its [\d,]+ bytes is [0-9a-f]{{32}}"):
        read(hundred.spec(sums=False))


def test_files_missing_from_the_folder_are_named(ten, folders, put, caplog):
    put(folders[0] / "tiny" / "tiny-bin", {name: content for name, content in ten.batches.items() if name != "test.bin"})
    put(folders[0] / "tiny", {ARCHIVE: ten.archive})

    with caplog.at_level(logging.WARNING):
        assert len(read(ten.spec()).test) == 2

    assert f"{folders[0] / 'tiny' / 'tiny-bin'} lacks test.bin; looking for {ARCHIVE}" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"test\.bin is cut short: 6,145 bytes where 2 images make 6,146"),
        (lambda content: content + b"\0", r"test\.bin has trailing bytes: 6,147 bytes where 2 images make 6,146"),
        (lambda content: b"\2" + content[1:], r"test\.bin has label 2 at image 0; labels go from 0 to 1 \(1 of 2"),
        (lambda content: content[:-1] + b"\0", r"test\.bin is not the published test\.bin: sha256 of its 6,146 bytes is"),
    ],
)
def test_a_wrong_file_is_refused(ten, folders, put, change, message):
    put(folders[0] / "tiny" / "tiny-bin", ten.batches | {"test.bin": change(ten.batches["test.bin"])})

    with pytest.raises(DataError, match=message):
        read(ten.spec())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([(20, 0), (4, 1)], r"train\.bin has label 20 at image 0; labels go from 0 to 19"),
        ([(3, 0), (4, 2)], r"train\.bin has label 2 at image 1; labels go from 0 to 1"),
        ([(3, 0), (3, 0)], r"equally many images of each class, here class 1 has 0 and class 0 has 2"),
        ([(3, 0), (4, 1), (5, 0), (4, 1)], "2 classes come with 3 pairs of superclass and class"),
    ],
)
def test_without_sums_the_structure_is_checked(hundred, folders, put, labels, message):
    wrong = replace(hundred, images={"train.bin": len(labels), "test.bin": 2})
    put(folders[0] / "tiny", {**hundred.batches, "train.bin": b"".join(record(pair, 0) for pair in labels)})

    with pytest.raises(DataError, match=message):
        read(wrong.spec(sums=False))


def test_members_with_other_paths_are_not_read(ten, folders, put, tmp_path):
    put(folders[0] / "tiny", {ARCHIVE: packed({f"../tiny-bin/{name}": content for name, content in ten.batches.items()})})

    with pytest.raises(DataError, match=rf"{ARCHIVE} lacks tiny-bin/data_1\.bin, tiny-bin/data_2\.bin, tiny-bin/test\.bin"):
        read(ten.spec())

    assert not (tmp_path / "tiny-bin").exists()


def test_links_are_not_followed(ten, folders, put):
    members = {f"tiny-bin/{name}": b"" for name in ten.batches}
    put(folders[0] / "tiny", {ARCHIVE: packed(members, type=tarfile.SYMTYPE, linkname="/etc/hostname")})

    with pytest.raises(DataError, match="lacks tiny-bin/data_1"):
        read(ten.spec())


def test_a_member_of_another_size_is_refused_before_it_is_read(ten, folders, put):
    put(folders[0] / "tiny", {ARCHIVE: packed({"./tiny-bin/data_1.bin": bytes(10_000)})})

    with pytest.raises(DataError, match=r"its member tiny-bin/data_1\.bin has 10,000 bytes, published are 6,146"):
        read(ten.spec())


@pytest.mark.parametrize("size", [0, 1, 20, 200])
def test_a_cut_archive_is_refused(ten, folders, put, size):
    put(folders[0] / "tiny", {ARCHIVE: ten.archive[:size]})

    with pytest.raises(DataError, match=rf"{ARCHIVE} (is not a whole \.tar\.gz archive|lacks )"):
        read(ten.spec())
