"""Divergence terms by hand, and the index, steps and savings that follow from them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeprune.errors import MeasureError, NonFinite, SparsityError
from spikeprune.temporal import Decision, batch_mean, decision, per_sample, relative_energy

TERMS = st.floats(0, 1e6, allow_nan=False)


def test_batch_mean_by_hand():
    # Distributions (1/2, 1/2), (3/4, 1/4), (3/4, 1/4), but for the constant of 1e-6.
    terms = batch_mean(torch.tensor([[2.0, 2.0], [3.0, 1.0], [0.75, 0.25]]))
    first = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert terms.dtype is torch.double
    assert terms.tolist() == pytest.approx([first, 0.0], abs=2e-6)


def test_batch_mean_of_a_silent_class_stays_finite():
    one, other = 1 + 1e-6, 1e-6
    expected = (one * math.log(one / other) + other * math.log(other / one)) / (one + other)
    assert batch_mean(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == pytest.approx([expected], rel=1e-6)


def test_per_sample_by_hand():
    # Sample 0 goes from (1/2, 1/2) to (3/4, 1/4) to (1/2, 1/2), sample 1 stays at (1/5, 4/5).
    running = torch.tensor([[[1.0, 1.0], [1, 4]], [[3, 1], [1, 4]], [[2, 2], [1, 4]]], dtype=torch.double).log()
    up = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    down = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert per_sample(running).tolist() == [pytest.approx([up, 0], abs=1e-15), pytest.approx([down, 0], abs=1e-15)]


def test_per_sample_of_extreme_outputs_is_finite():
    running = torch.tensor([[[0.0, 900.0]], [[900.0, 0.0]]])
    assert per_sample(running).tolist() == [[900.0]]


def test_identical_outputs_ask_for_one_timestep():
    means = torch.tensor([0.3, 0.1, 0.7]).expand(10, 3)
    for series in (batch_mean(means), per_sample(means.unsqueeze(1)).mean(1)):
        assert series.tolist() == [0.0] * 9
        assert decision(series) == Decision(term=1, steps=1, timesteps=10)


def test_decision_by_hand():
    # Running sums 2, 5, 9.5, 10: 95% of 10 is reached by the third term, which needs four timesteps.
    found = decision([2.0, -3.0, 4.5, 0.5])
    assert found == Decision(term=3, steps=4, timesteps=5)
    assert (found.saving, found.paper_saving, found.floor) == pytest.approx((0.2, 0.4, 0.2))
    assert decision([2.0, -3.0, 4.5, 0.5], share=0.5).term == 2
    assert decision([2.0, -3.0, 4.5, 0.5], share=1.0).term == 4
    assert decision(torch.tensor([0.0, 0.0, 1.0, 0.0]), share=1.0).term == 3


def test_a_network_that_changes_to_the_last_step_still_saves_by_the_papers_index():
    found = decision([1.0] * 9)
    assert found == Decision(term=9, steps=10, timesteps=10)
    assert (found.saving, found.paper_saving, found.floor) == (0.0, 0.1, 0.1)


def test_one_timestep():
    for series in ([], torch.zeros(0), batch_mean(torch.ones(1, 3)), per_sample(torch.ones(1, 2, 3)).mean(1)):
        found = decision(series)
        assert found == Decision(term=1, steps=1, timesteps=1)
        assert (found.saving, found.paper_saving, found.floor) == (0, 0, 0)


@given(st.lists(TERMS, min_size=9, max_size=9), st.floats(0.01, 1))
def test_ten_timesteps_never_give_index_ten(series, share):
    found = decision(series, share)
    assert 1 <= found.term <= 9
    assert found.paper_saving >= found.floor == 0.1
    assert 0 <= found.saving <= found.paper_saving or sum(series) == 0


@given(st.lists(TERMS, min_size=1, max_size=12), st.floats(0.01, 1))
def test_the_term_is_the_first_that_reaches_the_share(series, share):
    term, total = decision(series, share).term, sum(series)
    if total > 1e-300:
        assert sum(series[:term]) >= share * total * (1 - 1e-12)
        assert sum(series[: term - 1]) < share * total * (1 + 1e-12)


@pytest.mark.parametrize("share", [0, -0.5, 1.01, 95, float("nan"), None, "0.95"])
def test_shares_out_of_range(share):
    with pytest.raises(MeasureError, match="share must be above 0 and at most 1; got"):
        decision([1.0], share)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite(bad):
    with pytest.raises(NonFinite, match="1 of 2 terms"):
        decision([1.0, bad])
    with pytest.raises(NonFinite, match="1 of 4 means"):
        batch_mean(torch.tensor([[1.0, bad], [1, 1]]))
    with pytest.raises(NonFinite, match="1 of 2 cumulative outputs"):
        per_sample(torch.tensor([[[1.0, bad]]]))


def test_shapes_and_signs():
    with pytest.raises(MeasureError, match=r"one axis, \(T - 1,\); this has shape \(2, 3\)"):
        decision(torch.ones(2, 3))
    with pytest.raises(MeasureError, match=r"must be \(T, C\)"):
        batch_mean(torch.ones(2, 3, 4))
    with pytest.raises(MeasureError, match=r"must be \(T, N, C\)"):
        per_sample(torch.ones(2, 0, 4))
    with pytest.raises(MeasureError, match="1 of 4 mean outputs are negative"):
        batch_mean(torch.tensor([[1.0, -1.0], [1, 1]]))


def test_relative_energy_is_the_papers_product():
    assert relative_energy(0.7, 9, 10) == pytest.approx(0.27)
    assert relative_energy(0.0, 10, 10) == 1
    with pytest.raises(SparsityError, match=r"got 1\.5"):
        relative_energy(1.5, 1, 10)
    for steps in (0, 11):
        with pytest.raises(MeasureError, match=f"from 1 to T = 10; got {steps}"):
            relative_energy(0.5, steps, 10)
