import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spikeprune import Masks, Need
from spikeprune.errors import MeasureError, MethodError, SparsityError
from spikeprune.kernel.patterns import Channel, Unstructured
from spikeprune.methods import CQP, Magnitude
from spikeprune.view.layer import Layer, Layout

YES, NO = True, False


def layer(name, rows):
    module = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return Layer(name, module, Layout.ONCE)


def measured(**gradients):
    return {name: SimpleNamespace(weight_gradient=torch.tensor(rows, dtype=torch.double)) for name, rows in gradients.items()}


def decide(method, layers, stats, sparsity, masks=None):
    masks = method(layers, stats, masks or Masks({}), sparsity)
    return {name: mask.tolist() for name, mask in masks.items()}


WEIGHT = [[4.0, 3.0, -2.0, 1.0]]
GRADIENT = [[0.01, 0.16, 0.09, 0.04]]  # criticality 1/16, 1, 9/16, 1/4; its roots 1/4, 1, 3/4, 1/2


@pytest.mark.parametrize(
    ("alpha", "kept"),
    [(0.0, [YES, YES, NO, NO]), (0.5, [NO, YES, YES, NO]), (1.0, [NO, YES, YES, NO]), (20.0, [NO, YES, YES, NO])],
)
def test_the_score_by_hand(alpha, kept):
    # alpha 0.5: 4/4, 3, 2 * 3/4, 1/2
    assert decide(CQP(alpha), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.5) == {"a": [kept]}


def test_a_column_takes_the_mean_of_both():
    # mean magnitudes 2, 3, 1; criticality of columns (1 + 3)/2, (1 + 0)/2, (4 + 4)/2 over 4: 1/2, 1/8, 1
    weight, gradient = [[1.0, -3.0, 1.0], [3.0, 3.0, -1.0]], [[1.0, 1.0, 4.0], [3.0, 0.0, 4.0]]
    columns = {alpha: CQP(alpha, pattern=Channel(dim=1)) for alpha in (0, 1, 2)}
    for alpha, kept in {0: [NO, YES, NO], 1: [YES, NO, NO], 2: [NO, NO, YES]}.items():  # scores at 2: 0.5, 0.05, 1
        assert decide(columns[alpha], [layer("a", weight)], measured(a=gradient), 0.6) == {"a": [kept, kept]}


def test_criticality_is_relative_to_the_layer():
    two = [layer("a", [[1.0, 1.0]]), layer("b", [[1.0, 1.0]])]
    assert decide(CQP(), two, measured(a=[[1e-6, 4e-7]], b=[[5.0, 1.0]]), 0.25) == {"a": [[YES, YES]], "b": [[YES, NO]]}


@pytest.mark.parametrize("pattern", [Unstructured(), Channel(dim=1)])
def test_alpha_zero_is_magnitude_bit_for_bit(pattern):
    draw = torch.Generator().manual_seed(0)
    two = [layer(name, torch.randn(9, 7, generator=draw).tolist()) for name in "ab"]
    stats = measured(a=torch.rand(9, 7, generator=draw).tolist(), b=torch.eye(9)[:, :7].tolist())
    for sparsity in (0.0, 0.5, 0.8):
        masks = CQP(0.0, pattern=pattern)(two, stats, Masks({}), sparsity)
        assert masks == Magnitude(pattern=pattern)(two, {}, Masks({}), sparsity)


def test_the_protected_survive():
    assert decide(CQP(protect=0.25), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.25) == {"a": [[NO, YES, YES, YES]]}
    assert decide(CQP(protect=0.26), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.25) == {"a": [[YES, YES, YES, NO]]}


def test_too_much_protection_names_the_reachable_sparsity():
    with pytest.raises(
        SparsityError, match=r"protect=0\.25 protects 3 of 4 units, but sparsity 0\.5 keeps only 2\. .* at most 0\.2, or raise"
    ):
        CQP(protect=0.25)([layer("a", WEIGHT)], measured(a=GRADIENT), Masks({}), 0.5)
    assert CQP(protect=0.25)([layer("a", WEIGHT)], measured(a=GRADIENT), Masks({}), 0.2).kept == {"a": 3}


def test_protection_counts_the_unit_that_another_layer_must_keep():
    two = [layer("a", WEIGHT), layer("b", [[1.0, 1.0]])]
    stats = measured(a=GRADIENT, b=[[1.0, 0.1]])
    force = Masks({"b": torch.tensor([[NO, YES]])})  # the critical weight of b is dead, the other one is its last
    with pytest.raises(SparsityError, match=r"protects 3 of 6 units, but sparsity 0\.5 keeps only 3\..* at most 0\.3,"):
        CQP(protect=0.25)(two, stats, force, 0.5)
    assert decide(CQP(protect=0.25), two, stats, 0.3, force) == {"a": [[NO, YES, YES, YES]], "b": [[NO, YES]]}


@pytest.mark.parametrize("pattern", [Unstructured(), Channel(dim=1)])
def test_the_dead_stay_dead_though_critical_and_protected(pattern):
    force = Masks({"a": torch.tensor([[YES, NO, YES, YES]])})
    masks = decide(CQP(protect=0.9, pattern=pattern), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.5, force)
    assert masks == {"a": [[YES, NO, YES, NO]]}  # scores 1, dead, 3/2, 1/2


def test_a_column_with_one_dead_weight_is_dead():
    force = Masks({"a": torch.tensor([[YES, YES], [NO, YES]])})
    masks = decide(CQP(pattern=Channel(dim=1)), [layer("a", [[9.0, 1.0], [9.0, 1.0]])], measured(a=[[1.0, 1.0]] * 2), 0.5, force)
    assert masks == {"a": [[NO, YES], [NO, YES]]}


def test_a_layer_without_gradient_is_refused():
    with pytest.raises(
        MeasureError, match=r"no gradient reaches the weights of layer 'a': the criticality of all 4 units is zero"
    ):
        CQP()([layer("a", WEIGHT)], measured(a=[[0.0] * 4]), Masks({}), 0.5)


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_a_bad_alpha_is_refused(alpha):
    with pytest.raises(SparsityError, match=r"alpha is .* must be a number of 0 or more"):
        CQP(alpha)


@pytest.mark.parametrize("protect", [0, -0.5, 1.1, math.nan])
def test_a_bad_protection_is_refused(protect):
    with pytest.raises(SparsityError, match=r"protect is .* criticality lies in \(0, 1\]"):
        CQP(protect=protect)


def test_it_needs_gradients_and_is_a_value():
    assert CQP.needs == {Need.WEIGHT_GRADIENT}
    assert CQP(0.5) == CQP()


@pytest.mark.parametrize("pattern", ["column", Channel, None])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(MethodError, match=r"but must be a pattern, such as patterns\.Channel\(dim=1\)"):
        CQP(pattern=pattern)
