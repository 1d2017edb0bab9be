"""The ReLU twin of every network, and the forms of vgg9 and vgg11: without norm, with one gain a layer, with dropout."""

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

import spikeprune as sp
from spikeprune import zoo
from spikeprune.errors import ModelError, RecipeError
from spikeprune.methods import Magnitude
from spikeprune.view.adapters import spikingjelly as adapter
from spikeprune.zoo.parts import Gain

SIDE = {"vgg9": 16, "vgg11": 32, "vgg16": 32, "sca_dvs": 32, "vggsnn": 16}
IF = zoo.Neuron("if", threshold=0.1, reset="soft")


def small(name, **options):
    torch.manual_seed(0)
    side = SIDE.get(name, 8)
    given = {"width": 1 / 32, "timesteps": 2, "classes": 4, "image": (3, side, side), "coding": "direct", "neuron": IF}
    return zoo.make(name, **(given | options))


def twin(name, **options):
    return small(name, timesteps=1, neuron=zoo.Neuron("relu"), **options)


def images(net, n=3):
    return torch.rand(n, *net.image, generator=torch.Generator().manual_seed(1))


def test_a_relu_is_what_stands_for_a_neuron_but_is_none():
    relu = zoo.Neuron("relu", tau=0.5).build()  # tau means nothing to it
    x = torch.tensor([[-1.0, 0.0], [2.0, 3.0]], requires_grad=True)
    assert relu(x).tolist() == [[0.0, 0.0], [2.0, 3.0]]
    relu(x).sum().backward()
    assert x.grad.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert not adapter.is_neuron(relu)
    assert (relu.state_dict(), dict(relu.named_memories())) == ({}, {})


@pytest.mark.parametrize("name", zoo.networks())
def test_every_network_has_a_twin_whose_weights_it_takes(name):
    ann, net = twin(name), small(name)
    net.load_state_dict(ann.state_dict())
    ann.load_state_dict(net.state_dict())
    assert [key for key, _ in ann.named_children()] == [key for key, _ in net.named_children()]
    x = images(ann)
    with pytest.raises(ModelError, match="spiking=False"):
        sp.model_view(ann, x)
    view = sp.model_view(ann, x, spiking=False)
    assert (view.timesteps, view.neurons) == (1, {})
    report = sp.profile(view, [x])
    assert len(report.layers) == len(sp.model_view(net, x).layers)
    assert [bool(family.why) for family in view.graph.families] == [
        bool(family.why) for family in sp.model_view(net, x).graph.families
    ]


def test_the_twin_is_the_network_with_relus():
    ann = twin("vgg9").eval()
    x = y = images(ann)
    for name, part in ann.named_children():
        y = y.relu() if name.startswith("neuron") else part(y)
    assert torch.allclose(ann(x), y, atol=1e-6)
    assert y.abs().sum() > 0
    ann.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ann.parameters())


@pytest.mark.parametrize("name", ["vgg9", "vgg11"])
def test_forms_differ_in_what_stands_between_convolution_and_neuron(name):
    plain = {form: small(name, norm=form) for form in ("batch", "gain", "none")}
    keys = {form: set(net.state_dict()) for form, net in plain.items()}
    weights = {f"conv{i}.weight" for i in range(1, 9)} | {"fc.weight"}
    assert keys["none"] == weights
    assert keys["gain"] == weights | {f"norm{i}.log_gain" for i in range(1, 9)}
    assert keys["batch"] == set(small(name).state_dict())
    assert all(torch.equal(plain["none"].state_dict()[key], plain["batch"].state_dict()[key]) for key in weights)


def test_a_gain_is_a_threshold_that_is_trained():
    net, other = small("vgg9", norm="gain").eval(), small("vgg9", norm="none").eval()
    x = images(net)
    other.load_state_dict({key: value for key, value in net.state_dict().items() if "gain" not in key})
    assert torch.equal(net(x), other(x))  # gains start at 1
    for i in range(1, 9):
        net.get_submodule(f"norm{i}").scale_(0.5)
        other.get_submodule(f"neuron{i}").v_threshold *= 2
    out = net(x)
    assert torch.equal(out, other(x))
    assert out.abs().sum() > 0
    out.square().sum().backward()
    assert all(net.get_submodule(f"norm{i}").log_gain.grad != 0 for i in (1, 2, 3))
    assert Gain()(torch.tensor([3.0, -2.0])).tolist() == [3.0, -2.0]


@pytest.mark.parametrize(("name", "places"), [("vgg9", (1, 3, 5, 7)), ("vgg11", (3, 5, 7))])
def test_dropout_stands_behind_convolutions_that_no_pool_follows(name, places):
    net = small(name, dropout=0.25, norm="none", timesteps=3)
    parts = dict(net.named_children())
    assert [key for key in parts if key.startswith("drop")] == [f"drop{i}" for i in places]
    order = list(parts)
    assert all(order[order.index(f"drop{i}") - 1] == f"neuron{i}" for i in places)
    assert parts[f"drop{places[0]}"].p == 0.25
    assert isinstance(parts[f"drop{places[0]}"], layer.Dropout)
    assert set(net.state_dict()) == set(small(name, norm="none").state_dict())
    x, heard = images(net), []
    parts["drop3"].register_forward_hook(lambda module, args, out: heard.append((args[0], out, module.mask)))
    net.eval()(x)
    assert torch.equal(*heard[0][:2])
    net.train()(x)
    given, out, mask = heard[1]
    assert torch.equal(out, given * mask)  # one mask for all timesteps
    assert mask.shape == given.shape[1:]


@pytest.mark.parametrize("form", ["batch", "gain", "none"])
@pytest.mark.parametrize("make", [small, twin])
def test_channels_of_every_form_can_be_cut(form, make):
    net = make("vgg9", norm=form, dropout=0.2, width=1 / 16)
    x = images(net)
    view = sp.model_view(net, x, spiking=make is small)
    told = view.explain()
    free = [family for family in view.graph.families if family.why is None]
    assert [family.name for family in free] == [f"conv{i}" for i in range(1, 9)], told
    assert "conv1: 4 channels\n" in told
    assert ("normalized by norm1" in told) == (form == "batch")
    masks = sp.prune(view, Magnitude(pattern=sp.patterns.Channel()), 0.5)
    smaller = sp.shrink(view, masks, calibration=[images(net, 5)])  # refused unless its spikes and outputs are the same
    assert smaller.conv8.weight.shape[0] < net.conv8.weight.shape[0]
    assert smaller.eval()(x).abs().sum() > 0
    assert sum(isinstance(module, neuron.BaseNode) for module in smaller.modules()) == (8 if make is small else 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg9", {"norm": "bacth"}, "unknown norm 'bacth'; did you mean 'batch'"),
        ("vgg9", {"dropout": 1.0}, r"dropout is 1\.0"),
        ("vgg11", {"dropout": -0.1}, r"dropout is -0\.1"),
        ("vgg16", {"norm": "none"}, "vgg16: unknown option 'norm'"),
        ("resnet18", {"dropout": 0.1}, "resnet18: unknown option 'dropout'"),
    ],
)
def test_forms_that_are_none_are_refused(name, options, message):
    with pytest.raises(RecipeError, match=message):
        small(name, **options)


def test_default_networks_draw_the_weights_they_drew():
    """The same seed gives the same weights, whatever forms there are."""
    net = small("vgg9")
    torch.manual_seed(0)
    expected = []
    for name, module in net.named_children():
        if isinstance(module, nn.Conv2d):
            drawn = nn.Conv2d(module.in_channels, module.out_channels, 3, bias=False)
            nn.init.kaiming_normal_(drawn.weight, mode="fan_out", nonlinearity="relu")
            expected.append((name, drawn.weight))
    assert all(torch.equal(net.get_submodule(name).weight, weight) for name, weight in expected)
    assert len(expected) == 8
