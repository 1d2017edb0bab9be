"""Sentences about a group: they rank what may be ranked, and say when the spread does not allow it."""

import pytest

from outcomes import outcome
from spikeprune.report.findings import Spread, findings, gap


def group(**accuracies):
    return {label: [outcome(label, seed, value) for seed, value in enumerate(values)] for label, values in accuracies.items()}


def test_spread_has_the_sample_deviation():
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3)
    assert Spread.of([1.0]) == Spread(1.0, None, 1)
    assert f"{Spread.of([10.0, 20.0]):.1f}" == "15.0 ± 7.1"


@pytest.mark.parametrize(
    ("mean", "deviation", "clear"), [(1.0, 0.9, True), (-1.0, 0.9, True), (1.0, 1.0, False), (1.0, None, None)]
)
def test_a_difference_is_clear_when_it_is_larger_than_its_deviation(mean, deviation, clear):
    assert Spread(mean, deviation, 3).clear is clear


def test_differences_are_taken_seed_by_seed():
    """Means with overlapping ranges may still differ clearly: every seed says the same."""
    assert gap({0: 90.0, 1: 80.0, 7: 1.0}, {1: 79.0, 0: 88.0}) == Spread(1.5, pytest.approx(0.5**0.5), 2)
    assert gap({0: 90.0}, {1: 79.0}) is None


def test_dense_comes_first_then_the_best():
    said = findings(group(low=[0.7], dense=[0.9], high=[0.8]))
    assert [label for label, _ in said] == ["dense", "high", "low"]
    assert "90.00 % test accuracy before pruning" in said[0][1]
    assert "10.00 points below dense" in said[1][1]
    assert "the highest mean of 2 methods" in said[1][1]
    assert "10.00 points below high" in said[2][1]


def test_differences_within_their_spread_are_not_ranked():
    (_, best), (_, second) = findings(group(a=[0.80, 0.82], b=[0.81, 0.79]))
    assert "with b within the spread" in best
    assert "1.00 ± 2.83 points below a (within the spread)" in second


def test_differences_beyond_it_are():
    (_, best), (_, second) = findings(group(a=[0.80, 0.90], b=[0.79, 0.88]))
    assert "within" not in best
    assert "1.50 ± 0.71 points below a (beyond the spread)" in second


def test_one_seed_is_not_judged():
    _, (_, second) = findings(group(a=[0.90], b=[0.70]))
    assert "one seed, so no spread to judge it by" in second


def test_sparsities_are_not_mixed():
    said = dict(findings({"a": [outcome("a")], "b": [outcome("b", sparsity=0.5)]}))
    assert all("the only method at this sparsity" in sentence for sentence in said.values())


def test_cost_is_relative_to_the_dense_network():
    said = dict(findings(group(dense=[0.9], a=[0.8])))
    assert "Density 10.00 %, 10.0 % of the dense network's SynOps (effective) and 10.0 % of its energy." in said["a"]


def test_without_a_dense_network_nothing_is_said_of_it():
    assert "dense" not in dict(findings(group(a=[0.8])))["a"]
