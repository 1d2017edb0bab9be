"""Each equation on numbers that can be checked by hand."""

import math

import pytest
import torch

from spikeprune.errors import RecipeError
from spikeprune.runtime import SLOPES, IntegrateAndFire


def test_charge_and_membrane():
    assert IntegrateAndFire().charge(0.5, 0.25) == 0.75
    assert IntegrateAndFire(tau=4.0).charge(0.5, 1.5) == 0.5 + (1.5 - 0.5) / 4
    assert IntegrateAndFire(tau=4.0, decay_input=False).charge(0.5, 1.5) == 0.5 - 0.5 / 4 + 1.5
    # The leak pulls towards the value of the hard reset.
    assert IntegrateAndFire(tau=4.0, reset=0.25).charge(0.5, 1.5) == 0.5 + (1.5 - 0.25) / 4
    assert IntegrateAndFire(tau=4.0, decay_input=False, reset=0.25).charge(0.5, 1.5) == 0.5 - 0.25 / 4 + 1.5
    hard, soft = IntegrateAndFire(reset=0.25), IntegrateAndFire(reset=None, threshold=0.5)
    assert (hard.membrane(0.75, 1.0), hard.membrane(0.75, 0.0)) == (0.25, 0.75)
    assert (soft.membrane(0.75, 1.0), soft.membrane(0.75, 0.0)) == (0.25, 0.75)


PEAKS = {  # at the threshold, with alpha = 2
    "atan": 1.0,
    "erf": 2 / math.sqrt(math.pi),
    "piecewise_exp": 1.0,
    "piecewise_quadratic": 2.0,
    "sigmoid": 0.5,
    "soft_sign": 1.0,
    "super_spike": 2.0,
}


def test_every_surrogate_has_a_peak_below():
    assert PEAKS.keys() == SLOPES.keys()


@pytest.mark.parametrize("name", SLOPES)
def test_a_slope_is_even_and_falls_off_from_its_peak(name):
    h = torch.tensor([-1.5, 0.5, 1.5, 0.5 + 30])
    slope = IntegrateAndFire(threshold=0.5, surrogate=name, alpha=2.0).slope(torch.cat([torch.tensor([0.5]), h])).tolist()
    assert slope[0] == pytest.approx(PEAKS[name])
    assert slope[0] == slope[2] > slope[3] >= slope[1] >= slope[4] >= 0
    even = IntegrateAndFire(threshold=0.0, surrogate=name, alpha=0.7).slope(torch.tensor([-0.4, 0.4])).tolist()
    assert even[0] == even[1]


def test_gradients_by_hand():
    # atan, alpha 2, at the threshold: slope 1.
    hard = IntegrateAndFire(tau=4.0)
    assert hard.to_charge(3.0, 5.0, 1.0, 1.0) == 3.0  # a spike cuts the membrane off
    assert hard.to_charge(3.0, 5.0, 1.0, 0.0) == 8.0
    through = IntegrateAndFire(reset=0.25, detach_reset=False)
    assert through.to_charge(3.0, 5.0, 1.0, 1.0) == 3.0 + 5.0 * (0.25 - 1.0)
    soft = IntegrateAndFire(reset=None, threshold=0.5, detach_reset=False)
    assert soft.to_charge(3.0, 5.0, 0.5, 1.0) == 3.0 + 5.0 * (1 - 0.5)
    assert IntegrateAndFire(reset=None, threshold=0.5).to_charge(3.0, 5.0, 0.5, 1.0) == 8.0
    assert (hard.to_input(8.0), hard.to_before(8.0)) == (2.0, 6.0)
    undamped = IntegrateAndFire(tau=4.0, decay_input=False)
    assert (undamped.to_input(8.0), undamped.to_before(8.0)) == (8.0, 6.0)
    assert (soft.to_input(8.0), soft.to_before(8.0)) == (8.0, 8.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"surrogate": "atann"}, "the surrogate is 'atann', but must be one of atan, erf"),
        ({"tau": 1.0}, r"tau is 1\.0, .* above 1 timestep"),
        ({"threshold": math.inf}, "threshold is inf"),
        ({"reset": math.nan}, "reset is nan"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(RecipeError, match=message):
        IntegrateAndFire(**options)
