from dataclasses import replace

import pytest
import torch

from spikeprune.data import Events, EventSet, Framing, Recording
from spikeprune.errors import DataError

FRAMING = Framing(2)


class Shelf:
    """Recordings that count how often they are read."""

    def __init__(self):
        self.read = 0

    def recording(self, index):
        def read():
            self.read += 1
            t = torch.arange(index + 2)
            return Events(t, t % 4, torch.full_like(t, index), t % 2)

        return Recording(f"made/{index}", index % 2, read)


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def made(shelf):
    recordings = [shelf.recording(index) for index in range(4)]
    return EventSet("made", 2, (4, 4), tuple(recordings[:3]), tuple(recordings[3:]), "here", "none")


def test_nothing_is_read_before_it_is_asked_for(made, shelf):
    each = made.each("train", FRAMING)
    assert shelf.read == 0

    x, label = next(each)
    assert (x.shape, x.sum(), label, shelf.read) == ((2, 2, 4, 4), 2, 0, 1)


def test_a_whole_part_is_each_of_its_recordings(made):
    found = made.frames("train", FRAMING)

    assert torch.equal(found.x, torch.stack([x for x, _ in made.each("train", FRAMING)]))
    assert (found.y.tolist(), len(found), found.x.dtype) == ([0, 1, 0], 3, torch.float32)


def test_frames_are_made_once(made, shelf, tmp_path):
    first = made.frames("train", FRAMING, cache=tmp_path / "frames")
    again = made.frames("train", FRAMING, cache=tmp_path / "frames")

    assert shelf.read == 3
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert [path.name[:26] for path in (tmp_path / "frames").iterdir()] == ["made-train-2-count-sensor-"]


def test_other_choices_parts_kinds_and_recordings_have_files_of_their_own(made, shelf, tmp_path):
    made.frames("train", FRAMING, cache=tmp_path)
    made.frames("test", FRAMING, cache=tmp_path)
    made.frames("train", Framing(2, "time"), cache=tmp_path)
    made.frames("train", FRAMING, cache=tmp_path, dtype=torch.float16)
    replace(made, train=made.train[:2]).frames("train", FRAMING, cache=tmp_path)
    replace(made, source="there").frames("train", FRAMING, cache=tmp_path)

    assert len(list(tmp_path.iterdir())) == 6
    assert shelf.read == 3 + 1 + 3 + 3 + 2 + 3


def test_half_precision_holds_the_same_counts(made, tmp_path):
    half = made.frames("train", FRAMING, cache=tmp_path, dtype=torch.float16)

    assert half.x.dtype == torch.float16
    assert torch.equal(half.x.float(), made.frames("train", FRAMING).x)
    assert torch.equal(half.x, made.frames("train", FRAMING, cache=tmp_path, dtype=torch.float16).x)


def test_a_damaged_recording_is_named_and_leaves_no_file(made, tmp_path):
    def broken():
        raise DataError("cut in two")

    wrong = replace(made, train=(*made.train, Recording("made/9", 1, broken)))

    with pytest.raises(DataError, match="recording made/9: cut in two"):
        wrong.frames("train", FRAMING, cache=tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_other_frames_under_the_name_is_refused(made, tmp_path):
    made.frames("train", FRAMING, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    made.frames("train", Framing(3), cache=tmp_path)
    (other,) = set(tmp_path.iterdir()) - {path}
    path.write_bytes(other.read_bytes())

    with pytest.raises(DataError, match="does not hold the frames that its name says"):
        made.frames("train", FRAMING, cache=tmp_path)


def test_other_parts_and_kinds_are_refused(made):
    with pytest.raises(DataError, match="'train' and 'test', not 'validation'"):
        made.frames("validation", FRAMING)
    with pytest.raises(DataError, match=r"torch\.float32 or torch\.float16, not as torch\.uint8"):
        made.frames("train", FRAMING, dtype=torch.uint8)
