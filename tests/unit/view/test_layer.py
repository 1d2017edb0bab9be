"""A layer's weight applied as the layer applies it, and where time and batch lie."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import jelly, noise
from spikeprune.errors import LayoutError, ModelError
from spikeprune.view.layer import Layer, Layout, apply_synapses
from spikeprune.view.model_view import model_view

SYNAPSES = {
    "linear": (lambda: nn.Linear(4, 3), (4,)),
    "linear without bias": (lambda: nn.Linear(4, 3, bias=False), (4,)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (2, 5, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 2)), (2, 3, 4, 5)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (4, 5, 5)),
    "stride": (lambda: nn.Conv2d(2, 3, 3, stride=(2, 1)), (2, 6, 6)),
    "dilation": (lambda: nn.Conv2d(2, 3, 3, dilation=2, padding=2), (2, 6, 6)),
    "same": (lambda: nn.Conv2d(2, 3, (5, 3), padding="same"), (2, 6, 6)),
    "same, circular": (lambda: nn.Conv2d(2, 3, (4, 3), padding="same", padding_mode="circular"), (2, 6, 6)),
    "valid, reflect": (lambda: nn.Conv2d(2, 3, 3, padding="valid", padding_mode="reflect"), (2, 6, 6)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="circular"), (2, 5, 6)),
    "reflect": (lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="reflect"), (2, 6)),
    "replicate": (lambda: nn.Conv3d(1, 2, 3, padding=1, padding_mode="replicate"), (1, 3, 4, 5)),
}


@pytest.mark.parametrize(("make", "shape"), SYNAPSES.values(), ids=SYNAPSES)
def test_synapses_are_applied_as_by_the_layer(make, shape):
    torch.manual_seed(0)
    module = make()
    x = noise(2, *shape)
    expected = module(x)
    assert torch.equal(apply_synapses(module, x, module.weight, module.bias), expected)
    stacked = apply_synapses(module, torch.stack([x, 2 * x]), module.weight, module.bias)
    torch.testing.assert_close(stacked, torch.stack([expected, module(2 * x)]))


@pytest.mark.parametrize(("make", "shape"), SYNAPSES.values(), ids=SYNAPSES)
def test_every_kind_of_layer_is_viewed(make, shape):
    torch.manual_seed(0)
    view = model_view(nn.Sequential(make(), neuron.IFNode()), noise(2, *shape))
    (found,) = view.layers
    assert (found.name, found.layout) == ("0", Layout.STEP)
    assert found.kind == type(view.net[0]).__name__
    assert found.weight is view.net[0].weight


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_frameworks_subclass_has_the_plain_kind(mode):
    net = nn.Sequential(layer.Conv2d(1, 2, 3), neuron.IFNode(), layer.Flatten(), layer.Linear(18, 2), neuron.IFNode())
    functional.set_step_mode(net, mode)
    view = model_view(net, noise(2, 1, 5, 5) if mode == "s" else noise(4, 2, 1, 5, 5))
    assert [found.kind for found in view.layers] == ["Conv2d", "Linear"]
    assert view.layers[0].layout is (Layout.STEP if mode == "s" else Layout.SEQUENCE)


def test_time_comes_first_in_every_layout():
    x = noise(4, 2, 6)
    module = nn.Linear(6, 3)
    sequence, folded = Layer("fc", module, Layout.SEQUENCE), Layer("fc", module, Layout.FOLDED)
    step, once = Layer("fc", module, Layout.STEP), Layer("fc", module, Layout.ONCE)
    assert torch.equal(sequence.by_timestep(x, 4), x)
    assert torch.equal(folded.by_timestep(x.flatten(0, 1), 4), x)
    assert torch.equal(step.by_timestep(x[1], 4), x[1:2])
    assert torch.equal(once.by_timestep(x[1], 4), x[1:2])


def test_rows_that_are_no_multiple_of_the_timesteps():
    with pytest.raises(LayoutError, match=r"'fc' was given 7 rows, not a multiple of its 4 timesteps.* View the model again"):
        Layer("fc", nn.Linear(6, 3), Layout.FOLDED).by_timestep(noise(7, 6), 4)


def test_a_weight_parametrized_after_the_view():
    view = model_view(jelly(), noise(4, 2, 6))
    nn.utils.parametrizations.orthogonal(view.net[0])
    with pytest.raises(ModelError, match="weight of layer '0' is no longer a plain parameter"):
        _ = view.layers[0].weight
