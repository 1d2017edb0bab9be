import torch

from spikeprune.kernel.scores import held_down, magnitude, unit


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
