import copy
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import small_nets
from spikeprune import Masks, Need, Pruner, hold, measure, model_view, prune
from spikeprune.errors import (
    EmptyCalibration,
    MaskMismatch,
    MethodError,
    MissingLoss,
    ModelError,
    NonFinite,
    NoPrunableLayers,
    NotMeasured,
    ScheduleError,
    SparsityError,
    UnsupportedOptimizer,
)
from spikeprune.kernel.allocate import erdos_renyi, lamp, uniform
from spikeprune.kernel.schedules import Cubic, Schedule, cubic, every, once, stages, staircase
from spikeprune.methods import CQP, Magnitude

T, N = 3, 4
X = small_nets.spikes(T, N, 6)
Y = torch.tensor([0, 1, 2, 0])


def loss_fn(out, y):
    return F.cross_entropy(out.sum(0), y)


def looped():
    net = small_nets.Loop()
    return net, model_view(net, X)


def plain():
    """Two layers whose weights are written by hand: 4 and 2 of them."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
        net[1].weight.copy_(torch.tensor([[0.5, 5.0]]))
    return net, model_view(net, torch.ones(1, 2), spiking=False)


def train(view, optimizer, pruner, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(view(X), Y).backward()
        optimizer.step()
        pruner.step()


def make(schedule, seed=0, method=None):
    net = small_nets.lively(small_nets.Loop(), seed)
    view = model_view(net, X)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    pruner = Pruner(view, method or CQP(), schedule, calibration=[(X, Y)], loss_fn=loss_fn).attach(optimizer)
    return net, view, optimizer, pruner


def test_prune_in_one_shot():
    net, view = plain()
    masks = prune(view, Magnitude(), 0.5)
    assert masks.kept == {"0": 2, "1": 1}
    assert net[0].weight.tolist() == [[0.0, 0.0], [3.0, -4.0]]
    assert net[1].weight.tolist() == [[0.0, 5.0]]


def test_prune_chosen_layers_only():
    net, view = plain()
    masks = prune(view, Magnitude(), 0.5, layers="0")
    assert masks == Masks({"0": torch.tensor([[False, False], [True, True]])})
    assert net[1].weight.tolist() == [[0.5, 5.0]]


def test_what_earlier_masks_removed_stays_removed():
    net, view = plain()
    first = Masks({"0": torch.tensor([[True, True], [True, False]])})  # the largest is dead, though its weight is not zero
    masks = prune(view, Magnitude(), 0.5, masks=first)
    assert masks["0"].tolist() == [[False, True], [True, False]]
    assert net[0].weight.tolist() == [[0.0, -2.0], [3.0, 0.0]]
    assert first.kept == {"0": 3}


def test_earlier_masks_are_not_undone_by_a_lower_sparsity():
    _, view = plain()
    masks = prune(view, Magnitude(), 0.5)
    with pytest.raises(SparsityError, match=r"keeps 4 of 6 units, but earlier masks left only 3 alive.* at least 0\.5\.$"):
        prune(view, Magnitude(), 0.4, masks=masks)
    with pytest.raises(SparsityError, match=r"layer '0' is to keep 3 of its 4 units, but earlier masks left only 2"):
        prune(view, Magnitude(allocation=uniform), 0.25, masks=masks)


def test_masks_of_layers_not_chosen_are_carried_along():
    net, view = plain()
    first = prune(view, Magnitude(), 0.5, layers="0")
    with torch.no_grad():
        net[0].weight.fill_(7)  # training without hold
    both = prune(view, Magnitude(), 0.5, layers="1", masks=first)
    assert both.kept == {"0": 2, "1": 1}
    assert both["0"].tolist() == first["0"].tolist()
    assert net[0].weight.tolist() == [[0.0, 0.0], [7.0, 7.0]]


def test_masks_of_another_model_are_refused():
    _, view = plain()
    with pytest.raises(MaskMismatch, match="mask for 'fc', but the model's layers are 0, 1"):
        prune(view, Magnitude(), 0.5, masks=Masks({"fc": torch.tensor([True])}))


def test_an_unknown_layer_name_offers_the_nearest():
    _, view = looped()
    with pytest.raises(NoPrunableLayers, match=r"fits 'fc11'\. Did you mean 'fc1'\? The layers are: fc1, fc2\."):
        prune(view, Magnitude(), 0.5, layers="fc11")
    with pytest.raises(NoPrunableLayers, match="Did you mean 'fc2'"):
        Pruner(view, Magnitude(), once(0.5), layers=["fc1", "fc_2"])


def test_no_layer_at_all_is_refused():
    _, view = looped()
    with pytest.raises(NoPrunableLayers, match=r"layers is empty.* Name some of fc1, fc2, or pass None for all"):
        prune(view, Magnitude(), 0.5, layers=[])
    with pytest.raises(NoPrunableLayers, match="layers is empty"):
        Pruner(view, Magnitude(), once(0.5), layers=[])


@pytest.mark.parametrize("sparsity", [90, 1.0, -0.1, math.nan, "0.9", None, True])
def test_a_bad_sparsity_is_refused_before_anything_is_done(sparsity):
    net, view = looped()
    before = small_nets.photograph(net)
    with pytest.raises(SparsityError, match="must be a fraction"):
        prune(view, CQP(), sparsity)  # neither calibration nor loss is looked at
    with pytest.raises(SparsityError, match="must be a fraction"):
        Pruner(view, CQP(), stages([0.5, sparsity], every=1000))
    small_nets.assert_same(before, small_nets.photograph(net))


def test_a_bad_sparsity_of_a_custom_schedule_is_refused_when_due():
    _, view = plain()
    pruner = Pruner(view, Magnitude(), lambda step: 50 if step == 1 else None)
    assert not pruner.step()
    with pytest.raises(SparsityError, match=r"Did you mean 0\.5"):
        pruner.step()
    assert len(pruner.masks) == 0


def test_a_nan_weight_is_named_with_its_count():
    net, view = looped()
    with torch.no_grad():
        net.fc2.weight[0, :2] = torch.tensor([torch.nan, torch.inf])
    with pytest.raises(NonFinite, match=r"2 of 15 weights of layer 'fc2' are NaN or infinite\. Go back to a checkpoint"):
        prune(view, Magnitude(), 0.5)


def test_more_than_can_be_met_names_the_reachable_sparsity():
    net, view = looped()
    before = net.fc1.weight.detach().clone()
    with pytest.raises(SparsityError, match=r"keeps 0 of 45 units, but the layers must keep 2 .* at most 0\.96\."):
        prune(view, Magnitude(), 0.999)
    assert torch.equal(net.fc1.weight, before)
    assert prune(view, Magnitude(), 0.96).kept == {"fc1": 1, "fc2": 1}


def test_a_loss_is_asked_for():
    _, view = looped()
    with pytest.raises(MissingLoss, match=r"Need\.WEIGHT_GRADIENT takes gradients.*pass loss_fn"):
        prune(view, CQP(), 0.5, calibration=[(X, Y)])


def test_calibration_is_asked_for():
    _, view = looped()
    with pytest.raises(EmptyCalibration, match="no batch"):
        prune(view, CQP(), 0.5, loss_fn=loss_fn)


def test_a_generator_is_exhausted_at_the_second_stage():
    _, view = looped()
    batches = (batch for batch in [(X, Y)])
    pruner = Pruner(view, CQP(), stages([0.3, 0.6], every=1), calibration=batches, loss_fn=loss_fn)
    assert pruner.step()
    masks = Masks(pruner.masks)
    with pytest.raises(EmptyCalibration, match="a generator is empty the second time"):
        pruner.step()
    assert pruner.masks == masks


def test_frozen_weights_can_be_pruned_by_magnitude_only():
    net, view = looped()
    net.fc1.requires_grad_(False)
    assert prune(view, Magnitude(), 0.5).sparsity == pytest.approx(23 / 45)
    assert not net.fc1.weight.requires_grad
    data = {"calibration": [(X, Y)], "loss_fn": loss_fn}
    with pytest.raises(
        NotMeasured, match=r"weight_gradient of layer 'fc1' was not gathered: its weight is frozen; set requires_grad"
    ):
        prune(view, CQP(), 0.9, **data)
    assert prune(view, CQP(), 0.6, layers="fc2", **data).kept == {"fc2": 6}


def test_a_head_that_the_loss_does_not_use_may_stay_unpruned():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(6, 4), nn.Linear(6, 2)

        def forward(self, x):
            return self.fc(x), self.head(x)

    view = model_view(Two(), torch.rand(2, 6), spiking=False)
    data = {"calibration": [(torch.rand(2, 6), torch.tensor([0, 1]))], "loss_fn": lambda out, y: F.cross_entropy(out[0], y)}
    assert prune(view, CQP(), 0.5, layers="fc", **data).kept == {"fc": 12}
    with pytest.raises(NotMeasured, match=r"layer 'head' was not gathered: the loss does not depend on its weight"):
        prune(view, CQP(), 0.5, **data)


@pytest.mark.parametrize("method", [Magnitude, CQP, "cqp", None, lambda *_: Masks({})])
def test_what_is_no_method_is_refused(method):
    _, view = plain()
    with pytest.raises(MethodError, match=r"but must be a method, such as methods\.CQP\(\)"):
        prune(view, method, 0.5)
    with pytest.raises(MethodError, match="must be a method"):
        Pruner(view, method, once(0.5))


@pytest.mark.parametrize("schedule", [0.5, [0.5, 0.9], None, Cubic])
def test_what_is_no_schedule_is_refused(schedule):
    _, view = plain()
    with pytest.raises(ScheduleError, match=r"but must be a schedule, such as schedules\.once\(0\.9\)"):
        Pruner(view, Magnitude(), schedule)


def test_falling_targets_are_refused_at_once():
    _, view = plain()
    with pytest.raises(ScheduleError, match=r"fall from 0\.9 to 0\.5.* stays removed.* rising order"):
        Pruner(view, Magnitude(), stages([0.2, 0.9, 0.5], every=1))
    Pruner(view, Magnitude(), stages([0.5, 0.5, 0.9], every=1))


def test_a_plain_dict_of_masks_is_refused():
    _, view = plain()
    with pytest.raises(MaskMismatch, match="masks is dict, but must be Masks"):
        prune(view, Magnitude(), 0.5, masks={"0": torch.ones(2, 2, dtype=torch.bool)})


@pytest.mark.parametrize("sparsity", [np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_any_real_number_is_a_sparsity(sparsity):
    for method in (Magnitude(), Magnitude(allocation=uniform), Magnitude(allocation=erdos_renyi), Magnitude(allocation=lamp)):
        _, view = plain()
        assert sum(prune(view, method, sparsity).kept.values()) == 3


def test_steps_are_counted_and_due_ones_change_the_masks():
    _, view = plain()
    pruner = Pruner(view, Magnitude(), staircase({1: 0.5, 3: 0.6}))
    assert [pruner.step() for _ in range(6)] == [False, True, False, True, False, False]
    assert pruner.steps == 6
    assert pruner.masks.kept == {"0": 1, "1": 1}


@dataclass(frozen=True)
class Rolling:
    """Keeps the one weight of layer "0" whose number is the step: what was dead comes back."""

    step: int = 0
    needs: ClassVar[frozenset] = frozenset()

    def at(self, step):
        return replace(self, step=step)

    def __call__(self, layers, stats, masks, sparsity):
        return Masks({"0": torch.arange(4).view(2, 2) == self.step})


def test_a_method_that_changes_with_training_is_asked_for_the_step():
    net, view = plain()
    pruner = Pruner(view, Rolling(), every(0.75, 1, start=1))
    seen = []
    for _ in range(4):
        pruner.step()
        seen.append({name: mask.flatten().tolist().index(True) for name, mask in pruner.masks.items()})
    assert seen == [{}, {"0": 1}, {"0": 2}, {"0": 3}]
    pruner.steps = 0
    assert bool(pruner.update(0.75)["0"][0, 0])
    assert net[0].weight.tolist() == [[0.0, 0.0], [0.0, 0.0]]  # what comes back starts at zero


def test_prune_takes_a_method_as_it_is():
    net, view = plain()
    masks = prune(view, Rolling(2), 0.75)
    assert net[0].weight.tolist() == [[0.0, 0.0], [3.0, 0.0]]
    with torch.no_grad():
        net[0].weight.fill_(7)  # training without hold
    assert bool(prune(view, Rolling(1), 0.75, masks=masks)["0"][0, 1])
    assert not bool(net[0].weight.any())


def test_what_a_method_turns_into_must_be_one():
    class Fading(Rolling):
        def at(self, step):
            return None

    _, view = plain()
    with pytest.raises(MethodError, match="method is None, but must be a method"):
        Pruner(view, Fading(), once(0.75)).step()


def test_attach_returns_the_pruner_and_detach_lets_go():
    net, view = looped()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    pruner = Pruner(view, Magnitude(), once(0.5))
    assert pruner.attach(optimizer) is pruner
    pruner.step()
    train(view, optimizer, pruner, 2)
    assert not bool(net.fc1.weight[~pruner.masks["fc1"]].any())
    pruner.detach()
    train(view, optimizer, pruner, 2)
    assert bool(net.fc1.weight[~pruner.masks["fc1"]].any())


def test_attach_refuses_what_hold_refuses():
    net, view = looped()
    with pytest.raises(UnsupportedOptimizer, match="LBFGS"):
        Pruner(view, Magnitude(), once(0.5)).attach(torch.optim.LBFGS(net.parameters()))


@pytest.mark.parametrize("schedule", [stages([0.3, 0.6, 0.9], every=2), cubic(0.9, stop=6, every=2)])
def test_the_dead_stay_dead_between_updates_and_masks_only_shrink(schedule):
    net, view, optimizer, pruner = make(schedule)
    pruner.step()
    earlier = Masks(pruner.masks)
    for _ in range(8):
        train(view, optimizer, pruner, 1)
        for name, mask in pruner.masks.items():
            weight = net.get_submodule(name).weight
            assert not bool(weight[~mask].any())
            assert not bool(optimizer.state[weight]["exp_avg"][~mask].any())
            assert not bool((mask & ~earlier[name]).any())
        earlier = Masks(pruner.masks)
    assert sum(pruner.masks.kept.values()) == 4  # 45 weights, 40.5 of them removed, rounded half up
    assert isinstance(schedule, Schedule)


def test_update_decides_now():
    _, view = plain()
    pruner = Pruner(view, Magnitude(), once(0.5, at=1000))
    assert pruner.update(0.5) is pruner.masks
    assert (pruner.masks.sparsity, pruner.steps) == (0.5, 0)


def test_resumed_training_is_the_uninterrupted_one():
    schedule = stages([0.3, 0.6, 0.9], every=3)
    net, view, optimizer, pruner = make(schedule)
    train(view, optimizer, pruner, 5)
    saved = copy.deepcopy({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()})
    train(view, optimizer, pruner, 5)

    other, again, resumed_optimizer, resumed = make(schedule, seed=9)
    other.load_state_dict(saved["net"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["pruner"])
    assert resumed.steps == 5
    train(again, resumed_optimizer, resumed, 5)
    assert resumed.masks == pruner.masks
    assert pruner.masks.sparsity > 0.9
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_loaded_state_is_enforced_at_once():
    _, _, _, pruner = make(once(0.5))
    pruner.step()
    net, view, optimizer, dense = make(once(0.9), seed=9)
    loss_fn(view(X), Y).backward()
    optimizer.step()
    dense.load_state_dict(pruner.state_dict())
    for name, mask in pruner.masks.items():
        weight = net.get_submodule(name).weight
        assert not bool(weight[~mask].any())
        assert not bool(optimizer.state[weight]["exp_avg"][~mask].any())


def test_a_saved_state_does_not_change_later():
    _, view = plain()
    pruner = Pruner(view, Magnitude(), stages([0.5, 0.6], every=1))
    pruner.step()
    state = pruner.state_dict()
    pruner.step()
    assert Masks(state["masks"]).kept == {"0": 2, "1": 1}
    assert state["steps"] == 1


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"weights": 1}, r"not a pruner's state: it has \['weights'\], not 'steps' and 'masks'"),
        ({"steps": 3, "masks": {"fc9": torch.ones(1, dtype=torch.bool)}}, "mask for 'fc9'"),
        ({"steps": 3, "masks": {"fc1": torch.ones(5, 6)}}, r"torch\.float32; masks are bool"),
    ],
)
def test_a_wrong_state_is_refused_and_changes_nothing(state, told):
    _, view = looped()
    pruner = Pruner(view, Magnitude(), once(0.5))
    pruner.step()
    masks = Masks(pruner.masks)
    with pytest.raises(MaskMismatch, match=told):
        pruner.load_state_dict(state)
    assert (pruner.steps, pruner.masks == masks) == (1, True)


def test_a_model_in_place_of_a_view_is_told_how_to_make_one():
    net = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for call in (
        lambda: prune(net, Magnitude(), 0.5),
        lambda: Pruner(net, Magnitude(), once(0.5)),
        lambda: measure(net, [torch.rand(1, 4)], {Need.INPUT_COUNT}),
        lambda: hold(optimizer, net, Masks({})).__enter__(),
    ):
        with pytest.raises(ModelError, match=r"Linear was given; make one with model_view"):
            call()
