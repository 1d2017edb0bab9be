"""Costs of a layer by hand: operations, AC or MAC, energy, density."""

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from small_nets import jelly, lively, noise, spikes
from spikeprune.measure import Need, measure
from spikeprune.metrics import HOROWITZ_45NM, NEEDS, Connectivity, EnergyTable, LayerCost, connectivity, costs, layer_cost, synops
from spikeprune.view.layer import Layer, Layout
from spikeprune.view.model_view import model_view


def cost_of(module, x, table=HOROWITZ_45NM):
    view = model_view(nn.Sequential(module, neuron.IFNode()), x)
    return layer_cost(view.layers[0], measure(view, [x], NEEDS), table)


def linear(inputs, outputs):
    module = nn.Linear(inputs, outputs)
    nn.init.ones_(module.weight)
    return module


def test_a_layer_by_hand():
    module = linear(3, 4)
    with torch.no_grad():
        module.weight[:3, 0] = 0.0  # input 0 keeps one synapse, inputs 1 and 2 all four
    x = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])  # N = 2
    assert cost_of(module, x) == LayerCost(
        name="0",
        kind="Linear",
        weights=12,
        nonzero=9,
        input_rate=0.5,
        binary_input=True,
        synops_effective=(1 + 4 + 1) / 2,
        synops_dense=12 / 2,
        operations=12.0,
        energy_pj=pytest.approx(3 * 0.9),
    )


def test_density_is_over_the_layers_weights():
    module = linear(4, 5)
    with torch.no_grad():
        module.weight[0, :3] = 0.0
        module.bias.zero_()  # biases are no weights
    cost = cost_of(module, torch.ones(1, 4))
    assert (cost.weights, cost.nonzero, cost.density) == (20, 17, 0.85)


def test_energy_of_a_thousand():
    module = linear(10, 100)
    spiking = cost_of(module, torch.ones(1, 10))
    real = cost_of(module, torch.full((1, 10), 0.5))
    assert (spiking.binary_input, spiking.synops_effective, spiking.energy_pj) == (True, 1000, 900)
    assert (real.binary_input, real.synops_effective, real.energy_pj) == (False, 1000, 4600)


def test_energy_of_another_table():
    assert cost_of(linear(10, 100), torch.ones(1, 10), EnergyTable(ac=0.1, mac=3.2, source="int32")).energy_pj == pytest.approx(
        100
    )


def test_ternary_input_accumulates():
    assert cost_of(linear(2, 2), torch.tensor([[1.0, -1.0]])).binary_input
    assert not cost_of(linear(2, 2), torch.tensor([[1.0, 2.0]])).binary_input


def test_costs_come_in_call_order():
    view = model_view(jelly(), noise(4, 2, 6))
    rows = costs(view, measure(view, [spikes(4, 2, 6)], {Need.INPUT_COUNT}))
    assert [row.name for row in rows] == ["0", "2"]
    assert [row.operations for row in rows] == [4 * 30, 4 * 15]


def test_costs_follow_the_weights_of_now():
    view = model_view(jelly(), noise(4, 2, 6))
    stats = measure(view, [spikes(4, 2, 6)], {Need.INPUT_COUNT})
    with torch.no_grad():
        view.layers[0].weight.zero_()
    cost = layer_cost(view.layers[0], stats)
    assert (cost.nonzero, cost.synops_effective, cost.energy_pj) == (0, 0, 0)
    assert cost.synops_dense > 0


def test_borders_count_the_synapses_that_exist():
    module = nn.Conv1d(1, 1, 3, padding=1)
    nn.init.ones_(module.weight)
    found = Layer("conv", module, Layout.STEP)
    # Three inputs under a kernel of three: the ends are seen twice, the middle three times.
    for position, fan_out in enumerate((2, 3, 2)):
        count = torch.zeros(1, 1, 3, dtype=torch.double)
        count[0, 0, position] = 1
        assert synops(found, count, torch.ones(1, 1, 3, dtype=torch.double)) == fan_out


@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_wrapped_borders_count_every_position(mode):
    module = layer.Conv2d(2, 3, 3, padding=1, padding_mode=mode)
    assert cost_of(lively(module), torch.ones(1, 2, 4, 4)).operations == 4 * 4 * 3 * 2 * 9


def counted(module, x):
    """Count the pairs of an input and an output that a weight joins: the derivatives of a sample's outputs that are not zero."""
    derivative = torch.autograd.functional.jacobian(lambda one: module(one).flatten(), x)
    return int((derivative != 0).sum())


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1, bias=False), (1, 2, 5, 4)),
        (nn.Conv2d(2, 3, 3, bias=False), (1, 2, 5, 4)),
        (nn.Conv2d(2, 3, 3, padding=1, stride=2, bias=False), (1, 2, 5, 5)),
        (nn.Conv2d(4, 6, (3, 2), padding=(1, 0), groups=2, bias=False), (1, 4, 4, 5)),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False), (1, 4, 6, 6)),
        (nn.Conv1d(2, 2, 5, padding=2, bias=False), (1, 2, 3)),
        (nn.Linear(4, 5, bias=False), (1, 4)),
    ],
)
def test_connectivity_counts_every_synapse_once(module, shape):
    x, weight = torch.ones(shape), module.weight
    with torch.no_grad():
        weight.copy_(0.5 + noise(*weight.shape))
    synapses = counted(module, x)
    with torch.no_grad():
        weight[noise(*weight.shape, seed=1) < 0.4] = 0.0
    view = model_view(module, x, spiking=False)
    found = connectivity(view, measure(view, [x], {Need.INPUT_COUNT}))
    alive = int((weight != 0).sum())
    assert 0 < alive < weight.numel()
    assert found == Connectivity(weight.numel(), alive, synapses, counted(module, x))
    assert (found.by_weight, found.unrolled) == (alive / weight.numel(), found.alive / synapses)


def test_connectivity_adds_layers_and_does_not_depend_on_what_was_seen():
    view = model_view(jelly(), noise(4, 2, 6))
    with torch.no_grad():
        view.layers[0].weight[0] = 0.0
    seen, silent = (connectivity(view, measure(view, [x], {Need.INPUT_COUNT})) for x in (spikes(4, 2, 6), torch.zeros(4, 2, 6)))
    assert seen == silent == Connectivity(45, 39, 45, 39)
