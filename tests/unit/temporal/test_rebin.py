"""Event frames of fewer timesteps: by hand, nothing lost, and as if they had been cut so from the recording."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeprune.data.events import Events
from spikeprune.data.framing import frames
from spikeprune.errors import LayoutError, ModelError
from spikeprune.temporal import rebin


def test_by_hand():
    counts = torch.tensor([[1.0], [10], [100], [1000], [10000]])
    assert rebin(counts, 2).tolist() == [[111], [11000]]  # floor(t * 2 / 5) = 0 0 0 1 1
    assert rebin(counts, 3).tolist() == [[11], [1100], [10000]]  # 0 0 1 1 2
    assert rebin(counts, 1).tolist() == [[11111]]
    assert torch.equal(rebin(counts, 5), counts)
    assert [int(part.sum()) for part in rebin(torch.ones(25, 1), 10)] == [3, 2] * 5


@given(st.integers(1, 30).flatmap(lambda t: st.tuples(st.just(t), st.integers(1, t))), st.integers(0, 9))
def test_nothing_is_dropped_and_no_bin_is_empty(steps, seed):
    t, fewer = steps
    counts = torch.randint(0, 1000, (t, 2, 3), generator=torch.Generator().manual_seed(seed))
    made = rebin(counts.float(), fewer)
    assert made.shape == (fewer, 2, 3)
    assert torch.equal(made.sum(0), counts.sum(0).float())
    assert rebin(torch.ones(t), fewer).min() >= t // fewer
    expected = torch.zeros(fewer, 2, 3, dtype=torch.long)
    for i in range(t):
        expected[i * fewer // t] += counts[i]
    assert torch.equal(rebin(counts, fewer), expected)


def test_bins_that_divide_are_those_of_the_recording():
    """Frames cut by time into 12, re-binned to 4, are the recording cut into 4."""
    draw = torch.Generator().manual_seed(0)
    t = torch.randint(0, 5000, (400,), generator=draw).sort().values
    x, y, p = (torch.randint(0, high, (400,), generator=draw) for high in (5, 4, 2))
    events = Events(t, x, y, p)
    assert torch.equal(rebin(frames(events, 12, (4, 5), by="time"), 4), frames(events, 4, (4, 5), by="time"))


def test_the_frames_are_left_as_they_are_and_gradients_flow():
    counts = torch.arange(6.0).view(3, 2).requires_grad_()
    rebin(counts, 1).square().sum().backward()
    assert counts.grad.tolist() == [[12, 18]] * 3
    assert counts.detach().flatten().tolist() == [0, 1, 2, 3, 4, 5]
    whole = rebin(counts.detach(), 3)
    whole.zero_()
    assert counts.sum() == 15


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64])
def test_the_type_stays(dtype):
    made = rebin(torch.full((4, 2), 50, dtype=dtype), 2)
    assert made.dtype is dtype
    assert made.tolist() == [[100, 100]] * 2


def test_counts_that_outgrow_their_type_are_refused():
    with pytest.raises(ModelError, match=r"a bin counts up to 260 events, more than torch\.uint8 holds"):
        rebin(torch.full((4, 2), 130, dtype=torch.uint8), 2)
    with pytest.raises(ModelError, match=r"up to 2 events, more than torch\.bool holds"):
        rebin(torch.ones(4, 2, dtype=torch.bool), 2)


@pytest.mark.parametrize("bad", [0, -1, 5, 2.0, True, "2", None])
def test_timesteps_out_of_range(bad):
    with pytest.raises(ModelError, match="an integer from 1 to the T = 4 of the frames; got"):
        rebin(torch.ones(4, 2), bad)


def test_no_frames():
    with pytest.raises(LayoutError, match=r"time first; got \(\)"):
        rebin(torch.tensor(1.0), 1)
    with pytest.raises(LayoutError, match="got a list"):
        rebin([1.0], 1)
    with pytest.raises(ModelError, match="T = 0 of the frames"):
        rebin(torch.ones(0, 2), 1)
