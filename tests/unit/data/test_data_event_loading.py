"""Event sets in folders, zips and archives, tiny ones in the published layouts."""

import io
import struct
import tarfile
import zipfile
from dataclasses import replace

import pytest

from spikeprune.data import Framing, event_layouts, event_names, load_events
from spikeprune.data.event_loading import read_events
from spikeprune.data.event_sources import CIFAR10_DVS, DVS_GESTURE, EVENT_SOURCES, NMNIST, NMNIST_1K, SIMULATED
from spikeprune.errors import DataError, DownloadError

DIGITS = replace(NMNIST, name="tiny", classes=("0", "1"), train=(2, 1), test=(1, 1))
STREAMS = replace(CIFAR10_DVS, name="tiny", classes=("cat", "dog"), train=(9, 9), test=(1, 1))
GESTURES = replace(DVS_GESTURE, name="tiny", train=(2,), test=(1,))


def atis(x):
    return bytes([x, 0, 0, 0, x])


def stream(number):
    return b"#!AER-DAT2.0\r\n" + struct.pack(">2i", 0, number)


def trial(*times):
    events = b"".join(struct.pack("<2I", 5 << 17 | 9 << 2 | 3, t) for t in times)
    count = len(times)
    return b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + struct.pack("<2h6i", 1, 1, 8, 4, 0, count, count, count) + events


def labels(*rows):
    return "\n".join(["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]).encode()


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


@pytest.mark.parametrize("name", EVENT_SOURCES)
def test_what_is_nowhere_says_where_to_get_it_and_where_to_put_it(folders, name):
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


TRIALS = {
    "trials_to_train.txt": b"user01_led.aedat\n\n",
    "trials_to_test.txt": b"user02_lab.aedat",
    "user01_led.aedat": trial(1, 5, 6, 9),
    "user01_led_labels.csv": labels((2, 0, 6), (11, 5, 10)),
    "user02_lab.aedat": trial(3),
    "user02_lab_labels.csv": labels((1, 3, 4)),
}


def tarred(contents, prefix="DvsGesture/"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("below", ["", "DvsGesture"])
def test_a_gesture_is_a_window_of_a_trial(folders, put, below):
    put(folders[0] / "tiny" / below, TRIALS)

    data = read_events(GESTURES)

    assert [(r.name, r.label, r.read().t.tolist()) for r in data.train] == [
        ("user01_led/00", 1, [1, 5]),
        ("user01_led/01", 10, [5, 6, 9]),
    ]
    assert [(r.label, r.read().t.tolist()) for r in data.test] == [(0, [3])]


def test_a_trial_is_decoded_once_for_its_gestures_and_again_when_it_changed(folders, put, monkeypatch):
    put(folders[0] / "tiny", TRIALS)
    seen = []
    decode = event_layouts.aedat3
    monkeypatch.setattr(event_layouts, "aedat3", lambda content, file: seen.append(file) or decode(content, file))
    event_layouts._trial.cache_clear()
    data = read_events(GESTURES)

    lengths = [len(recording.read()) for recording in data.train]

    assert (lengths, len(seen)) == ([2, 3], 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials_to_test.txt": b"user03_lab.aedat"}, "trials_to_test.txt lists 'user03_lab.aedat', which is no trial in"),
        ({"trials_to_test.txt": b"../user02_lab.aedat"}, "lists '../user02_lab.aedat', which is no trial"),
        ({"user02_lab_labels.csv": b""}, "user02_lab_labels.csv does not start with the line class"),
        ({"user02_lab_labels.csv": labels((1, 3, 4), (2, 4, 5))}, "2 training and 2 test recordings; tiny has 2 and 1"),
    ],
)
def test_trials_that_do_not_fit_are_refused(folders, put, change, message):
    put(folders[0] / "tiny", TRIALS | change)

    with pytest.raises(DataError, match=message):
        read_events(GESTURES)


def test_the_archive_is_unpacked_into_the_cache_only(folders, put):
    hidden = {"._user01_led.aedat": b"", "../../evil_labels.csv": labels(), "README.txt": b""}
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": tarred(TRIALS | hidden)})

    data = read_events(GESTURES)

    assert data.source == str(folders[1] / "tiny")
    assert sorted(path.name for path in (folders[1] / "tiny").iterdir()) == sorted([*TRIALS, "evil_labels.csv"])
    assert [path.name for path in (folders[0] / "tiny").iterdir()] == ["DvsGesture.tar.gz"]
    assert data.test[0].read().t.tolist() == [3]


def test_a_stopped_unpacking_is_taken_up(folders, put):
    whole = tarred(dict(reversed(TRIALS.items())))
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": whole[: len(whole) - 40]})
    with pytest.raises(DataError, match=r"DvsGesture\.tar\.gz (is not a whole \.tar\.gz archive|lacks trials)"):
        read_events(GESTURES)
    # Without the lists, which come last, nothing counts as unpacked.
    assert not (folders[1] / "tiny" / "trials_to_train.txt").exists()

    put(folders[1] / "tiny", {"user02_lab.aedat": trial(8)[:-1]})
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": whole})
    assert read_events(GESTURES).test[0].read().t.tolist() == [3]


def test_an_archive_without_lists_is_refused(folders, put):
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": tarred({name: TRIALS[name] for name in list(TRIALS)[1:]})})

    with pytest.raises(DataError, match=r"lacks trials_to_train\.txt: it is not the published archive"):
        read_events(GESTURES)
