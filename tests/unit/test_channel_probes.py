"""Membranes, rates and gain gradients of channels against loops too plain to be wrong, in every layout."""

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from channel_nets import HalfBare, Joined, Leaky, Residual, T, awake, bare, jelly, labels, loss_fn
from small_nets import assert_same, noise, photograph, unroll
from spikeprune import Need, measure, model_view
from spikeprune.errors import MeasureError, MissingLoss, NonFinite, NotMeasured

MEMBRANE, RATE, GAIN = Need.CHANNEL_MEMBRANE, Need.CHANNEL_RATE, Need.GAIN_GRADIENT
SIZES = (2, 3, 1)  # batches of unequal size


def batches(*shape):
    return [(2 * noise(T, n, *shape, seed=n), labels(n)) for n in SIZES]


# Neurons


def leaky_course(currents, node):
    """One snnTorch neuron: it is reset a timestep after it fired; give spikes, and the membrane that the reset leaves."""
    beta, threshold, kind = float(node.beta), float(node.threshold), node.reset_mechanism
    membrane, fired, course = 0.0, False, []
    for current in currents:
        start = 0.0 if fired and kind == "zero" else membrane
        membrane = beta * start + current - (threshold if fired and kind == "subtract" else 0.0)
        fired = membrane > threshold
        left = {"subtract": membrane - threshold, "zero": 0.0, "none": membrane}[kind] if fired else membrane
        course.append((fired, left))
    return course


def jelly_course(currents, node):
    """One SpikingJelly neuron: it charges, fires and is reset within a timestep."""
    rest = 0.0 if node.v_reset is None else node.v_reset
    membrane, course = rest, []
    for current in currents:
        if isinstance(node, neuron.LIFNode):
            drive = (current if node.decay_input else 0.0) - (membrane - rest)
            membrane += drive / node.tau + (0.0 if node.decay_input else current)
        else:
            membrane += current
        fired = membrane >= node.v_threshold
        if fired:
            membrane = membrane - node.v_threshold if node.v_reset is None else node.v_reset
        course.append((fired, membrane))
    return course


def currents_of(view, name, x):
    """What a neuron is given in one pass, as (T, N, entries, places), float64."""
    seen, use = [], next(use for family in view.graph.families for use in family.neurons if use.module == name)
    handle = view.neurons[name].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    with view.undisturbed():
        view(x)
    handle.remove()
    given = (seen[0] if getattr(view.neurons[name], "step_mode", "s") == "m" else torch.stack(seen)).double()
    return given.flatten(given.dim() - use.trailing) if use.trailing else given.unsqueeze(-1)


def slow_activity(view, name, data):
    """Mean |membrane| and spikes of each entry of a neuron's channel axis, one neuron at a time."""
    node, membranes, fires, count = view.neurons[name], [], [], 0
    course = leaky_course if isinstance(node, snntorch.Leaky) else jelly_course
    for x, _ in data:
        given = currents_of(view, name, x)
        _, samples, entries, places = given.shape
        membranes, fires = membranes or [0.0] * entries, fires or [0.0] * entries
        for n in range(samples):
            for entry in range(entries):
                for place in range(places):
                    for fired, left in course(given[:, n, entry, place].tolist(), node):
                        membranes[entry] += abs(left)
                        fires[entry] += fired
        count += T * samples * places
    return [total / count for total in membranes], [total / count for total in fires]


def by_channel(entries, channels, repeat=1, offset=0):
    """Average the entries of each channel."""
    return [sum(entries[offset + c * repeat : offset + (c + 1) * repeat]) / repeat for c in range(channels)]


def assert_activity(view, data, expected):
    """Compare with (name of layer, its neurons, channels, repeat, offset)."""
    stats = measure(view, data, {MEMBRANE, RATE})
    found = {name: slow_activity(view, name, data) for name in view.neurons}
    for name, neurons, channels, repeat, offset in expected:
        for values, which in ((stats[name].channel_membrane, 0), (stats[name].channel_rate, 1)):
            parts = [by_channel(found[n][which], channels, repeat, offset) for n in neurons]
            mean = [sum(each) / len(parts) for each in zip(*parts, strict=True)]
            assert values.dtype == torch.double
            assert values.tolist() == pytest.approx(mean, abs=1e-5), (name, which)
        assert stats[name].channel_membrane.max() > 0
        assert 0 < stats[name].channel_rate.max() <= 1


TWO = [("0", ["2"], 5, 1, 0), ("3", ["5"], 6, 1, 0)]
JELLY = {
    "IF, hard reset": lambda: neuron.IFNode(),
    "IF, soft reset": lambda: neuron.IFNode(v_reset=None),
    "IF, reset below": lambda: neuron.IFNode(v_threshold=0.8, v_reset=-0.5),
    "LIF, hard reset": lambda: neuron.LIFNode(tau=3.0),
    "LIF, soft reset": lambda: neuron.LIFNode(tau=1.5, v_threshold=0.5, v_reset=None),
    "LIF, whole input": lambda: neuron.LIFNode(tau=3.0, decay_input=False, v_reset=-0.2),
}


@pytest.mark.parametrize("make", JELLY.values(), ids=JELLY)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_spikingjelly(mode, make):
    view = model_view(jelly(mode, make, make), noise(T, 2, 2, 4, 4), forward=unroll if mode == "s" else None)
    assert_activity(view, batches(2, 4, 4), TWO)


@pytest.mark.parametrize("kind", ["subtract", "zero", "none"])
def test_snntorch(kind):
    view = model_view(Leaky(reset_mechanism=kind, threshold=0.7), noise(T, 2, 7))
    assert_activity(view, batches(7), [("fc1", ["lif1"], 6, 1, 0), ("fc2", ["lif2"], 5, 1, 0)])


def test_membranes_handed_on_by_the_model():
    class ByHand(Leaky):
        def __init__(self):
            super().__init__(init_hidden=False)

        def forward(self, x):
            mem1, mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
            for step in x:
                spk, mem1 = self.lif1(self.norm1(self.fc1(step)), mem1)
                spk, mem2 = self.lif2(self.norm2(self.fc2(spk)), mem2)
                out.append(self.fc3(spk))
            return torch.stack(out)

    view = model_view(ByHand(), noise(T, 2, 7))
    assert_activity(view, batches(7), [("fc1", ["lif1"], 6, 1, 0), ("fc2", ["lif2"], 5, 1, 0)])


def test_flattened_and_joined_channels_are_means_over_their_entries():
    view = model_view(Joined(), noise(T, 2, 2, 4, 4))
    assert_activity(view, batches(2, 4, 4), [("conv1", ["lif"], 2, 4, 0), ("conv2", ["lif"], 3, 4, 8)])


def test_added_channels_are_means_over_the_neurons_that_they_pass():
    view = model_view(Residual(), noise(T, 2, 2, 4, 4))
    both = ["lif1", "lif2"]
    assert_activity(view, batches(2, 4, 4), [("conv1", both, 5, 1, 0), ("conv2", both, 5, 1, 0), ("conv3", ["lif3"], 4, 1, 0)])


def test_one_neuron_by_hand():
    """Charges 0.6, 1.2, 0.6 from current 0.6: |v| is 0.6, 0, 0.6 after a reset to zero, and it fires once."""
    net = nn.Sequential(layer.Linear(1, 2, bias=False), nn.BatchNorm1d(2, eps=0), neuron.IFNode(), layer.Linear(2, 1))
    net[0].weight.data.copy_(torch.tensor([[0.6], [-0.3]]))
    functional.set_step_mode(net, "m")
    forward = lambda net, x: net[3](net[2](net[1](net[0](x).flatten(0, 1)).unflatten(0, x.shape[:2])))  # noqa: E731
    stats = measure(model_view(net, torch.ones(3, 1, 1), forward=forward), [torch.ones(3, 1, 1)], {MEMBRANE, RATE})["0"]
    assert stats.channel_membrane.tolist() == pytest.approx([0.4, 0.6])  # of the second |-0.3|, |-0.6|, |-0.9|
    assert stats.channel_rate.tolist() == pytest.approx([1 / 3, 0.0])


def test_samples_weigh_alike_whatever_the_batches():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    data = batches(2, 4, 4)
    whole = [(torch.cat([x for x, _ in data], 1), torch.cat([y for _, y in data]))]
    for need, read in ((MEMBRANE, "channel_membrane"), (RATE, "channel_rate")):
        one, other = (getattr(measure(view, d, {need})["0"], read) for d in (data, whole))
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


# Gains


def slow_gradients(view, data):
    """|dL/d gain| of every norm by its name: autograd by hand, batch by batch, each weighing as many samples as it has."""
    gains = {
        name: module.weight for name, module in view.net.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }
    totals = {name: torch.zeros_like(gain, dtype=torch.double) for name, gain in gains.items()}
    view.net.eval()
    for x, y in data:
        view.net.zero_grad()
        loss_fn(view(x), y).backward()
        for name, gain in gains.items():
            totals[name] += len(y) * gain.grad.double().abs()
    return {name: (total / sum(SIZES)).tolist() for name, total in totals.items()}


GAINS = {  # how it is made, the shape of a sample, and by layer: norms, channels, repeat, offset
    "normed": (jelly, (2, 4, 4), {"0": (["1"], 5, 1, 0), "3": (["4"], 6, 1, 0)}),
    "added": (Residual, (2, 4, 4), {
        "conv1": (["norm1", "norm2"], 5, 1, 0), "conv2": (["norm1", "norm2"], 5, 1, 0), "conv3": (["norm3"], 4, 1, 0),
    }),
    "half bare": (HalfBare, (2, 4, 4), {"conv1": (["norm1"], 5, 1, 0), "conv2": (["norm1"], 5, 1, 0)}),
    "joined and flattened": (Joined, (2, 4, 4), {"conv1": (["norm"], 2, 4, 0), "conv2": (["norm"], 3, 4, 8)}),
    "snntorch": (Leaky, (7,), {"fc1": (["norm1"], 6, 1, 0), "fc2": (["norm2"], 5, 1, 0)}),
}  # fmt: skip


@pytest.mark.parametrize("name", GAINS)
def test_gain_gradients(name):
    make, shape, expected = GAINS[name]
    view, data = model_view(make(), noise(T, 2, *shape)), batches(*shape)
    stats, slow = measure(view, data, {GAIN}, loss_fn=loss_fn), slow_gradients(view.clone(), data)
    for found, (norms, channels, repeat, offset) in expected.items():
        parts = [by_channel(slow[norm], channels, repeat, offset) for norm in norms]
        mean = [sum(each) / len(parts) for each in zip(*parts, strict=True)]
        values = stats[found].gain_gradient
        assert values.dtype == torch.double
        assert min(mean) > 0
        assert values.tolist() == pytest.approx(mean, rel=1e-5)


def test_together_with_weight_gradients_each_gets_its_own():
    view, data = model_view(Residual(), noise(T, 2, 2, 4, 4)), batches(2, 4, 4)
    both = measure(view, data, {GAIN, Need.WEIGHT_GRADIENT, MEMBRANE, RATE}, loss_fn=loss_fn)
    gain, weight = measure(view, data, {GAIN}, loss_fn=loss_fn), measure(view, data, {Need.WEIGHT_GRADIENT}, loss_fn=loss_fn)
    alone = measure(view, data, {MEMBRANE, RATE})
    for found in view.channel_layers():
        assert torch.equal(both[found.name].gain_gradient, gain[found.name].gain_gradient)
        assert torch.equal(both[found.name].weight_gradient, weight[found.name].weight_gradient)
        assert torch.equal(both[found.name].channel_membrane, alone[found.name].channel_membrane)
        assert torch.equal(both[found.name].channel_rate, alone[found.name].channel_rate)


def test_a_frozen_gain_is_left_out_of_its_familys_mean():
    net, data = Residual(), batches(2, 4, 4)
    view = model_view(net, noise(T, 2, 2, 4, 4))
    net.norm1.weight.requires_grad_(False)
    slow = slow_gradients(model_view(Residual(), noise(T, 2, 2, 4, 4)), data)
    stats = measure(view, data, {GAIN}, loss_fn=loss_fn)
    assert stats["conv1"].gain_gradient.tolist() == pytest.approx(slow["norm2"], rel=1e-5)
    net.norm2.weight.requires_grad_(False)
    stats = measure(view, data, {GAIN}, loss_fn=loss_fn)
    with pytest.raises(NotMeasured, match=r"gain_gradient of layer 'conv1' was not gathered.*no norm whose gain takes gradients"):
        stats["conv1"].gain_gradient  # noqa: B018
    assert stats["conv3"].gain_gradient.tolist() == pytest.approx(slow["norm3"], rel=1e-5)


def test_a_gradient_that_is_no_number_is_refused():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    handle = view.net[1].weight.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(NonFinite, match=r"5 of 5 gain gradients of layer '1' are NaN or infinite\. Check calibration batch 0"):
        measure(view, batches(2, 4, 4), {GAIN}, loss_fn=loss_fn)
    assert measure(view, batches(2, 4, 4), {RATE})["0"].channel_rate.shape == (5,)
    handle.remove()


def test_a_loss_is_asked_for():
    with pytest.raises(MissingLoss, match=r"Need\.GAIN_GRADIENT takes gradients"):
        measure(model_view(jelly(), noise(T, 2, 2, 4, 4)), batches(2, 4, 4), {GAIN})


# What cannot be told


@pytest.mark.parametrize("need", [MEMBRANE, RATE, GAIN])
def test_what_was_not_gathered_says_why(need):
    view, data = model_view(bare(), noise(T, 2, 2, 4, 4)), batches(2, 4, 4)
    stats = measure(view, data, {need}, loss_fn=loss_fn)
    with pytest.raises(NotMeasured, match=rf"{need.value} of layer '5' was not gathered: its output channels must stay"):
        getattr(stats["5"], need.value)
    if need is GAIN:
        with pytest.raises(NotMeasured, match=r"gain_gradient of layer '0' was not gathered.*or pass no norm"):
            getattr(stats["0"], need.value)
    else:
        assert getattr(stats["0"], need.value).shape == (4,)
    with pytest.raises(NotMeasured, match=rf"not gathered; add Need\.{need.name} to the needs"):
        getattr(measure(view, data, {Need.INPUT_COUNT})["0"], need.value)


def test_channels_that_pass_no_neuron_have_no_activity():
    net = awake(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)))
    stats = measure(model_view(net, torch.rand(2, 4), spiking=False), [torch.rand(2, 4)], {MEMBRANE, RATE})
    with pytest.raises(NotMeasured, match=r"channel_membrane of layer '0' was not gathered.*or pass no neuron"):
        stats["0"].channel_membrane  # noqa: B018


def test_of_an_unknown_neuron_the_rate_is_told_but_not_the_membrane():
    view = model_view(jelly(first=neuron.KLIFNode), noise(T, 2, 2, 4, 4))
    assert measure(view, batches(2, 4, 4), {RATE})["0"].channel_rate.shape == (5,)
    with pytest.raises(MeasureError, match=r"the membrane of a KLIFNode neuron is not known here"):
        measure(view, batches(2, 4, 4), {MEMBRANE})


# Manners


@pytest.mark.parametrize("make", [jelly, Residual, lambda: Leaky()], ids=["jelly", "added", "snntorch"])
def test_the_model_is_left_as_found(make):
    net = make()
    shape = (7,) if isinstance(net, Leaky) else (2, 4, 4)
    view = model_view(net, noise(T, 2, *shape))
    loss_fn(view(noise(T, 2, *shape)), labels(2)).backward()  # in use: trained a step, its neurons charged
    before = photograph(net)
    measure(view, batches(*shape), {MEMBRANE, RATE, GAIN}, loss_fn=loss_fn)
    assert_same(before, photograph(net))


def test_numbers_do_not_depend_on_mode_or_state():
    view, data = model_view(jelly(), noise(T, 2, 2, 4, 4)), batches(2, 4, 4)
    first = measure(view, data, {MEMBRANE, RATE, GAIN}, loss_fn=loss_fn)
    view.net.train()
    view.net[2](noise(T, 2, 5, 4, 4))  # charged
    again = measure(view, data, {MEMBRANE, RATE, GAIN}, loss_fn=loss_fn)
    for name in ("0", "3"):
        assert torch.equal(first[name].channel_membrane, again[name].channel_membrane)
        assert torch.equal(first[name].channel_rate, again[name].channel_rate)
        assert torch.equal(first[name].gain_gradient, again[name].gain_gradient)
