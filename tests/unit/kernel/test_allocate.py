import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from spikeprune.errors import SparsityError
from spikeprune.kernel.allocate import erdos_renyi, global_top_k, kept, lamp, reachable, uniform, uniform_plus

INF = torch.inf


def scores(**layers):
    return {name: torch.tensor(values) for name, values in layers.items()}


@pytest.mark.parametrize(
    ("units", "sparsity", "survivors"),
    [
        (10, 0.0, 10),
        (10, 0, 10),
        (10, 0.5, 5),
        (10, 0.04, 10),
        (10, 0.05, 9),
        (10, 0.95, 0),
        (784, 0.7, 235),
        (3, 0.5, 1),
        (1, 0.5, 0),
    ],
)
def test_kept_removes_the_nearest_count_half_up(units, sparsity, survivors):
    assert kept(units, sparsity) == survivors


@pytest.mark.parametrize(
    "sparsity", [-0.1, 1, 1.0, 1.5, math.nan, math.inf, -math.inf, "0.9", None, True, False, torch.tensor(0.5)]
)
def test_kept_refuses_what_is_no_fraction(sparsity):
    with pytest.raises(SparsityError, match=r"must be a fraction in \[0, 1\)"):
        kept(10, sparsity)


def test_a_percentage_gets_a_hint():
    with pytest.raises(SparsityError, match=r"sparsity is 90, .* Did you mean 0\.9\?"):
        kept(10, 90)


def test_a_sparsity_error_is_a_value_error():
    with pytest.raises(ValueError, match="sparsity is 2"):
        kept(10, 2)


@pytest.mark.parametrize("units", [1, 2, 3, 7, 10, 99, 1000, 2_359_296, 123_456_789])
@pytest.mark.parametrize("needed", [1, 2, 10])
def test_reachable_is_really_reached_in_few_digits(units, needed):
    if needed < units:
        sparsity = reachable(units, needed)
        assert kept(units, sparsity) == needed
        assert len(str(sparsity)) <= len(str(units)) + 2


def test_uniform_gives_every_layer_the_same_sparsity():
    assert uniform(scores(a=[1.0] * 10, b=[[1.0] * 4] * 5), 0.7) == {"a": 3, "b": 6}


def test_uniform_keeps_the_floor():
    assert uniform(scores(a=[1.0] * 10, b=[1.0]), 0.99) == {"a": 1, "b": 1}
    assert uniform(scores(a=[1.0] * 10, b=[1.0]), 0.99, floor=3) == {"a": 3, "b": 1}


def test_global_ranks_all_layers_together():
    assert global_top_k(scores(a=[9.0, 1.0, 8.0], b=[7.0, 0.0, 0.5]), 0.5) == {"a": 2, "b": 1}


def test_global_ties_go_to_the_earlier_layer():
    assert global_top_k(scores(b=[1.0, 1.0], a=[1.0, 1.0]), 0.25) == {"b": 2, "a": 1}


def test_global_empties_no_layer():
    assert global_top_k(scores(a=[9.0, 8.0, 7.0], b=[0.0, 0.1, 0.2]), 0.5) == {"a": 2, "b": 1}


def test_global_without_floor_may_empty_a_layer():
    assert global_top_k(scores(a=[9.0, 8.0, 7.0], b=[0.0, 0.1, 0.2]), 0.5, floor=0) == {"a": 3, "b": 0}


def test_global_names_the_reachable_sparsity():
    three = scores(a=[1.0] * 10, b=[1.0] * 10, c=[1.0] * 10)
    with pytest.raises(SparsityError, match=r"keeps 2 of 30 units, but the layers must keep 3 .* at most 0\.9\.$"):
        global_top_k(three, 0.93)
    assert global_top_k(three, 0.9) == {"a": 1, "b": 1, "c": 1}


def test_global_does_not_count_on_the_dead():
    held = scores(a=[-INF, -INF, 1.0], b=[5.0, 4.0, 3.0])
    assert global_top_k(held, 0.5) == {"a": 1, "b": 2}
    with pytest.raises(SparsityError, match=r"keeps 5 of 6 units, but earlier masks left only 4 alive.* at least 0\.3\.$"):
        global_top_k(held, 0.2)
    assert global_top_k(held, 0.3) == {"a": 1, "b": 3}


def test_the_floor_of_an_emptied_layer_revives_nothing():
    assert global_top_k(scores(a=[-INF, -INF], b=[5.0, 4.0]), 0.75) == {"a": 0, "b": 1}
    assert uniform(scores(a=[-INF, -INF], b=[5.0, 4.0]), 0.75) == {"a": 0, "b": 1}


def test_global_takes_protected_units_first():
    assert global_top_k(scores(a=[0.0, 9.0, 0.0], b=[INF, INF, 0.1]), 0.5) == {"a": 1, "b": 2}


def test_erdos_renyi_by_hand():
    # densities in proportion to (2 + 8) / 16 = 10 / 16 and (4 + 4) / 16 = 8 / 16: 18 weights as 10 to 8
    assert erdos_renyi({"a": torch.ones(2, 8), "b": torch.ones(4, 4)}, 0.4375) == {"a": 10, "b": 8}


def test_erdos_renyi_counts_the_kernel_unless_told_not_to():
    layers = {"conv": torch.ones(4, 4, 3, 3), "fc": torch.ones(12, 12)}
    # with kernel: (4 + 4 + 3 + 3) : (12 + 12) = 14 : 24 of 76; without: (8 / 16) * 144 : 24 = 72 : 24 of 76
    assert erdos_renyi(layers, 1 - 76 / 288) == {"conv": 28, "fc": 48}
    assert erdos_renyi(layers, 1 - 76 / 288, kernel=False) == {"conv": 57, "fc": 19}


def test_erdos_renyi_leaves_a_small_layer_dense_and_spreads_the_rest():
    # quotas 3 : 20 of 50 would give "small" 6.5 of its 2 weights
    assert erdos_renyi({"small": torch.ones(1, 2), "large": torch.ones(10, 10)}, 1 - 50 / 102) == {"small": 2, "large": 48}


def test_erdos_renyi_keeps_the_floor_and_the_total():
    layers = {"tiny": torch.ones(1, 1), "large": torch.ones(30, 30)}
    assert erdos_renyi(layers, 1 - 2 / 901) == {"tiny": 1, "large": 1}


def test_erdos_renyi_does_not_count_on_the_dead():
    held = {"a": torch.tensor([[1.0, -INF], [-INF, -INF]]), "b": torch.ones(2, 2)}
    assert erdos_renyi(held, 0.5) == {"a": 1, "b": 3}
    with pytest.raises(SparsityError, match=r"left only 5 alive"):
        erdos_renyi(held, 0.25)


def test_erdos_renyi_needs_weights():
    with pytest.raises(SparsityError, match=r"layer 'a' have shape \(3,\)\. Use it with the pattern Unstructured"):
        erdos_renyi({"a": torch.ones(3)}, 0.5)


def test_uniform_plus_leaves_a_first_convolution_dense():
    layers = {"conv": torch.ones(4, 2, 3, 3), "mid": torch.ones(10, 20), "last": torch.ones(10, 10)}
    # 372 weights, 186 kept: 72 of the convolution, the other 114 as 200 to 100
    assert uniform_plus(layers, 0.5) == {"conv": 72, "mid": 76, "last": 38}


def test_uniform_plus_leaves_a_fifth_of_the_last_layer():
    layers = {"conv": torch.ones(4, 2, 3, 3), "mid": torch.ones(10, 20), "last": torch.ones(10, 10)}
    # 372 weights, 112 kept: 72 and 20; the uniform share of the last would be 40 / 300 * 100 = 13
    assert uniform_plus(layers, 1 - 112 / 372) == {"conv": 72, "mid": 20, "last": 20}


def test_uniform_plus_prunes_a_linear_first_layer_like_the_rest():
    layers = {"a": torch.ones(10, 20), "b": torch.ones(10, 10), "c": torch.ones(10, 10)}
    assert uniform_plus(layers, 0.5) == {"a": 100, "b": 50, "c": 50}
    assert uniform_plus(layers, 0.9) == {"a": 13, "b": 7, "c": 20}  # 40: 20, and 20 as 2 to 1


def test_uniform_plus_names_the_reachable_sparsity():
    layers = {"conv": torch.ones(4, 2, 3, 3), "mid": torch.ones(10, 20), "last": torch.ones(10, 10)}
    told = (
        r"keeps 37 of 372 units, but the layers must keep 93 together so that a first convolution stays dense.* at most 0\.75\.$"
    )
    with pytest.raises(SparsityError, match=told):
        uniform_plus(layers, 0.9)
    assert uniform_plus(layers, 0.75) == {"conv": 72, "mid": 1, "last": 20}


def test_uniform_plus_of_one_layer():
    assert uniform_plus({"fc": torch.ones(10, 10)}, 0.8) == {"fc": 20}
    with pytest.raises(SparsityError, match=r"must keep 20 .* at most 0\.8\.$"):
        uniform_plus({"fc": torch.ones(10, 10)}, 0.81)
    with pytest.raises(SparsityError, match=r"at most 0\.0\.$"):
        uniform_plus({"conv": torch.ones(2, 2, 3)}, 0.5)
    assert uniform_plus({"conv": torch.ones(2, 2, 3)}, 0) == {"conv": 12}


def test_uniform_plus_does_not_count_on_the_dead():
    conv, last = torch.ones(1, 1, 2, 2), torch.ones(2, 5)
    conv[0, 0, 0] = -INF
    last[0] = -INF
    assert uniform_plus({"conv": conv, "mid": torch.ones(2, 5), "last": last}, 0.5) == {"conv": 2, "mid": 5, "last": 5}
    last[1, 1:] = -INF
    assert uniform_plus({"conv": conv, "mid": torch.ones(2, 5), "last": last}, 0.75) == {"conv": 2, "mid": 3, "last": 1}
    with pytest.raises(SparsityError, match="left only 13 alive"):
        uniform_plus({"conv": conv, "mid": torch.ones(2, 5), "last": last}, 0.3)


def test_uniform_plus_needs_weights():
    with pytest.raises(SparsityError, match=r"uniform_plus needs weight-shaped .* \(3,\)\. Use it with the pattern Unstructured"):
        uniform_plus({"a": torch.ones(3)}, 0.5)


def test_lamp_scores_of_the_paper_by_hand():
    assert lamp(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == pytest.approx([1 / 30, 4 / 29, 9 / 25, 1.0], rel=1e-15)
    assert lamp(torch.tensor([0.1, 0.2], dtype=torch.double)).tolist() == pytest.approx([0.2, 1.0], rel=1e-15)


def test_lamp_allocates_as_in_the_paper():
    assert lamp(scores(a=[1.0, 2.0, 3.0, 4.0], b=[0.1, 0.2]), 0.5) == {"a": 2, "b": 1}


def test_lamp_keeps_the_shape_and_the_order():
    out = lamp(torch.tensor([[3.0, 1.0], [4.0, 2.0]]))
    assert out.dtype == torch.double
    assert out.tolist() == [pytest.approx([9 / 25, 1 / 30]), pytest.approx([1.0, 4 / 29])]


def test_among_equals_the_lower_index_counts_as_larger():
    assert lamp(torch.tensor([2.0, 2.0])).tolist() == [1.0, 0.5]


def test_lamp_of_the_dead_is_minus_infinity_and_weighs_nothing():
    assert lamp(torch.tensor([-INF, 1.0, 2.0])).tolist() == [-INF, 0.2, 1.0]


def test_lamp_of_zeros_is_zero():
    assert lamp(torch.tensor([0.0, 0.0])).tolist() == [0.0, 0.0]
    assert lamp(torch.tensor([0.0, 3.0])).tolist() == [0.0, 1.0]


def test_lamp_does_not_lose_small_weights_behind_a_large_one():
    out = lamp(torch.tensor([1e-9, 1e-9, 1.0]))
    assert out.tolist() == [pytest.approx(1e-18), pytest.approx(1e-18), 1.0]


def test_lamp_as_an_allocation_needs_a_sparsity():
    with pytest.raises(SparsityError, match="needs a sparsity"):
        lamp(scores(a=[1.0]))


@pytest.mark.parametrize("allocation", [uniform, uniform_plus, global_top_k, erdos_renyi, lamp])
def test_allocations_leave_their_arguments_and_give_ints(allocation):
    weight = torch.arange(12.0).reshape(3, 4)
    keep = allocation({"a": weight}, 0.5)
    assert keep == {"a": 6}
    assert type(keep["a"]) is int
    assert torch.equal(weight, torch.arange(12.0).reshape(3, 4))


@pytest.mark.parametrize("sparsity", [np.float32(0.5), np.float64(0.5), np.float16(0.5), Fraction(1, 2)])
def test_kept_takes_any_real_number(sparsity):
    assert kept(2**25 + 2, sparsity) == 2**24 + 1  # more than float32 can count


def test_kept_refuses_numpys_truth():
    with pytest.raises(SparsityError):
        kept(10, np.bool_(True))
