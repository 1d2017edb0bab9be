"""Powers, step weights and nearness against loops too plain to be wrong, in every layout, and the guest's manners of each."""

import math
from itertools import pairwise

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from small_nets import ByHand, JellyGuest, Loop, SnnGuest, assert_same, jelly, lively, noise, photograph, spikes, unroll
from spikeprune import Need, measure, model_view, prune
from spikeprune.errors import MeasureError, NonFinite, NotMeasured
from spikeprune.methods import SLAMP
from spikeprune.view.layer import Layout

T = 4
INPUT, TRACE, STEP, NEAR = Need.INPUT_POWER, Need.TRACE_POWER, Need.STEP_WEIGHT, Need.NEAR_THRESHOLD
NEW = (INPUT, TRACE, STEP, NEAR)


def loss(out, y):
    return F.cross_entropy(out.mean(0), y)


def labelled(shape, sizes=(2, 3, 1), steps=T):
    """Batches of unequal size."""
    return [(spikes(steps, n, *shape, seed=n), torch.arange(n) % 3) for n in sizes]


def folded():
    """SpikingJelly: time folded into the batch, (T, N, 2, 3, 3) in; the leak is 2 / 3."""
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(2, 3, 2)),
        neuron.LIFNode(tau=3.0),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(12, 3)),
        neuron.IFNode(),
    )
    functional.set_step_mode(lively(net), "m")
    return net


class Once(nn.Module):
    """SpikingJelly: a convolution called once, (N, 2, 3, 3) in; a readout called for all timesteps."""

    def __init__(self, mode="m"):
        super().__init__()
        self.conv, self.lif, self.fc = nn.Conv2d(2, 3, 2), neuron.LIFNode(tau=3.0, step_mode=mode), nn.Linear(12, 3)
        lively(self)

    def forward(self, x):
        current = self.conv(x).unsqueeze(0).repeat(T, 1, 1, 1, 1)
        spikes = self.lif(current) if self.lif.step_mode == "m" else unroll(self.lif, current)
        return self.fc(spikes.flatten(2))


class Tokens(nn.Module):
    """SpikingJelly: linear layers over an axis of places, (T, N, 2, 6) in."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(6, 5), neuron.LIFNode(tau=3.0, step_mode="m"), nn.Linear(5, 3)
        lively(self)

    def forward(self, x):
        return self.fc2(self.lif(self.fc1(x))).mean(2)


# How it is made, the shape of a sample, its forward, and the leak of each layer; None where it drives no neuron.
NETS = {
    "step": (Loop, (6,), None, {"fc1": 0.9, "fc2": 0.9}),
    "step, membranes by hand": (ByHand, (6,), None, {"fc1": 0.9, "fc2": 0.9}),
    "step, driven": (lambda: jelly("s", lambda: neuron.LIFNode(tau=3.0)), (6,), unroll, {"0": 2 / 3, "2": 2 / 3}),
    "sequence": (lambda: jelly("m", lambda: neuron.IFNode()), (6,), None, {"0": 1.0, "2": 1.0}),
    "sequence of places": (Tokens, (2, 6), None, {"fc1": 2 / 3, "fc2": None}),
    "folded": (folded, (2, 3, 3), None, {"0.0": 2 / 3, "2.1": 1.0}),
}


def trains(view, found, x):
    """Record what a layer is given, as (T, N, channels, places), float64."""
    seen = []
    handle = found.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    view(x)
    handle.remove()
    train = torch.stack(seen) if found.layout is Layout.STEP else seen[0]
    if found.layout is Layout.FOLDED:
        train = train.unflatten(0, (T, -1))
    if found.layout is Layout.ONCE:
        train = train.expand(T, *train.shape)
    train = train.double()
    if isinstance(found.module, nn.Linear):  # the channels come last
        return train.unsqueeze(2).flatten(2, -2).transpose(2, 3)
    return train.flatten(3)


def slow_power(train, leak):
    """Run the trace of every input by itself and add up its squares."""
    steps, samples, channels, places = train.shape
    total = [[0.0] * channels for _ in range(steps)]
    for n in range(samples):
        for c in range(channels):
            for p in range(places):
                trace = 0.0
                for t in range(steps):
                    trace = leak * trace + float(train[t, n, c, p])
                    total[t][c] += trace * trace
    return torch.tensor(total, dtype=torch.double)


def assert_powers(view, batches, leaks):
    stats = measure(view, batches, {INPUT, TRACE})
    samples = sum(len(y) for _, y in batches)
    for found in view.layers:
        for power, leak in ((stats[found.name].input_power, 0.0), (stats[found.name].trace_power, leaks[found.name] or 0.0)):
            expected = sum(slow_power(trains(view, found, x), leak) for x, _ in batches) / samples
            assert expected[-1].sum() > 0, found.name
            assert power.dtype == torch.double
            torch.testing.assert_close(power, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("make", "shape", "forward", "leaks"), NETS.values(), ids=NETS)
def test_powers_by_loop(make, shape, forward, leaks):
    batches = labelled(shape)
    view = model_view(make(), batches[0][0], forward=forward)
    assert {x.name for x in view.layers} == set(leaks)
    assert_powers(view, batches, leaks)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_powers_of_a_layer_called_once(mode):
    batches = [(noise(n, 2, 3, 3, seed=n), torch.arange(n) % 3) for n in (2, 3, 1)]
    view = model_view(Once(mode), batches[0][0])
    assert [x.layout for x in view.layers] == [Layout.ONCE, Layout.SEQUENCE]
    assert_powers(view, batches, {"conv": 2 / 3, "fc": None})


def test_a_constant_input_into_if_adds_up_to_the_square_of_time():
    view = model_view(jelly(make=lambda: neuron.IFNode()), spikes(T, 1, 6))
    x = torch.ones(T, 1, 6) * torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0, 0.0])
    stats = measure(view, [x], {INPUT, TRACE})["0"]
    assert stats.input_power.tolist() == [[1, 0, 4, 0, 0, 0]] * T
    assert stats.trace_power.tolist() == [[(t * s) ** 2 for s in (1, 0, 2, 0, 0, 0)] for t in (1, 2, 3, 4)]


def test_of_signed_inputs_a_trace_can_cancel():
    x = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(T, 1, 1).expand(T, 1, 6)
    stats = measure(model_view(jelly(), x), [x], {INPUT, TRACE})["0"]
    assert stats.input_power[:, 0].tolist() == [1, 1, 1, 1]
    assert stats.trace_power[:, 0].tolist() == [1, 0, 1, 0]


def test_a_pass_leaves_no_trace_for_the_next_batch():
    view, x = model_view(jelly(), spikes(T, 2, 6)), spikes(T, 2, 6)
    assert torch.equal(measure(view, [x], {TRACE})["0"].trace_power, measure(view, [x, x, x], {TRACE})["0"].trace_power)


@pytest.mark.parametrize("make", [entry[0] for entry in NETS.values()], ids=NETS)
def test_at_one_timestep_the_trace_is_the_input_bit_for_bit(make):
    shape, forward = next((shape, forward) for m, shape, forward, _ in NETS.values() if m is make)
    x = noise(1, 3, *shape)
    stats = measure(model_view(make(), x, forward=forward), [x], {INPUT, TRACE})
    for found in stats.values():
        assert torch.equal(found.input_power, found.trace_power)


def test_inputs_that_are_not_finite_are_refused_wherever_they_arise():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    view = model_view(net, torch.ones(1, 2), spiking=False)
    with torch.no_grad():
        net[0].bias.fill_(math.inf)
    for need in (INPUT, TRACE):
        with pytest.raises(NonFinite, match=r"power of the inputs of layer '1' is NaN or infinite"):
            measure(view, [torch.ones(1, 2)], {need})


# Step weights


class Chain(nn.Module):
    """SpikingJelly: two spiking layers and a readout, (T, N, 6) in; `once` takes (N, 6) and calls the first layer once."""

    def __init__(self, make, once=False):
        super().__init__()
        self.fc1, self.lif1, self.fc2, self.lif2, self.fc3 = nn.Linear(6, 5), make(), nn.Linear(5, 4), make(), nn.Linear(4, 3)
        self.once = once
        functional.set_step_mode(lively(self), "m")

    def forward(self, x):
        current = self.fc1(x).repeat(T, 1, 1) if self.once else self.fc1(x)
        return self.fc3(self.lif2(self.fc2(self.lif1(current))))


def charges_of(node, x, charges):
    """Unroll one SpikingJelly neuron, keeping every charge."""
    v, out = torch.zeros_like(x[0]), []
    for step in x:
        if isinstance(node, neuron.IFNode):
            h = v + step
        else:
            rate = node.w.sigmoid() if isinstance(node, neuron.ParametricLIFNode) else 1 / node.tau
            h = v + (step - v) * rate if node.decay_input else v * (1 - rate) + step
        h.retain_grad()
        charges.append(h)
        spike = node.surrogate_function(h - node.v_threshold)
        gone = spike.detach() if node.detach_reset else spike
        v = h - node.v_threshold * gone if node.v_reset is None else h * (1 - gone)
        out.append(spike)
    return torch.stack(out)


def slow_step_weights(net, samples):
    """Run each sample by itself through a copy unrolled by hand; |dL/dh[t]|^2 by layer, and that of the readout."""
    found = {name: torch.zeros(T, dtype=torch.double) for name in ("fc1", "fc2", "fc3")}
    for x, y in samples:
        one, two, three = [], [], []
        current = net.fc1(x).repeat(T, 1, 1) if net.once else net.fc1(x)
        for step in charges_of(net.lif2, net.fc2(charges_of(net.lif1, current, one)), two):
            three.append(net.fc3(step))
            three[-1].retain_grad()
        loss(torch.stack(three), y).backward()
        for name, kept in zip(found, (one, two, three), strict=True):
            found[name] += torch.stack([h.grad.double().square().sum() for h in kept])
    return found


MAKES = {
    "IF": lambda: neuron.IFNode(surrogate_function=surrogate.ATan()),
    "IF, soft reset": lambda: neuron.IFNode(v_reset=None),
    "LIF": lambda: neuron.LIFNode(tau=3.0, detach_reset=True),
    "LIF, whole input": lambda: neuron.LIFNode(tau=3.0, decay_input=False),
    "PLIF": lambda: neuron.ParametricLIFNode(init_tau=3.0),
}


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_step_weights_by_autograd_on_a_net_unrolled_by_hand(make, once):
    net = Chain(make, once)
    x = noise(6, 6, seed=2) if once else noise(T, 6, 6, seed=2)
    y = torch.arange(6) % 3
    batches = [(x[..., a:b, :], y[a:b]) for a, b in ((0, 2), (2, 5), (5, 6))]
    stats = measure(model_view(net, batches[0][0]), batches, {STEP}, loss_fn=loss)
    expected = slow_step_weights(net, [(x[..., i : i + 1, :], y[i : i + 1]) for i in range(6)])
    for name, powers in expected.items():
        weight = stats[name].step_weight
        assert weight.shape == (T,)
        assert powers.max() > 1.05 * powers.min() or name == "fc3", "weights that are all alike would prove nothing"
        torch.testing.assert_close(weight / weight.sum(), powers / powers.sum(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("make", [Loop, ByHand])
def test_step_weights_of_snntorch_by_autograd(make):
    net, x, y = make(), spikes(T, 3, 6, seed=4), torch.arange(3)
    stats = measure(model_view(net, x), [(x, y)], {STEP}, loss_fn=loss)
    expected = {"fc1": torch.zeros(T, dtype=torch.double), "fc2": torch.zeros(T, dtype=torch.double)}
    for n in range(3):
        train, kept = x[:, n : n + 1], {}
        for name, fc, lif in (("fc1", net.fc1, net.lif1), ("fc2", net.fc2, net.lif2)):
            mem, out, kept[name] = torch.zeros(1, fc.out_features), [], []
            for step in train:
                mem = 0.9 * mem + fc(step) - (mem.detach() > 1).float()
                mem.retain_grad()
                kept[name].append(mem)
                out.append(lif.spike_grad(mem - 1))
            train = torch.stack(out)
        loss(train, y[n : n + 1]).backward()
        for name, charges in kept.items():
            expected[name] += torch.stack([h.grad.double().square().sum() for h in charges])
    for name, powers in expected.items():
        torch.testing.assert_close(stats[name].step_weight, powers / 3, rtol=1e-4, atol=1e-9)  # the leak multiplies no input


@pytest.mark.parametrize("name", ["fc1", "fc2", "fc3"])
def test_samples_weigh_alike_whatever_their_batch(name):
    net, x, y = Chain(MAKES["LIF"]), spikes(T, 6, 6), torch.arange(6) % 3
    view = model_view(net, x[:, :2])
    found = []
    for cuts in ([0, 6], [0, 1, 2, 3, 4, 5, 6], [0, 4, 6]):
        batches = [(x[:, a:b], y[a:b]) for a, b in pairwise(cuts)]
        found.append(measure(view, batches, {STEP}, loss_fn=loss)[name].step_weight)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-9)


class Steps(nn.Module):
    """snnTorch: a readout without neuron, called at every timestep; only the last two are heard."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(6, 5), snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(5, 3)
        lively(self)

    def forward(self, x):
        return unroll(nn.Sequential(self.fc1, self.lif, self.fc2), x)[2:]


@pytest.mark.parametrize("needs", [{STEP}, {STEP, INPUT}])
def test_a_readout_called_at_every_timestep_has_a_weight_for_each(needs):
    x = spikes(T, 2, 6)
    found = measure(model_view(Steps(), x), [(x, torch.tensor([0, 1]))], needs, loss_fn=loss)["fc2"].step_weight
    assert found.shape == (T,)
    assert found[:2].tolist() == [0, 0]
    assert bool((found[2:] > 0).all())


class Last(Steps):
    """Only the last timestep reaches the loss, by no slice: the others get no gradient at all."""

    def forward(self, x):
        return [self.fc2(self.lif(self.fc1(step))) for step in x][-1]


@pytest.mark.parametrize("needs", [{STEP}, {STEP, INPUT}])
def test_timesteps_that_no_gradient_reaches_weigh_nothing(needs):
    x = spikes(T, 2, 6)
    found = measure(model_view(Last(), x), [(x, torch.tensor([0, 1]))], needs, loss_fn=F.cross_entropy)
    assert found["fc2"].step_weight.shape == found["fc1"].step_weight.shape == (T,)
    assert found["fc2"].step_weight[:-1].tolist() == [0] * (T - 1)
    assert float(found["fc2"].step_weight[-1]) > 0


def test_slamp_prunes_a_network_that_answers_at_its_last_timestep():
    x = spikes(T, 2, 6)
    masks = prune(model_view(Last(), x), SLAMP(), 0.5, calibration=[(x, torch.tensor([0, 1]))], loss_fn=F.cross_entropy)
    assert sum(masks.kept.values()) == 22  # of 45


class Mean(nn.Module):
    """SpikingJelly: the readout is called once, on the mean over time."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(6, 5), neuron.LIFNode(step_mode="m"), nn.Linear(5, 3)
        lively(self)

    def forward(self, x):
        return self.fc2(self.lif(self.fc1(x)).mean(0))


def test_a_readout_called_once_weighs_its_timesteps_alike():
    x = spikes(T, 2, 6)
    view = model_view(Mean(), x)
    assert view.layers[1].layout is Layout.ONCE
    found = measure(view, [(x, torch.tensor([0, 1]))], {STEP}, loss_fn=F.cross_entropy)["fc2"].step_weight
    assert found.shape == (T,)
    assert torch.equal(found, found[:1].expand(T))
    assert float(found[0]) > 0


def test_behind_a_frozen_layer_there_is_no_step_weight_and_before_one_there_is():
    net, x, y = Chain(MAKES["LIF"]), spikes(T, 3, 6), torch.arange(3)
    view = model_view(net, x)
    whole = measure(view, [(x, y)], {STEP}, loss_fn=loss)
    net.fc2.weight.requires_grad_(False)
    stats = measure(view, [(x, y)], {STEP}, loss_fn=loss)
    for name in ("fc1", "fc2", "fc3"):  # the gradient passes through fc2's neuron on its way to fc1
        assert torch.equal(stats[name].step_weight, whole[name].step_weight)
    net.fc1.weight.requires_grad_(False)
    with pytest.raises(
        NotMeasured, match=r"step_weight of layer 'fc1' was not gathered: its weight is frozen; set requires_grad"
    ):
        _ = measure(view, [(x, y)], {STEP}, loss_fn=loss)["fc1"].step_weight


def test_a_gradient_that_is_not_a_number_is_refused():
    net, x = Chain(MAKES["LIF"]), spikes(T, 2, 6)
    view = model_view(net, x)

    def spoiled(out, y):
        return (out.sum() - out.sum().detach()).sqrt()  # zero, with an infinite slope

    with pytest.raises(NonFinite, match=r"NaN or infinite"):
        measure(view, [(x, torch.tensor([0, 1]))], {STEP}, loss_fn=spoiled)


# Guests


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
@pytest.mark.parametrize("need", NEW)
def test_the_model_is_left_as_found(make, need):
    net = make().train()
    x, y = spikes(T, 3, 6), torch.arange(3)
    view = model_view(net, x)
    loss(net(x), y).backward()  # in use: charged neurons, gradients
    before = photograph(net)
    measure(view, [(x, y)], {need}, loss_fn=loss)
    assert_same(before, photograph(net))
    net.fail = True
    with pytest.raises(MeasureError, match="the model broke"):
        measure(view, [(x, y)], {need}, loss_fn=loss)
    net.fail = False
    assert_same(before, photograph(net))


# Neurons made with SpikingJelly's defaults share one surrogate, and would share the hooks on it.
@pytest.mark.parametrize("make", [Loop, lambda: jelly(make=lambda: neuron.IFNode(surrogate_function=surrogate.ATan()))])
def test_hooks_of_the_user_run_once_a_call_and_stay(make):
    net, x = make(), spikes(T, 2, 6)
    view, calls = model_view(net, x), []

    class Uncopied:
        def __call__(self, module, *_):
            calls.append(module)

        def __deepcopy__(self, memo):
            raise AssertionError("a hook was copied")

    parts = [part for node in view.neurons.values() for part in node.modules()]
    for part in parts:
        part.register_forward_hook(Uncopied())
        part.register_forward_pre_hook(Uncopied())
    view(x)
    plain = list(calls)
    calls.clear()
    measure(view, [(x, torch.tensor([0, 1]))], set(NEW), loss_fn=loss)
    assert plain
    assert calls == plain
    assert all(len(part._forward_hooks) == len(part._forward_pre_hooks) == 1 for part in parts)


@pytest.mark.parametrize("make", [Loop, jelly])
def test_gathering_does_not_change_what_the_model_gives(make):
    net, x = make(), spikes(T, 2, 6)
    view, seen = model_view(net, x), []

    def spy(net, x):
        seen.append(net(x))
        return seen[-1]

    spied = model_view(net, x, forward=spy)
    seen.clear()
    measure(spied, [(x, torch.tensor([0, 1]))], set(NEW), loss_fn=loss)
    assert torch.equal(seen[0], view(x))


UNKNOWN = {
    "Synaptic": lambda: snntorch.Synaptic(alpha=0.8, beta=0.9, init_hidden=True),
    "RLeaky": lambda: snntorch.RLeaky(beta=0.9, V=0.5, all_to_all=False, init_hidden=True),
    "QIFNode": lambda: neuron.QIFNode(),
    "EIFNode": lambda: neuron.EIFNode(),
    "ILIFNode": lambda: neuron.ILIFNode(),
}


@pytest.mark.parametrize("need", [TRACE, NEAR])
@pytest.mark.parametrize("kind", UNKNOWN)
def test_neurons_whose_leak_and_charge_are_not_known_are_named(kind, need):
    x = noise(T, 2, 6)
    view = model_view(lively(nn.Sequential(nn.Linear(6, 3), UNKNOWN[kind]())), x, forward=unroll)
    what = "leak" if need is TRACE else "charge"
    with pytest.raises(MeasureError, match=rf"neuron '1': the {what} of a {kind} neuron is not known here"):
        measure(view, [x], {need})
    measure(view, [x], {INPUT})  # takes neither


@pytest.mark.parametrize("need", NEW, ids=lambda need: need.value)
def test_reading_what_was_not_gathered(need):
    x = noise(T, 2, 6)
    stats = measure(model_view(jelly(), x), [x], {Need.SPIKE_RATE})
    with pytest.raises(NotMeasured, match=rf"{need.value} of layer '0' was not gathered; add Need\.{need.name} to the needs"):
        getattr(stats["0"], need.value)
