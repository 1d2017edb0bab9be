import pytest
import torch

from spikeprune.errors import NonFinite, SparsityError
from spikeprune.kernel.regrow import chance, revive, survivors

YES, NO = True, False
SCORE = torch.tensor([5.0, 1.0, 3.0, 9.0, 3.0, 2.0])
ALIVE = torch.tensor([YES, YES, YES, NO, YES, NO])


def test_the_worst_of_the_living_fall_and_the_dead_do_not_count():
    assert survivors(SCORE, ALIVE, 2).tolist() == [YES, NO, YES, NO, NO, NO]
    assert survivors(SCORE, ALIVE, 4).tolist() == ALIVE.tolist()
    assert survivors(SCORE, ALIVE, 0).tolist() == [NO] * 6


def test_the_best_of_the_dead_come_back_and_the_living_do_not_count():
    growth = torch.tensor([9.0, 9.0, 9.0, 1.0, 9.0, 2.0])
    assert revive(ALIVE, growth, 1).tolist() == [YES, YES, YES, NO, YES, YES]
    assert revive(ALIVE, growth, 2).tolist() == [YES] * 6
    assert revive(ALIVE, growth, 0).tolist() == ALIVE.tolist()


def test_what_has_just_fallen_may_come_back():
    left = survivors(SCORE, ALIVE, 3)
    assert left.tolist() == [YES, NO, YES, NO, YES, NO]
    assert revive(left, torch.tensor([0.0, 7.0, 0.0, 1.0, 0.0, 1.0]), 1).tolist() == [YES, YES, YES, NO, YES, NO]


def test_scores_of_minus_infinity_are_still_among_their_own_kind():
    nothing = torch.full((6,), -torch.inf)
    assert survivors(nothing, ALIVE, 3).tolist() == [YES, YES, YES, NO, NO, NO]
    assert revive(ALIVE, nothing, 1).tolist() == [YES, YES, YES, YES, YES, NO]


def test_shapes_and_arguments_are_kept():
    alive = ALIVE.view(2, 3).clone()
    left = survivors(SCORE.view(2, 3), alive, 2)
    back = revive(left, SCORE.view(2, 3), 1)
    assert left.tolist() == [[YES, NO, YES], [NO, NO, NO]]
    assert back.tolist() == [[YES, NO, YES], [YES, NO, NO]]
    assert torch.equal(alive, ALIVE.view(2, 3))


@pytest.mark.parametrize("keep", [-1, 5])
def test_more_than_live_cannot_be_kept(keep):
    with pytest.raises(SparsityError, match=f"cannot keep {keep} of 4 living units"):
        survivors(SCORE, ALIVE, keep)


@pytest.mark.parametrize("grow", [-1, 3])
def test_more_than_are_dead_cannot_come_back(grow):
    with pytest.raises(SparsityError, match=f"cannot bring {grow} of 2 dead units back"):
        revive(ALIVE, SCORE, grow)


def test_nan_is_refused_where_it_would_decide():
    score = torch.tensor([1.0, torch.nan, 3.0])
    with pytest.raises(NonFinite, match="1 of 2 scores"):
        survivors(score, torch.tensor([NO, YES, YES]), 1)
    with pytest.raises(NonFinite, match="1 of 2 scores"):
        revive(torch.tensor([YES, NO, NO]), score, 1)
    assert survivors(score, torch.tensor([YES, NO, YES]), 1).tolist() == [NO, NO, YES]
    assert revive(torch.tensor([NO, YES, YES]), score, 1).tolist() == [YES] * 3


def test_chance_is_fixed_by_every_part_of_the_seed_and_leaves_the_global_one():
    shapes = {"a": torch.Size([3, 4]), "b": torch.Size([2])}
    before = torch.get_rng_state()
    draws = [chance(shapes, *seed) for seed in ((1,), (1, 0), (1, 1), (10, 1), (1, 10, 1), (101,))]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(draw["a"].flatten().tolist()) for draw in draws}) == len(draws)
    assert all(torch.equal(draws[2][name], chance(shapes, 1, 1)[name]) for name in shapes)
    assert {name: draw.shape for name, draw in draws[0].items()} == shapes
    assert not torch.equal(draws[0]["a"].flatten()[:2], draws[0]["b"])
