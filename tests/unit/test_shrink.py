"""Shrink: the networks of the zoo, norms over time, what is refused and what is left alone."""

import copy

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import spikeprune as sp
from same_spikes import assert_same_spikes, parameters
from small_nets import Loop, SnnGuest, assert_same, lively, noise, photograph, unroll
from spikeprune import methods, zoo
from spikeprune.errors import LayoutError, MaskMismatch, ModelError, NoPrunableLayers, ShrinkError
from spikeprune.kernel.patterns import Channel

CHANNELS = methods.Random(pattern=Channel())
IMAGES = {
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


def awake(net, seed=0):
    """Give weights, gains and shifts values that make neurons fire at any depth."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                module.weight.copy_(3 + 3 * torch.rand(module.weight.shape, generator=draw))
                if module.bias is not None:
                    module.bias.copy_(0.5 + 3 * torch.rand(module.bias.shape, generator=draw))
            elif isinstance(module, nn.Linear | nn.Conv2d):
                size = module.weight[0].numel() ** 0.5
                module.weight.copy_((torch.randn(module.weight.shape, generator=draw) + 0.5) * 3 / size)
                if module.bias is not None:
                    module.bias.copy_(0.5 * torch.randn(module.bias.shape, generator=draw))
    return net


def alive(*bits):
    return torch.tensor(bits, dtype=torch.bool)


def from_rest(net, x):
    functional.reset_net(net)
    return net(x)


class Net(nn.Module):
    """An ordinary network whose parts and forward a test gives."""

    def __init__(self, act, **parts):
        super().__init__()
        self.act = act
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.act(self, x)


def ordinary(act, shape=(2, 3, 4, 4), **parts):
    torch.manual_seed(0)
    return sp.model_view(awake(Net(act, **parts)), noise(*shape), spiking=False)


def two(act):
    """A view of two convolutions, 3-6-2, whose forward a test gives."""
    return ordinary(act, one=nn.Conv2d(3, 6, 1), two=nn.Conv2d(6, 2, 1))


def chain(**options):
    return sp.model_view(SnnGuest(**options), noise(4, 2, 6))


# The networks of the zoo


@pytest.mark.parametrize("name", zoo.networks())
def test_the_whole_zoo_fires_as_before(name):
    torch.manual_seed(0)
    net = awake(zoo.make(name, width=1 / 16, timesteps=2, classes=4, image=IMAGES[name]))
    x = noise(*((2, 4) if net.coding == "events" else (4,)), *net.image)
    x = (x < 0.5).float() if net.coding == "events" else x
    view = sp.model_view(net, x)
    masks = sp.prune(view, CHANNELS, 0.5)
    sp.recalibrate(view, [x])
    small = sp.shrink(view, masks, calibration=[(x.flip(-1), None)])
    fired = assert_same_spikes(net, small, x, list(view.neurons))
    assert min(fired.values()) > 0
    assert parameters(small) < 0.4 * parameters(net)
    assert net(x).abs().sum() > 0


# Norms over time


def with_norm(norm, timesteps):
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), norm, neuron.IFNode(), layer.Conv2d(4, 3, 3), neuron.IFNode(), layer.Flatten()
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return awake(net), (noise(timesteps, 2, 2, 5, 5) < 0.5).float()


@pytest.mark.parametrize(
    ("make", "timesteps"),
    [
        (lambda: layer.BatchNorm2d(4), 3),
        (lambda: layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 4), 3),
        (lambda: layer.TemporalEffectiveBatchNorm2d(3, 4), 3),
        (lambda: layer.TemporalEffectiveBatchNorm2d(4, 4), 4),  # a scale a timestep, as many as channels
        (lambda: layer.BatchNormThroughTime2d(3, 4), 3),
    ],
    ids=["plain", "tdBN", "TEBN", "TEBN, T = C", "BNTT"],
)
def test_norms_of_spikingjelly(make, timesteps):
    net, x = with_norm(make(), timesteps)
    view = sp.model_view(net, x)
    sp.recalibrate(view, [x])
    small = sp.shrink(view, sp.prune(view, CHANNELS, 0.5))
    assert small[3].weight.shape == (3, 2, 3, 3)
    fired = assert_same_spikes(net, small, x, list(view.neurons), from_rest)
    assert min(fired.values()) > 0
    assert {m.num_features for m in small.modules() if isinstance(m, _BatchNorm)} == {2}


def test_a_norm_of_spikingjelly_that_is_refused_by_name():
    net, x = with_norm(layer.NeuNorm(4, 5, 5), 3)
    with pytest.raises(NoPrunableLayers, match=r"module 1 \(NeuNorm\)"):
        sp.prune(sp.model_view(net, x), CHANNELS, 0.5)


@pytest.mark.parametrize("rows", [4, 5])
def test_a_norm_along_another_axis(rows):
    view = ordinary(
        lambda net, x: net.two(net.norm(net.one(x))),
        shape=(2, rows, 3), one=nn.Linear(3, 5), norm=nn.BatchNorm1d(rows), two=nn.Linear(5, 2),
    )  # fmt: skip
    with pytest.raises(NoPrunableLayers, match="along another axis"):
        sp.prune(view, CHANNELS, 0.4)


# What is refused


def test_an_unknown_function_is_named():
    view = two(lambda net, x: net.two(net.one(x).cumsum(1)))
    for ask in (
        lambda: sp.prune(view, CHANNELS, 0.5),
        lambda: sp.prune(view, CHANNELS, 0.5, layers="one"),
        lambda: sp.channel_masks(view, {"one": torch.ones(6, dtype=torch.bool)}),
    ):
        with pytest.raises(NoPrunableLayers, match="cumsum is not known to keep channels apart"):
            ask()


def test_a_forward_that_depends_on_its_data():
    view = two(lambda net, x: net.two(hidden if (hidden := net.one(x)).sum() > 0 else -hidden))
    with pytest.raises(NoPrunableLayers, match="sum"):
        sp.prune(view, CHANNELS, 0.5)
    fine = two(lambda net, x: net.two(net.one(x if x.sum() > 0 else -x)))
    assert sp.shrink(fine, sp.prune(fine, CHANNELS, 0.5)).one.out_channels == 3


def test_masks_that_are_none_or_prune_no_channel():
    view = chain()
    with pytest.raises(MaskMismatch, match="must be Masks"):
        sp.shrink(view, {"fc1": torch.ones(5, 6, dtype=torch.bool)})
    with pytest.raises(MaskMismatch, match="prune no output channels"):
        sp.shrink(view, sp.prune(view, methods.Magnitude(), 0.5))
    with pytest.raises(MaskMismatch, match="prune no output channels"):
        sp.shrink(view, sp.prune(view, methods.Magnitude(pattern=Channel(dim=1)), 0.5))
    with pytest.raises(ModelError, match="a view is needed"):
        sp.shrink(view.net, sp.prune(view, CHANNELS, 0.5))


def added():
    parts = {"one": nn.Conv2d(3, 4, 1), "other": nn.Conv2d(3, 4, 3, padding=1), "two": nn.Conv2d(4, 2, 1)}
    return ordinary(lambda net, x: net.two(torch.relu(net.one(x) + net.other(x))), **parts)


def test_a_family_is_not_split():
    view = added()
    with pytest.raises(MaskMismatch, match=r"'one' and 'other' share their channels, but the masks differ in 2 of 4"):
        sp.channel_masks(view, {"one": alive(1, 1, 0, 1), "other": alive(1, 0, 1, 1)})
    both = sp.channel_masks(view, {"one": alive(1, 1, 0, 1), "other": alive(1, 1, 0, 1)})
    assert both == sp.channel_masks(view, {"other": alive(1, 1, 0, 1)})
    other = sp.channel_masks(view, {"one": alive(1, 0, 1, 1)})
    mixed = sp.Masks({"one": both["one"], "other": other["other"]}, {"one": both.gates["one"], "other": other.gates["other"]})
    with pytest.raises(MaskMismatch, match="share their channels"):
        sp.shrink(view, mixed)
    half = sp.Masks({"one": both["one"]}, {"one": both.gates["one"]})
    with pytest.raises(NoPrunableLayers, match="only be removed together with those of other"):
        sp.shrink(view, half)


def test_a_family_is_not_emptied():
    view = added()
    with pytest.raises(MaskMismatch, match="no output channel of layer 'one' lives"):
        sp.shrink(view, sp.channel_masks(view, {"one": alive(0, 0, 0, 0)}))


@pytest.mark.parametrize(
    ("vector", "told"),
    [(alive(1, 0), r"bool tensor of shape \(5,\)"), (torch.ones(5), "bool tensor"), ([True] * 5, "bool tensor")],
)
def test_vectors_that_are_none(vector, told):
    with pytest.raises(MaskMismatch, match=told):
        sp.channel_masks(chain(), {"fc1": vector})


@pytest.mark.parametrize("name", ["fc*", "norm", "fc9"])
def test_a_layer_that_there_is_not(name):
    with pytest.raises(NoPrunableLayers, match="there is no layer"):
        sp.channel_masks(chain(), {name: alive(1, 0, 1, 1, 1)})
    with pytest.raises(NoPrunableLayers):
        sp.channel_masks(chain(), {})


def bare_chain(channels=5):
    """SnnGuest's layers without its norm."""
    net = nn.Module()
    net.fc1, net.lif1 = nn.Linear(6, channels), snntorch.Leaky(beta=0.9, init_hidden=True)
    net.fc2, net.lif2 = nn.Linear(channels, 3), snntorch.Leaky(beta=0.9, init_hidden=True)

    def run(net, x):
        return torch.stack([net.lif2(net.fc2(net.lif1(net.fc1(step)))) for step in x])

    return sp.model_view(lively(net), noise(4, 2, 6), forward=run)


@pytest.mark.parametrize("plan", [sp.shrink, sp.plan_shrink])
@pytest.mark.parametrize(
    ("mine", "theirs", "told"),
    [
        (chain, lambda: bare_chain(4), "has shape"),
        (bare_chain, chain, "which the model does not have"),  # gates of a norm
        (chain, bare_chain, "do not silence norm.bias, norm.weight"),
        (bare_chain, added, "the model's layers are"),
    ],
)
def test_masks_of_another_model(plan, mine, theirs, told):
    with pytest.raises(MaskMismatch, match=told):
        plan(mine(), sp.prune(theirs(), CHANNELS, 0.4))


@pytest.mark.parametrize(
    "other",
    [
        lambda: bare_chain(6).net,  # of other sizes
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)),  # of other names
        lambda: Net(None, fc1=nn.Identity(), norm=nn.BatchNorm1d(5), fc2=nn.Linear(5, 3)),
        lambda: Net(None, fc1=nn.Conv2d(6, 5, 1), norm=nn.BatchNorm1d(5), fc2=nn.Conv1d(3, 5, 1)),
    ],
)
def test_a_plan_for_a_model_of_another_form(other):
    view = chain()
    plan = sp.plan_shrink(view, sp.prune(view, CHANNELS, 0.4))
    assert plan.apply(SnnGuest()).fc1.out_features == 3
    with pytest.raises(MaskMismatch, match="the plan cuts"):
        plan.apply(other())
    with pytest.raises(MaskMismatch, match="the plan cuts"):
        plan.apply(plan.apply(SnnGuest()))


def test_sizes_written_into_the_forward():
    parts = {"one": nn.Conv2d(3, 6, 1), "two": nn.Linear(96, 2)}
    written = ordinary(lambda net, x: net.two(torch.relu(net.one(x)).view(-1, 96)), **parts)
    with pytest.raises(ShrinkError, match=r"cannot run .*Sizes that are written into the forward"):
        sp.shrink(written, sp.prune(written, CHANNELS, 0.5))
    found = ordinary(lambda net, x: net.two(torch.relu(net.one(x)).view(len(x), -1)), **parts)
    assert sp.shrink(found, sp.prune(found, CHANNELS, 0.5)).two.in_features == 48


def test_a_batch_that_the_model_cannot_run():
    view = chain()
    with pytest.raises(ShrinkError, match="the model cannot run a batch"):
        sp.shrink(view, sp.prune(view, CHANNELS, 0.4), calibration=[noise(4, 2, 7)])


def test_groups_of_several_channels():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1))
    view = sp.model_view(awake(net), noise(2, 3, 4, 4), spiking=False)
    for name in ("0", "2"):
        with pytest.raises(NoPrunableLayers, match="in 2 groups"):
            sp.prune(view, CHANNELS, 0.5, layers=name)


@pytest.mark.parametrize(
    "make",
    [
        lambda: snntorch.RLeaky(beta=0.9, linear_features=5, init_hidden=True),
        lambda: layer.ElementWiseRecurrentContainer(nn.Sequential(nn.Linear(5, 5), neuron.IFNode()), torch.add),
    ],
)
def test_a_layer_inside_a_whole_must_stay(make):
    """What reads the recurrent part must not be cut either; a layer further on may."""
    spiking = isinstance(part := make(), snntorch.SpikingNeuron)
    fire = (lambda: snntorch.Leaky(beta=0.9, init_hidden=True)) if spiking else neuron.IFNode
    net = awake(nn.Sequential(nn.Linear(6, 5), part, nn.Linear(5, 6), fire(), nn.Linear(6, 3)))
    view = sp.model_view(net, noise(4, 2, 6), forward=unroll)
    inside = next(l.name for l in view.layers if l.name.startswith("1."))
    for name in (inside, "0"):
        with pytest.raises(NoPrunableLayers, match="must stay"):
            sp.prune(view, CHANNELS, 0.5, layers=name)
    assert sp.shrink(view, sp.prune(view, CHANNELS, 0.5))[2].out_features == 3


def test_a_layer_of_many_groups_after_a_concatenation_or_the_input():
    """One that acts channel by channel on what is no single layer's cannot lose channels with it, nor without it."""
    view = ordinary(
        lambda net, x: net.three(net.two(torch.cat([net.one(x), net.other(net.first(x))], 1))),
        first=nn.Conv2d(3, 3, 3, padding=1, groups=3), one=nn.Conv2d(3, 4, 1), other=nn.Conv2d(3, 2, 1),
        two=nn.Conv2d(6, 6, 3, groups=6), three=nn.Conv2d(6, 2, 1),
    )  # fmt: skip
    for name in ("first", "one", "other", "two"):
        with pytest.raises(NoPrunableLayers, match="groups"):
            sp.prune(view, CHANNELS, 0.5, layers=name)


# Modules that are used twice


def test_a_layer_or_neuron_used_twice():
    with pytest.raises(LayoutError):
        two(lambda net, x: net.two(net.one(x)) + net.two(net.one(-x)))
    net = nn.Sequential(nn.Linear(6, 5), fire := snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(5, 5), fire)
    with pytest.raises(LayoutError):
        sp.model_view(lively(net), noise(4, 2, 6), forward=unroll)


PARTS = {
    "one": nn.Conv2d(3, 4, 1),
    "other": nn.Conv2d(3, 4, 3, padding=1),
    "two": nn.Conv2d(4, 2, 1),
    "three": nn.Conv2d(4, 2, 1),
}


def parts(**more):
    return copy.deepcopy({**PARTS, **more})


def test_a_norm_used_for_two_families():
    view = ordinary(
        lambda net, x: net.two(net.norm(net.one(x))) + net.three(net.norm(net.other(x))), **parts(norm=nn.BatchNorm2d(4))
    )
    with pytest.raises(NoPrunableLayers, match="norm is used for the channels of one and other alike"):
        sp.prune(view, CHANNELS, 0.5)


def test_a_norm_used_at_two_places():
    """First over both, one after the other; then over eight others, so that those of `other` lie amid them."""

    def act(net, x):
        return net.two(net.norm(torch.cat([net.one(x), net.other(x)], 1))) + net.four(net.norm(net.three(x)))

    more = {"two": nn.Conv2d(8, 2, 1), "three": nn.Conv2d(3, 8, 1), "four": nn.Conv2d(8, 2, 1), "norm": nn.BatchNorm2d(8)}
    view = ordinary(act, **parts(**more))
    for name in ("one", "other", "three"):
        with pytest.raises(NoPrunableLayers, match="alike"):
            sp.prune(view, CHANNELS, 0.5, layers=name)


def test_a_norm_used_twice_for_one_family():
    def act(net, x):
        return net.two(torch.relu(net.norm(net.one(x)) + net.norm(net.other(x))))

    made = parts(norm=nn.BatchNorm2d(4))
    del made["three"]
    view = ordinary(act, **made)
    masks = sp.prune(view, CHANNELS, 0.5)
    small = sp.shrink(view, masks)
    assert small.norm.num_features == small.one.out_channels == small.other.out_channels == 2
    torch.testing.assert_close(small.eval()(view.example), view.net.eval()(view.example))


# What makes silent channels speak


def test_the_input_added_to_channels():
    """In the example the input is zero; elsewhere it is not."""
    made = {"one": nn.Conv2d(1, 4, 3, padding=1), "two": nn.Conv2d(4, 2, 1)}
    view = sp.model_view(
        awake(Net(lambda net, x: net.two(torch.relu(net.one(x) + x)), **made)), torch.zeros(2, 1, 4, 4), spiking=False
    )
    with pytest.raises(NoPrunableLayers, match="add"):
        sp.prune(view, CHANNELS, 0.5)


@pytest.mark.parametrize("add", [lambda x: x + 1.0, lambda x: torch.add(x, other=1.0), lambda x: 1 - x])
def test_a_constant_added_to_channels(add):
    view = two(lambda net, x: net.two(add(net.one(x))))
    with pytest.raises(NoPrunableLayers, match="adds a constant"):
        sp.prune(view, CHANNELS, 0.5)


# Weights that are no plain parameters


def test_a_parametrized_weight():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    torch.nn.utils.parametrizations.weight_norm(net[0])
    with pytest.raises(ModelError, match="no plain weight parameter"):
        sp.model_view(net, noise(2, 6), spiking=False)


@pytest.mark.parametrize("name", ["fc1", "norm", "fc2"])
@pytest.mark.parametrize("how", [nn.Identity, nn.ReLU])
def test_what_was_parametrized_since(name, how):
    view = chain()
    masks = sp.prune(view, CHANNELS, 0.4)
    module = view.net.get_submodule(name)
    torch.nn.utils.parametrize.register_parametrization(module, "weight", how())
    with pytest.raises(ModelError, match="no longer a plain parameter"):
        sp.shrink(view, masks)


# What is left alone


@pytest.mark.parametrize("train", [True, False])
def test_the_model_is_left_as_it_was(train):
    net = awake(SnnGuest())
    net.train(train).drop.train(not train)
    net.fc1.bias.requires_grad_(False)
    view = sp.model_view(net, noise(4, 2, 6))
    view(noise(4, 2, 6, seed=3))  # leaves membranes behind
    masks = sp.prune(view.clone(), CHANNELS, 0.4)  # of a copy: the model's own channels are not silent
    before = photograph(net)
    small = sp.shrink(view, masks, calibration=[noise(4, 3, 6)])
    assert_same(before, photograph(net))
    assert {n: m.training for n, m in small.named_modules()} == {n: m.training for n, m in net.named_modules()}
    assert {n: p.requires_grad for n, p in small.named_parameters()} == {n: p.requires_grad for n, p in net.named_parameters()}
    assert {n: type(m) for n, m in small.named_modules()} == {n: type(m) for n, m in net.named_modules()}
    assert small.state_dict().keys() == net.state_dict().keys()


def test_training_mode_makes_no_difference():
    found = []
    for train in (True, False):
        view = sp.model_view(awake(SnnGuest()).train(train), noise(4, 2, 6))
        found.append(sp.shrink(view, sp.prune(view, CHANNELS, 0.4)).state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_the_smaller_model_is_plain():
    view = chain()
    small = sp.shrink(view, sp.prune(view, CHANNELS, 0.4))
    assert type(small) is SnnGuest
    assert (small.fc1.in_features, small.fc1.out_features, small.norm.num_features, small.fc2.in_features) == (6, 3, 3, 3)
    assert [tuple(p.shape) for p in small.parameters()] == [(3, 6), (3,), (3,), (3,), (3, 3), (3,)]
    assert small.norm.running_mean.shape == small.norm.running_var.shape == (3,)
    assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in small.parameters())
    small.train()(noise(4, 5, 6)).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_a_depthwise_layer_has_fewer_groups():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    view = sp.model_view(awake(net), noise(2, 3, 4, 4), spiking=False)
    small = sp.shrink(view, sp.channel_masks(view, {"2": alive(0, 1, 1, 1)}))
    assert (small[2].groups, small[2].in_channels, small[2].out_channels) == (3, 3, 3)
    assert torch.equal(small[2].weight, net[2].weight[1:])
    assert torch.equal(small[0].weight, net[0].weight[1:])


@pytest.mark.parametrize("reinit", [True, False])
def test_what_neurons_kept_of_a_batch_is_not_passed_on(reinit):
    net = awake(nn.Sequential(nn.Linear(6, 5), neuron.IFNode(), nn.Linear(5, 3), neuron.IFNode()))
    view = sp.model_view(net, noise(4, 2, 6), forward=unroll)
    masks = sp.prune(view, CHANNELS, 0.4)
    view(noise(4, 2, 6))
    assert net[1].v.shape == (2, 5)
    small = sp.shrink(view, masks, reinit=reinit)
    assert small[1].v == 0.0
    assert unroll(small, noise(4, 2, 6)).shape == (4, 2, 3)


def test_weights_drawn_anew():
    view = chain()
    masks = sp.prune(view, CHANNELS, 0.4)
    view.net.norm.running_mean.fill_(7.0)
    torch.manual_seed(1)
    small = sp.shrink(view, masks, reinit=True)
    torch.manual_seed(1)
    twin = nn.Linear(6, 3)
    assert torch.equal(small.fc1.weight, twin.weight)
    assert torch.equal(small.norm.weight, torch.ones(3))
    assert torch.equal(small.norm.running_mean, torch.zeros(3))
    assert not torch.equal(sp.shrink(view, masks).norm.running_mean, torch.zeros(3))


# Single weights too, and once more


def plain_spikes(net, x):
    """Run SnnGuest, whose last neuron returns its membrane as well."""
    net.lif1.reset_mem(), net.lif2.reset_mem()
    net.lif2.output = False
    return torch.stack([net.lif2(net.fc2(net.lif1(net.norm(net.fc1(step))))) for step in x])


@pytest.mark.parametrize("first", ["weights", "channels"])
def test_single_weights_and_channels(first):
    view = sp.model_view(awake(SnnGuest()), noise(4, 2, 6))
    if first == "weights":
        masks = sp.prune(view, methods.Magnitude(), 0.5)
        masks = sp.prune(view, CHANNELS, 0.4, masks=masks)
    else:
        masks = sp.prune(view, CHANNELS, 0.4)
        masks = sp.prune(view, methods.Magnitude(), 0.6, masks=masks)
    small = sp.shrink(view, masks)
    living = masks.gates["fc1"]["norm.weight"]
    assert torch.equal(small.fc1.weight != 0, masks["fc1"][living])
    assert torch.equal(small.fc2.weight != 0, masks["fc2"][:, living])
    assert int((small.fc2.weight == 0).sum()) > 0
    fired = assert_same_spikes(view.net, small, noise(4, 2, 6), ["lif1", "lif2"], plain_spikes)
    assert min(fired.values()) > 0


@pytest.mark.parametrize("view", [bare_chain(), added()], ids=["one layer", "a family"])
def test_a_row_whose_weights_died_one_by_one(view):
    """Its bias lives, so the channel speaks, and must not be cut."""
    first = view.layers[0]
    channels = first.weight.shape[0]
    vector = torch.arange(channels) != 1
    masks = sp.channel_masks(view, {first.name: vector})
    single = masks[first.name].clone()
    single[0] = False
    gates = {**masks.gates, first.name: {**masks.gates[first.name], f"{first.name}.weight": single}}
    masks = sp.Masks({**masks, first.name: single}, gates)
    small = sp.shrink(view, masks)
    module = small.get_submodule(first.name)
    assert module.weight.shape[0] == channels - 1
    assert not module.weight[0].any()
    assert module.bias[0] == first.module.bias[0]


@pytest.mark.parametrize(("silent", "speaking"), [("one", "other"), ("other", "one")])
def test_a_silent_row_without_a_bias(silent, speaking):
    """Of two layers that are added one alone is silent in channel 0, which stays; what is silent in both goes."""
    bare = {"one": nn.Linear(3, 4, bias=False), "other": nn.Linear(3, 4, bias=False), "two": nn.Linear(4, 2)}
    view = ordinary(lambda net, x: net.two(torch.relu(net.one(x) + net.other(x))), shape=(5, 3), **bare)
    masks = sp.channel_masks(view, {"one": alive(1, 0, 1, 1)})
    single = masks[silent].clone()
    single[0] = False
    masks = sp.Masks({**masks, silent: single}, {**masks.gates, silent: {f"{silent}.weight": single}})
    small = sp.shrink(view, masks)
    assert small.one.weight.shape == small.other.weight.shape == (3, 3)
    assert not small.get_submodule(silent).weight[0].any()
    assert small.get_submodule(speaking).weight[0].any()


def test_weights_that_died_one_by_one_do_not_come_back():
    """All of one row did, in one of two layers that are added; the channel lives on in the other."""
    view = added()
    single = torch.ones(4, 3, 1, 1, dtype=torch.bool)
    single[0] = False
    masks = sp.channel_masks(view, {"one": alive(1, 0, 1, 1)}).over(sp.Masks({"one": single}))
    assert not masks["one"][0].any()
    masks.apply_(view.net)
    small = sp.shrink(view, masks)
    assert small.one.out_channels == 3
    assert not small.one.weight[0].any()


def test_channels_twice_in_a_row():
    view = sp.model_view(awake(zoo.make("resnet18", width=1 / 8, timesteps=2, classes=4, image=(3, 8, 8))), noise(2, 3, 8, 8))
    once = sp.shrink(view, sp.prune(view, CHANNELS, 0.5))
    again = sp.model_view(once, view.example)
    masks = sp.prune(again, CHANNELS, 0.5)
    twice = sp.shrink(again, masks)
    fired = assert_same_spikes(once, twice, view.example, list(again.neurons))
    assert sum(fired.values()) > 0
    assert parameters(twice) < 0.4 * parameters(once)
    with pytest.raises(MaskMismatch):  # masks of the second go with the model that the first left
        sp.shrink(view, masks)


def test_a_network_that_loops_over_time_itself():
    view = sp.model_view(awake(Loop()), noise(4, 2, 6))
    small = sp.shrink(view, sp.prune(view, CHANNELS, 0.4))
    fired = assert_same_spikes(view.net, small, view.example, ["lif1", "lif2"])
    assert min(fired.values()) > 0


def test_in_double_precision():
    view = sp.model_view(Loop().double(), noise(4, 2, 6).double(), forward=lambda net, x: in_double(net, x))
    small = sp.shrink(view, sp.prune(view, CHANNELS, 0.4))
    assert small.fc1.weight.dtype == torch.double


def in_double(net, x):
    """snnTorch's spikes are float32 even so."""
    net.lif1.reset_mem(), net.lif2.reset_mem()
    return torch.stack([net.lif2(net.fc2(net.lif1(net.fc1(step)).double())) for step in x])
