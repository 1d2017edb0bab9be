"""Eligibility: its limits, its company in one pass, what it leaves behind, and what it refuses; its numbers are in tests/reference."""

import weakref
from itertools import pairwise

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

import small_nets
from channel_nets import Residual, awake
from small_nets import JellyGuest, Loop, SnnGuest, assert_same, jelly, lively, noise, photograph, spikes, unroll
from spikeprune import Need, measure, model_view
from spikeprune.errors import LayoutError, MeasureError, MissingLoss, NonFinite, NotMeasured
from spikeprune.stats import GRADIENTS
from spikeprune.view.adapters import snntorch as snn_adapter
from spikeprune.view.adapters import spikingjelly as jelly_adapter
from spikeprune.view.model_view import bare_copy
from spikeprune.zoo import Neuron, make

T = 4
CREDIT, GRADIENT = Need.ELIGIBILITY, Need.WEIGHT_GRADIENT


def loss(out, y):
    return F.cross_entropy(out.mean(0), y)


def labelled(*shape, sizes=(2, 3, 1)):
    """Batches of unequal size."""
    return [(spikes(T, n, *shape, seed=n), torch.arange(n) % 3) for n in sizes]


def credits(view, batches, loss_fn=loss):
    return {name: found.eligibility for name, found in measure(view, batches, {CREDIT}, loss_fn=loss_fn).items()}


def assert_close(found, expected, rtol=1e-4):
    assert float(expected.max()) > 0
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * float(expected.max()))


# One synapse, by hand


class Heard(nn.Module):
    """One synapse of weight 0.5, one neuron with charge h[t] = h[t-1] / 2 + x[t]; the loss is the spike at one timestep."""

    def __init__(self, at, **options):
        super().__init__()
        options = {"tau": 2.0, "v_threshold": 10.0, "decay_input": False, "surrogate_function": surrogate.Sigmoid()} | options
        self.fc, self.lif, self.at = nn.Linear(1, 1, bias=False), neuron.LIFNode(step_mode="m", **options), at
        nn.init.constant_(self.fc.weight, 0.5)

    def forward(self, x):
        return self.lif(self.fc(x))[self.at]


def slope(over):
    return float(4 * torch.sigmoid(torch.tensor(4 * over)) * torch.sigmoid(torch.tensor(-4 * over)))


def credit_of(net, *inputs):
    x = torch.tensor(inputs).view(-1, 1, 1)
    return credits(model_view(net, x), [(x, 0)], lambda out, _: out.sum())["fc"].item()


@pytest.mark.parametrize(
    ("inputs", "at", "trace", "charge"),
    [
        ((1.0, 0.0, 0.0), 0, 1.0, 0.5),
        ((1.0, 0.0, 0.0), 2, 0.25, 0.125),
        ((1.0, 1.0, 1.0), 2, 1.75, 0.875),
        ((0.0, 0.0, 1.0), 1, 0.0, 0.0),  # what comes after the spike has no part in it
        ((-1.0, 0.0, 1.0), 2, 0.75, 0.375),
    ],
)
def test_a_trace_times_the_slope_at_the_charge(inputs, at, trace, charge):
    assert credit_of(Heard(at, v_threshold=1.0), *inputs) == pytest.approx(trace * slope(charge - 1), rel=1e-6)


def test_a_reset_lowers_the_charge_but_does_not_cut_the_trace():
    """Charges 1.5 (fires), 0.5, 1.0 (fires) of threshold 1, reset to 0: without it they were 1.5, 1.25, 1.625."""
    net = Heard(2, v_threshold=1.0, detach_reset=True)
    assert credit_of(net, 3.0, 1.0, 1.5) == pytest.approx((3 / 4 + 1 / 2 + 1.5) * slope(0.0), rel=1e-6)
    x = torch.tensor([3.0, 1.0, 1.5]).view(-1, 1, 1)
    gradient = measure(model_view(net, x), [(x, 0)], {GRADIENT}, loss_fn=lambda out, _: out.sum())["fc"].weight_gradient
    assert gradient.item() == pytest.approx((1 / 2 + 1.5) * slope(0.0), rel=1e-6)  # the first input is forgotten


@pytest.mark.parametrize("tau", [1.5, 2.0, 8.0])
def test_the_gain_of_the_input_is_left_out_and_the_leak_is_not(tau):
    leak = 1 - 1 / tau
    charge = 0.5 * sum(leak**t for t in range(3)) / tau
    expected = sum(leak**t for t in range(3)) * slope(charge - 1)
    assert credit_of(Heard(2, tau=tau, v_threshold=1.0, decay_input=True), 1.0, 1.0, 1.0) == pytest.approx(expected, rel=1e-6)


# Limits


class Deep(nn.Module):
    """Two spiking layers and a readout."""

    def __init__(self, node):
        super().__init__()
        self.fc1, self.n1, self.fc2, self.n2, self.fc3 = nn.Linear(6, 5), node(), nn.Linear(5, 4), node(), nn.Linear(4, 3)
        lively(self, seed=3)

    def forward(self, x):
        step = lambda x: self.fc3(self.n2(self.fc2(self.n1(self.fc1(x)))))  # noqa: E731
        return unroll(step, x) if getattr(self.n1, "step_mode", "s") == "s" else step(x)


# Neurons whose resets pass no gradient and cut none, with the gain of their input.
WHOLE = {
    "Leaky, subtract": (lambda: snntorch.Leaky(beta=0.8, init_hidden=True), 1),
    "Leaky, no reset": (lambda: snntorch.Leaky(beta=0.8, init_hidden=True, reset_mechanism="none", threshold=0.7), 1),
    "Leaky, graded": (lambda: snntorch.Leaky(beta=0.8, init_hidden=True, graded_spikes_factor=1.5), 1),
    "IF, subtract": (lambda: neuron.IFNode(v_reset=None, detach_reset=True, step_mode="m"), 1),
    "LIF, subtract": (lambda: neuron.LIFNode(tau=3.0, v_threshold=0.4, v_reset=None, detach_reset=True, step_mode="m"), 1 / 3),
    "PLIF by step": (lambda: neuron.ParametricLIFNode(init_tau=4.0, v_threshold=0.4, v_reset=None, detach_reset=True), 1 / 4),
    "LIF, whole input": (lambda: neuron.LIFNode(tau=3.0, v_reset=None, detach_reset=True, decay_input=False, step_mode="m"), 1),
}


@pytest.mark.parametrize(("node", "gain"), WHOLE.values(), ids=WHOLE)
def test_where_resets_cut_no_gradient_it_is_the_gradient_without_the_inputs_gain(node, gain):
    net, batches = Deep(node), labelled(6)
    view = model_view(net, batches[0][0])
    stats = measure(view, batches, {CREDIT, GRADIENT, Need.SPIKE_RATE}, loss_fn=loss)
    assert all(0.05 < rate.mean() < 0.95 for rate in stats.rates.values())
    for name, own in (("fc1", gain), ("fc2", gain), ("fc3", 1)):
        assert_close(stats[name].eligibility, stats[name].weight_gradient / own)


@pytest.mark.parametrize("reset", [{"v_reset": 0.0, "detach_reset": True}, {"v_reset": None, "detach_reset": False}])
def test_where_they_do_it_is_another(reset):
    view, batches = model_view(Deep(lambda: neuron.IFNode(step_mode="m", **reset)), spikes(T, 2, 6)), labelled(6)
    stats = measure(view, batches, {CREDIT, GRADIENT}, loss_fn=loss)
    for name in ("fc1", "fc2"):
        assert not torch.allclose(stats[name].eligibility, stats[name].weight_gradient, rtol=0.05)
    assert_close(stats["fc3"].eligibility, stats["fc3"].weight_gradient)


def test_without_a_spike_a_hard_reset_cuts_nothing_either():
    node = lambda: neuron.LIFNode(tau=3.0, v_threshold=50.0, step_mode="m", surrogate_function=surrogate.ATan())  # noqa: E731
    stats = measure(model_view(Deep(node), spikes(T, 2, 6)), labelled(6), {CREDIT, GRADIENT, Need.SPIKE_RATE}, loss_fn=loss)
    assert all(rate.sum() == 0 for rate in stats.rates.values())
    assert_close(stats["fc1"].eligibility, 3 * stats["fc1"].weight_gradient)


def test_the_leak_and_the_slope_matter():
    def found(tau=3.0, alpha=2.0):
        # The threshold goes with the gain, so that spikes stay nearly alike while the leak does not.
        node = lambda: neuron.LIFNode(tau=tau, v_threshold=0.5, decay_input=False, surrogate_function=surrogate.ATan(alpha))  # noqa: E731
        return credits(model_view(Deep(node), spikes(T, 2, 6)), labelled(6))["fc1"]

    assert not torch.allclose(found(), found(tau=1.5), rtol=0.05)
    assert not torch.allclose(found(), found(alpha=3.0), rtol=0.05)


def test_at_one_timestep_leak_and_reset_mean_nothing():
    x, y = noise(1, 3, 6), torch.arange(3)
    for leak in (1.2, 50.0):
        node = lambda leak=leak: neuron.LIFNode(tau=leak, v_threshold=0.5, decay_input=False, step_mode="m")  # noqa: E731
        stats = measure(model_view(Deep(node), x), [(x, y)], {CREDIT, GRADIENT}, loss_fn=loss)
        for name in ("fc1", "fc2", "fc3"):
            assert_close(stats[name].eligibility, stats[name].weight_gradient)


def test_an_ann_twin_has_no_spiking_neuron_and_the_credit_of_every_weight_is_its_gradient():
    net = make("vgg9", width=1 / 32, image=(1, 16, 16), timesteps=1, coding="direct", neuron=Neuron("relu"))
    x, y = noise(3, 1, 16, 16), torch.arange(3)
    stats = measure(model_view(net, x, spiking=False), [(x, y)], {CREDIT, GRADIENT}, loss_fn=F.cross_entropy)
    for found in stats.values():
        assert_close(found.eligibility, found.weight_gradient, rtol=1e-5)


# The zoo's neurons


@pytest.mark.parametrize("kind", ["if", "lif"])
@pytest.mark.parametrize("options", [{}, {"reset": "soft", "decay_input": False, "surrogate": "sigmoid"}])
def test_fused_neurons_give_what_those_of_spikingjelly_give(kind, options):
    fused = Neuron(kind, **options)
    plain = fused.build()
    own = {"tau": plain.tau, "decay_input": plain.decay_input} if kind == "lif" else {}
    found = []
    for slow in (False, True):
        net = awake(make("vgg9", width=1 / 32, image=(1, 16, 16), timesteps=T, coding="direct", neuron=fused))
        for name, module in list(net.named_children()) if slow else ():
            if name.startswith("neuron"):
                twin = {"if": neuron.IFNode, "lif": neuron.LIFNode}[kind](
                    v_threshold=module.v_threshold,
                    v_reset=module.v_reset,
                    surrogate_function=module.surrogate_function,
                    detach_reset=module.detach_reset,
                    step_mode="m",
                    **own,
                )
                setattr(net, name, twin)
        x = noise(3, 1, 16, 16)
        found.append(credits(model_view(net, x), [(x, torch.arange(3))], F.cross_entropy))
    assert any(float(credit.max()) > 1e-3 for credit in found[0].values())
    for name, credit in found[0].items():
        torch.testing.assert_close(credit, found[1][name], rtol=1e-4, atol=1e-6 * float(credit.max()) + 1e-12)


# Batches


def test_samples_weigh_alike_where_a_batch_is_one_sample():
    net, x, y = Deep(WHOLE["LIF, subtract"][0]), spikes(T, 4, 6), torch.arange(4) % 3
    view = model_view(net, x[:, :2])
    alone = [credits(view, [(x[:, i : i + 1], y[i : i + 1])]) for i in range(4)]
    together = credits(view, [(x[:, i : i + 1], y[i : i + 1]) for i in range(4)])
    for name, credit in together.items():
        assert_close(credit, sum(one[name] for one in alone) / 4)


def test_a_batch_twice_or_doubled_changes_nothing_and_a_larger_one_lets_signs_cancel():
    net, x, y = Deep(WHOLE["LIF, subtract"][0]), spikes(T, 6, 6), torch.arange(6) % 3
    view = model_view(net, x[:, :2])
    once = credits(view, [(x, y)])
    for same in ([(x, y), (x, y)], [(torch.cat([x, x], 1), torch.cat([y, y]))]):
        for name, credit in credits(view, same).items():
            assert_close(credit, once[name])
    parts = credits(view, [(x[:, a:b], y[a:b]) for a, b in pairwise([0, 1, 4, 6])])
    assert all(bool((once[name] <= part * 1.001 + 1e-9).all()) for name, part in parts.items())
    assert float(once["fc1"].sum()) < 0.95 * float(parts["fc1"].sum())


def test_a_layer_that_some_batches_pass_by_has_no_credit_there():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 5), neuron.IFNode(step_mode="m")
            self.one, self.other = nn.Linear(5, 3), nn.Linear(5, 3)
            lively(self)

        def forward(self, x):
            s = self.lif(self.fc(x))
            return self.one(s), self.other(s)

    x = spikes(T, 2, 6)
    view = model_view(Heads(), x)

    def found(*heads):
        return measure(view, [(x, i) for i in heads], {CREDIT}, loss_fn=lambda out, y: out[y].square().mean())["other"]

    assert_close(found(0, 1).eligibility, found(1).eligibility / 2, rtol=1e-6)
    with pytest.raises(
        NotMeasured, match=r"eligibility of layer 'other' was not gathered: the loss does not depend on its weight"
    ):
        found(0).eligibility  # noqa: B018


class Last(Loop):
    """Only the last timestep is heard, by no slice: no gradient reaches the others' spikes."""

    def forward(self, x):
        self.lif1.reset_mem(), self.lif2.reset_mem()
        return [self.lif2(self.fc2(self.lif1(self.fc1(step)))) for step in x][-1]


def test_timesteps_that_no_gradient_reaches_count_as_zero():
    x, y = spikes(T, 3, 6), torch.arange(3)
    found = credits(model_view(Last(), x), [(x, y)], F.cross_entropy)
    whole = credits(model_view(Loop(), x), [(x, y)], lambda out, y: F.cross_entropy(out[-1], y))
    for name, credit in whole.items():
        assert_close(found[name], credit, rtol=1e-6)


class Truncated(Loop):
    """The first timesteps are run without a graph."""

    def forward(self, x):
        self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for t, step in enumerate(x):
            with torch.set_grad_enabled(torch.is_grad_enabled() and t > 1):
                out.append(self.lif2(self.fc2(self.lif1(self.fc1(step)))))
        return torch.stack(out)


def test_timesteps_without_a_graph_have_no_slope_but_stay_in_the_trace():
    x, y = spikes(T, 3, 6), torch.arange(3)
    found = credits(model_view(Truncated(), x), [(x, y)])
    whole = credits(model_view(Loop(), x), [(x, y)], lambda out, y: loss(torch.cat([out[:2].detach(), out[2:]]), y))
    # Of the last layer, whose spikes nothing later hears, that is exact: its trace is of all inputs.
    assert_close(found["fc2"], whole["fc2"], rtol=1e-6)


# Company


@pytest.mark.parametrize("net", [Loop, jelly, lambda: Deep(lambda: neuron.IFNode(step_mode="m")), Residual])
def test_together_with_others_each_gets_what_it_gets_alone(net):
    net = net()
    batches = labelled(2, 4, 4) if isinstance(net, Residual) else labelled(6)
    view = model_view(net, batches[0][0])
    together = measure(view, batches, set(Need), loss_fn=loss)
    for need in GRADIENTS | {Need.CHANNEL_RATE, Need.NEAR_THRESHOLD}:
        alone = measure(view, batches, {need}, loss_fn=loss)
        pair = measure(view, batches, {need, CREDIT}, loss_fn=loss)
        for name in alone:
            try:
                expected = getattr(alone[name], need.value)
            except NotMeasured:
                continue
            assert torch.equal(getattr(together[name], need.value), expected), (need, name)
            assert torch.equal(getattr(pair[name], need.value), expected), (need, name)


def test_frozen_weights_are_left_out_and_gradients_pass_them():
    net, batches = Deep(WHOLE["LIF, subtract"][0]), labelled(6)
    view = model_view(net, batches[0][0])
    whole = credits(view, batches)
    net.fc2.weight.requires_grad_(False)
    stats = measure(view, batches, {CREDIT}, loss_fn=loss)
    assert torch.equal(stats["fc1"].eligibility, whole["fc1"])
    with pytest.raises(
        NotMeasured, match=r"eligibility of layer 'fc2' was not gathered: its weight is frozen; set requires_grad"
    ):
        stats["fc2"].eligibility  # noqa: B018
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(MeasureError, match="the weights of all layers are frozen"):
        credits(view, batches)


def test_of_a_frozen_layer_the_neuron_may_be_any():
    net = lively(nn.Sequential(nn.Linear(6, 5), neuron.QIFNode(), nn.Linear(5, 4), neuron.IFNode(), nn.Linear(4, 3)))
    net[0].weight.requires_grad_(False)
    view, batches = model_view(net, spikes(T, 2, 6), forward=unroll), labelled(6)
    assert measure(view, batches, {CREDIT}, loss_fn=loss)["2"].eligibility.shape == (4, 5)


# The guest


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
@pytest.mark.parametrize("needs", [{CREDIT}, set(Need)])
def test_the_model_is_left_as_found(make, needs):
    net = make().train()
    x, y = spikes(T, 3, 6), torch.arange(3)
    view = model_view(net, x)
    loss(net(x), y).backward()  # in use: charged neurons, gradients
    before = photograph(net)
    measure(view, [(x, y)], needs, loss_fn=loss)
    assert_same(before, photograph(net))
    net.fail = True
    with pytest.raises(MeasureError, match="the model broke"):
        measure(view, [(x, y)], needs, loss_fn=loss)
    net.fail = False
    assert_same(before, photograph(net))


def test_numbers_do_not_depend_on_mode_or_state():
    net, batches = JellyGuest(), labelled(6)
    view = model_view(net, batches[0][0])
    first = credits(view, batches)
    net.train()
    net.lif1(noise(T, 2, 5))  # charged
    for name, credit in credits(view, batches).items():
        assert torch.equal(credit, first[name])


@pytest.mark.parametrize("make", [Loop, jelly, lambda: Deep(lambda: neuron.IFNode())])
def test_gathering_does_not_change_what_the_model_gives(make):
    net, x, seen = make(), spikes(T, 2, 6), []
    view = model_view(net, x, forward=lambda net, x: seen.append(net(x)) or seen[-1])
    seen.clear()
    credits(view, [(x, torch.tensor([0, 1]))])
    assert torch.equal(seen[0], view(x))


def test_hooks_of_the_user_run_once_a_call_and_the_credit_is_of_the_layer_as_it_is():
    net, x, calls = Loop(), spikes(T, 2, 6), []
    view = model_view(net, x)
    plain = credits(view, [(x, torch.tensor([0, 1]))])
    for module in (net.fc1, net.lif1, net.fc2, net.lif2):
        module.register_forward_pre_hook(lambda m, _: calls.append(m))
        module.register_forward_hook(lambda m, *_: calls.append(m))
    view(x)
    before = list(calls)
    calls.clear()
    assert torch.equal(credits(view, [(x, torch.tensor([0, 1]))])["fc1"], plain["fc1"])
    assert before
    assert calls == before


@pytest.mark.parametrize("kind", ["IF, subtract", "Leaky, subtract"])
def test_a_hook_that_changes_what_a_neuron_hears_is_passed_backward(kind):
    """Currents and spikes are scaled by hooks of the user: as if a layer between had done it."""
    net, x, y = Deep(WHOLE[kind][0]), spikes(T, 2, 6), torch.arange(2)
    view = model_view(net, x)
    net.n1.register_forward_pre_hook(lambda _, args: (2 * args[0],))
    net.n1.register_forward_hook(lambda _, __, out: 2 * out)
    net.fc1.register_forward_hook(lambda _, __, out: out / 2)
    stats = measure(view, [(x, y)], {CREDIT, GRADIENT}, loss_fn=loss)
    for name in ("fc1", "fc2"):
        assert_close(stats[name].eligibility, stats[name].weight_gradient)


@pytest.mark.parametrize("needs", [{CREDIT}, {CREDIT, GRADIENT}])
def test_when_the_next_batch_is_asked_for_the_graph_of_the_last_is_gone(needs):
    net = Deep(lambda: neuron.IFNode(step_mode="m"))
    view, seen, alive = model_view(net, spikes(T, 2, 6)), [], []

    class Mark(torch.autograd.Function):
        """Keeps something for the gradient that can be seen to go."""

        @staticmethod
        def forward(ctx, x):
            ctx.mark = small_nets.Block(1, 1)
            seen.append(weakref.ref(ctx.mark))
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad

    def batches():
        for _ in range(3):
            alive.append(sum(reference() is not None for reference in seen))
            yield spikes(T, 2, 6), torch.tensor([0, 1])

    # Before and behind a layer that comes after all neurons, whose state is theirs to keep.
    net.fc3.register_forward_pre_hook(lambda _, args: Mark.apply(args[0]))
    net.fc3.register_forward_hook(lambda *args: Mark.apply(args[-1]))
    measure(view, batches(), needs, loss_fn=loss)
    assert len(seen) == 6
    assert alive == [0, 0, 0]


# Refusals


UNKNOWN = {
    "Synaptic": (lambda: snntorch.Synaptic(alpha=0.8, beta=0.9, init_hidden=True), "leak"),
    "QIFNode": (lambda: neuron.QIFNode(), "leak"),
    "EIFNode": (lambda: neuron.EIFNode(), "leak"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_neuron_that_cannot_be_told_is_named(kind):
    node, what = UNKNOWN[kind]
    view = model_view(lively(nn.Sequential(nn.Linear(6, 3), node())), spikes(T, 2, 6), forward=unroll)
    with pytest.raises(MeasureError, match=rf"neuron '1': the {what} of a {kind} neuron is not known here"):
        credits(view, labelled(6))


def test_a_surrogate_that_cannot_be_told_is_named(monkeypatch):
    def unknown(node, *args, **kwargs):
        raise MeasureError("the surrogate is not known here.")

    view = model_view(jelly(), spikes(T, 2, 6))
    monkeypatch.setattr(jelly_adapter, "surrogate", unknown)
    with pytest.raises(MeasureError, match=r"neuron '1': the surrogate is not known here"):
        credits(view, labelled(6))


def test_a_surrogate_without_a_slope_is_named():
    node = lambda: snntorch.Leaky(beta=0.9, init_hidden=True, surrogate_disable=True)  # noqa: E731
    view = model_view(Deep(node), spikes(T, 2, 6))
    with pytest.raises(MeasureError, match=r"neuron 'n1': its surrogate has no slope, and no credit can pass it"):
        credits(view, labelled(6))


def test_a_loss_is_asked_for():
    with pytest.raises(MissingLoss, match=r"Need\.ELIGIBILITY takes gradients, so a loss_fn is needed"):
        measure(model_view(jelly(), spikes(T, 2, 6)), labelled(6), {CREDIT})


def test_reading_what_was_not_gathered():
    stats = measure(model_view(jelly(), spikes(T, 2, 6)), labelled(6), {GRADIENT}, loss_fn=loss)
    with pytest.raises(NotMeasured, match=r"eligibility of layer '0' was not gathered; add Need\.ELIGIBILITY to the needs"):
        stats["0"].eligibility  # noqa: B018


class Membranes(Loop):
    """Gives membranes in place of spikes."""

    def forward(self, x):
        self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in x:
            self.lif2(self.fc2(self.lif1(self.fc1(step))))
            out.append(self.lif2.mem)
        return torch.stack(out)


def test_a_loss_of_membranes_gives_credit_to_the_layers_before():
    stats = measure(model_view(Membranes(), spikes(T, 2, 6)), labelled(6), {CREDIT, GRADIENT}, loss_fn=loss)
    assert_close(stats["fc1"].eligibility, stats["fc1"].weight_gradient)
    assert float(stats["fc2"].weight_gradient.sum()) > 0
    with pytest.raises(
        NotMeasured, match=r"layer 'fc2' was not gathered: the loss does not feel the spikes of 'lif2', .* of a membrane"
    ):
        stats["fc2"].eligibility  # noqa: B018


@pytest.mark.parametrize("needs", [{CREDIT}, {CREDIT, GRADIENT}])
def test_a_loss_that_reaches_nothing(needs):
    net = jelly()
    view = model_view(net, spikes(T, 2, 6))
    with pytest.raises(MeasureError, match=r"the loss of calibration batch 0 gives no layer credit"):
        measure(view, labelled(6), needs, loss_fn=lambda out, _: net[0].bias.sum())
    batches = [(spikes(T, 2, 6), 0), (spikes(T, 2, 6), 1)]
    with pytest.raises(MeasureError, match=r"the loss of calibration batch 1 gives no layer credit"):
        measure(view, batches, needs, loss_fn=lambda out, y: net[0].bias.sum() if y else out.sum())


def test_a_layer_behind_a_detached_output():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif, self.fc2 = nn.Linear(6, 5), neuron.IFNode(step_mode="m"), nn.Linear(5, 3)

        def forward(self, x):
            return self.fc2(self.lif(self.fc1(x)).detach())

    stats = measure(model_view(Detached(), spikes(T, 2, 6)), labelled(6), {CREDIT}, loss_fn=loss)
    assert stats["fc2"].eligibility.shape == (3, 5)
    with pytest.raises(NotMeasured, match=r"layer 'fc1' was not gathered: the loss does not feel the spikes of 'lif'.* detach"):
        stats["fc1"].eligibility  # noqa: B018


def test_a_neuron_that_does_not_hear_the_layer_before_it():
    """The neuron called next is another branch's: no way leads back, and none is made up."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(6, 3), nn.Linear(6, 3)
            self.lif2, self.lif1 = neuron.IFNode(step_mode="m"), neuron.IFNode(step_mode="m")
            lively(self)

        def forward(self, x):
            late, early = self.fc1(x), self.lif2(self.fc2(x))
            return early + self.lif1(late)

    view = model_view(Branches(), spikes(T, 2, 6))
    assert {x.name: x.neuron for x in view.layers} == {"fc1": "lif2", "fc2": "lif2"}
    stats = measure(view, labelled(6), {CREDIT}, loss_fn=loss)
    assert float(stats["fc2"].eligibility.sum()) > 0
    with pytest.raises(
        NotMeasured, match=r"layer 'fc1' was not gathered: .* 'lif2', which it drives, or these do not feel its weight"
    ):
        stats["fc1"].eligibility  # noqa: B018


def test_credits_that_are_no_numbers_are_refused():
    def spoiled(out, y):
        return (out.sum() - out.sum().detach()).sqrt()  # zero, with an infinite slope

    with pytest.raises(NonFinite, match=r"credits of layer '0' are NaN or infinite\. Check calibration batch 0 and the loss"):
        credits(model_view(jelly(), spikes(T, 2, 6)), labelled(6), spoiled)


def test_batches_of_other_timesteps():
    view = model_view(jelly(), spikes(T, 2, 6))
    with pytest.raises(LayoutError, match=r"saw 2 timesteps in batch 0, but 4 when .*View it again"):
        credits(view, [(spikes(2, 2, 6), torch.tensor([0, 1]))])


def test_a_layer_replaced_since_gets_no_credit():
    net = jelly()
    view = model_view(net, spikes(T, 2, 6))
    net[2] = lively(nn.Linear(5, 3))
    stats = measure(view, labelled(6), {CREDIT}, loss_fn=loss)
    assert float(stats["0"].eligibility.sum()) > 0
    with pytest.raises(NotMeasured, match="layer '2' was not gathered"):
        stats["2"].eligibility  # noqa: B018


# The adapters


JELLY = {
    "IF": (lambda: neuron.IFNode(), 1),
    "LIF": (lambda: neuron.LIFNode(tau=4.0, v_threshold=0.3), 1 / 4),
    "LIF, whole input": (lambda: neuron.LIFNode(tau=4.0, decay_input=False, v_reset=None), 1),
    "PLIF": (lambda: neuron.ParametricLIFNode(init_tau=4.0, v_threshold=0.3, v_reset=-0.1), 1 / 4),
    "PLIF, whole input": (lambda: neuron.ParametricLIFNode(init_tau=4.0, decay_input=False), 1),
    "fused": (lambda: Neuron("lif", tau=4.0, threshold=0.3).build(), 1 / 4),
}


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize(("node", "gain"), JELLY.values(), ids=JELLY)
def test_surrogates_of_spikingjelly_are_those_at_the_charge(mode, node, gain):
    node, x = node(), 2 * noise(T, 3, 5)
    functional.set_step_mode(node, mode)
    if mode == "s":
        node(noise(3, 5, seed=1) / 2)  # it has a past
        x = x[0]
    charge, threshold = jelly_adapter.charge(bare_copy(node), x)
    over = (charge - threshold).detach().requires_grad_()
    fired = node.surrogate_function(over)
    (expected,) = torch.autograd.grad(fired.sum(), over)
    apart = jelly_adapter.surrogate(bare_copy(node), x)
    assert apart.gain == pytest.approx(gain)
    assert len(apart.inputs) == (T if mode == "m" else 1)
    grads = torch.autograd.grad(sum(s.sum() for s in apart.spikes), apart.inputs)
    found, spiked = ((torch.cat(parts) if mode == "m" else parts[0]).detach() for parts in (grads, apart.spikes))
    assert 0 < float(spiked.mean()) < 1
    assert torch.equal(spiked, fired.detach())
    torch.testing.assert_close(found / apart.gain, expected)


@pytest.mark.parametrize("options", [{}, {"reset_mechanism": "zero"}, {"graded_spikes_factor": 1.5, "threshold": 0.5}])
@pytest.mark.parametrize("named", [False, True])
def test_surrogates_of_snntorch_are_those_at_the_charge(options, named):
    node, x = snntorch.Leaky(beta=0.8, **options), noise(3, 5).requires_grad_()
    past = (2 * noise(3, 5, seed=1)).requires_grad_()
    args, kwargs = ((x,), {"mem": past}) if named else ((x, past), {})
    charge, threshold = snn_adapter.charge(bare_copy(node), *args, **kwargs)
    over = (charge - threshold).detach().requires_grad_()
    fired = node.spike_grad(over) * node.graded_spikes_factor
    (expected,) = torch.autograd.grad(fired.sum(), over)
    apart = snn_adapter.surrogate(bare_copy(node), *args, **kwargs)
    assert apart.gain == 1
    grads = torch.autograd.grad(apart.spikes[0].sum(), [*apart.inputs, x, past], allow_unused=True)
    assert 0 < float(apart.spikes[0].count_nonzero()) < 15
    assert torch.equal(apart.spikes[0].detach(), fired.detach())
    torch.testing.assert_close(grads[0], expected)
    assert grads[1:] == (None, None)  # apart from the model's own graph


@pytest.mark.parametrize(
    ("adapter", "node"),
    [
        (snn_adapter, lambda: snntorch.Synaptic(alpha=0.8, beta=0.9)),
        (snn_adapter, lambda: snntorch.RLeaky(beta=0.9, V=0.5, all_to_all=False)),
        (jelly_adapter, neuron.QIFNode),
        (jelly_adapter, neuron.ILIFNode),
    ],
)
def test_surrogates_of_other_neurons_are_refused(adapter, node):
    with pytest.raises(MeasureError, match=r"the surrogate of a \w+ neuron is not known here"):
        adapter.surrogate(node(), noise(3, 5))
