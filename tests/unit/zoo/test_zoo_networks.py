"""The papers' deep networks: their sizes, how a view sees them, and that time folded is time stepped."""

import inspect

import pytest
import torch
from spikingjelly.activation_based import functional, layer

import spikeprune as sp
from spikeprune import zoo
from spikeprune.methods import Magnitude
from spikeprune.temporal import find_readout
from spikeprune.view.layer import Layout

T, N = 3, 2
SMALL = {
    "vgg9": (3, 16, 16),
    "vgg11": (3, 32, 32),
    "vgg16": (3, 32, 32),
    "six_conv_two_fc": (3, 8, 8),
    "vggsnn": (2, 16, 16),
    "sca_dvs": (2, 32, 32),
    "resnet18": (3, 8, 8),
    "resnet19": (3, 8, 8),
    "preact_resnet18": (3, 8, 8),
    "sew_resnet18": (3, 8, 8),
}
NEURONS = {
    "vgg9": 8,
    "vgg11": 8,
    "vgg16": 13 + 2,
    "six_conv_two_fc": 6 + 2,
    "vggsnn": 8,
    "sca_dvs": 5,
    "resnet18": 1 + 8 * 2,
    "resnet19": 1 + 8 * 2 + 1,
    "preact_resnet18": 8 * 2 + 1,
    "sew_resnet18": 1 + 8 * 2 + 3,
}


def small(name, **options):
    torch.manual_seed(0)
    given = {"width": 1 / 32, "timesteps": T, "classes": 4, "image": SMALL[name]} | options
    return zoo.make(name, **given)


def batch(net, n=N, seed=1):
    draw = torch.Generator().manual_seed(seed)
    lead = (net.timesteps, n) if net.coding == "events" else (n,)
    x = torch.rand(*lead, *net.image, generator=draw)
    return (x < 0.5).float() if net.coding == "events" else x


@pytest.mark.parametrize("name", zoo.networks())
def test_a_view_sees_every_network(name):
    net = small(name)
    x = batch(net)
    view = sp.model_view(net, x)
    assert view.timesteps == T
    assert len(view.neurons) == NEURONS[name]
    first, *rest = view.layers
    assert first.name == "conv1"
    assert first.layout is (Layout.ONCE if net.coding == "direct" else Layout.FOLDED)
    assert {l.layout for l in rest} == {Layout.FOLDED}
    assert view.uncounted == ()
    assert all(n.step_mode == "m" for n in view.neurons.values())

    net.train()
    out = view(x)
    assert out.shape == (N, 4)
    (out * torch.arange(1, 5)).sum().backward()
    assert first.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("name", zoo.networks())
def test_all_networks_take_the_same_options(name):
    known = inspect.signature(getattr(zoo, name)).parameters
    own = ["norm", "dropout"] if name in ("vgg9", "vgg11") else []
    assert list(known) == ["classes", "timesteps", "image", "width", "neuron", "coding", *own]


@pytest.mark.parametrize("kind", ["if", "lif", "plif"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_time_folded_is_time_stepped(kind, reset):
    net = small("vgg9", coding="direct", neuron=zoo.Neuron(kind, threshold=0.1, reset=reset)).eval()
    x = batch(net)
    whole = net(x)
    functional.reset_net(net)
    functional.set_step_mode(net, "s")
    total = 0
    for _ in range(T):
        y = x
        for part in net.children():
            y = part(y)
        total = total + y
    assert torch.allclose(whole, total / T, atol=1e-6)
    assert whole.abs().sum() > 0


def test_events_are_taken_time_first():
    net = small("sca_dvs", neuron=zoo.Neuron("if", threshold=0.2)).eval()
    x = batch(net)
    heard = []
    net.neuron1.register_forward_hook(lambda _, args, out: heard.append(args[0]))
    net(x)
    assert torch.allclose(heard[0][2], net.norm1(net.conv1(x[2])), atol=1e-6)


@pytest.mark.parametrize("name", ["vgg16", "six_conv_two_fc"])
def test_every_pass_starts_at_rest(name):
    net = small(name, neuron=zoo.Neuron("if", threshold=0.2)).eval()
    x = batch(net)
    view = sp.model_view(net, x)
    once = view(x)
    assert torch.equal(view(x), once)
    assert torch.equal(net(x), once)
    net(batch(net, n=5))
    assert torch.equal(net(x), once)


def test_dropout_is_anew_for_each_pass_and_one_mask_for_all_timesteps():
    net = small("six_conv_two_fc", neuron=zoo.Neuron("if", threshold=0.2))
    assert isinstance(net.drop1, layer.Dropout)
    masks = []
    net.drop1.register_forward_hook(lambda module, args, out: masks.append(module.mask))
    net(batch(net))
    net(batch(net))
    assert masks[0].shape == (N, net.fc1.in_features)
    assert not torch.equal(*masks)


def test_pruning_takes_exactly_what_is_asked():
    net = small("resnet18")
    view = sp.model_view(net, batch(net))
    sp.prune(view, Magnitude(), 0.5)
    weights = torch.cat([l.weight.detach().flatten() for l in view.layers])
    assert int((weights == 0).sum()) == weights.numel() // 2


@pytest.mark.parametrize(("name", "readout"), [("resnet19", "fc"), ("vggsnn", "vote"), ("six_conv_two_fc", "vote")])
def test_the_readout_can_be_followed_over_time(name, readout):
    net = small(name, neuron=zoo.Neuron("if", threshold=0.2))
    found = find_readout(sp.model_view(net, batch(net)), readout)
    assert found.layout is Layout.FOLDED
    assert found.scale == pytest.approx(1 / T)


def test_the_vote_is_the_mean_of_ten_neurons():
    net = small("six_conv_two_fc", neuron=zoo.Neuron("if", threshold=0.1)).eval()
    heard = []
    net.neuron8.register_forward_hook(lambda _, args, out: heard.append(out))
    out = net(batch(net))
    assert torch.allclose(out, heard[0].reshape(T, N, 4, 10).mean(3).mean(0))
    assert out.sum() > 0


def test_poisson_spikes_have_the_size_and_sign_of_their_pixels():
    net = small("vgg9", coding="poisson", timesteps=400)
    x = torch.zeros(1, *net.image)
    x[0, 0], x[0, 1], x[0, 2] = 0.25, -0.75, 1.0
    spikes = net._encode(x)
    assert spikes.shape == (400, *x.shape)
    assert set(spikes.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert torch.allclose(spikes.mean((0, 1, 3, 4)), torch.tensor([0.25, -0.75, 1.0]), atol=0.01)
    assert not torch.equal(spikes[0], spikes[1])
    torch.manual_seed(5)
    first = net._encode(x)
    torch.manual_seed(5)
    assert torch.equal(net._encode(x), first)
