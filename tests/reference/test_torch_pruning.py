"""Torch-Pruning, which knows nothing of time, as a second opinion: the same channels cut give the same network, where it can cut at all."""

import copy

import pytest
import torch
import torch_pruning
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from spikeprune import channel_masks, model_view, shrink

ALIVE = {"conv1": [1, 0, 1, 1, 0, 1], "conv2": [1, 1, 0, 1, 1, 0, 0, 1]}  # conv3 is added to conv2


class Residual(nn.Module):
    """Three convolutions, the last added to the second; steps of one timestep, or all in one call."""

    def __init__(self, kind, mode):
        super().__init__()
        self.conv1, self.norm1, self.lif1 = kind.Conv2d(2, 6, 3, padding=1, bias=False), kind.BatchNorm2d(6), neuron.LIFNode()
        self.conv2, self.norm2, self.lif2 = kind.Conv2d(6, 8, 3, padding=1, bias=False), kind.BatchNorm2d(8), neuron.LIFNode()
        self.conv3, self.norm3, self.lif3 = kind.Conv2d(8, 8, 3, padding=1, bias=False), kind.BatchNorm2d(8), neuron.LIFNode()
        self.fc = kind.Linear(8 * 16, 4)
        functional.set_step_mode(self, mode)

    def forward(self, x):
        x = self.lif1(self.norm1(self.conv1(x)))
        x = self.lif2(self.norm2(self.conv2(x)))
        x = self.lif3(self.norm3(self.conv3(x)) + x)
        return self.fc(x.flatten(-3))


def lively(kind, mode):
    torch.manual_seed(0)
    net = Residual(kind, mode).eval()
    for norm in (net.norm1, net.norm2, net.norm3):
        nn.init.uniform_(norm.weight, 1, 3)
        nn.init.uniform_(norm.bias, 0, 1)
    return net


def ours(net, x):
    view = model_view(net, x)
    return shrink(view, channel_masks(view, {name: torch.tensor(alive).bool() for name, alive in ALIVE.items()}))


def theirs(net, x):
    net = copy.deepcopy(net)
    graph = torch_pruning.DependencyGraph().build_dependency(net, example_inputs=x)
    for name, alive in ALIVE.items():
        dead = [i for i, kept in enumerate(alive) if not kept]
        group = graph.get_pruning_group(getattr(net, name), torch_pruning.prune_conv_out_channels, idxs=dead)
        assert graph.check_pruning_group(group)
        group.prune()
    return net


def test_on_a_single_timestep_the_same_network_is_left():
    net, x = lively(nn, "s"), torch.rand(5, 2, 4, 4)
    small, other = ours(net, x), theirs(net, x)
    assert small.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in small.state_dict().items())
    for found in (small, other):
        functional.reset_net(found)
    assert torch.equal(small(x), other(x))
    assert bool(small.lif3.v.any())


def test_over_several_timesteps_it_cannot_and_ours_is_as_narrow():
    net, x = lively(layer, "m"), torch.rand(3, 5, 2, 4, 4)
    small = ours(net, x)
    assert {name: tuple(value.shape) for name, value in small.state_dict().items() if value.dim() > 1} == {
        "conv1.weight": (4, 2, 3, 3), "conv2.weight": (5, 4, 3, 3), "conv3.weight": (5, 5, 3, 3), "fc.weight": (4, 80),
    }  # fmt: skip
    with pytest.raises((AssertionError, RuntimeError)):
        theirs(net, x)(x)
