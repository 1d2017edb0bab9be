"""Event sets in folders and zips, tiny ones in the published layouts."""

import io
import struct
import zipfile
from dataclasses import replace

import pytest

from spikeprune.data import Framing, event_names, load_events
from spikeprune.data.event_loading import read_events
from spikeprune.data.event_sources import CIFAR10_DVS, EVENT_SOURCES, NMNIST, NMNIST_1K, SIMULATED
from spikeprune.errors import DataError, DownloadError

DIGITS = replace(NMNIST, name="tiny", classes=("0", "1"), train=(2, 1), test=(1, 1), files=())
STREAMS = replace(CIFAR10_DVS, name="tiny", classes=("cat", "dog"), train=(9, 9), test=(1, 1), files=())


def atis(x):
    return bytes([x, 0, 0, 0, x])


def stream(number):
    return b"#!AER-DAT2.0\r\n" + struct.pack(">2i", 0, number)


@pytest.fixture
def digits(folders, put):
    folder = folders[0] / "tiny"
    put(folder / "Train" / "0", {"00003.bin": atis(3), "00001.bin": atis(1), "notes.txt": b""})
    put(folder / "Train" / "1", {"00002.bin": atis(2)})
    put(folder / "Test" / "0", {"00002.bin": atis(5)})
    put(folder / "Test" / "1", {"00001.bin": atis(4)})
    return folder


def test_names_are_sorted_and_loadable():
    assert event_names() == ("cifar10-dvs", "cifar10-dvs-sim", "dvs-gesture", "nmnist", "nmnist-1k")
    assert all(EVENT_SOURCES[name].name == name for name in event_names() if name != SIMULATED)
    for source in EVENT_SOURCES.values():
        assert {len(source.train), len(source.test)} <= {1, len(source.classes)}


def test_published_counts():
    counts = {name: (sum(source.train), sum(source.test)) for name, source in EVENT_SOURCES.items()}

    assert counts == {
        "nmnist": (60_000, 10_000),
        "nmnist-1k": (1000, 100),
        "cifar10-dvs": (9000, 1000),
        "dvs-gesture": (1176, 288),
    }


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(DataError, match=r"no event set is named 'n-mnist'\. Did you mean 'nmnist'\? .*load\(\) loads the image"):
        load_events("n-mnist")
    with pytest.raises(DataError, match=r"'mnist'"):
        load_events("mnist")


@pytest.mark.parametrize("name", ["nmnist-1k", "dvs-gesture"])
def test_what_is_nowhere_and_not_fetched_says_where_to_get_it_and_where_to_put_it(folders, name):
    with pytest.raises(DownloadError, match="fetched by hand") as caught:
        load_events(name)

    for part in (f"not in {folders[0] / name}\n", f"not in {folders[1] / name}\n", "https://", f"$SPIKEPRUNE_DATA/{name}/"):
        assert part in str(caught.value)
    assert not folders[1].exists()


def test_digits_come_in_the_order_of_their_numbers(digits):
    data = read_events(DIGITS)

    assert (data.name, data.classes, data.size, data.source) == ("tiny", 2, (34, 34), str(digits))
    assert [(r.name, r.label, r.read().x.item()) for r in data.train] == [
        ("Train/0/00001", 0, 1),
        ("Train/1/00002", 1, 2),
        ("Train/0/00003", 0, 3),
    ]
    assert [r.label for r in data.test] == [1, 0]


def test_the_cache_comes_second(digits, folders):
    digits.parent.rename(folders[1])

    assert read_events(DIGITS).source == str(folders[1] / "tiny")


def test_other_counts_are_refused_with_the_numbers(digits, put):
    put(digits / "Test" / "1", {"00007.bin": atis(4)})

    with pytest.raises(
        DataError, match=r"tiny holds 3 training and 3 test recordings \(1 and 2 of class '1', where 1 and 1 were"
    ):
        read_events(DIGITS)


def test_right_totals_of_wrong_classes_are_refused(digits):
    with pytest.raises(DataError, match=r"\(2 and 1 of class '0', where 1 and 1 were published\); tiny has 3 and 2"):
        read_events(replace(DIGITS, train=(1, 2)))


def test_the_subset_under_the_name_of_the_whole_is_told_its_name(folders, put):
    folder = folders[0] / "nmnist"
    for part, counts in (("Train", NMNIST_1K.train), ("Test", NMNIST_1K.test)):
        for label, count in enumerate(counts):
            put(folder / part / str(label), {f"{number:05d}.bin": b"" for number in range(count)})

    with pytest.raises(
        DataError, match=r"nmnist holds 1,000 training and 100 test recordings .*nmnist has 60,000 and 10,000\. "
    ) as caught:
        load_events("nmnist")

    assert "These are the counts of 'nmnist-1k'" in str(caught.value)
    folder.rename(folders[0] / "nmnist-1k")
    assert len(load_events("nmnist-1k").train) == 1000


def test_a_damaged_recording_is_found_when_it_is_read(digits):
    (digits / "Train" / "1" / "00002.bin").write_bytes(atis(2)[:-1])

    data = read_events(DIGITS)

    with pytest.raises(DataError, match=rf"^{digits}/Train/1/00002\.bin, byte 0: cut in the middle of an event"):
        data.frames("train", Framing(1))
    (digits / "Train" / "1" / "00002.bin").unlink()
    with pytest.raises(DataError, match=r"cannot read .*00002\.bin: No such file"):
        data.train[1].read()


def streams(name):
    return {f"cifar10_{name}_{number}.aedat": stream(number) for number in range(10)}


def zipped(contents):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_nine_tenths_by_number_are_for_training_from_folders_and_zips(folders, put):
    put(folders[0] / "tiny" / "cat", streams("cat") | {"README.txt": b""})
    hidden = {"__MACOSX/dog/cifar10_dog_3.aedat": b"", "dog/._cifar10_dog_4.aedat": b""}
    put(folders[0] / "tiny", {"dog.zip": zipped({f"dog/{name}": content for name, content in streams("dog").items()} | hidden)})

    data = read_events(STREAMS)

    # By number, not by letter: 2 comes before 10, and 9 is the last of ten.
    assert [recording.read().t.item() for recording in data.train] == [*range(9), *range(9)]
    assert [(recording.name, recording.label) for recording in data.test] == [
        ("cat/cifar10_cat_9.aedat", 0),
        ("dog/cifar10_dog_9.aedat", 1),
    ]
    assert data.test[1].read().t.item() == 9


def test_a_missing_class_is_counted(folders, put):
    put(folders[0] / "tiny" / "cat", streams("cat"))

    with pytest.raises(DataError, match=r"9 training and 1 test recordings \(0 and 0 of class 'dog', where 9 and 1 were"):
        read_events(STREAMS)


def test_damaged_zips_are_refused(folders, put):
    content = zipped({f"dog/{name}": content for name, content in streams("dog").items()})
    put(folders[0] / "tiny" / "cat", streams("cat"))
    put(folders[0] / "tiny", {"dog.zip": content[:-30]})
    with pytest.raises(DataError, match=r"dog\.zip is not a whole \.zip archive"):
        read_events(STREAMS)

    put(folders[0] / "tiny", {"dog.zip": content.replace(stream(4), stream(7), 1)})
    data = read_events(STREAMS)
    with pytest.raises(DataError, match=r"dog\.zip is not a whole \.zip archive: Bad CRC-32"):
        data.train[9 + 4].read()
