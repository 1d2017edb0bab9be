"""What no plan is made of, and that a plan which is not the network is refused."""

from dataclasses import replace

import pytest
import snntorch
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from channel_nets import Residual
from channel_nets import jelly as normed
from nets_over_time import T, batch
from small_nets import Loop, assert_same, jelly, lively, photograph, spikes, unroll
from spikeprune import model_view
from spikeprune.engine import Reference, follow, make_plan
from spikeprune.engine.plan import Neuron, Synapse
from spikeprune.engine.verify import verify
from spikeprune.errors import LayoutError, ModelError

X = spikes(T, 3, 6)


def refused(net, x, text, forward=None):
    with pytest.raises(ModelError, match=text):
        make_plan(model_view(net, x, forward=forward))


class Odd(Loop):
    """A loop whose step can be replaced."""

    def __init__(self, step, **options):
        super().__init__(lambda: snntorch.Leaky(beta=0.9, init_hidden=True, **options))
        self.step, self.fc3, self.norm = step, nn.Linear(3, 5), nn.BatchNorm1d(5)
        nn.init.normal_(self.fc3.weight)

    def forward(self, x):
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        self.last = torch.zeros(x.shape[1], 3)
        out = []
        for t, step in enumerate(x):
            self.last = self.step(self, t, step)
            out.append(self.last)
        return torch.stack(out)


def recurrent(net, t, x):
    return net.lif2(net.fc2(net.lif1(net.fc1(x) + net.fc3(net.last))))


def dynamic(net, t, x):
    spikes = net.lif1(net.fc1(x))
    return net.lif2(net.fc2(spikes if spikes.mean() > 0.1 else 1 - spikes))


def loses(net, t, x):
    return net.lif2(net.fc2(net.lif1(net.fc1(x).cumsum(0))))


def changes(net, t, x):
    current = net.fc1(x)
    return net.lif2(net.fc2(net.lif1(current if t < 2 else 2 * current)))


def noisy(net, t, x):
    spikes = net.lif1(net.fc1(x))
    return net.lif2(net.fc2(spikes + torch.rand_like(spikes)))


def shuffled(net, t, x):
    return net.lif2(net.fc2(net.lif1(net.fc1(x).flip(0))))


def other_time(net, t, x):
    return net.lif2(net.fc2(net.lif1(net.fc1(net.whole[(t + 1) % T]))))


ODD = {
    "recurrent": (recurrent, "recurrent connection"),
    "dynamic": (dynamic, "looks at values behind a layer"),
    "mixes samples": (loses, "cumsum is not known to plans"),
    "another step": (changes, "at timestep 2 its input is made by other operations"),
    "noise": (noisy, "draws by chance behind a layer"),
    "turns the batch": (shuffled, "not given those timesteps of all 3 samples, in order"),
    "turns time": (other_time, "not given those timesteps"),
}


@pytest.mark.parametrize("name", ODD)
def test_forwards_that_are_refused(name):
    step, text = ODD[name]
    net = Odd(step)
    net.whole = X
    refused(net, X, text, forward=lambda n, x: setattr(n, "whole", x) or n(x))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"reset_delay": False}, "without delay"),
        ({"threshold": -0.5}, "below its membrane at rest"),
        ({"graded_spikes_factor": 2.0}, "graded"),
        ({"state_quant": lambda mem: mem}, "state_quant"),
    ],
)
def test_leaky_neurons_that_do_more(options, text):
    refused(Loop(lambda: snntorch.Leaky(beta=0.9, init_hidden=True, **options)), X, text)


def test_neurons_of_unknown_dynamics():
    refused(Loop(lambda: snntorch.Lapicque(beta=0.9, init_hidden=True)), X, "leak of a Lapicque neuron is not known")
    refused(jelly("m", lambda: neuron.QIFNode()), X, "QIFNode neuron is not known")
    thresholds = snntorch.Leaky(beta=0.9, init_hidden=True)
    net = Loop()
    net.lif1 = thresholds
    thresholds.threshold = torch.rand(3, 5)
    refused(net, X, r"threshold has shape \(3, 5\)")


def test_membranes_that_others_hand_over():
    class Handed(nn.Module):
        def __init__(self, start, factor):
            super().__init__()
            self.fc, self.lif, self.start, self.factor = nn.Linear(6, 3), snntorch.Leaky(beta=0.9), start, factor
            lively(self)

        def forward(self, x):
            mem, out = torch.full((x.shape[1], 3), self.start), []
            for step in x:
                spk, mem = self.lif(self.fc(step), mem * self.factor)
                out.append(spk)
            return torch.stack(out)

    make_plan(model_view(Handed(0.0, 1), X))
    refused(Handed(0.5, 1), X, "not at rest")
    refused(Handed(0.0, 0.5), X, "not what it returned")


def test_batches_that_decide_about_themselves():
    def scaled(net, x):
        return net(x / x.max().item())

    def checked(net, x):
        if x.max() > 9:
            raise ValueError("large")
        return net(x)

    refused(jelly(), 2 * X, "depends on values of its input or on the batch size", forward=scaled)
    assert "looks at values of its input" in make_plan(model_view(jelly(), X, forward=checked)).notes[0]


def by_batch_size(net, x):
    return net(x / x.shape[1])


def written_through_a_part(net, x):
    out = torch.zeros(T, x.shape[1], 3)
    for t, step in enumerate(x):
        out[t].copy_(net(step))
    return out


def written_behind_its_back(net, x):
    current = x.view(x.shape)
    x.mul_(2.0)
    return net(current)


def hidden(net, x):
    return net(x * torch.from_numpy(x.detach().numpy()))


@pytest.mark.parametrize(
    ("forward", "mode", "text"),
    [
        (by_batch_size, "m", "on the batch size"),
        (written_through_a_part, "s", "copy wrote on a part of it"),
        (written_behind_its_back, "m", "written on through another tensor"),
        (hidden, "m", "takes a constant that differs within a channel"),
    ],
)
def test_what_would_be_silently_wrong(forward, mode, text):
    refused(jelly(mode), X.clone(), text, forward=forward)


def test_norms_by_each_batch():
    net = normed()
    net[1] = layer.BatchNorm2d(5, track_running_stats=False, step_mode="m")
    refused(net, spikes(3, 4, 2, 4, 4), "normalizes by each batch")


def test_examples_and_outputs_that_are_none():
    refused(jelly(), (X, X), "holds 2 tensors", forward=lambda net, x: net(x[0] + x[1]))
    refused(jelly(), X, "neither one value a timestep", forward=lambda net, x: net(x).flatten(0, 1))
    refused(jelly(), X, "of other things", forward=lambda net, x: {"out": net(x), "rate": 0.5})
    refused(jelly(), X, "neither of the input nor of a layer", forward=lambda net, x: net(x) is None or torch.ones(3, 3))


def test_what_no_output_needs_may_be_anything():
    def counted(net, x):
        out = net(x)
        net.rate = out.cumsum(0).median()
        return out

    assert not make_plan(model_view(jelly(), X, forward=counted)).outside


def test_the_network_is_left_as_found():
    net = Residual()
    view = model_view(net, spikes(3, 4, 2, 4, 4))
    before = photograph(net)
    make_plan(view)
    assert_same(before, photograph(net))
    assert torch.get_default_dtype() is torch.float32


def broken(operations, at, **changes):
    return (*operations[:at], replace(operations[at], **changes), *operations[at + 1 :])


def swapped(plan):
    first, second = (i for i, op in enumerate(plan.operations) if isinstance(op, Synapse) and op.name in ("conv1", "conv2"))
    operations = broken(plan.operations, first, weight=plan.operations[first].weight.flip(0))
    return broken(operations, second, bias=plan.operations[first].bias)


def nudged(kind, field, by):
    def change(plan):
        at = next(i for i, op in enumerate(plan.operations) if isinstance(op, kind))
        return broken(plan.operations, at, **{field: getattr(plan.operations[at], field) + by})

    return change


def reordered(plan):
    """Two neurons that follow each other's layer."""
    a, b = (i for i, op in enumerate(plan.operations) if isinstance(op, Neuron) and op.name in ("lif1", "lif2"))
    one, other = plan.operations[a], plan.operations[b]
    operations = broken(plan.operations, a, decay=other.decay, gain=other.gain, threshold=other.threshold + 0.1)
    return broken(operations, b, decay=one.decay)


BREAKS = {
    "swapped": (swapped, "the input of neuron 'lif1' differs by up to"),
    "decay": (nudged(Neuron, "decay", 1e-3), "the membrane of neuron 'lif1' differs"),
    "threshold": (nudged(Neuron, "threshold", 0.5), "neuron 'lif1' fires differently in"),
    "weight": (nudged(Synapse, "weight", 1e-4), "the input of neuron 'lif1' differs"),
    "reordered": (reordered, "neuron 'lif1'"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_plan_that_is_not_the_network_is_refused(name, monkeypatch):
    change, text = BREAKS[name]

    def tampered(plan, *rest):
        verify(plan, *rest)  # the whole plan passes
        verify(replace(plan, operations=change(plan)), *rest)

    monkeypatch.setattr(follow, "verify", tampered)
    with pytest.raises(ModelError, match=f"the plan is not the network: {text}"):
        make_plan(model_view(Residual(), spikes(3, 4, 2, 4, 4)))


def test_a_plan_whose_output_differs_is_refused(monkeypatch):
    def tampered(plan, *rest):
        last = plan.operations[-1]
        verify(replace(plan, operations=(*plan.operations[:-1], replace(last, weights=(1.0,) * (T - 1) + (0.0,)))), *rest)

    monkeypatch.setattr(follow, "verify", tampered)
    with pytest.raises(ModelError, match="output 0 differs by up to 1"):
        make_plan(model_view(jelly(), X, forward=lambda net, x: net(x).sum(0)))


def test_inputs_that_do_not_fit():
    run = Reference(make_plan(model_view(jelly(), X)))
    with pytest.raises(LayoutError, match=r"takes \(T = 4, N, 6\), but was given \(3, 3, 6\)"):
        run(X[:3])
    with pytest.raises(LayoutError, match=r"\(N, 6\), but was given \(3, 5\)"):
        run.step(X[0, :, :5])
    run.reset()
    for step in X:
        run.step(step)
    with pytest.raises(LayoutError, match="has run all its 4 timesteps"):
        run.step(X[0])


def test_a_network_that_goes_on_with_its_readout_has_no_steps():
    run = Reference(make_plan(model_view(jelly("s"), X, forward=lambda net, x: unroll(net, x).mean(0).softmax(1))))
    assert run(batch("jelly s")).shape == (3, 3)
    with pytest.raises(ModelError, match="cannot be run step by step"):
        run.step(X[0])
