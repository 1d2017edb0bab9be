"""Trials of several seeds: failures are told once all others are done."""

from types import SimpleNamespace

import pytest

from spikeprune.errors import MeasureError, NonFinite
from spikeprune.recipes.run import Silent
from spikeprune.studies.ledger import Ledger
from spikeprune.studies.trial import Trial, conduct_all

LABS = [SimpleNamespace(recipe=SimpleNamespace(seed=seed)) for seed in (0, 1)]


def fails_at_first(lab):
    if lab.recipe.seed == 0:
        raise NonFinite("a weight is NaN")
    return {"n": lab.recipe.seed}


def test_a_failure_is_told_once_the_trials_of_all_seeds_are_done(tmp_path):
    ledger = Ledger.open(tmp_path / "study", {})
    trials = [Trial({"part": "a"}, fails_at_first), Trial({"part": "b"}, lambda lab: {"n": 10 + lab.recipe.seed})]
    with pytest.raises(
        MeasureError, match=r"1 of 2 trials of seed 0 failed; the others are kept\. First, part a, seed 0: a weight is NaN"
    ):
        conduct_all(trials, LABS, ledger, Silent())
    assert ledger.find({"part": "a", "seed": 0}) is None
    assert [ledger.find({"part": "b", "seed": seed})["n"] for seed in (0, 1)] == [10, 11]
    assert ledger.find({"part": "a", "seed": 1})["n"] == 1
    mended = [Trial({"part": "a"}, lambda lab: {"n": 5}), trials[1]]
    assert [row["n"] for row in conduct_all(mended, LABS, ledger, Silent())] == [5, 10, 1, 11]
