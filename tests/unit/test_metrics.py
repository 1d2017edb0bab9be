"""Costs of a layer by hand: operations, AC or MAC, energy, density."""

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from small_nets import jelly, lively, noise, spikes
from spikeprune.measure import Need, measure
from spikeprune.metrics import HOROWITZ_45NM, NEEDS, EnergyTable, LayerCost, costs, layer_cost, synops
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
