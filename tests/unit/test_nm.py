"""N:M patterns in prune: which layers, how much, and what is refused."""

import itertools

import pytest
import torch
from torch import nn

from spikeprune import hold, methods, model_view, patterns, prune, schedules
from spikeprune.errors import MethodError, NoPrunableLayers, SparsityError
from spikeprune.kernel.blocks import fullest
from spikeprune.pruner import Pruner

NM = patterns.NM


def viewed(*sizes):
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    torch.manual_seed(0)
    return model_view(nn.Sequential(*layers), torch.rand(3, sizes[0]), spiking=False)


def convolutions():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8, 2)
    )
    return model_view(net, torch.rand(2, 3, 9, 9), spiking=False)


@pytest.mark.parametrize("method", [methods.Magnitude(pattern=NM(2, 4)), methods.Random(pattern=NM(2, 4))])
def test_two_of_four(method):
    view = viewed(8, 12, 16, 8, 3)
    masks = prune(view, method)
    assert set(masks) == {"2", "4"}  # neither the first nor the last
    assert masks.density == 0.5
    for name, mask in masks.items():
        assert fullest(mask, 4) == 2
        weight = view.net.get_submodule(name).weight
        assert not bool(weight[~mask].any())
        assert bool(weight[mask].all())


def test_magnitude_keeps_the_largest_of_each_block():
    view = viewed(4, 8, 4, 2)
    weight = view.net[2].weight.detach().clone()
    mask = prune(view, methods.Magnitude(pattern=NM(1, 8)))["2"]
    assert mask.float().argmax(1).tolist() == weight.abs().argmax(1).tolist()


def test_layers_that_the_pattern_does_not_fit_are_passed_by():
    masks = prune(convolutions(), methods.Magnitude(pattern=NM(2, 4)))
    assert set(masks) == {"1"}  # 3 inputs, 6 inputs, depthwise, and the readout are not in it


def test_a_layer_that_is_named_is_filled_up():
    masks = prune(convolutions(), methods.Magnitude(pattern=NM(2, 4)), layers="2")
    assert masks["2"].float().mean() == pytest.approx(4 / 6)
    with pytest.raises(SparsityError, match="1 inputs in a row, fewer than the 4"):
        prune(convolutions(), methods.Magnitude(pattern=NM(2, 4)), layers="3")


def test_no_layer_that_fits_is_refused_with_the_inputs():
    with pytest.raises(NoPrunableLayers, match=r"that 4 divides \(inputs in a row: 0 6, 2 6, 4 6\)"):
        prune(viewed(6, 6, 6, 2), methods.Magnitude(pattern=NM(2, 4)))


def test_a_sparsity_means_nothing_to_it():
    with pytest.raises(SparsityError, match=r"NM\(n=2, m=4\) says how much lives, so the sparsity 0.5"):
        prune(viewed(8, 8, 8, 2), methods.Magnitude(pattern=NM(2, 4)), 0.5)
    with pytest.raises(MethodError, match="no schedule can drive it"):
        Pruner(viewed(8, 8, 8, 2), methods.Magnitude(pattern=NM(2, 4)), schedules.once(0.5))


def test_other_patterns_still_need_one():
    with pytest.raises(SparsityError, match="needs a sparsity"):
        prune(viewed(8, 8, 8, 2), methods.Magnitude())
    with pytest.raises(SparsityError, match="a sparsity is needed"):
        methods.Magnitude()(viewed(8, 8, 8, 2).layers, None, {})


def test_fewer_of_a_block_nest_and_are_held():
    view = viewed(8, 8, 8, 2)
    two = prune(view, methods.Magnitude(pattern=NM(2, 4)))
    one = prune(view, methods.Magnitude(pattern=NM(1, 4)), masks=two)
    assert not bool((one["2"] & ~two["2"]).any())
    optimizer = torch.optim.Adam(view.net.parameters())
    with hold(optimizer, view, one):
        for _ in range(3):
            optimizer.zero_grad()
            view(torch.rand(4, 8)).square().sum().backward()
            optimizer.step()
    assert fullest(view.net[2].weight != 0, 4) == 1
