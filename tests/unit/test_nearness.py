"""Nearness to the threshold against neurons unrolled number by number."""

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import jelly, lively, noise, spikes, unroll
from spikeprune import Need, measure, model_view
from spikeprune.errors import NotMeasured

T = 4
NEAR = Need.NEAR_THRESHOLD


def slow_nearness(charges, threshold):
    near = sum(abs(h - threshold) < threshold / 2 for h in charges)
    return near / len(charges)


def jelly_charges(node, current):
    """Unroll a SpikingJelly neuron number by number: the charges of each timestep."""
    leak = 1.0 if isinstance(node, neuron.IFNode) else 1 - 1 / node.tau
    gain = 1.0 if isinstance(node, neuron.IFNode) or not node.decay_input else 1 / node.tau
    rows = [[] for _ in current]
    for place in range(current[0].numel()):
        v = node.v_reset or 0.0
        for t, step in enumerate(current):
            rest = node.v_reset or 0.0
            h = leak * (v - rest) + rest + gain * float(step.flatten()[place])
            if isinstance(node, neuron.IFNode):
                h = v + float(step.flatten()[place])
            rows[t].append(h)
            v = h if h < node.v_threshold else (h - node.v_threshold if node.v_reset is None else node.v_reset)
    return rows


NODES = {
    "IF": lambda: neuron.IFNode(),
    "IF, soft reset, high threshold": lambda: neuron.IFNode(v_threshold=1.5, v_reset=None),
    "IF, reset below zero": lambda: neuron.IFNode(v_reset=-0.5),
    "LIF": lambda: neuron.LIFNode(tau=1.5),
    "LIF, soft reset, whole input": lambda: neuron.LIFNode(tau=3.0, v_reset=None, decay_input=False),
    "LIF, keeps its membranes": lambda: neuron.LIFNode(tau=1.5, store_v_seq=True),
}


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("make", NODES.values(), ids=NODES)
def test_nearness_of_spikingjelly_by_hand(make, mode):
    net = jelly(mode, make)
    batches = [noise(T, n, 6, seed=n) for n in (2, 3, 1)]
    stats = measure(model_view(net, batches[0], forward=unroll if mode == "s" else None), batches, {NEAR})
    functional.reset_net(net)
    expected = torch.zeros(T, dtype=torch.double)
    for x in batches:
        with torch.no_grad():
            rows = jelly_charges(net[1], net[0](x))
        expected += x.shape[1] * torch.tensor([slow_nearness(row, net[1].v_threshold) for row in rows], dtype=torch.double)
    assert 0 < expected.sum() < 6 * T
    torch.testing.assert_close(stats["0"].near_threshold, expected / 6, rtol=0, atol=1e-12)


LEAKIES = {
    "subtract": {},
    "zero": {"reset_mechanism": "zero"},
    "no reset": {"reset_mechanism": "none"},
    "high threshold": {"threshold": 1.5},
    "a leak for each": {"beta": torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])},
}


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("options", LEAKIES.values(), ids=LEAKIES)
def test_nearness_of_snntorch_by_hand(options, hidden):
    options = {"beta": 0.9, **options}
    net = nn.Sequential(nn.Linear(6, 5), snntorch.Leaky(init_hidden=hidden, **options))
    lively(net)

    def handed(net, x):
        mem = None
        for step in x:
            _, mem = net[1](net[0](step), mem=mem) if mem is not None else net[1](net[0](step))

    x = noise(T, 3, 6, seed=7)
    found = measure(model_view(net, x, forward=unroll if hidden else handed), [x], {NEAR})["0"].near_threshold
    threshold, beta = float(net[1].threshold), net[1].beta.expand(5).tolist()
    rows = [[] for _ in range(T)]
    for n in range(3):
        for c in range(5):
            mem = 0.0
            for t in range(T):
                fired = mem > threshold
                current = float(net[0](x[t, n]).detach()[c])
                if net[1].reset_mechanism == "zero":
                    mem = 0.0 if fired else mem
                low = threshold if fired and net[1].reset_mechanism == "subtract" else 0.0
                mem = beta[c] * mem + current - low
                rows[t].append(mem)
    expected = torch.tensor([slow_nearness(row, threshold) for row in rows], dtype=torch.double)
    assert 0 < expected.sum() < T
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mem", "near"), [(2.0, True), (1.2, True), (4.0, False), (0.5, False)])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_membrane_that_the_model_hands_over_is_the_one_that_counts(by_name, mem, near):
    # The charge is half the membrane, and near the threshold of 1 between 0.5 and 1.5.
    net = nn.Sequential(nn.Linear(6, 5), snntorch.Leaky(beta=0.5, reset_mechanism="none"))

    def charged(net, x):
        given = torch.full((x.shape[1], 5), mem)
        for step in x:
            net[1](net[0](step) * 0, mem=given) if by_name else net[1](net[0](step) * 0, given)

    x = noise(T, 2, 6)
    assert measure(model_view(net, x, forward=charged), [x], {NEAR})["0"].near_threshold.tolist() == [float(near)] * T


def test_a_readout_is_near_no_threshold():
    net, x = nn.Sequential(*jelly(), layer.Linear(3, 2, step_mode="m")), spikes(T, 2, 6)
    stats = measure(model_view(net, x), [x], {NEAR})
    assert stats["0"].near_threshold.shape == (T,)
    with pytest.raises(NotMeasured, match=r"near_threshold of layer '4' was not gathered: it drives no neuron"):
        _ = stats["4"].near_threshold
