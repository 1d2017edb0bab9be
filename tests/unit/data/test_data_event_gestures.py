"""DVS128 Gesture in a folder or in its archive, a tiny one in the published layout."""

import hashlib
import io
import struct
import tarfile
from dataclasses import replace

import pytest

from spikeprune.data import archives, event_layouts
from spikeprune.data.event_loading import read_events
from spikeprune.data.event_sources import DVS_GESTURE
from spikeprune.data.sources import File
from spikeprune.errors import DataError

GESTURES = replace(DVS_GESTURE, name="tiny", train=(2,), test=(1,))


def trial(*times):
    events = b"".join(struct.pack("<2I", 5 << 17 | 9 << 2 | 3, t) for t in times)
    count = len(times)
    return b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + struct.pack("<2h6i", 1, 1, 8, 4, 0, count, count, count) + events


def labels(*rows):
    return "\n".join(["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]).encode()


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


def gestures(content):
    """The tiny set, its archive being the one that was published."""
    return replace(GESTURES, archive=File("DvsGesture.tar.gz", content="", published=f"md5:{hashlib.md5(content).hexdigest()}"))


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
    content = tarred(TRIALS | hidden)
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": content})

    data = read_events(gestures(content))

    assert data.source == str(folders[1] / "tiny")
    assert sorted(path.name for path in (folders[1] / "tiny").iterdir()) == sorted([*TRIALS, "evil_labels.csv"])
    assert [path.name for path in (folders[0] / "tiny").iterdir()] == ["DvsGesture.tar.gz"]
    assert data.test[0].read().t.tolist() == [3]


def test_an_archive_with_another_sum_is_not_unpacked(folders, put):
    content = tarred(TRIALS)
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": content[:-1]})

    with pytest.raises(
        DataError, match=r"tiny/DvsGesture\.tar\.gz is not the published DvsGesture\.tar\.gz: md5 of its "
    ) as caught:
        read_events(gestures(content))

    assert f"is {hashlib.md5(content[:-1]).hexdigest()}, published is {hashlib.md5(content).hexdigest()}" in str(caught.value)
    assert not folders[1].exists()


def test_unpacked_trials_need_no_archive_and_no_sum(folders, put):
    content = tarred(TRIALS)
    put(folders[1] / "tiny", {"DvsGesture.tar.gz": content})
    assert len(read_events(gestures(content)).train) == 2
    put(folders[1] / "tiny", {"DvsGesture.tar.gz": b"?"})

    assert len(read_events(gestures(content)).train) == 2


def test_a_stopped_unpacking_is_taken_up(folders, put):
    whole = tarred(dict(reversed(TRIALS.items())))
    cut = whole[: len(whole) - 40]
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": cut})
    with pytest.raises(DataError, match=r"DvsGesture\.tar\.gz (is not a whole \.tar\.gz archive|lacks trials)"):
        read_events(gestures(cut))
    # Without the lists, which come last, nothing counts as unpacked.
    assert not (folders[1] / "tiny" / "trials_to_train.txt").exists()

    put(folders[1] / "tiny", {"user02_lab.aedat": trial(8)[:-1]})
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": whole})
    assert read_events(gestures(whole)).test[0].read().t.tolist() == [3]


def test_an_archive_without_lists_is_refused(folders, put):
    content = tarred({name: TRIALS[name] for name in list(TRIALS)[1:]})
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": content})

    with pytest.raises(DataError, match=r"lacks trials_to_train\.txt: it is not the published archive"):
        read_events(gestures(content))


def test_links_in_the_archive_are_left_out(folders, put, tmp_path):
    (tmp_path / "secret").write_bytes(trial(7))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in TRIALS.items():
            info = tarfile.TarInfo(name)
            if name == "user02_lab.aedat":
                info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": out.getvalue()})

    with pytest.raises(DataError, match=r"trials_to_test\.txt lists 'user02_lab\.aedat', which is no trial"):
        read_events(gestures(out.getvalue()))

    assert not (folders[1] / "tiny" / "user02_lab.aedat").exists()


def test_a_member_larger_than_any_recording_is_refused_before_it_is_read(folders, put, monkeypatch):
    monkeypatch.setattr(archives, "MEMBER_BYTES", 70)
    content = tarred(TRIALS)
    put(folders[0] / "tiny", {"DvsGesture.tar.gz": content})

    with pytest.raises(DataError, match=r"its member DvsGesture/user01_led\.aedat has 88 bytes, more than any recording \(70\)"):
        read_events(gestures(content))

    assert not (folders[1] / "tiny" / "user01_led.aedat").exists()
