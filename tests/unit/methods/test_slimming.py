"""Slimming: channels by the gain of their norm, and the penalty that drives gains to zero."""

import pytest
import torch
from torch import nn

from channel_nets import Joined, N, Residual, T, awake, bare, jelly, labels, loss_fn
from small_nets import noise
from spikeprune import Masks, Pruner, model_view, prune
from spikeprune.errors import MethodError, ModelError, SparsityError
from spikeprune.kernel.allocate import uniform
from spikeprune.kernel.patterns import Channel, living
from spikeprune.kernel.schedules import stages
from spikeprune.methods import Slimming, gain_penalty

X = noise(T, N, 2, 4, 4)
YES, NO = True, False


def gained(net, **gains):
    """The network, with these gains."""
    for name, values in gains.items():
        net.get_submodule(name).weight.data.copy_(torch.tensor(values))
    return net


def channels(masks):
    return {name: living(Channel(), mask).tolist() for name, mask in masks.items()}


def two(first, second):
    net = jelly()
    net[1].weight.data.copy_(torch.tensor(first))
    net[4].weight.data.copy_(torch.tensor(second))
    return model_view(net, X)


def test_the_largest_gains_stay_in_one_ranking_whatever_their_sign():
    view = two([0.1, -5.0, 2.0, 0.2, 0.3], [0.9, -0.8, 0.01, 4.0, -0.02, 0.03])
    masks = prune(view, Slimming(), 6 / 11)  # five of eleven stay
    assert channels(masks) == {"0": [NO, YES, YES, NO, NO], "3": [YES, YES, NO, YES, NO, NO]}
    assert (view.net[1].weight != 0).tolist() == [NO, YES, YES, NO, NO]
    assert (view.net[1].bias != 0).tolist() == [NO, YES, YES, NO, NO]


def test_no_layer_is_emptied():
    view = two([1e-9, 3e-9, 2e-9, 0.0, 0.0], [0.9, 0.8, 0.7, 4.0, 0.6, 0.5])
    assert channels(prune(view.clone(), Slimming(), 5 / 11))["0"] == [NO, YES, NO, NO, NO]
    assert {name: sum(kept) for name, kept in channels(prune(view.clone(), Slimming(), 9 / 11)).items()} == {"0": 1, "3": 1}
    with pytest.raises(SparsityError, match=r"keeps 1 of 11 units, but the layers must keep 2.* at most 0\.82"):
        prune(view, Slimming(), 10 / 11)


def test_each_layer_alike_if_so_asked():
    view = two([1e-9, 3e-9, 2e-9, 0.0, 0.0], [0.9, 0.8, 0.7, 4.0, 0.6, 0.5])
    masks = prune(view, Slimming(allocation=uniform), 0.5)
    assert channels(masks) == {"0": [NO, YES, YES, NO, NO], "3": [YES, YES, NO, YES, NO, NO]}


def test_added_channels_are_ranked_by_the_mean_gain_of_their_norms():
    net = gained(Residual(), norm1=[4.0, 0.0, 1.0, 3.0, 0.1], norm2=[0.0, -5.0, 1.0, 3.0, 0.1], norm3=[2.2, 0.5, 0.4, 2.1])
    masks = prune(model_view(net, X), Slimming(), 5 / 9)  # four of nine stay: 3, 2.5, 2.2, 2.1, before 2
    assert channels(masks) == {"conv1": [NO, YES, NO, YES, NO], "conv2": [NO, YES, NO, YES, NO], "conv3": [YES, NO, NO, YES]}


def test_a_channel_that_was_flattened_is_ranked_by_the_mean_over_its_entries():
    gains = [4.0, 0, 0, 0, *[0.9] * 4, 0.5, 0.5, 0.5, -3.0, *[0.1] * 4, 2.0, -2.0, 2.0, -2.0]  # means 1, .9, 1.125, .1, 2
    masks = prune(model_view(gained(Joined(), norm=gains), X), Slimming(), 0.4)
    assert channels(masks) == {"conv1": [YES, NO], "conv2": [YES, NO, YES]}
    assert masks.held["norm.weight"].int().tolist() == [1] * 4 + [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


def test_the_dead_stay_dead_though_gains_are_written_to():
    view = two([5.0, 4.0, 3.0, 2.0, 1.0], [1.1, 1.2, 1.3, 1.4, 1.5, 1.6])
    pruner = Pruner(view, Slimming(), stages([0.25, 0.5], every=1))
    pruner.step()
    first = Masks(pruner.masks, pruner.masks.gates)
    assert channels(first) == {"0": [YES, YES, YES, YES, NO], "3": [NO, NO, YES, YES, YES, YES]}
    view.net[1].weight.data.fill_(9.0)
    pruner.step()
    assert channels(pruner.masks) == {"0": [YES, YES, YES, YES, NO], "3": [NO] * 5 + [YES]}


def test_a_layer_without_a_norm_is_named():
    view = model_view(bare(), X)
    with pytest.raises(MethodError, match=r"layer '0' has none behind it\. Leave it out .*Magnitude\(pattern=Channel\(\)\)"):
        prune(view, Slimming(), 0.5)
    with pytest.raises(MethodError, match="no channel that can be removed passes a norm"):
        gain_penalty(view)


def test_what_is_no_allocation_is_refused():
    with pytest.raises(MethodError, match="allocation is 'global'"):
        Slimming(allocation="global")
    assert Slimming() == Slimming(allocation=Slimming().allocation)
    assert not Slimming().needs


def test_a_gain_that_is_no_plain_parameter_is_refused():
    view = two([1.0] * 5, [1.0] * 6)
    view.channel_layers()
    del view.net[1].weight
    view.net[1].weight = torch.ones(5)
    with pytest.raises(ModelError, match=r"gain of norm '1' is no longer a plain parameter"):
        prune(view, Slimming(), 0.5)


def test_the_penalty_is_the_size_of_all_gains_and_its_gradient_their_sign():
    view = two([1.0, -2.0, 0.5, 0.0, 3.0], [-1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    penalty = gain_penalty(view)
    assert penalty.item() == 12.5
    penalty.backward()
    assert view.net[1].weight.grad.tolist() == [1.0, -1.0, 1.0, 0.0, 1.0]
    assert view.net[4].weight.grad.tolist() == [-1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert all(param.grad is None for name, param in view.net.named_parameters() if name not in ("1.weight", "4.weight"))


def test_the_penalty_counts_a_norm_that_layers_share_once():
    net = gained(Residual(), norm1=[1.0] * 5, norm2=[2.0] * 5, norm3=[3.0] * 4)
    assert gain_penalty(model_view(net, X)).item() == 27.0
    assert gain_penalty(model_view(gained(Joined(), norm=[1.0] * 20), X)).item() == 20.0


def test_the_penalty_leaves_out_norms_of_channels_that_must_stay():
    class Answer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.norm1, self.fc2, self.norm2 = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.BatchNorm1d(2)
            awake(self)

        def forward(self, x):
            return self.norm2(self.fc2(torch.relu(self.norm1(self.fc1(x)))))

    net = gained(Answer(), norm1=[1.0, 2.0, 3.0], norm2=[100.0, 100.0])
    assert gain_penalty(model_view(net, torch.rand(2, 4), spiking=False)).item() == 6.0


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_with_the_penalty_gains_shrink_and_without_they_do_not(strength):
    view, y = two([1.0] * 5, [1.0] * 6), labels()
    optimizer = torch.optim.SGD(view.net.parameters(), lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        (loss_fn(view(X), y) + strength * gain_penalty(view)).backward()
        optimizer.step()
    assert (gain_penalty(view).item() < 8) == (strength > 0)
