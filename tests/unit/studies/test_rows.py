import pytest

from spikeprune.errors import MeasureError
from spikeprune.report.findings import Spread
from spikeprune.studies.cqp.sections.words import ahead, budget, by_share, difference
from spikeprune.studies.lab import WHOLE_EPOCH
from spikeprune.studies.rows import Rows

ROWS = Rows(
    {"part": "alpha", "alpha": alpha, "seed": seed, "accuracy": accuracy}
    for alpha, found in ((0.0, (0.5, 0.6)), (0.5, (0.7, 0.7)))
    for seed, accuracy in enumerate(found)
)


def test_rows_are_picked_by_all_facts():
    assert len(ROWS.where(alpha=0.5)) == 2
    assert [row["accuracy"] for row in ROWS.where(alpha=0.0, seed=1)] == [0.6]
    assert len(ROWS.where(alpha=0.0, layer="fc1")) == 0
    assert ROWS.distinct("alpha") == [0.0, 0.5]


def test_a_series_has_a_value_a_seed():
    assert ROWS.series("alpha", "accuracy", x_factor=10, y_factor=100) == {0.0: [50.0, 60.0], 5.0: [70.0, 70.0]}


def test_facts_that_do_not_single_out_a_trial_are_refused():
    with pytest.raises(MeasureError, match="4 rows of 2 seeds hold 'accuracy', where one a seed is needed"):
        ROWS.by_seed("accuracy")
    with pytest.raises(MeasureError, match="0 rows of 0 seeds"):
        ROWS.where(alpha=9.0).by_seed("accuracy")


def test_differences_are_taken_seed_by_seed():
    found = difference(ROWS.where(alpha=0.5), ROWS.where(alpha=0.0))
    assert (round(found.mean, 9), found.n) == (15.0, 2)


@pytest.mark.parametrize(
    ("values", "verdict"), [([2.0, 3.0], True), ([1.0, -3.0], False), ([5.0, -4.0], False), ([0.1], True), ([-0.1], False)]
)
def test_ahead_is_positive_beyond_the_spread(values, verdict):
    assert ahead(Spread.of(values)) is verdict


def test_verdicts_follow_from_the_tests_that_hold():
    assert [by_share(held) for held in ([True, True], [True, False], [False])] == ["reproduced", "partly", "refuted"]


def test_budgets_have_names():
    assert [budget(b) for b in (0, 10, WHOLE_EPOCH)] == ["one shot", "10 batches a round", "1 epoch a round"]
