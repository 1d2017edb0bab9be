import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeprune.data import Events, Framing, frames, resize
from spikeprune.errors import DataError


def recording(count, seed=0, height=3, width=4):
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(1000, (count,), generator=generator).sort().values
    draws = [torch.randint(limit, (count,), generator=generator) for limit in (width, height, 2)]
    return Events(t, *draws)


def slow(events, timesteps, size, by):
    """Event after event, as the docstring has it."""
    x = torch.zeros(timesteps, 2, *size)
    total, first, last = len(events), int(events.t[0]), int(events.t[-1])
    for index in range(total):
        if by == "time":
            piece = (int(events.t[index]) - first) * timesteps // (last - first + 1)
        else:
            piece = timesteps - 1 if total < timesteps else min(index // (total // timesteps), timesteps - 1)
        x[piece, events.p[index], events.y[index], events.x[index]] += 1
    return x


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 60), timesteps=st.integers(1, 9), by=st.sampled_from(["count", "time"]), seed=st.integers(0, 99))
def test_frames_equal_the_slow_count(count, timesteps, by, seed):
    events = recording(count, seed)
    x = frames(events, timesteps, (3, 4), by=by)

    assert torch.equal(x, slow(events, timesteps, (3, 4), by))
    assert x.sum() == count


def test_by_count_the_last_frame_takes_the_rest():
    assert frames(recording(11), 4, (3, 4)).sum((1, 2, 3)).tolist() == [2, 2, 2, 5]
    assert frames(recording(3), 4, (3, 4)).sum((1, 2, 3)).tolist() == [0, 0, 0, 3]


def test_by_time_pieces_are_equally_long():
    t = torch.tensor([100, 109, 110, 119, 139])
    zero = torch.zeros_like(t)

    assert frames(Events(t, zero, zero, zero), 4, (1, 1), by="time").flatten().tolist() == [2, 0, 2, 0, 0, 0, 1, 0]


def test_channels_are_off_then_on_and_rows_come_before_columns():
    x = frames(Events(*torch.tensor([[1], [3], [2], [1]])), 1, (3, 4))

    assert x.nonzero().tolist() == [[0, 1, 2, 3]]
    assert x.dtype == torch.float32


def test_what_has_no_frames_is_refused():
    events = recording(5)
    with pytest.raises(DataError, match="into 0 frames"):
        frames(events, 0, (3, 4))
    with pytest.raises(DataError, match="without events"):
        frames(events.between(5000, 6000), 2, (3, 4))
    with pytest.raises(DataError, match="'count' or by 'time', not by 'number'"):
        frames(events, 2, (3, 4), by="number")
    with pytest.raises(DataError, match=r"x goes from 9 to 9 in these events; for a sensor of \(3, 4\) it lies in 0 to 3"):
        frames(Events(*torch.tensor([[1], [9], [2], [1]])), 1, (3, 4))
    with pytest.raises(DataError, match="p goes from 2 to 2"):
        frames(Events(*torch.tensor([[1], [0], [2], [2]])), 1, (3, 4))


def test_area_averages_all_and_bilinear_does_not():
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 0, 0] = 16

    assert resize(x, 1).flatten().tolist() == [1.0, 0.0]
    assert resize(x, 1, by="bilinear").flatten().tolist() == [0.0, 0.0]
    assert resize(x, 8).sum() == 64


@pytest.mark.parametrize("by", ["area", "bilinear"])
def test_all_leading_dimensions_are_kept(by):
    x = torch.rand(2, 3, 2, 128, 128, generator=torch.Generator().manual_seed(0))

    small = resize(x, 48, by)

    assert small.shape == (2, 3, 2, 48, 48)
    assert torch.allclose(small[1, 2], resize(x[1, 2], 48, by))
    assert torch.allclose(small.mean(), x.mean(), atol=1e-2)


def test_impossible_sizes_are_refused():
    with pytest.raises(DataError, match="to 0 x 0 pixels"):
        resize(torch.zeros(1, 1, 2, 2), 0)
    with pytest.raises(DataError, match="not by 'nearest'"):
        resize(torch.zeros(1, 1, 2, 2), 1, by="nearest")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"timesteps": 0}, "into 0 frames"),
        ({"timesteps": -1}, "into -1 frames"),
        ({"timesteps": 2, "by": "number"}, "not by 'number'"),
        ({"timesteps": 2, "side": 0}, "to 0 x 0 pixels"),
        ({"timesteps": 2, "side": 8, "resize": "nearest"}, "not by 'nearest'"),
    ],
)
def test_an_impossible_framing_is_refused_before_a_recording_is_read(choices, message):
    with pytest.raises(DataError, match=message):
        Framing(**choices)


def test_a_framing_is_frames_then_resize():
    events = recording(30)

    assert torch.equal(Framing(3)(events, (3, 4)), frames(events, 3, (3, 4)))
    assert torch.equal(
        Framing(3, "time", 2, "bilinear")(events, (3, 4)), resize(frames(events, 3, (3, 4), "time"), 2, "bilinear")
    )
    assert Framing(3).shape((3, 4)) == (3, 2, 3, 4)
    assert Framing(3, side=2).shape((3, 4)) == (3, 2, 2, 2)


def test_other_choices_have_other_keys():
    framings = [Framing(3), Framing(4), Framing(3, "time"), Framing(3, side=2), Framing(3, side=2, resize="bilinear")]

    assert len({framing.key() for framing in framings}) == 5
    assert Framing(3, resize="bilinear").key() == Framing(3).key()
