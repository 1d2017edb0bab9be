"""Every network of the zoo, with folded norms and weights of 5 bits: integers emit the spikes of float64, one by one.

What is compared knows nothing of the library's own comparisons: hooks on neurons and layers, and `torch.equal`.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikeprune import model_view
from spikeprune.quantize import IntegerLayer, fold_norms, foldable, grid, integer_twin, quantize_
from spikeprune.view.adapters.spikingjelly import is_neuron
from spikeprune.zoo import SpikingMLP, make, networks

T, N = 2, 2
EVENTS = ("sca_dvs", "vggsnn")
POISSON = ("vgg11", "vgg9")


def trained(name):
    """Build a small network whose norms have seen data, so that its neurons fire."""
    torch.manual_seed(0)
    channels = 2 if name in EVENTS else 3
    net = make(name, width=1 / 16, timesteps=T, image=(channels, 32, 32))
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.weight, 0.7, 1.5)
            nn.init.uniform_(module.bias, 0.0, 0.6)
    with torch.no_grad():
        for seed in range(4):
            net.train()(batch(name, seed))
    return net.eval()


def batch(name, seed=0):
    draw = torch.Generator().manual_seed(seed)
    if name in EVENTS:
        return (torch.rand(T, N, 2, 32, 32, generator=draw) * 3).floor()
    return grid(torch.rand(N, 3, 32, 32, generator=draw))


def listened(net, names, x):
    """Give all outputs of the modules named, in order, in float64 from rest; snnTorch's spikes are widened on the way."""
    found = {name: [] for name in names}

    def hear(name):
        def hook(module, args, out):
            found[name].append((out[0] if isinstance(out, tuple) else out).detach().clone())

        return hook

    def widen(module, args):
        return tuple(x.double() for x in args)

    handles = [net.get_submodule(name).register_forward_hook(hear(name)) for name in names]
    handles += [m.register_forward_pre_hook(widen) for m in net.modules() if isinstance(m, nn.Linear)]
    torch.manual_seed(3)  # of poisson coding
    with torch.no_grad():
        net(x.double())
    for handle in handles:
        handle.remove()
    return found


def compared(view, twin, x):
    """Count the spikes, those that differ, and the layers whose outputs differ in any bit."""
    layers, neurons = [layer.name for layer in view.layers], list(view.neurons)
    wanted = listened(copy.deepcopy(view.net).double().eval(), layers + neurons, x)
    found = listened(twin, layers + neurons, x)
    for name in layers + neurons:
        assert len(wanted[name]) == len(found[name]) > 0
    spikes = sum(int((out != 0).sum()) for name in neurons for out in wanted[name])
    differing = sum(int((a != b).sum()) for name in neurons for a, b in zip(wanted[name], found[name], strict=True))
    bits = [name for name in layers if not all(torch.equal(a, b) for a, b in zip(wanted[name], found[name], strict=True))]
    return spikes, differing, bits


@pytest.mark.parametrize("name", networks())
def test_integers_emit_the_spikes_of_float64(name):
    view = model_view(trained(name), batch(name))
    norms = [n for n, m in view.net.named_modules() if isinstance(m, _BatchNorm)]
    found = foldable(view)
    assert len(found) == len(norms) or name == "preact_resnet18"
    folded = fold_norms(view)
    assert sum(isinstance(m, _BatchNorm) for m in folded.modules()) == len(norms) - len(found)
    view = model_view(folded, batch(name))
    twin = integer_twin(view, quantize_(view, 5))
    assert not any(isinstance(m, nn.Conv2d | nn.Linear) for m in twin.modules())
    spikes, differing, bits = compared(view, twin, batch(name, seed=9))
    assert spikes > 100
    assert differing == 0
    assert bits == []


@pytest.mark.parametrize(("per_channel", "rescale"), [(False, False), (True, False), (False, True)])
def test_a_perceptron_of_snntorch(per_channel, rescale):
    torch.manual_seed(0)
    net = SpikingMLP((20, 30, 30, 5), timesteps=8)
    for i in (1, 2, 3):
        nn.init.normal_(net.get_submodule(f"fc{i}").weight, 0.1, 0.4)
    view = model_view(net, torch.rand(4, 20))
    quantization = quantize_(view, 5, per_channel=per_channel)
    twin = integer_twin(view, quantization, rescale=rescale)
    spikes, differing, bits = compared(view, twin, grid(torch.rand(16, 20)))
    assert spikes > 100
    assert differing == 0
    assert bits == ([f"fc{i}" for i in (1, 2, 3)] if rescale else [])


@pytest.mark.parametrize("name", ["vgg16", "sew_resnet18"])
def test_thresholds_in_steps_emit_the_same_spikes(name):
    """sew_resnet18 adds spikes behind neurons, so that each neuron has one layer; resnets that add currents do not."""
    view = model_view(trained(name), batch(name))
    view = model_view(fold_norms(view), batch(name))
    twin = integer_twin(view, quantize_(view, 5), rescale=True)
    spikes, differing, _ = compared(view, twin, batch(name, seed=9))
    assert spikes > 100
    assert differing == 0


def test_twin_one_integer_off_by_one_is_noticed():
    view = model_view(fold_norms(model_view(trained("vgg16"), batch("vgg16"))), batch("vgg16"))
    twin = integer_twin(view, quantize_(view, 5))
    second = [m for m in twin.modules() if isinstance(m, IntegerLayer)][1]
    second.integers[0, 0, 1, 1] += 1
    _, differing, bits = compared(view, twin, batch("vgg16", seed=9))
    assert bits[0] == "conv2"
    second.integers[:, 0, 1, 1] += 20
    assert compared(view, twin, batch("vgg16", seed=9))[1] > differing


def test_twin_float32_weights_that_are_no_integers_differ():
    view = model_view(fold_norms(model_view(trained("vgg16"), batch("vgg16"))), batch("vgg16"))
    floats = copy.deepcopy(view.net)
    quantization = quantize_(view, 5)
    twin = integer_twin(view, quantization)
    _, differing, bits = compared(model_view(floats, batch("vgg16")), twin, batch("vgg16", seed=9))
    assert differing > 0
    assert len(bits) == len(view.layers)


def test_the_neurons_are_all_heard():
    view = model_view(trained("resnet18"), batch("resnet18"))
    assert len(view.neurons) == sum(is_neuron(m) for m in view.net.modules())
