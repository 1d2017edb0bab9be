"""Balanced thresholds: by hand, against thresholds set by hand, and against the ReLU twin."""

import copy
import re
from itertools import pairwise
from pathlib import Path

import pytest
import snntorch
import torch
from spikingjelly.activation_based import neuron
from torch import nn

import spikeprune as sp
from small_nets import Loop, assert_same, noise, photograph, stack
from spikeprune import zoo
from spikeprune.balance import balance_

IF = zoo.Neuron("if", reset="soft")


def small(name="vgg9", **options):
    """A network with many positive weights, so that all layers fire."""
    torch.manual_seed(0)
    image = (3, 32, 32) if name == "vgg11" else (3, 16, 16)
    given = {"width": 1 / 16, "image": image, "timesteps": 8, "coding": "direct", "neuron": IF} | options
    net = zoo.make(name, **given)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() == 4:
                parameter += 0.3 * parameter.abs()
    return net.eval()


def spikes(net, x):
    """The spikes of every neuron, in float64."""
    net = copy.deepcopy(net).double().eval()
    heard = listened(net, [name for name, module in net.named_modules() if isinstance(module, neuron.BaseNode)])
    net(x.double())
    return heard


def listened(net, names):
    """A dict that a pass fills with what modules give."""
    heard = {}
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: heard.update({name: out.detach()}))
    return heard


def test_two_layers_by_hand():
    # Over 4 timesteps the first layer's currents are 2 and 4; the threshold of the maximum is 4. At it, the first neuron fires every
    # other timestep (2, 4, 2, 4) and the second at each, so the second layer's currents are 3, 3 + 1, 3, 3 + 1.
    net, x = stack([[2.0], [4.0]], [[1.0, 3.0]]), torch.ones(4, 1, 1)
    found = balance_(sp.model_view(net, x), [x], percentile=100)
    assert found == pytest.approx({"1": 4.0, "3": 4.0}, rel=1e-4)
    assert net[0].weight.flatten().tolist() == pytest.approx([0.5, 1.0], rel=1e-4)
    assert net[2].weight.flatten().tolist() == pytest.approx([0.25, 0.75], rel=1e-4)


def test_percentile_and_scale_by_hand():
    # One current of 4 and three of 1: the median is 1, and half of it the threshold.
    net, x = stack([[1.0]]), torch.tensor([4.0, 1.0, 1.0, 1.0]).view(4, 1, 1)
    assert balance_(sp.model_view(net, x), [x], percentile=50, scale=0.5) == pytest.approx({"1": 0.5}, rel=1e-3)
    assert net[0].weight.item() == pytest.approx(2.0, rel=1e-3)


def test_the_neurons_own_threshold_is_where_it_fires_after_all():
    net, x = stack([[3.0]], make=lambda: neuron.IFNode(v_threshold=0.5, v_reset=None)), torch.ones(4, 1, 1)
    assert balance_(sp.model_view(net, x), [x]) == pytest.approx({"1": 3.0}, rel=1e-4)
    assert net[0].weight.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("form", ["none", "gain", "batch"])
def test_spikes_are_those_of_an_unscaled_copy_with_the_thresholds(kind, reset, form):
    net = small(norm=form, neuron=zoo.Neuron(kind, tau=3.0, reset=reset, decay_input=False))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.1)
    plain, x = copy.deepcopy(net), noise(4, *net.image)
    found = balance_(sp.model_view(net, x), [x], percentile=99, scale=0.8)
    assert list(found) == [f"neuron{i}" for i in range(1, 9)]
    fired = spikes(net, x)
    unset = spikes(plain, x)
    for name, threshold in found.items():
        plain.get_submodule(name).v_threshold = threshold
    for name, expected in spikes(plain, x).items():
        assert torch.equal(fired[name], expected), name
        assert 0.01 < expected.mean() < 0.9, name
    assert any(not torch.equal(fired[name], unset[name]) for name in found)  # the twin that nobody balanced


@pytest.mark.parametrize("name", ["sew_resnet18", "preact_resnet18", "vgg16", "six_conv_two_fc"])
def test_norms_on_the_way_are_scaled_and_layers_behind_them_left(name):
    image = (3, 32, 32) if name == "vgg16" else (3, 8, 8)
    net = small(name, neuron=IF, image=image, width=1 / 32, timesteps=4)
    view, before = sp.model_view(net, noise(8, *image)), copy.deepcopy(net.state_dict())
    found = balance_(view, [noise(8, *image)], percentile=99)
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    expected = {"fc1.weight", "fc2.weight"} if name == "six_conv_two_fc" else set()
    for key, module in net.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            expected.add(f"{key}.weight")
    assert changed == expected  # shifts are 0
    assert found.keys() == view.neurons.keys()


def test_the_gain_takes_the_threshold_and_weights_stay():
    net, x = small(norm="gain"), noise(4, 3, 16, 16)
    before = net.conv3.weight.clone()
    found = balance_(sp.model_view(net, x), [x], percentile=99)
    assert torch.equal(net.conv3.weight, before)
    assert net.norm3.log_gain.exp().item() == pytest.approx(1 / found["neuron3"], rel=1e-5)


def test_biases_are_scaled_too():
    net, x = stack([[2.0]]), torch.ones(4, 1, 1)
    net[0].bias = nn.Parameter(torch.tensor([2.0]))
    assert balance_(sp.model_view(net, x), [x]) == pytest.approx({"1": 4.0}, rel=1e-4)
    assert net[0].bias.item() == pytest.approx(0.5, rel=1e-4)


def rated(kind, timesteps):
    """Three layers of mostly positive weights, on neurons or as the ReLU twin."""
    sizes = (12, 16, 16, 8)
    parts = {"flat": nn.Flatten()}
    for i, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        parts |= {f"fc{i}": nn.Linear(n_in, n_out, bias=False), f"neuron{i}": zoo.Neuron(kind, reset="soft").build()}
        parts[f"fc{i}"].weight.data = noise(n_out, n_in, seed=i) - 0.3
    return zoo.SpikingNet(parts, image=(3, 2, 2), timesteps=timesteps, coding="direct")


def rates(net, x):
    """The mean over time of what each neuron gives."""
    heard = listened(net, ["neuron1", "neuron2", "neuron3"])
    net(x)
    return {name: out.mean(0).flatten() for name, out in heard.items()}


def test_rates_become_those_of_the_relu_twin():
    ann, x, gaps = rated("relu", 1), noise(32, 3, 2, 2), {}
    activations = rates(ann, x)
    for steps in (8, 64):
        net = rated("if", steps)
        net.load_state_dict(ann.state_dict())
        product, found = 1.0, balance_(sp.model_view(net, x), [x], percentile=100)
        for name, rate in rates(net, x).items():
            product *= found[name]
            expected = activations[name] / product
            assert 0.05 < expected.mean() < 0.95
            gaps.setdefault(steps, []).append(float((rate - expected).abs().mean()))
            assert steps < 64 or float(torch.corrcoef(torch.stack([rate, expected]))[0, 1]) > 0.99, name
    assert all(late < early / 4 for early, late in zip(gaps[8], gaps[64], strict=True)), gaps


def test_poisson_input_is_that_of_the_seed():
    x = noise(4, 3, 16, 16)
    found = {}
    for key, seed in (("one", 1), ("again", 1), ("two", 2)):
        torch.rand(3)  # the random state of the process does not count
        net = small(coding="poisson", norm="none")
        found[key] = balance_(sp.model_view(net, x), [x], percentile=99, seed=seed)
    assert found["one"] == found["again"]
    assert found["one"] != found["two"]


def test_batches_may_have_labels_and_come_from_a_generator():
    x, thresholds = noise(6, 3, 16, 16), []
    for batches in ([x], [(x[:4], torch.zeros(4)), x[4:]], (part for part in x.split(3))):
        net = small(norm="none")
        thresholds.append(balance_(sp.model_view(net, x), batches))
    assert thresholds[0] == thresholds[1] == thresholds[2]


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_snntorch_neurons_are_balanced_too(reset):
    net = Loop(lambda: snntorch.Leaky(beta=0.9, init_hidden=True, reset_mechanism=reset, threshold=2.0))
    plain, x = copy.deepcopy(net), noise(8, 4, 6)
    found = balance_(sp.model_view(net, x), [x], percentile=95, scale=0.5)
    for name, threshold in found.items():
        plain.get_submodule(name).threshold.fill_(threshold)
    out = net(x)
    assert torch.equal(plain(x), out)
    assert 0.05 < out.mean() < 0.95


def test_the_mlp_of_the_recipes_is_balanced():
    torch.manual_seed(0)
    net, x = zoo.SpikingMLP((9, 8, 4), timesteps=5), noise(16, 1, 3, 3)
    assert list(balance_(sp.model_view(net, x), [x], percentile=90)) == ["lif1", "lif2"]


def test_the_rest_of_the_model_is_left_as_it_was():
    net = small(norm="none", dropout=0.2).train()
    x = noise(4, 3, 16, 16)
    view = sp.model_view(net, x)
    before = photograph(net)
    balance_(view, [x])
    after = photograph(net)
    for key in [key for key in after if key[0].startswith("conv") and key[1] == "value"]:
        assert not torch.equal(before.pop(key), after.pop(key))
    assert_same(before, after)


def test_the_guide_runs():
    guide = Path(__file__).parents[2] / "docs" / "guides" / "hybrid.md"
    (block,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    torch.manual_seed(0)
    exec(block, names)
    assert list(names["thresholds"]) == [f"neuron{i}" for i in range(1, 9)]
    fired = listened(names["net"], names["thresholds"])
    names["net"].eval()(names["x"][:16])
    assert all(out.any() for out in fired.values())
