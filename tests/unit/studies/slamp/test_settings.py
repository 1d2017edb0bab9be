"""How much is tried: grids that fit together, and recipes that every data set has."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from spikeprune.errors import RecipeError
from spikeprune.studies import STUDIES, deep
from spikeprune.studies.deep import RECIPES, recipe_of
from spikeprune.studies.slamp import study
from spikeprune.studies.slamp.contenders import ABOUT, CONTROLS, MAIN, READINGS
from spikeprune.studies.slamp.settings import EVENTS, FULL, QUICK, settings_of

ALL = [FULL, EVENTS, QUICK]


@pytest.mark.parametrize("settings", ALL)
def test_grids_fit_together(settings):
    assert all(later < earlier for earlier, later in pairwise(settings.densities))
    assert set(settings.scratch_densities) <= set(settings.densities)  # so that a pruned network stands beside
    assert set(settings.contenders) <= set(ABOUT)
    assert len(settings.contenders) == len(set(settings.contenders))
    assert {"slamp", "lamp"} <= set(settings.contenders)


@pytest.mark.parametrize("settings", [FULL, EVENTS])
def test_a_whole_study_has_all_contenders(settings):
    assert set(settings.contenders) == {*MAIN, *READINGS, *CONTROLS}


def test_settings_of_a_data_set():
    assert settings_of("fashion-mnist", quick=False) is FULL
    assert settings_of("cifar10", quick=False) is FULL
    assert settings_of("nmnist-1k", quick=False) is settings_of("nmnist", quick=False) is EVENTS
    assert all(settings_of(data, quick=True) is QUICK for data in RECIPES)


def test_the_command_knows_the_same_data_sets():
    assert set(STUDIES["slamp"].data) == set(RECIPES)
    assert STUDIES["slamp"].sample in RECIPES


def test_what_is_fixed_leaves_the_trials_open():
    fewer = replace(FULL, contenders=("slamp",), scratch=(), scratch_densities=())
    assert fewer.fixed() == FULL.fixed()
    for other in (replace(FULL, densities=(0.5,)), replace(FULL, batches=FULL.batches + 1), replace(FULL, updates=1), QUICK):
        assert other.fixed() != FULL.fixed()
    assert json.loads(json.dumps(FULL.fixed()))["densities"] == list(FULL.densities)


def test_a_recipe_has_the_data_the_seed_and_what_was_asked_on_top():
    for data in RECIPES:
        recipe = recipe_of(FULL, data, 3, ())
        assert (recipe.data.name, recipe.seed) == (data, 3)
    made = recipe_of(QUICK, "fashion-sample", 1, ("net.name=vgg9", "net.timesteps=3"))
    assert (made.net.name, made.net.timesteps, made.net.width) == ("vgg9", 3, 0.0625)


@pytest.mark.parametrize(
    "override", ["seed=3", "data.name=nmnist", "prune.layers=['conv1']", "prune.stages=[0.5]", "method.cap=4"]
)
def test_what_the_study_decides_cannot_be_overridden(tmp_path, monkeypatch, override):
    monkeypatch.setattr(deep, "Lab", None)  # nothing is trained where it is not refused
    with pytest.raises(RecipeError, match=r"the study decides .* itself"):
        study.run("fashion-sample", tmp_path / "s", quick=True, overrides=[override])
    assert not (tmp_path / "s").exists()


def test_other_data_and_impossible_overrides_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(RecipeError, match=r"runs on fashion-mnist.*not on 'mnist'"):
        study.run("mnist", tmp_path / "s")
    with pytest.raises(RecipeError, match="vgg61"):
        study.run("fashion-sample", tmp_path / "s", quick=True, overrides=["net.name=vgg61"])
    with pytest.raises(RecipeError, match="not of the LIF MLP"):
        study.run("fashion-mnist", tmp_path / "s", overrides=["net.name=mlp"])
    assert not (tmp_path / "s").exists()


def test_a_seed_has_a_dense_trial_a_chain_each_and_those_from_scratch():
    facts = [dict(trial.facts) for trial in study.trials(QUICK)]
    assert facts[0] == {"part": "dense"}
    assert [found["method"] for found in facts if found["part"] == "sweep"] == list(QUICK.contenders)
    assert [found for found in facts if found["part"] == "scratch"] == [{"part": "scratch", "method": "rigl", "density": 0.05}]
    assert len({json.dumps(found) for found in facts}) == len(facts)
