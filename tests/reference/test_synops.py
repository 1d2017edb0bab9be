"""Synaptic operations against loops that touch every synapse of every sample, timestep and output position."""

from itertools import product

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import lively, noise, spikes
from spikeprune.measure import Need, measure
from spikeprune.metrics import layer_cost
from spikeprune.view.model_view import model_view

T = 3


def linear_synops(weight, x):
    """Count, over x (steps, N, C_in): active inputs times alive, times all synapses, and all inputs times all synapses."""
    effective = dense = operations = 0
    for step in x.tolist():
        for sample in step:
            for row in weight.tolist():
                for value, w in zip(sample, row, strict=True):
                    effective += value != 0 and w != 0
                    dense += value != 0
                    operations += 1
    return effective, dense, operations


def conv_synops(conv, x):
    """Count the same for a 2-D convolution of zero padding over x (steps, N, C_in, H, W), output position by position."""
    (sh, sw), (ph, pw), (dh, dw) = conv.stride, conv.padding, conv.dilation
    c_out, c_in, kh, kw = conv.weight.shape
    height, width = x.shape[-2:]
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    weight, group = conv.weight.tolist(), c_out // conv.groups
    effective = dense = operations = 0
    for image in x.flatten(0, 1).tolist():
        for o, i, r, c, a, b in product(*map(range, (c_out, c_in, rows, columns, kh, kw))):
            h, w = r * sh - ph + a * dh, c * sw - pw + b * dw
            if 0 <= h < height and 0 <= w < width:
                value = image[o // group * c_in + i][h][w]
                effective += value != 0 and weight[o][i][a][b] != 0
                dense += value != 0
                operations += 1
    return effective, dense, operations


def prune_at_random(module, share):
    keep = noise(*module.weight.shape, seed=5) >= share
    with torch.no_grad():
        module.weight.mul_(keep)


def counted(net, batches, forward=None):
    view = model_view(net, batches[0], forward=forward)
    return view, measure(view, batches, {Need.INPUT_COUNT})


def assert_counts(cost, totals, samples):
    found = (cost.synops_effective, cost.synops_dense, cost.operations)
    assert found == pytest.approx([total / samples for total in totals], rel=1e-12)


def as_sequence(*modules):
    net = lively(nn.Sequential(*modules))
    functional.set_step_mode(net, "m")
    return net


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_linear_layers(share):
    net = as_sequence(layer.Linear(5, 4), neuron.IFNode(), layer.Linear(4, 3), neuron.IFNode())
    prune_at_random(net[2], share)
    batches = [spikes(T, 2, 5, seed=1), spikes(T, 3, 5, seed=2)]
    view, stats = counted(net, batches)
    hidden = []
    for x in batches:
        view.reset()
        hidden.append(net[1](net[0](x)).detach())
    for index, inputs in ((0, batches), (1, hidden)):
        totals = [sum(part) for part in zip(*(linear_synops(view.layers[index].weight, x) for x in inputs), strict=True)]
        assert totals[1] > 0
        assert_counts(layer_cost(view.layers[index], stats), totals, samples=5)


@pytest.mark.parametrize("share", [0.0, 0.7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": (0, 2)},
        {"stride": 2, "padding": 1},
        {"stride": (1, 2)},
        {"dilation": 2, "padding": 2},
        {"groups": 2, "padding": 1},
        {"groups": 4, "stride": 2},
    ],
    ids=str,
)
def test_convolutions(options, share):
    net = as_sequence(layer.Conv2d(4, 8, 3, **options), neuron.IFNode())
    prune_at_random(net[0], share)
    batches = [spikes(T, 1, 4, 5, 6, seed=1), spikes(T, 2, 4, 5, 6, seed=2)]
    view, stats = counted(net, batches)
    totals = [sum(part) for part in zip(*(conv_synops(net[0], x) for x in batches), strict=True)]
    assert totals[0] > 0
    assert_counts(layer_cost(view.layers[0], stats), totals, samples=3)


def test_time_folded_into_the_batch_counts_the_same():
    conv = lively(nn.Conv2d(2, 3, 3, padding=1))
    prune_at_random(conv, 0.5)
    x = spikes(T, 2, 2, 4, 4)
    for first in (layer.SeqToANNContainer(conv), layer.MultiStepContainer(conv)):
        view, stats = counted(nn.Sequential(first, neuron.IFNode(step_mode="m")), [x])
        assert_counts(layer_cost(view.layers[0], stats), conv_synops(conv, x), samples=2)


def test_a_layer_computed_once_costs_one_timestep():
    class Static(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = lively(nn.Linear(5, 4)), neuron.IFNode(step_mode="m")

        def forward(self, x):
            return self.lif(self.fc(x).repeat(T, 1, 1))

    x = noise(2, 5)
    view, stats = counted(Static(), [x])
    assert view.timesteps == T
    cost = layer_cost(view.layers[0], stats)
    assert_counts(cost, linear_synops(view.net.fc.weight, x.unsqueeze(0)), samples=2)
    assert cost.synops_effective == 20
    assert not cost.binary_input


def test_correlation_between_spikes_and_survivors_counts():
    """The estimate rate times density would say 2 of 4; the survivors listen to the silent input."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), neuron.IFNode())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    view, stats = counted(net, [torch.tensor([[1.0, 0.0]])])
    cost = layer_cost(view.layers[0], stats)
    assert (cost.synops_effective, cost.synops_dense, cost.operations) == (0, 2, 4)
