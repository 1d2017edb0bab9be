"""The streaming quantile is that of all values, to half a bin, however they come."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeprune.errors import MeasureError, NonFinite
from spikeprune.kernel import quantile
from spikeprune.kernel.quantile import Histogram

NUMBERS = st.lists(st.floats(-1e6, 1e6, allow_subnormal=True), min_size=1, max_size=40)
SHARES = st.floats(0, 1)


def counted(*groups, bins=64):
    found = Histogram(bins)
    for group in groups:
        found.add(torch.tensor(group, dtype=torch.double))
    return found


def test_bins_and_quantiles_by_hand():
    found = counted([-1.0, 0.0, 0.5, 1.0, 2.0], bins=4)
    # Bins of 0.5 up to 2, each with its upper end; two values are 0 or less.
    assert (found.top, found.width, found.zeros, found.count) == (2.0, 0.5, 2, 5)
    assert found.counts.tolist() == [1, 1, 0, 1]
    assert [found.quantile(q) for q in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.25, 0.75, 1.75]
    assert found.quantile(0.625) == 0.5  # halfway between two


def test_a_larger_value_doubles_the_range_and_merges_bins():
    found = counted([0.5, 1.0, 1.5, 2.0], [5.0], bins=4)
    assert (found.top, found.counts.tolist()) == (8.0, [4, 0, 1, 0])
    found.add(torch.tensor([1000.0]))
    assert (found.top, found.counts.tolist()) == (1024.0, [5, 0, 0, 1])


@given(NUMBERS, SHARES)
def test_it_is_torchs_quantile_to_half_a_bin(values, q):
    found = counted(values)
    exact = torch.quantile(torch.tensor(values, dtype=torch.double).clamp_min(0), q).item()
    assert abs(found.quantile(q) - exact) <= found.width / 2 * (1 + 1e-9)
    largest = max(0.0, *values, 0.0)
    assert found.width <= max(2 * largest / 64, 2.0**quantile.LOWEST / 64)


@given(NUMBERS, st.data())
def test_order_and_grouping_do_not_matter(values, data):
    shuffled = data.draw(st.permutations(values))
    at = data.draw(st.integers(0, len(values)))
    once, twice = counted(values), counted(shuffled[:at], shuffled[at:], [])
    assert torch.equal(once.counts, twice.counts)
    assert (once.zeros, once.top) == (twice.zeros, twice.top)


def test_many_values_are_taken_in_chunks(monkeypatch):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    whole = Histogram()
    whole.add(values)
    monkeypatch.setattr(quantile, "CHUNK", 7)
    found = Histogram()
    found.add(values.view(10, 100))
    assert torch.equal(found.counts, whole.counts)
    assert found.counts.dtype == torch.int64
    assert (found.count, found.zeros) == (1000, int((values <= 0).sum()))
    assert abs(found.quantile(0.999) - torch.quantile(values, 0.999).item()) <= found.width


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_are_left_as_they_are(dtype):
    values = torch.tensor([[3.0, -1.0]], dtype=dtype, requires_grad=True)
    found = Histogram(4)
    found.add(values)
    assert values.tolist() == [[3.0, -1.0]]
    assert (found.counts.tolist(), found.zeros) == ([0, 0, 1, 0], 1)


def test_values_of_zero_or_less_are_zero():
    found = counted([-3.0, -0.0, 0.0])
    assert (found.quantile(1.0), found.width, found.count) == (0.0, 0.0, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.5e308])
def test_what_is_no_number_is_refused_and_nothing_is_added(bad):
    found = counted([1.0])
    with pytest.raises(NonFinite, match="of 2 values to count are NaN or infinite"):
        found.add(torch.tensor([5.0, bad], dtype=torch.double))
    assert (found.count, found.top) == (1, 1.0)


def test_a_quantile_of_nothing_and_one_that_is_none_are_refused():
    with pytest.raises(MeasureError, match="no value was counted"):
        Histogram().quantile(0.5)
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(MeasureError, match=r"lies in \[0, 1\]"):
            counted([1.0]).quantile(q)
    for bins in (0, 1, 100):
        with pytest.raises(MeasureError, match="power of two"):
            Histogram(bins)
