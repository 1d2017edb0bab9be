"""Streaming scatter against numpy's covariance, significant dimensions, and the channels that lead."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeprune.errors import MeasureError
from spikeprune.kernel.pca import Scatter, leading, significant


def of_rank(rank, channels, samples=200, seed=0):
    draw = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(channels, channels, generator=draw, dtype=torch.double))[0][:, :rank]
    return torch.randn(samples, rank, generator=draw, dtype=torch.double) @ basis.T + 3.0


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 7), st.floats(-1e3, 1e3), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_in_pieces_it_is_the_scatter_of_all(sizes, channels, centre, seed):
    x = torch.randn(sum(sizes), channels, generator=torch.Generator().manual_seed(seed), dtype=torch.double) + centre
    found = None
    for part in x.split(sizes):
        found = Scatter.of(part) if found is None else found.joined(Scatter.of(part))
    whole = x.numpy()
    centred = whole - whole.mean(0)
    assert found.samples == len(x)
    np.testing.assert_allclose(found.mean.numpy(), whole.mean(0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.products.numpy(), centred.T @ centred, rtol=1e-10, atol=1e-10 * len(x) * max(1, abs(centre)))


def test_the_spectrum_is_that_of_a_batch_analysis():
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(1), dtype=torch.double) * torch.arange(1, 7) + 50
    parts = [Scatter.of(part) for part in x.split(77)]
    found = parts[0]
    for part in parts[1:]:
        found = found.joined(part)
    values = np.linalg.svd(x.numpy() - x.numpy().mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(found.spectrum.numpy(), values, rtol=1e-10)


def test_float32_samples_are_summed_in_float64():
    x = torch.full((4, 2), 16_777_217.0 / 2**24)  # as float32, sums would round
    x[0, 0] += 1
    assert Scatter.of(x).products.dtype == torch.double
    assert float(Scatter.of(x).products[0, 0]) == pytest.approx(0.75)


def test_places_that_are_pooled_keep_means_of_their_own():
    one, two = of_rank(1, 4, seed=1), of_rank(1, 4, seed=2) + 100.0
    pooled = Scatter.of(one).pooled(Scatter.of(two))
    assert torch.allclose(pooled.products, Scatter.of(one).products + Scatter.of(two).products)
    assert significant(pooled, 1.0) == 2
    assert significant(Scatter.of(one).joined(Scatter.of(two)), 1.0) == 3  # the shift between them is a direction too


@pytest.mark.parametrize("rank", [1, 3, 7, 8])
@pytest.mark.parametrize("variance", [1.0, 1 - 1e-9])
def test_a_signal_of_rank_r_has_r_dimensions(rank, variance):
    assert significant(Scatter.of(of_rank(rank, 8)), variance) == rank


@given(st.integers(1, 9), st.floats(1e-6, 1.0), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_the_fewest_that_explain_the_share(channels, variance, seed):
    found = Scatter.of(torch.randn(40, channels, generator=torch.Generator().manual_seed(seed)))
    spectrum, keep = found.spectrum, significant(found, variance)
    assert 1 <= keep <= channels
    assert float(spectrum[:keep].sum()) >= variance * float(spectrum.sum()) * (1 - 1e-12)
    assert keep == 1 or float(spectrum[: keep - 1].sum()) < variance * float(spectrum.sum())


def test_a_known_spectrum():
    x = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0]).sqrt())
    found = Scatter(9, torch.zeros(4), (x @ x).double())  # of 6, half, then 5 sixths
    assert [significant(found, share) for share in (0.49, 0.5, 0.51, 0.83, 0.84, 1.0)] == [1, 1, 2, 2, 3, 3]


def test_channels_of_which_none_varies_are_refused():
    with pytest.raises(MeasureError, match="none of the 3 channels varies over 5 samples"):
        significant(Scatter.of(torch.ones(5, 3)), 0.9)


def test_the_channels_that_lead_explain_most():
    first, second = torch.randn(2, 300, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    dead = torch.zeros(300, dtype=torch.double)
    x = torch.stack([dead, 2 * first, 2.1 * first, second, first + second], 1)
    order = leading(Scatter.of(x)).tolist()
    assert order[0] == 2  # of largest variance
    assert order[1] in (3, 4)  # not 1, which 2 explains
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert set(order[2:]) == {0, 1, 3, 4} - {order[1]}
    assert order[2:] == sorted(order[2:])


def test_all_independent_channels_lead_by_variance():
    x = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double) * torch.tensor([1.0, 4.0, 2.0, 3.0])
    assert leading(Scatter.of(x)).tolist() == [1, 3, 2, 0]
