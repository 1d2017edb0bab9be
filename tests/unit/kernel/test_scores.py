import torch

from spikeprune.kernel.scores import by_mean, by_rank, held_down, magnitude, per_input, per_output, per_weight, unit


def test_magnitude_is_absolute_and_detached():
    weight = torch.tensor([-2.0, 1.0, -0.0], requires_grad=True)
    score = magnitude(weight)
    assert score.tolist() == [2.0, 1.0, 0.0]
    assert not score.requires_grad


def test_unit_divides_by_the_largest():
    assert unit(torch.tensor([[1.0, 4.0], [2.0, 0.0]])).tolist() == [[0.25, 1.0], [0.5, 0.0]]


def test_the_largest_is_exactly_one():
    assert unit(torch.tensor([0.1, 0.3])).max().item() == 1.0


def test_unit_of_zeros_is_zeros():
    assert unit(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_held_down_puts_the_dead_last():
    held = held_down(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([False, True, True]))
    assert held.tolist() == [-torch.inf, 1.0, 2.0]


def test_held_down_beats_an_infinite_score():
    assert held_down(torch.tensor([torch.inf, 1.0]), torch.tensor([False, True])).tolist() == [-torch.inf, 1.0]


def test_held_down_without_a_mask_is_the_score():
    score = torch.tensor([1.0])
    assert held_down(score, None) is score


def test_held_down_leaves_its_argument():
    score = torch.tensor([1.0, 2.0])
    held_down(score, torch.tensor([False, False]))
    assert score.tolist() == [1.0, 2.0]


def test_by_mean_divides_by_the_mean_and_leaves_zeros():
    assert by_mean(torch.tensor([[1.0, 4.0], [1.0, 2.0]])).tolist() == [[0.5, 2.0], [0.5, 1.0]]
    assert by_mean(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_by_rank_forgets_distances_and_keeps_ties_and_zeros():
    assert by_rank(torch.tensor([[9.0, 0.0], [1e-9, 9.0]], dtype=torch.double)).tolist() == [[1.0, 0.0], [0.5, 1.0]]
    assert by_rank(torch.zeros(2)).tolist() == [0.0, 0.0]


def test_criticality_of_neurons_is_a_mean_over_theirs():
    gradient = torch.tensor([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])
    assert per_weight(gradient) is gradient
    assert per_input(gradient).tolist() == [[3.0, 4.0, 5.0]] * 2
    assert per_output(gradient).tolist() == [[2.0] * 3, [6.0] * 3]


def test_criticality_of_channels_takes_the_kernel_in():
    gradient = torch.arange(16.0).reshape(2, 2, 2, 2)  # means of kernels: 1.5, 5.5 / 9.5, 13.5
    assert per_input(gradient)[:, :, 0, 0].tolist() == [[5.5, 9.5]] * 2
    assert per_output(gradient)[:, :, 1, 1].tolist() == [[3.5, 3.5], [11.5, 11.5]]
    assert per_input(gradient).shape == per_output(gradient).shape == gradient.shape
