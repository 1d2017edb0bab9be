"""Eligibility against neurons unrolled by hand and sums taken one timestep, sample and synapse at a time."""

import math

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from channel_nets import awake
from small_nets import lively, noise, spikes, unroll
from spikeprune import Need, measure, model_view
from spikeprune.view.layer import Layout

T = 4
SIZES = (2, 1)  # batches of unequal size


def loss_fn(out, y):
    return F.cross_entropy(out.mean(0), y)


# One neuron layer by hand


class Fire(torch.autograd.Function):
    """Spikes with a given slope."""

    @staticmethod
    def forward(ctx, over, slope, fired):
        ctx.save_for_backward(slope)
        return fired.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


class DoubleAtan(torch.autograd.Function):
    """snnTorch's own gives float32 whatever it is given."""

    @staticmethod
    def forward(ctx, over):
        ctx.save_for_backward(over)
        return (over > 0).to(over.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad / (1 + (math.pi * ctx.saved_tensors[0]).square())


def slope_at(node, over):
    """The surrogate's derivative, by its formula."""
    if isinstance(node, snntorch.Leaky) or isinstance(node.surrogate_function, surrogate.ATan):
        return 1 / (1 + (math.pi * over).square())  # both with alpha 2
    assert isinstance(node.surrogate_function, surrogate.Sigmoid)
    return 4 * torch.sigmoid(4 * over) * torch.sigmoid(-4 * over)


def leak_of(node):
    if isinstance(node, snntorch.Leaky):
        return float(node.beta)
    if isinstance(node, neuron.ParametricLIFNode):
        return 1 - float(node.w.detach().sigmoid())
    return 1 - 1 / node.tau if isinstance(node, neuron.LIFNode) else 1.0


def charged(node, v, x):
    """A SpikingJelly neuron's charge."""
    if isinstance(node, neuron.IFNode):
        return v + x
    rate = node.w.sigmoid() if isinstance(node, neuron.ParametricLIFNode) else 1 / node.tau
    low = v - (node.v_reset or 0.0)
    return v + (x - low) * rate if node.decay_input else v - low * rate + x


def leaky_charged(node, v, x, late):
    v = v * (1 - late) if node.reset_mechanism == "zero" else v
    return node.beta * v + x - (float(node.threshold) * late if node.reset_mechanism == "subtract" else 0)


def unrolled(node, currents):
    """Give the spikes of each timestep, as tensors that others hear and the neuron's reset does not, and the slopes at the charges."""
    heard, slopes = [], []
    snn = isinstance(node, snntorch.Leaky)
    threshold = float(node.threshold) if snn else node.v_threshold
    v = torch.full_like(currents[0], 0.0 if snn else node.v_reset or 0.0)
    for x in currents:
        late = (v > threshold).to(x.dtype) if snn else None  # snnTorch resets a timestep later
        h = leaky_charged(node, v, x, late) if snn else charged(node, v, x)
        over = h - threshold
        slopes.append(slope_at(node, over.detach()))
        spike = Fire.apply(over, slopes[-1], ((over > 0) if snn else (over >= 0)).to(x.dtype))
        if snn:
            v = h if node.reset_delay else h - threshold * (spike - late)
        else:
            own = spike.detach() if node.detach_reset else spike
            v = h - threshold * own if node.v_reset is None else h * (1 - own) + node.v_reset * own
        heard.append(spike * 1.0)
        heard[-1].retain_grad()
    return heard, slopes


def traces(given, leak):
    trace, found = torch.zeros_like(given[0]), []
    for x in given:
        trace = leak * trace + x
        found.append(trace)
    return found


def signals(heard, slopes):
    return [(torch.zeros_like(s) if s.grad is None else s.grad) * slope for s, slope in zip(heard, slopes, strict=True)]


# Credits


def by_loops(felt, given, leak):
    """|sum of felt_i[t] a_j[t]|: one neuron, input, sample and timestep at a time, the trace of each input by itself."""
    _, outputs = felt[0].shape
    samples, inputs = given[0].shape
    felt, given = [x.tolist() for x in felt], [x.tolist() for x in given]
    credit = torch.zeros(outputs, inputs, dtype=torch.double)
    for i in range(outputs):
        for j in range(inputs):
            total = 0.0
            for n in range(samples):
                trace = 0.0
                for t in range(T):
                    trace = leak * trace + given[t][n][j]
                    total += felt[t][n][i] * trace
            credit[i, j] = abs(total)
    return credit


@torch.no_grad()
def by_change(felt, given, leak, weight, current):
    """The same for currents that are linear in the weight: what each weight changes in them, given traces."""
    steps = traces(given, leak)
    before = [current(a, weight) for a in steps]
    credit = torch.zeros_like(weight, dtype=torch.double)
    for place in range(weight.numel()):
        more = weight.detach().clone()
        more.view(-1)[place] += 1
        changes = [current(a, more) - b for a, b in zip(steps, before, strict=True)]
        credit.view(-1)[place] = sum(float((f * change).sum()) for f, change in zip(felt, changes, strict=True))
    return credit.abs()


def assert_credits(view, batches, slow, rtol=1e-6):
    """Compare with `slow(x, y)`, the credits of a batch by layer; a batch weighs as many samples as it has."""
    stats = measure(view, batches, {Need.ELIGIBILITY}, loss_fn=loss_fn)
    parts = [slow(x, y) for x, y in batches]
    for name in parts[0]:
        expected = sum(len(y) * part[name] for part, (_, y) in zip(parts, batches, strict=True)) / sum(SIZES)
        found = stats[name].eligibility
        assert found.dtype == torch.double
        assert found.shape == stats[name].eligibility.shape == view.select(name)[0].weight.shape
        assert float(expected.max()) > 1e-4, name
        torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol * float(expected.max()))
    assert set(parts[0]) == set(stats)


# Linear networks in every layout


class Chain(nn.Module):
    """Two spiking layers and a readout without neuron, (T, N, 6) in; "once" takes (N, 6)."""

    def __init__(self, make, how):
        super().__init__()
        self.fc1, self.n1, self.fc2, self.n2, self.fc3 = nn.Linear(6, 5), make(), nn.Linear(5, 4), make(), nn.Linear(4, 3)
        self.how = how
        lively(self, seed=3)
        functional.set_step_mode(self, "s" if "step" in how else "m")

    def forward(self, x):
        if self.how == "step":
            return unroll(lambda step: self.fc3(self.n2(self.fc2(self.n1(self.fc1(step))))), x)
        if self.how == "folded":
            return self.folded(self.fc3, self.n2(self.folded(self.fc2, self.n1(self.folded(self.fc1, x)))))
        if self.how == "once, neurons by step":
            current = self.fc1(x)
            return torch.stack([self.fc3(self.n2(self.fc2(self.n1(current)))) for _ in range(T)])
        if self.how == "sequence, neurons by step":
            return self.fc3(unroll(self.n2, self.fc2(unroll(self.n1, self.fc1(x)))))
        if self.how == "layers by turns":
            return unroll(self.fc3, self.n2(unroll(self.fc2, self.n1(unroll(self.fc1, x)))))
        current = self.fc1(x).expand(T, *x.shape[:-1], 5) if self.how == "once" else self.fc1(x)
        return self.fc3(self.n2(self.fc2(self.n1(current))))

    @staticmethod
    def folded(module, x):
        return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def slow(self, x, y):
        """Give the credits of a batch."""
        given, notes = list(x.expand(T, *x.shape)) if "once" in self.how else list(x), {}
        for name, module, node in (("fc1", self.fc1, self.n1), ("fc2", self.fc2, self.n2)):
            heard, slopes = unrolled(node, [module(step) for step in given])
            assert 0.05 < torch.stack(heard).mean() < 0.95, "a neuron that does not fire, or always, would prove little"
            notes[name], given = (heard, slopes, [step.detach() for step in given], leak_of(node)), heard
        outputs = [self.fc3(step) for step in given]
        for out in outputs:
            out.retain_grad()
        loss_fn(torch.stack(outputs), y).backward()
        found = {name: by_loops(signals(heard, slopes), seen, leak) for name, (heard, slopes, seen, leak) in notes.items()}
        return found | {"fc3": by_loops([out.grad for out in outputs], [step.detach() for step in given], 0.0)}


LAYOUTS = {
    "step": [Layout.STEP] * 3,
    "sequence": [Layout.SEQUENCE] * 3,
    "folded": [Layout.FOLDED] * 3,
    "once": [Layout.ONCE, Layout.SEQUENCE, Layout.SEQUENCE],
    "once, neurons by step": [Layout.ONCE, Layout.STEP, Layout.STEP],
    "sequence, neurons by step": [Layout.SEQUENCE] * 3,
    "layers by turns": [Layout.STEP] * 3,
}
BY_STEP = [how for how in LAYOUTS if "step" in how]
JELLY = {
    "IF": lambda: neuron.IFNode(),
    "IF, soft reset, detached": lambda: neuron.IFNode(
        v_reset=None, detach_reset=True, surrogate_function=surrogate.ATan(), v_threshold=1.3
    ),
    "LIF": lambda: neuron.LIFNode(tau=3.0, v_threshold=0.4),
    "LIF, detached": lambda: neuron.LIFNode(tau=1.5, v_threshold=0.5, detach_reset=True, surrogate_function=surrogate.ATan()),
    "LIF, whole input, reset below": lambda: neuron.LIFNode(tau=3.0, decay_input=False, v_reset=-0.2),
    "PLIF": lambda: neuron.ParametricLIFNode(init_tau=3.0, v_threshold=0.4),
}
LEAKY = {
    "subtract": lambda: snntorch.Leaky(beta=0.8, init_hidden=True, spike_grad=DoubleAtan.apply),
    "subtract at once": lambda: snntorch.Leaky(beta=0.8, init_hidden=True, spike_grad=DoubleAtan.apply, reset_delay=False),
    "zero": lambda: snntorch.Leaky(beta=0.8, init_hidden=True, spike_grad=DoubleAtan.apply, reset_mechanism="zero"),
}


def chains():
    return [(how, kind, make) for how in LAYOUTS for kind, make in JELLY.items()] + [
        (how, kind, make) for how in BY_STEP for kind, make in LEAKY.items()
    ]


def data(how):
    whole = [2 * noise(n, 6, seed=n) if "once" in how else spikes(T, n, 6, seed=n) for n in SIZES]
    return [(x.double(), torch.arange(len(x if x.dim() == 2 else x[0])) % 3) for x in whole]


@pytest.mark.parametrize(("how", "make"), [(how, make) for how, _, make in chains()], ids=[f"{how}: {kind}" for how, kind, _ in chains()])  # fmt: skip
def test_linear_networks_by_loops(how, make):
    net, batches = Chain(make, how).double(), data(how)
    view = model_view(net, batches[0][0])
    assert [x.layout for x in view.layers] == LAYOUTS[how]
    assert_credits(view, batches, net.slow)


class ByHand(nn.Module):
    """snnTorch: membranes are handed on by the model; with snnTorch's own surrogate, in float32."""

    def __init__(self):
        super().__init__()
        self.fc1, self.n1, self.fc2, self.n2 = nn.Linear(6, 5), snntorch.Leaky(0.8), nn.Linear(5, 3), snntorch.Leaky(0.8)
        lively(self, seed=3)

    def forward(self, x):
        mem1, mem2, out = self.n1.reset_mem(), self.n2.reset_mem(), []
        for step in x:
            spk, mem1 = self.n1(self.fc1(step), mem1)
            spk, mem2 = self.n2(self.fc2(spk), mem2)
            out.append(spk)
        return torch.stack(out)

    def slow(self, x, y):
        given, found = list(x), {}
        for name, module, node in (("fc1", self.fc1, self.n1), ("fc2", self.fc2, self.n2)):
            heard, slopes = unrolled(node, [module(step) for step in given])
            found[name], given = (heard, slopes, [step.detach() for step in given]), heard
        loss_fn(torch.stack(given), y).backward()
        return {name: by_loops(signals(heard, slopes), seen, 0.8) for name, (heard, slopes, seen) in found.items()}


def test_membranes_handed_on_by_the_model():
    net = ByHand()
    batches = [(spikes(T, n, 6, seed=n), torch.arange(n) % 3) for n in SIZES]
    assert_credits(model_view(net, batches[0][0]), batches, net.slow, rtol=1e-5)


class Recurrent(nn.Module):
    """Spikes come back to their own neuron through a layer called first of all at every timestep."""

    def __init__(self):
        super().__init__()
        self.back, self.fc, self.lif = nn.Linear(5, 5), nn.Linear(6, 5), neuron.LIFNode(tau=2.0, v_threshold=0.6)
        self.out = nn.Linear(5, 3)
        awake(self, seed=2)

    def forward(self, x):
        s, outs = x.new_zeros(x.shape[1], 5), []
        for step in x:
            s = self.lif(self.back(s) + self.fc(step))
            outs.append(self.out(s))
        return torch.stack(outs)

    def slow(self, x, y):
        v, s, heard, slopes, given, outs = 0.0, x.new_zeros(x.shape[1], 5), [], [], [], []
        for step in x:
            given.append(s.detach())
            h = v + (self.back(s) + self.fc(step) - v) / 2
            slopes.append(slope_at(self.lif, (h - 0.6).detach()))
            spike = Fire.apply(h - 0.6, slopes[-1], (h >= 0.6).to(x.dtype))
            v = h * (1 - spike)
            s = spike * 1.0
            s.retain_grad()
            heard.append(s)
            outs.append(self.out(s))
            outs[-1].retain_grad()
        loss_fn(torch.stack(outs), y).backward()
        felt = signals(heard, slopes)
        return {
            "back": by_loops(felt, given, 0.5),
            "fc": by_loops(felt, list(x), 0.5),
            "out": by_loops([out.grad for out in outs], [s.detach() for s in heard], 0.0),
        }


def test_where_spikes_come_back_each_timestep_is_taken_by_itself():
    net, batches = Recurrent().double(), data("step")
    view = model_view(net, batches[0][0])
    assert {x.name: x.neuron for x in view.layers} == {"back": "lif", "fc": "lif", "out": None}
    assert_credits(view, batches, net.slow)


# Convolutions, and what lies between


CONVS = {
    "stride and padding": lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1),
    "groups": lambda: nn.Conv2d(2, 4, (3, 2), padding=(1, 0), groups=2, bias=False),
    "circular": lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"),
    "same, dilated": lambda: nn.Conv2d(2, 4, 2, padding="same", dilation=2),
}


class Normed(nn.Module):
    """A convolution, a batch norm, an average pool and a neuron; flattened, a readout. (T, N, 2, 5, 5) in."""

    def __init__(self, make, how):
        super().__init__()
        self.conv, self.norm, self.pool = make(), nn.BatchNorm2d(4), nn.AvgPool2d(2)
        self.lif, self.fc = neuron.LIFNode(tau=1.5, v_threshold=0.5, step_mode="s" if how == "step" else "m"), nn.LazyLinear(3)
        self.how = how
        self.fc(self.current(torch.zeros(1, 2, 5, 5), self.conv.weight).flatten(1))
        awake(self, seed=1)

    def forward(self, x):
        if self.how == "step":
            return unroll(lambda step: self.fc(self.lif(self.pool(self.norm(self.conv(step)))).flatten(1)), x)
        if self.how == "once":
            current = self.pool(self.norm(self.conv(x))).expand(T, *[-1] * 4)
        else:
            current = self.pool(self.norm(self.conv(x.flatten(0, 1)))).unflatten(0, x.shape[:2])
        return self.fc(self.lif(current).flatten(2))

    def current(self, x, weight):
        """What the neuron is given, of a weight."""
        conv = torch.func.functional_call(self.conv, {"weight": weight}, (x,))
        return self.pool(F.batch_norm(conv, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias))

    def slow(self, x, y):
        given = list(x.expand(T, *x.shape)) if self.how == "once" else list(x)
        heard, slopes = unrolled(self.lif, [self.current(step, self.conv.weight) for step in given])
        outs = [self.fc(s.flatten(1)) for s in heard]
        for out in outs:
            out.retain_grad()
        loss_fn(torch.stack(outs), y).backward()
        return {
            "conv": by_change(signals(heard, slopes), given, leak_of(self.lif), self.conv.weight, self.current),
            "fc": by_loops([out.grad for out in outs], [s.detach().flatten(1) for s in heard], 0.0),
        }


def images(how="folded"):
    shapes = [(n, 2, 5, 5) if how == "once" else (T, n, 2, 5, 5) for n in SIZES]
    return [(noise(*shape, seed=3).double(), torch.arange(n) % 3) for shape, n in zip(shapes, SIZES, strict=True)]


@pytest.mark.parametrize("how", ["step", "folded", "once"])
@pytest.mark.parametrize("make", CONVS.values(), ids=CONVS)
def test_convolutions_by_the_change_that_each_weight_makes(make, how):
    net, batches = Normed(make, how).double(), images(how)
    assert_credits(model_view(net, batches[0][0]), batches, net.slow)


@pytest.mark.parametrize(("axes", "kind"), [(1, nn.Conv1d), (3, nn.Conv3d)])
def test_convolutions_of_one_and_three_axes(axes, kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif = kind(2, 3, 2, stride=2), neuron.LIFNode(tau=1.5, v_threshold=0.3)

        def forward(self, x):
            return unroll(lambda step: self.lif(self.conv(step)).flatten(2).mean(2), x)

        def current(self, x, weight):
            return torch.func.functional_call(self.conv, {"weight": weight}, (x,))

        def slow(self, x, y):
            heard, slopes = unrolled(self.lif, [self.conv(step) for step in x])
            loss_fn(torch.stack([s.flatten(2).mean(2) for s in heard]), y).backward()
            return {"conv": by_change(signals(heard, slopes), list(x), leak_of(self.lif), self.conv.weight, self.current)}

    net = awake(Net(), seed=1).double()
    batches = [(noise(T, n, 2, *[4] * axes, seed=n).double(), torch.arange(n) % 3) for n in SIZES]
    assert_credits(model_view(net, batches[0][0]), batches, net.slow)


class Residual(nn.Module):
    """Two convolutions, normed or bare, whose currents are added drive one neuron."""

    def __init__(self, normed):
        super().__init__()
        self.normed = normed
        self.conv1, self.norm1 = layer.Conv2d(2, 3, 3, padding=1, step_mode="m"), layer.BatchNorm2d(3, step_mode="m")
        self.conv2, self.norm2 = layer.Conv2d(2, 3, 1, step_mode="m"), layer.BatchNorm2d(3, step_mode="m")
        self.lif = neuron.LIFNode(tau=1.5, v_threshold=0.5, step_mode="m", surrogate_function=surrogate.ATan())
        awake(self, seed=1)

    def forward(self, x):
        one, other = self.conv1(x), self.conv2(x)
        current = self.norm1(one) + self.norm2(other) if self.normed else one + other
        return self.lif(current).flatten(3).mean(3)

    def branch(self, i, x, weight):
        conv, norm = (self.conv1, self.norm1) if i == 1 else (self.conv2, self.norm2)
        out = F.conv2d(x, weight, conv.bias, padding=conv.padding)
        if not self.normed:
            return out
        return F.batch_norm(out, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    def slow(self, x, y):
        weights = {1: self.conv1.weight, 2: self.conv2.weight}
        heard, slopes = unrolled(self.lif, [sum(self.branch(i, step, w) for i, w in weights.items()) for step in x])
        loss_fn(torch.stack([s.flatten(2).mean(2) for s in heard]), y).backward()
        felt = signals(heard, slopes)
        return {
            f"conv{i}": by_change(felt, list(x), leak_of(self.lif), w, lambda a, w, i=i: self.branch(i, a, w))
            for i, w in weights.items()
        }


@pytest.mark.parametrize("normed", [True, False])
def test_layers_whose_currents_are_added_share_what_their_neuron_feels(normed):
    net, batches = Residual(normed).double(), images()
    assert_credits(model_view(net, batches[0][0]), batches, net.slow)


class Bent(nn.Module):
    """A ReLU in place lies between layer and neuron; the spikes are doubled in place behind it."""

    def __init__(self, mode):
        super().__init__()
        self.fc1, self.relu, self.lif = nn.Linear(6, 5), nn.ReLU(inplace=True), neuron.IFNode(v_threshold=0.7, step_mode=mode)
        self.fc2 = nn.Linear(5, 3)
        awake(self, seed=1)

    def forward(self, x):
        return self.passed(x) if self.lif.step_mode == "m" else unroll(self.passed, x)

    def passed(self, x):
        return self.fc2(self.lif(self.relu(self.fc1(x))).mul_(2.0))

    def slow(self, x, y):
        currents = [self.fc1(step) for step in x]
        heard, slopes = unrolled(self.lif, [current.relu() for current in currents])
        outs = [self.fc2(2 * s) for s in heard]
        for out in outs:
            out.retain_grad()
        loss_fn(torch.stack(outs), y).backward()
        felt = [f * (current > 0) for f, current in zip(signals(heard, slopes), currents, strict=True)]
        return {
            "fc1": by_loops(felt, list(x), 1.0),
            "fc2": by_loops([out.grad for out in outs], [2 * s.detach() for s in heard], 0.0),
        }


@pytest.mark.parametrize("mode", ["s", "m"])
def test_what_is_written_in_place_is_passed_backward_as_it_was(mode):
    net, batches = Bent(mode).double(), data("sequence")
    assert_credits(model_view(net, batches[0][0]), batches, net.slow)
