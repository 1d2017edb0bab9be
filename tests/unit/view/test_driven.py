"""Which neuron a layer drives: the first that is called after it."""

import pytest
import snntorch
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from small_nets import ByHand, Loop, jelly, lively, nested, noise, unroll
from spikeprune import model_view
from spikeprune.zoo.resnet import preact_resnet18, resnet18, sew_resnet18

T, N = 2, 2


def driven(view):
    return {layer.name: layer.neuron for layer in view.layers}


@pytest.mark.parametrize("make", [Loop, ByHand])
def test_in_a_chain(make):
    assert driven(model_view(make(), noise(T, N, 6))) == {"fc1": "lif1", "fc2": "lif2"}


@pytest.mark.parametrize(("mode", "forward"), [("m", None), ("s", unroll)])
def test_in_a_sequential(mode, forward):
    assert driven(model_view(jelly(mode), noise(T, N, 6), forward=forward)) == {"0": "1", "2": "3"}


def test_nested():
    assert driven(model_view(nested(), noise(T, N, 6), forward=unroll)) == {"0.fc": "0.lif", "1.fc": "1.lif"}


def test_two_layers_before_one_neuron_and_a_readout_after_it():
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4), snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(4, 3))
    for timesteps in (1, T):  # from the second timestep on, the neuron is called after the readout too
        view = model_view(lively(net), noise(timesteps, N, 6), forward=unroll)
        assert driven(view) == {"0": "2", "1": "2", "3": None}


def test_a_recurrent_layer_drives_the_neuron_that_it_is_part_of():
    lif = snntorch.RLeaky(beta=0.9, linear_features=3, init_hidden=True)
    view = model_view(lively(nn.Sequential(nn.Linear(6, 3), lif)), noise(T, N, 6), forward=unroll)
    assert driven(view) == {"0": "1", "1.recurrent": "1"}


def test_an_ordinary_network_drives_none():
    assert driven(model_view(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), noise(N, 4), spiking=False)) == {"0": None}


def test_a_layer_called_once_drives_the_neuron_of_the_loop_behind_it():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif, self.fc2 = nn.Linear(6, 5), neuron.LIFNode(), nn.Linear(5, 3)

        def forward(self, x):
            current = self.fc1(x)
            return sum(self.fc2(self.lif(current)) for _ in range(T))

    assert driven(model_view(Once(), noise(N, 6))) == {"fc1": "lif", "fc2": None}


def test_the_copy_of_a_view_keeps_it():
    view = model_view(Loop(), noise(T, N, 6))
    copy = view.clone()
    assert driven(copy) == driven(view)
    assert copy.neurons[copy.layers[0].neuron] is copy.net.lif1 is not view.net.lif1


# Residual networks: where currents are added, both branches drive the neuron behind the sum.

BLOCK = {"conv1": "neuron1", "conv2": "neuron2"}
RESIDUAL = {
    resnet18: BLOCK | {"shortcut.0": "neuron2"},
    sew_resnet18: BLOCK | {"shortcut.0": "neuron3"},
    # The neuron comes first: the second convolution and the projection drive that of the next block.
    preact_resnet18: {"conv1": "neuron2", "conv2": "next", "shortcut": "next"},
}


@pytest.mark.parametrize("make", RESIDUAL)
def test_residual_networks(make):
    view = model_view(make(width=1 / 32, timesteps=2, image=(3, 8, 8)), noise(N, 3, 8, 8))
    blocks = [f"block{i}_{j}" for i in range(1, 5) for j in (1, 2)]
    expected = {"conv1": "block1_1.neuron1" if make is preact_resnet18 else "neuron1", "fc": None}
    for block, after in zip(blocks, [*blocks[1:], ""], strict=True):
        following = f"{after}.neuron1" if after else "neuron1"
        for name, target in RESIDUAL[make].items():
            expected[f"{block}.{name}"] = following if target == "next" else f"{block}.{target}"
    found = driven(view)
    assert len(found) == 1 + 8 * 2 + 3 + 1  # projections at three of the blocks
    assert found == {name: expected[name] for name in found}


@pytest.mark.parametrize("make", RESIDUAL)
def test_what_a_layer_of_a_residual_network_drives_does_react_to_it(make):
    """The neuron named is the first whose input changes with the layer's weight, and so is truly driven."""
    view = model_view(make(width=1 / 32, timesteps=2, image=(3, 8, 8)), noise(N, 3, 8, 8))
    view.net.eval()
    inputs = {}
    for name, node in view.neurons.items():
        node.register_forward_pre_hook(lambda _, args, name=name: inputs.__setitem__(name, args[0].detach().clone()))
    x = noise(N, 3, 8, 8)
    for layer in view.layers[:-1]:
        view(x)
        before = dict(inputs)
        row = layer.module.register_forward_hook(lambda _, __, out: out + 1)
        view(x)
        row.remove()
        changed = [name for name in view.neurons if not torch.equal(before[name], inputs[name])]
        assert changed[0] == layer.neuron
