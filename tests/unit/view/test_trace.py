"""The channel graph of whole networks: families, readers, norms, constants, and why channels must stay."""

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import ByHand, JellyGuest, Loop, SnnGuest, jelly, lively, nested, noise, unroll
from spikeprune import model_view, zoo
from spikeprune.view.graph import Use


def graph(net, *shape, **options):
    return model_view(net, noise(*shape), **options).graph


def ordinary(*parts, shape=(2, 3, 8, 8)):
    return graph(nn.Sequential(*parts), *shape, spiking=False)


class Net(nn.Module):
    """An ordinary network whose parts and forward a test gives."""

    def __init__(self, act, **parts):
        super().__init__()
        self.act = act
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.act(self, x)


def of(act, shape=(2, 3, 8, 8), **parts):
    return graph(Net(act, **parts), *shape, spiking=False)


def why(found, layer):
    return found.of(layer).why


@pytest.mark.parametrize(
    ("net", "options"),
    [(Loop(), {}), (ByHand(), {}), (nested(), {"forward": unroll}), (jelly(), {}), (jelly("s"), {"forward": unroll})],
    ids=["loop", "by hand", "nested", "jelly m", "jelly s"],
)
def test_a_chain_over_time(net, options):
    first, last = graph(net, 4, 2, 6, **options).families
    assert first.channels == 5
    assert first.why is None
    assert first.readers == (Use(last.name),)
    assert first.bare == first.layers
    assert "the network returns them" in last.why


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
def test_a_norm_and_a_dropout_between(make):
    first, last = graph(make(), 4, 2, 6).families
    assert (first.norms, first.readers, first.bare, first.why) == ((Use("norm"),), (Use("fc2"),), (), None)
    assert last.name == "fc2"


def test_flatten_gives_every_channel_its_columns():
    found = ordinary(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    assert found.of("0").readers == (Use("4", repeat=9),)


def test_added_layers_are_one_family():
    found = of(
        lambda net, x: net.last(net.norm(net.one(x)) + net.two(x)),
        one=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4), two=nn.Conv2d(3, 4, 1), last=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    family = found.of("two")
    assert family is found.of("one")
    assert (family.layers, family.norms, family.bare) == (("one", "two"), (Use("norm"),), ("two",))
    assert family.readers == (Use("last"),)


def test_concatenated_layers_keep_their_own():
    found = of(
        lambda net, x: net.last(net.norm(torch.cat([net.one(x), net.two(x)], 1)).flatten(1)),
        one=nn.Conv2d(3, 4, 3, padding=1), two=nn.Conv2d(3, 6, 1), norm=nn.BatchNorm2d(10), last=nn.Linear(640, 2),
    )  # fmt: skip
    assert (found.of("one").norms, found.of("one").readers) == ((Use("norm"),), (Use("last", 0, 64),))
    assert (found.of("two").norms, found.of("two").readers) == ((Use("norm", 4),), (Use("last", 256, 64),))
    assert found.of("one").why is found.of("two").why is None


def test_a_depthwise_layer_belongs_to_what_it_reads():
    found = ordinary(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    family = found.of("2")
    assert (family.layers, family.readers, family.bare) == (("0", "2"), (Use("4"),), ("2",))


@pytest.mark.parametrize("groups", [2, 4])
def test_other_groups_are_refused(groups):
    found = ordinary(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1, groups=groups), nn.Conv2d(8, 2, 1))
    assert why(found, "0") == f"layer 1 reads them in {groups} groups"
    assert why(found, "1") == f"it gives them in {groups} groups"


@pytest.mark.parametrize(
    ("norm", "told"),
    [
        (nn.GroupNorm(2, 4), "takes its statistics over them"),
        (nn.LayerNorm([4, 8, 8]), "takes its statistics over them"),
        (nn.BatchNorm2d(4, affine=False), "has no gain and shift"),
    ],
)
def test_norms_that_cannot_silence(norm, told):
    assert told in why(ordinary(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 2, 1)), "0")


def test_an_instance_norm_with_gain():
    found = ordinary(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 2, 1))
    assert found.of("0").norms == (Use("1"),)


def test_channels_that_are_returned_or_joined_with_the_input_must_stay():
    parts = dict(one=nn.Conv2d(3, 3, 1), two=nn.Conv2d(3, 2, 1))
    returned = of(lambda net, x: (net.two(hidden := net.one(x)), hidden), **parts)
    assert why(returned, "one") == "the network returns them"
    with_input = of(lambda net, x: net.two(net.one(x) + x), **parts)
    assert "3 values that come from no layer" in why(with_input, "one")


def test_a_layer_that_nobody_reads_must_stay():
    found = of(lambda net, x: net.one(x).sum() * 0 + net.two(x), one=nn.Conv2d(3, 4, 1), two=nn.Conv2d(3, 2, 1))
    assert why(found, "one") is not None
    unread = of(lambda net, x: (net.one(x), net.two(x))[1], one=nn.Conv2d(3, 4, 1), two=nn.Conv2d(3, 2, 1))
    assert "no layer reads them" in why(unread, "one")


def test_a_lost_origin_makes_all_before_it_stay():
    def act(net, x):
        hidden = net.one(x)
        lost = torch.from_numpy(hidden.detach().numpy())
        return net.two(lost)

    found = of(act, one=nn.Conv2d(3, 4, 1), two=nn.Conv2d(4, 2, 1))
    assert why(found, "one") == "the forward looks at their values (numpy)"


def test_a_tensor_of_its_own_reaching_a_layer():
    found = of(lambda net, x: net.two(torch.ones(2, 4)) + net.one(x), one=nn.Linear(3, 2), two=nn.Linear(4, 2), shape=(2, 3))
    assert "is given a tensor whose origin was lost" in why(found, "two")


def test_a_forward_that_depends_on_its_values():
    found = of(
        lambda net, x: net.two(hidden if (hidden := net.one(x)).mean(0).any() else -hidden),
        one=nn.Conv2d(3, 4, 1), two=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    assert "(__bool__)" in why(found, "one") or "any is not known" in why(found, "one")


def test_a_forward_that_looks_at_its_input_is_fine():
    found = of(lambda net, x: net.two(net.one(x if float(x.max()) > 0 else -x)), one=nn.Conv2d(3, 4, 1), two=nn.Conv2d(4, 2, 1))
    assert why(found, "one") is None


def test_reading_along_another_axis():
    found = of(lambda net, x: net.two(net.one(x).permute(0, 2, 3, 1)), one=nn.Conv2d(3, 4, 1), two=nn.Conv2d(8, 2, 1))
    assert "along another axis" in why(found, "one")


def test_constants_of_a_neuron():
    net = nn.Sequential(
        nn.Linear(6, 5), snntorch.Leaky(beta=torch.rand(5), init_hidden=True), nn.Linear(5, 3), snntorch.Leaky(0.9)
    )
    family = graph(lively(net[:3]), 4, 2, 6, forward=unroll).of("0")
    assert (family.constants, family.why) == ((Use("1"),), None)


def test_one_constant_for_all_or_one_a_place():
    alike = nn.Sequential(
        nn.Conv2d(3, 4, 1), snntorch.Leaky(beta=torch.full((4, 1, 1), 0.9), init_hidden=True), nn.Conv2d(4, 2, 1)
    )
    assert graph(alike, 4, 2, 3, 8, 8, forward=unroll).of("0").constants == (Use("1", trailing=2),)
    places = nn.Sequential(nn.Conv2d(3, 4, 1), snntorch.Leaky(beta=torch.rand(8, 8), init_hidden=True), nn.Conv2d(4, 2, 1))
    family = graph(places, 4, 2, 3, 8, 8, forward=unroll).of("0")
    assert (family.constants, family.why) == ((), None)


def test_a_recurrent_neuron_is_refused():
    net = nn.Sequential(nn.Linear(6, 5), snntorch.RLeaky(beta=0.9, linear_features=5, init_hidden=True), nn.Linear(5, 3))
    assert "neuron 1 keeps a tensor of shape (5, 5)" in why(graph(net, 4, 2, 6, forward=unroll), "0")


class Residual(nn.Module):
    """SpikingJelly in step mode m, with a projection; spikes are added."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.lif1 = layer.Conv2d(2, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.IFNode()
        self.conv2, self.norm2, self.lif2 = layer.Conv2d(4, 4, 3, padding=1), layer.BatchNorm2d(4), neuron.IFNode()
        self.pool, self.fc = layer.MaxPool2d(2), nn.Sequential(layer.Flatten(), layer.Linear(64, 3), neuron.IFNode())
        functional.set_step_mode(self, "m")

    def forward(self, x):
        x = self.lif1(self.norm1(self.conv1(x)))
        return self.fc(self.pool(self.lif2(self.norm2(self.conv2(x))) + x)).mean(0)


def test_a_residual_network_of_layers_over_time():
    found = graph(Residual(), 3, 2, 2, 8, 8)
    family = found.of("conv1")
    assert family.layers == ("conv1", "conv2")
    assert set(family.readers) == {Use("conv2"), Use("fc.1", repeat=16)}
    assert family.norms == (Use("norm1"), Use("norm2"))
    assert (family.bare, family.why) == ((), None)


@pytest.mark.parametrize("name", zoo.networks())
def test_the_whole_zoo_is_understood(name):
    net = zoo.make(name, width=1 / 16, timesteps=2)
    shape = (2, 2, *net.image) if net.coding == "events" else (2, *net.image)
    view = model_view(net, noise(*shape))
    families = view.graph.families
    assert [family.layers for family in families if family.why] == [(view.layers[-1].name,)]
    assert sorted(name for family in families for name in family.layers) == sorted(layer.name for layer in view.layers)


def test_families_of_residual_networks():
    net = zoo.make("preact_resnet18", width=1 / 16, timesteps=2)
    family = graph(net, 2, 3, 32, 32).of("conv1")
    assert family.layers == ("conv1", "block1_1.conv2", "block1_2.conv2")
    assert [use.module for use in family.readers] == ["block1_1.conv1", "block1_2.conv1", "block2_1.conv1", "block2_1.shortcut"]
    assert family.bare == ()  # every reader is behind a norm


def test_what_explain_says():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 5), nn.Softmax(1), nn.Linear(5, 2))
    assert model_view(net, noise(2, 3, 8, 8), spiking=False).explain() == "\n".join([
        "0: 4 channels",
        "    normalized by 1",
        "    read by 3 (x64)",
        "3: 5 channels that must stay",
        "    because softmax is not known to keep channels apart",
        "5: 2 channels that must stay",
        "    because the network returns them",
    ])  # fmt: skip
