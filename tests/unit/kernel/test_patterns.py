import pytest
import torch

from spikeprune.errors import SparsityError
from spikeprune.kernel.patterns import Channel, Pattern, Unstructured, living, top_k


def test_top_k_keeps_the_largest():
    assert top_k(torch.tensor([1.0, 5.0, -3.0, 4.0]), 2).tolist() == [False, True, False, True]


def test_top_k_gives_ties_to_the_lower_index():
    assert top_k(torch.tensor([2.0, 7.0, 2.0, 2.0]), 3).tolist() == [True, True, True, False]


def test_top_k_counts_minus_zero_and_zero_as_a_tie():
    assert top_k(torch.tensor([-0.0, 0.0]), 1).tolist() == [True, False]


@pytest.mark.parametrize("keep", [0, 1, 4])
def test_top_k_is_exact_and_keeps_the_shape(keep):
    mask = top_k(torch.zeros(2, 2), keep)
    assert (mask.shape, mask.dtype, int(mask.sum())) == ((2, 2), torch.bool, keep)


def test_top_k_of_many_equal_scores_is_still_by_index():
    mask = top_k(torch.ones(10_000), 4_321)
    assert bool(mask[:4_321].all())
    assert not bool(mask[4_321:].any())


@pytest.mark.parametrize("keep", [-1, 5])
def test_top_k_refuses_an_impossible_count(keep):
    with pytest.raises(SparsityError, match=rf"cannot keep {keep} of 4 units; keep 0 to 4"):
        top_k(torch.zeros(4), keep)


def test_unstructured_units_are_weights():
    pattern, weight = Unstructured(), torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    assert torch.equal(pattern.reduce(weight), weight)
    mask = pattern.expand(pattern.select(weight, 2), weight)
    assert mask.tolist() == [[False, True], [True, False]]


def test_channel_score_is_the_mean_over_a_column():
    assert Channel(dim=1).reduce(torch.tensor([[1.0, 2.0, 9.0], [3.0, 2.0, 0.0]])).tolist() == [2.0, 2.0, 4.5]


def test_channel_of_a_convolution_is_an_input_channel():
    score = torch.tensor([[[[1.0, 2.0]], [[5.0, 5.0]]], [[[3.0, 6.0]], [[5.0, 5.0]]]])  # (2, 2, 1, 2)
    pattern = Channel(dim=1)
    assert pattern.reduce(score).tolist() == [3.0, 5.0]
    mask = pattern.expand(torch.tensor([False, True]), score)
    assert mask.shape == score.shape
    assert not bool(mask[:, 0].any())
    assert bool(mask[:, 1].all())


def test_channel_means_are_summed_in_float64():
    column = torch.tensor([[1.0], [2.0**-30]])
    assert Channel(dim=1).reduce(column).item() == (1 + 2.0**-30) / 2  # float32 would say 0.5


def test_channel_with_a_dead_weight_is_dead():
    assert Channel(dim=1).reduce(torch.tensor([[-torch.inf, 1.0], [9.0, 1.0]])).tolist() == [-torch.inf, 1.0]


def test_an_expanded_mask_has_its_own_memory():
    mask = Channel(dim=1).expand(torch.tensor([True, True]), torch.zeros(2, 2))
    mask[0, 0] = False
    assert mask.tolist() == [[False, True], [True, True]]


def test_output_channels_are_rows():
    pattern = Channel()
    assert pattern.reduce(torch.tensor([[[1.0], [2.0]], [[3.0], [6.0]]])).tolist() == [1.5, 4.5]
    assert pattern.expand(torch.tensor([True, False]), torch.zeros(2, 2, 1)).tolist() == [[[True], [True]], [[False], [False]]]


def test_an_output_channel_is_dead_when_all_its_weights_are():
    score = torch.tensor([[-torch.inf, 3.0], [-torch.inf, -torch.inf]])
    assert Channel().reduce(score).tolist() == [1.5, -torch.inf]
    mask = torch.tensor([[False, True], [False, False]])
    assert living(Channel(), mask).tolist() == [True, False]
    assert living(Channel(dim=1), mask).tolist() == [False, False]  # a column is dead with its first dead weight
    assert living(Unstructured(), mask).tolist() == mask.tolist()
    assert living(Channel(), None) is None


@pytest.mark.parametrize("dim", [2, -1])
def test_channel_refuses_other_axes(dim):
    with pytest.raises(SparsityError, match=rf"Channel\(dim={dim}\) is none: dim=0 prunes output channels"):
        Channel(dim=dim)


@pytest.mark.parametrize("pattern", [Unstructured(), Channel(dim=1)])
def test_patterns_fit_the_protocol_and_compare_as_values(pattern):
    assert isinstance(pattern, Pattern)
    assert pattern == type(pattern)(**vars(pattern))
