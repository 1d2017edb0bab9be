import copy
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import small_nets
from spikeprune import Masks, Pruner, model_view, prune
from spikeprune.errors import MeasureError, MethodError, ScheduleError, SparsityError
from spikeprune.kernel.allocate import erdos_renyi, uniform
from spikeprune.kernel.schedules import every, stages
from spikeprune.methods import SET, Magnitude, Random, RigL
from spikeprune.view.layer import Layer, Layout

YES, NO = True, False
X = small_nets.spikes(3, 8, 6)
Y = torch.arange(8) % 3
BOTH = [SET(0.5), RigL(0.5)]


def loss_fn(out, y):
    return F.cross_entropy(out.sum(0), y)


def layer(name, rows):
    module = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return Layer(name, module, Layout.ONCE)


def measured(**gradients):
    return {name: SimpleNamespace(weight_gradient=torch.tensor(rows, dtype=torch.double)) for name, rows in gradients.items()}


def wide():
    return [layer("a", [[float(i + 20 * j) for i in range(20)] for j in range(5)]), layer("b", [[1.0] * 5, [2.0] * 5])]


FLAT = measured(a=[[1.0] * 20] * 5, b=[[1.0] * 5] * 2)


def training(method, schedule, *, optimizer="Adam", held=True, seed=0):
    net = small_nets.lively(small_nets.Loop(), seed)
    view = model_view(net, X)
    kinds = {"Adam": lambda p: torch.optim.Adam(p, lr=0.02), "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}
    descent = kinds[optimizer](net.parameters())
    pruner = Pruner(view, method, schedule, calibration=[(X, Y)], loss_fn=loss_fn)
    return view, descent, pruner.attach(descent) if held else pruner


def train(view, optimizer, pruner, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(view(X), Y).backward()
        optimizer.step()
        pruner.step()


def memories(optimizer, weight):
    return [m for m in optimizer.state[weight].values() if torch.is_tensor(m) and m.shape == weight.shape]


@pytest.mark.parametrize("method", BOTH)
def test_the_first_masks_are_drawn_as_random_pruning_draws(method):
    masks = method(wide(), FLAT, Masks({}), 0.8)
    assert masks == Random(seed=0, allocation=erdos_renyi)(wide(), {}, Masks({}), 0.8)
    assert sum(masks.kept.values()) == 22
    other = type(method)(seed=1, allocation=uniform)
    assert other(wide(), FLAT, Masks({}), 0.8) == Random(seed=1, allocation=uniform)(wide(), {}, Masks({}), 0.8)


@pytest.mark.parametrize("method", [SET(0), RigL(0), RigL(0.3, stop=10).at(10), RigL(0.3, stop=10).at(99)])
def test_without_a_share_to_exchange_the_masks_stay(method):
    masks = method(wide(), FLAT, Masks({}), 0.8)
    assert method.share == 0
    assert method(wide(), FLAT, masks, 0.8) == masks


@pytest.mark.parametrize("method", BOTH)
def test_an_update_exchanges_within_every_layer(method):
    old = Masks({"a": torch.arange(100).view(5, 20) >= 80, "b": torch.tensor([[YES] * 2 + [NO] * 3] * 2)})
    gradient = measured(a=[[0.0] * 20, [9.0] * 20, *[[0.0] * 20] * 3], b=[[0.0] * 4 + [1.0]] * 2)
    new = method(wide(), gradient, old, 1 - 24 / 110)
    assert new.kept == old.kept == {"a": 20, "b": 4}
    assert bool(new["a"].flatten()[90:].all())  # the ten largest stay
    assert new["b"].tolist()[1][:2] == [YES, YES]  # of equal magnitudes, 1 falls before 2
    assert new != old
    if isinstance(method, RigL):
        assert bool(new["a"][1][:10].all())
        assert new["b"].tolist() == [[NO, NO, NO, NO, YES], [YES, YES, NO, NO, YES]]


def test_set_draws_anew_at_every_step_and_alike_at_the_same():
    first = SET(0.9)(wide(), {}, Masks({}), 0.8)
    at = {step: SET(0.9).at(step)(wide(), {}, first, 0.8) for step in (0, 1, 2)}
    assert len({tuple(masks["a"].flatten().tolist()) for masks in at.values()}) == 3
    torch.rand(5)
    assert SET(0.9).at(1)(wide(), {}, first, 0.8) == at[1]
    assert SET(0.9, seed=1).at(1)(wide(), {}, first, 0.8) != at[1]


def test_set_grows_anywhere_alike():
    one = [layer("a", [[1.0] * 40 + [0.0] * 60])]
    old = Masks({"a": torch.arange(100).view(1, 100) < 40})
    found = sum(SET(0.5).at(step)(one, {}, old, 0.6)["a"][0].double() for step in range(400))
    assert bool((found[:20] == 400).all())
    assert 60 < found[20:].min() <= found[20:].max() < 140  # 20 of 80 come back: 100 of 400 times, deviation 8.7


def test_the_share_of_rigl_falls_along_a_cosine():
    method = RigL(0.4, stop=300)
    expected = {0: 0.4, 100: 0.3, 150: 0.2, 200: 0.1, 300: 0.0, 1000: 0.0}
    assert {step: method.at(step).share for step in expected} == pytest.approx(expected)
    assert [RigL(0.4).at(step).share for step in (0, 10**6)] == [0.4, 0.4]
    assert SET(0.4).at(10**6).share == 0.4


@pytest.mark.parametrize("method", BOTH)
def test_rising_sparsity_follows_the_allocation_and_falling_may_revive(method):
    masks = Masks({})
    for sparsity in (0.5, 0.8, 0.9, 0.6):
        masks = method(wide(), FLAT, masks, sparsity)
        assert masks.kept == erdos_renyi({"a": torch.ones(5, 20), "b": torch.ones(2, 5)}, sparsity)


@pytest.mark.parametrize("method", BOTH)
def test_masks_of_another_method_keep_their_counts_while_the_total_stays(method):
    found = Magnitude()(wide(), {}, Masks({}), 0.8)
    assert method(wide(), FLAT, found, 0.8).kept == found.kept != method(wide(), FLAT, Masks({}), 0.8).kept


@pytest.mark.parametrize("method", BOTH)
def test_a_layer_without_a_mask_is_whole(method):
    half = Masks({"a": torch.arange(100).view(5, 20) >= 80})
    assert method(wide(), FLAT, half, 1 - 30 / 110).kept == {"a": 20, "b": 10}


def test_a_layer_without_a_gradient_keeps_its_weights_and_may_only_shrink():
    silent = measured(a=[[0.0] * 20] * 5, b=[[1.0] * 5] * 2)
    old = Masks({"a": torch.arange(100).view(5, 20) >= 80, "b": torch.ones(2, 5, dtype=torch.bool)})
    same = RigL(0.5)(wide(), silent, old, 1 - 30 / 110)
    assert torch.equal(same["a"], old["a"])
    fewer = RigL(0.5)(wide(), silent, old, 0.9)
    assert not bool((fewer["a"] & ~old["a"]).any())
    with pytest.raises(
        MeasureError, match=r"layer 'a' is to have \d+ weights instead of 20, but no gradient reaches its dead ones"
    ):
        RigL(0.5)(wide(), silent, old, 0.1)


def test_no_more_is_exchanged_than_a_gradient_speaks_for():
    old = Masks({"a": torch.arange(100).view(5, 20) >= 80, "b": torch.ones(2, 5, dtype=torch.bool)})
    three = torch.zeros(5, 20)
    three[0, 17] = three[1, 3] = three[2, 9] = 1.0
    found = RigL(0.5)(wide(), measured(a=three.tolist(), b=[[1.0] * 5] * 2), old, 1 - 30 / 110)["a"]
    assert torch.equal(found & ~old["a"], three > 0)
    assert int((old["a"] & ~found).sum()) == 3  # where all dead weights have a gradient it is 10
    assert int((old["a"] & ~RigL(0.5)(wide(), FLAT, old, 1 - 30 / 110)["a"]).sum()) == 10


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
@pytest.mark.parametrize("method", BOTH)
def test_what_comes_back_starts_at_zero_with_an_empty_memory_and_then_learns(method, optimizer):
    view, descent, pruner = training(method, every(0.5, 3), optimizer=optimizer)
    pruner.step()
    returned = learned = 0
    for _ in range(5):
        train(view, descent, pruner, 2)
        before = dict(pruner.masks)
        train(view, descent, pruner, 1)
        back = {name: mask & ~before[name] for name, mask in pruner.masks.items()}
        for x in view.layers:
            assert memories(descent, x.weight)
            for tensor in (x.weight, *memories(descent, x.weight)):
                assert not bool(tensor[back[x.name] | ~pruner.masks[x.name]].any())
        train(view, descent, pruner, 1)
        returned += sum(int(b.sum()) for b in back.values())
        learned += sum(int((x.weight[back[x.name]] != 0).sum()) for x in view.layers)
        pruner.steps -= 1  # the extra step was to look, not to count
    assert returned >= 15
    assert learned > returned / 2
    assert pruner.masks.kept == erdos_renyi({x.name: x.weight for x in view.layers}, 0.5)


def test_without_an_optimizer_held_the_memory_of_what_comes_back_is_not_empty():
    view, descent, pruner = training(SET(0.5), every(0.5, 3), held=False)
    pruner.step()
    train(view, descent, pruner, 2)
    before = dict(pruner.masks)
    drifted = sum(int(x.weight[~before[x.name]].count_nonzero()) for x in view.layers)
    train(view, descent, pruner, 1)
    back = {x: pruner.masks[x.name] & ~before[x.name] for x in view.layers}
    assert drifted > 0
    assert any(bool(m[back[x]].any()) for x in view.layers for m in memories(descent, x.weight))
    assert not any(bool(x.weight[back[x]].any()) for x in view.layers)  # the weight itself starts at zero all the same


@pytest.mark.parametrize("method", [SET(0.5), RigL(0.9, stop=20)])
def test_resumed_sparse_training_is_the_uninterrupted_one(method):
    view, descent, pruner = training(method, every(0.6, 2, stop=8))
    pruner.step()
    train(view, descent, pruner, 4)
    saved = copy.deepcopy({"net": view.net.state_dict(), "optimizer": descent.state_dict(), "pruner": pruner.state_dict()})
    train(view, descent, pruner, 5)
    again, resumed_optimizer, resumed = training(method, every(0.6, 2, stop=8), seed=9)
    again.net.load_state_dict(saved["net"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["pruner"])
    train(again, resumed_optimizer, resumed, 5)
    assert resumed.masks == pruner.masks != Masks(saved["pruner"]["masks"])
    pairs = zip(view.net.state_dict().values(), again.net.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_stages_of_a_recipe_shrink_and_exchange():
    view, descent, pruner = training(SET(0.5), stages([0.3, 0.6], every=2))
    pruner.step()
    first = Masks(pruner.masks)
    train(view, descent, pruner, 3)
    assert (sum(first.kept.values()), sum(pruner.masks.kept.values())) == (31, 18)  # 45 weights, 13.5 and 27 removed
    assert any(bool((mask & ~first[name]).any()) for name, mask in pruner.masks.items())


def test_one_shot_it_draws():
    net = nn.Linear(8, 4)
    masks = prune(model_view(net, torch.rand(1, 8), spiking=False), SET(seed=3), 0.75)
    assert int((net.weight != 0).sum()) == sum(masks.kept.values()) == 8


@pytest.mark.parametrize("kind", [SET, RigL])
@pytest.mark.parametrize("fraction", [-0.1, 1.0, math.nan])
def test_a_bad_fraction_is_refused(kind, fraction):
    with pytest.raises(SparsityError, match=r"fraction is .* must lie in \[0, 1\)"):
        kind(fraction)


@pytest.mark.parametrize("kind", [SET, RigL])
def test_the_name_of_an_allocation_is_refused(kind):
    with pytest.raises(MethodError, match="allocation is 'erk', but must be a function"):
        kind(allocation="erk")


def test_a_stop_before_the_first_step_is_refused():
    with pytest.raises(ScheduleError, match="stop is 0, but must be a step after the first"):
        RigL(stop=0)
