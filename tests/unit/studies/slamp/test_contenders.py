"""What is compared: every name builds, controls change the gain as they say, and all keep as many weights."""

import pytest

from spikeprune.kernel.allocate import kept, lamp
from spikeprune.masks import Masks
from spikeprune.measure import measure
from spikeprune.methods import SLAMP, Magnitude
from spikeprune.recipes.losses import loss_fn
from spikeprune.stats import Need, Stats
from spikeprune.studies.slamp.contenders import (
    ABOUT,
    CONTROLS,
    MAIN,
    READINGS,
    Control,
    all_but_first,
    build,
    first_alone,
    inverted,
    readout_alike,
)

NAMES = (*MAIN, *READINGS, *CONTROLS)
GAINS = {"a": 4.0, "b": 0.5, "c": 2.0, "d": 1.0}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (inverted, [0.25, 2.0, 0.5, 1.0]),
        (first_alone, [4.0, 1.0, 1.0, 1.0]),
        (all_but_first, [1.0, 0.5, 2.0, 1.0]),
        (readout_alike, [4.0, 0.5, 2.0, 2.0]),
    ],
)
def test_controls_by_hand(change, found):
    assert list(change(GAINS)) == list(GAINS)
    assert list(change(GAINS).values()) == found


def test_every_contender_has_a_name_and_a_label_of_its_own():
    assert set(ABOUT) == set(NAMES)
    assert len(NAMES) == len(set(NAMES)) == len(set(ABOUT.values()))
    assert len({repr(build(name, 0)) for name in NAMES}) == len(NAMES)
    with pytest.raises(KeyError):
        build("slam", 0)


def test_chance_is_drawn_by_the_seed():
    assert build("random", 1) != build("random", 2)
    assert build("lamp", 1) == build("lamp", 2)


@pytest.fixture(scope="module")
def ground(lab):
    """Layers and statistics of a trained network that no test changes."""
    bench = lab.copy()
    needs = SLAMP().needs | {Need.NEAR_THRESHOLD}
    return bench.view.layers, measure(bench.view, lab.calibration, needs, loss_fn=loss_fn)


def test_a_control_that_changes_nothing_is_slamp_and_one_without_gain_is_lamp(ground):
    layers, stats = ground
    whole, none = Masks({}), Stats({}, None, 0, 0)
    assert SLAMP()(layers, stats, whole, 0.9) == Control(lambda gains: gains)(layers, stats, whole, 0.9)
    ones = Control(lambda gains: dict.fromkeys(gains, 1.0))(layers, stats, whole, 0.9)
    assert ones == Magnitude(lamp)(layers, none, whole, 0.9)
    assert ones != SLAMP()(layers, stats, whole, 0.9)  # the gains of this network do differ


def test_the_unpruned_control_keeps_everything(ground):
    layers, stats = ground
    masks = build("unpruned", 3)(layers, stats, Masks({}), 0.9)
    assert masks.sparsity == 0
    assert set(masks) == {layer.name for layer in layers}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "unpruned"])
def test_every_contender_keeps_as_many_weights_and_only_loses_them(ground, name):
    layers, stats = ground
    method, weights = build(name, 3), sum(layer.weight.numel() for layer in layers)
    first = method(layers, stats, Masks({}), 0.5)
    second = method(layers, stats, first, 0.9)
    spare = len(layers) if name == "uniform" else 0  # each layer is rounded by itself
    for masks, sparsity in ((first, 0.5), (second, 0.9)):
        assert sum(masks.kept.values()) == pytest.approx(kept(weights, sparsity), abs=spare)
    assert all(not bool((second[layer.name] & ~first[layer.name]).any()) for layer in layers)
    assert min(second.kept.values()) >= 1
