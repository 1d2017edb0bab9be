"""Networks of both frameworks as plans: layouts, neurons, synapses, pools, sums, readouts."""

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from channel_nets import HalfBare, Joined, Leaky, Residual, awake, bare
from channel_nets import jelly as normed
from nets_over_time import NETS, batch
from small_nets import ByHand, Loop, jelly, lively, nested, noise, spikes, unroll
from spikeprune import model_view
from spikeprune.engine import Reference, make_plan
from spikeprune.engine.plan import Add, Concatenate, Input, Neuron, Outside, Pool, Readout, ReLU, Scale, Synapse

T = 4
EVENTS = spikes(3, 4, 2, 4, 4)
MORE = [spikes(3, n, 2, 4, 4, seed=n) for n in (1, 5)]


def kinds(plan):
    return [type(op) for op in plan.operations]


@pytest.mark.parametrize("name", [name for name in NETS if name != "told s"])
def test_every_way_over_time(name, planned):
    make, _, forward, _ = NETS[name]
    x = batch(name, 4)
    plan = planned(make(), x, batch(name, 1, seed=3), batch(name, 7, seed=4), forward=forward, spikes=name != "mlp")
    assert plan.timesteps == T
    assert not plan.outside


def test_an_image_given_at_every_step_is_computed_once(planned):
    make, _, forward, _ = NETS["told s"]
    plan = planned(make(), batch("told s", 4), batch("told s", 2, seed=5), forward=forward)
    assert kinds(plan)[:3] == [Input, Synapse, Neuron]
    assert not plan.operations[1].over_time


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("make", [Loop, Leaky])
def test_snntorch_in_each_way_to_reset(make, reset, planned):
    def build():
        return snntorch.Leaky(beta=0.7, init_hidden=True, reset_mechanism=reset)

    net = Loop(build) if make is Loop else Leaky(reset_mechanism=reset)
    features = 6 if make is Loop else 7
    plan = planned(net, spikes(T, 3, features), spikes(T, 5, features, seed=2))
    first = plan.operations[2]
    assert (first.reset, first.delayed, first.strict) == (
        {"subtract": "soft", "zero": "hard", "none": "none"}[reset],
        reset == "subtract",
        True,
    )


def test_membranes_by_hand_and_nested_blocks(planned):
    planned(ByHand(), spikes(T, 3, 6), spikes(T, 1, 6, seed=2), spikes=False)
    planned(nested(), spikes(T, 3, 6), forward=unroll)


class Recorded(nn.Module):
    """snnTorch: returns spikes and membranes of its last neuron over time, as tutorials do."""

    def __init__(self, **options):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 5), snntorch.Leaky(beta=torch.linspace(0.5, 0.9, 5), threshold=0.8, **options)
        self.fc2, self.lif2 = nn.Linear(5, 3), snntorch.Leaky(beta=0.9, **options)
        lively(self)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spk, mem = [], []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spk.append(spk2)
            mem.append(mem2)
        return torch.stack(spk), torch.stack(mem)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_recorded_membranes_are_charges(reset, planned):
    plan = planned(Recorded(reset_mechanism=reset), spikes(T, 3, 6), spikes(T, 6, 6, seed=2), spikes=False)
    spike, charge = (plan.operations[i] for i in plan.outputs)
    assert (spike.gives, charge.gives, spike.inputs) == ("spikes", "charge", charge.inputs)
    assert plan.operations[2].decay.shape == (5,)


NEURONS = {
    "if": lambda: neuron.IFNode(v_threshold=0.7),
    "if soft": lambda: neuron.IFNode(v_reset=None),
    "lif": lambda: neuron.LIFNode(tau=4 / 3),
    "lif soft": lambda: neuron.LIFNode(tau=1.5, v_threshold=0.4, v_reset=None),
    "lif below zero": lambda: neuron.LIFNode(tau=3.0, v_reset=-0.25, decay_input=False),
    "lif current": lambda: neuron.LIFNode(tau=101.0, v_reset=None, decay_input=False),
    "plif": lambda: neuron.ParametricLIFNode(init_tau=1.7, v_reset=0.1),
}


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("name", NEURONS)
def test_spikingjelly_neurons(name, mode, planned):
    forward = None if mode == "m" else unroll
    planned(jelly(mode, NEURONS[name]), 4 * spikes(T, 4, 6), 4 * spikes(T, 2, 6, seed=1), forward=forward)


@pytest.mark.parametrize("make", [normed, Residual, HalfBare, Joined, bare, lambda: bare(bias=False)])
def test_norms_sums_and_joined_channels(make, planned):
    plan = planned(make(), EVENTS, *MORE)
    assert not plan.outside


def test_norms_fold_into_the_layer_before(planned):
    assert kinds(planned(normed(), EVENTS)).count(Scale) == 0
    half = planned(HalfBare(), EVENTS)
    assert (kinds(half).count(Scale), kinds(half).count(Add)) == (0, 1)
    joined = planned(Joined(), EVENTS)
    assert (kinds(joined).count(Scale), kinds(joined).count(Concatenate)) == (1, 1)


def test_a_norm_whose_layer_is_read_elsewhere_stays(planned):
    class Read(HalfBare):
        def forward(self, x):
            current = self.conv1(x)
            return self.fc(self.flat(self.lif(self.norm1(current) + current)))

    assert kinds(planned(Read(), EVENTS)).count(Scale) == 1


def convolutions():
    """SpikingJelly: depthwise, strided, grouped, dilated and 1x1 convolutions; norms before and after; every kind of pool."""
    parts = [
        layer.BatchNorm2d(2), layer.Conv2d(2, 4, 3, padding=1), neuron.LIFNode(),
        layer.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), layer.BatchNorm2d(4), neuron.IFNode(),
        layer.AvgPool2d(2), layer.Conv2d(4, 6, 1), neuron.LIFNode(v_reset=None),
        layer.Conv2d(6, 4, 3, stride=2, padding=(1, 2), groups=2), neuron.IFNode(),
        layer.Conv2d(4, 5, 2, dilation=2, padding="same"), neuron.IFNode(),
        layer.MaxPool2d(3, stride=1, padding=1), layer.Flatten(), layer.Linear(5 * 2 * 3, 3),
    ]  # fmt: skip
    net = nn.Sequential(*parts)
    functional.set_step_mode(net, "m")
    return awake(net)


def test_convolutions_of_every_form(planned):
    x = spikes(3, 2, 2, 8, 8)
    plan = planned(convolutions(), x, spikes(3, 5, 2, 8, 8, seed=9))
    assert isinstance(plan.operations[1], Scale)  # padding keeps the norm before a layer where it is
    assert [op.groups for op in plan.operations if isinstance(op, Synapse)] == [1, 4, 1, 2, 1, 1]


@pytest.mark.parametrize(("conv", "shape"), [(layer.Conv1d, (5,)), (layer.Conv3d, (4, 3, 5))])
def test_one_and_three_axes_of_space(conv, shape, planned):
    net = nn.Sequential(
        conv(2, 4, 3, padding=1), neuron.IFNode(), layer.Flatten(), layer.Linear(4 * torch.Size(shape).numel(), 3)
    )
    functional.set_step_mode(net, "m")
    planned(awake(net), spikes(3, 2, 2, *shape), spikes(3, 3, 2, *shape, seed=1))


class Pooled(nn.Module):
    """SpikingJelly: a convolution, a neuron, a function, a readout."""

    def __init__(self, function, features):
        super().__init__()
        self.conv, self.lif, self.function = nn.Conv2d(2, 4, 3, padding=1), neuron.IFNode(step_mode="m"), function
        self.fc = nn.Linear(features, 3)
        awake(self)

    def forward(self, x):
        spikes = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        y = self.function(spikes.flatten(0, 1)).flatten(1)
        return self.fc(y).unflatten(0, x.shape[:2]).mean(0)


POOLS = {
    "average": (lambda x: F.avg_pool2d(x, 3, 2, 1), 36),
    "average without padding": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 36),
    "average beyond the end": (lambda x: F.avg_pool2d(x, 2, 2, 0, True), 36),
    "max beyond the end": (lambda x: F.max_pool2d(x, 2, ceil_mode=True), 36),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, (1, 5)), 20),
    "adaptive max": (lambda x: F.adaptive_max_pool2d(x, 1), 4),
    "mean of space": (lambda x: x.mean((2, 3)), 4),
    "sum of space": (lambda x: x.sum(dim=(-1, -2), keepdim=True), 4),
    "mean of places": (lambda x: x.flatten(2).mean(-1), 4),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools_of_every_form(name, planned):
    plan = planned(Pooled(*POOLS[name]), spikes(3, 2, 2, 5, 5), spikes(3, 4, 2, 5, 5, seed=1))
    assert Pool in kinds(plan)
    assert not plan.outside


OUTSIDE = {
    "uneven windows": (lambda x: F.adaptive_avg_pool2d(x, 2), 16, "adaptive_avg_pool2d pools windows of different sizes"),
    "gaps": (lambda x: F.max_pool2d(x, 2, 1, dilation=2), 36, "max_pool2d pools with gaps"),
    "circular": (lambda x: F.pad(x, (1, 0, 1, 0), mode="circular"), 144, "pad is not known to plans"),
    "gate": (lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(), 100, "mul multiplies or divides two values"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_a_plan_has_no_word_for_is_run_by_torch(name, planned):
    function, features, reason = OUTSIDE[name]
    plan = planned(Pooled(function, features), spikes(3, 2, 2, 5, 5), spikes(3, 4, 2, 5, 5, seed=1))
    assert plan.outside[-1].reason.startswith(reason)
    assert f": {plan.outside[-1].reason}" in plan.explain()


def test_constants_and_gains(planned):
    gain = torch.tensor([0.5, 2.0, 1.0, 3.0]).view(1, 4, 1, 1)
    plan = planned(
        Pooled(lambda x: (1 - x) * gain / 2 - 0.25, 100), EVENTS.new_ones(3, 2, 2, 5, 5), spikes(3, 4, 2, 5, 5, seed=1)
    )
    scales = [op for op in plan.operations if isinstance(op, Scale)]
    assert len(scales) == 1
    assert scales[0].gain.tolist() == [-0.25, -1.0, -0.5, -1.5]
    assert scales[0].shift.tolist() == [0.0, 0.75, 0.25, 1.25]


def unbatched(net, x):
    """Batch first, (N, T, ...)."""
    return net(x.transpose(0, 1)).mean(0)


def test_batches_first_and_other_sums_over_time(planned):
    x = spikes(3, T, 6)
    plan = planned(jelly(), x, spikes(1, T, 6), forward=unbatched)
    assert plan.input.time_axis == 1
    last = planned(jelly(), spikes(T, 3, 6), forward=lambda net, x: net(x)[-1])
    assert [op.kind for op in last.operations if isinstance(op, Readout)] == ["last"]
    some = planned(jelly(), spikes(T, 3, 6), forward=lambda net, x: net(x)[1:].sum(0) / 3)
    assert some.operations[-1].weights == (0.0, 1 / 3, 1 / 3, 1 / 3)
    written = planned(jelly("s"), spikes(T, 3, 6), forward=in_place)
    assert written.operations[written.outputs[0]].over_time


def in_place(net, x):
    out = torch.zeros(len(x), x.shape[1], 3)
    for t, step in enumerate(x):
        out[t] = net(step)
    return out


def test_readouts_are_named(planned):
    for forward, kind in ((lambda net, x: net(x).sum(0), "sum"), (lambda net, x: sum(net(x)) / T, "mean")):
        plan = planned(jelly(), spikes(T, 3, 6), forward=forward)
        assert plan.operations[-1].kind == kind


def test_an_ordinary_network():
    net = awake(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    )
    plan = make_plan(model_view(net, noise(2, 2, 5, 5), spiking=False))
    assert ReLU in kinds(plan)
    x = noise(7, 2, 5, 5, seed=1)
    torch.testing.assert_close(Reference(plan)(x), net.eval()(x))
    assert not any(isinstance(op, Outside) for op in plan.operations)
