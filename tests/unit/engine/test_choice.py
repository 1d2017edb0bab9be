"""Which kernels a layer is measured on: the best by their laws, and what these say of layers where they once were far off."""

import pytest
import torch

from spikeprune.engine.attempt import _worth_trying
from spikeprune.engine.kernels import KERNELS, Layer, Work
from spikeprune.runtime.neurons import Neurons


@pytest.mark.parametrize(
    ("laws", "tried"),
    [
        ({"b": 2.9, "a": 1.0}, ["a", "b"]),
        ({"b": 3.1, "a": 1.0}, ["a"]),
        ({"c": 1.7, "b": 1.5, "a": 1.0}, ["a", "b", "c"]),
        ({"c": 1.8, "b": 1.5, "a": 1.0}, ["a", "b"]),
        ({"d": 1.1, "c": 1.1, "b": 1.1, "a": 1.0}, ["a", "d", "c"]),
    ],
)
def test_the_second_best_may_be_further_from_the_best_than_the_third(laws, tried):
    assert _worth_trying(laws) == tried


def linear(outputs, inputs):
    weight = torch.ones(outputs, inputs, dtype=torch.int8)
    return Layer(weight, torch.ones(outputs), torch.zeros(outputs), Neurons.alike(outputs, decay=0.5, threshold=1.0, reset=1.0))


@pytest.mark.parametrize("samples", [1, 16, 64])
def test_a_classifier_is_not_tried_on_scatter_whose_lists_cost_more_than_all_else(samples):
    layer, work = linear(10, 512), Work(samples, timesteps=4, places=1, rate=0.12)
    laws = {name: kernel.predicted(layer, work) for name, kernel in KERNELS.items() if not kernel.refuses(layer)}
    assert laws["scatter"] > 3 * laws["event rows"]
    assert "scatter" not in _worth_trying(laws)


def test_lists_of_maps_are_not_counted_as_those_of_a_linear_layer():
    weight = torch.ones(64, 64, 1, 1, dtype=torch.int8)
    layer = Layer(weight, torch.ones(64), torch.zeros(64), Neurons.alike(64, decay=0.5, threshold=1.0, reset=1.0))
    work = Work(1, timesteps=4, places=1, rate=0.12)
    flat = linear(64, 64)
    assert KERNELS["scatter"].predicted(layer, work) < KERNELS["scatter"].predicted(flat, work)
