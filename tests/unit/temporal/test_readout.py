"""Which module is the readout, how its outputs make the model's, and what is refused."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from nets_over_time import NETS, N, T, batch, viewed
from small_nets import Loop, assert_same, jelly, lively, noise, photograph, spikes
from spikeprune.errors import ModelError, NonFinite
from spikeprune.temporal import find_readout
from spikeprune.view.layer import Layout
from spikeprune.view.model_view import model_view

LAYOUTS = {"jelly m": Layout.SEQUENCE, "told m": Layout.SEQUENCE, "both": Layout.SEQUENCE, "folded": Layout.FOLDED}


@pytest.mark.parametrize("name", NETS)
def test_found_by_default_and_by_name(name):
    view = viewed(name)
    for found in (find_readout(view), find_readout(view, NETS[name][3])):
        assert (found.name, found.timesteps) == (NETS[name][3], T)
        assert found.layout is LAYOUTS.get(name, Layout.STEP)
        assert found.scale == (1 / T if name == "mean" else 1)


def test_the_model_is_left_as_found():
    view = viewed("loop")
    view(batch("loop"))
    before = photograph(view.net)
    find_readout(view)
    assert_same(before, photograph(view.net))


class Voting(nn.Module):
    """Neurons vote behind the last neuron: the readout is neither layer nor neuron, once a step or once for all."""

    def __init__(self, mode):
        super().__init__()
        self.fc, self.lif, self.vote = nn.Linear(6, 6), neuron.IFNode(step_mode=mode), nn.AvgPool1d(2, 2)
        self.mode = mode
        lively(self)

    def forward(self, x):
        if self.mode == "m":
            return self.vote(self.lif(self.fc(x))).sum(0)
        if self.mode == "s":
            return sum(self.vote(self.lif(self.fc(step))) for step in x)
        raise AssertionError


@pytest.mark.parametrize(("mode", "layout"), [("s", Layout.STEP), ("m", Layout.SEQUENCE)])
def test_any_module_by_name(mode, layout):
    view = model_view(Voting(mode), spikes(T, N, 6))
    with pytest.raises(ModelError, match="is not the sum or mean"):
        find_readout(view)
    found = find_readout(view, "vote")
    assert (found.layout, found.scale) == (layout, 1)


def test_axes_behind_the_channels_are_flattened():
    net = nn.Sequential(layer.Conv2d(2, 3, 2), neuron.IFNode())
    functional.set_step_mode(lively(net), "m")
    view = model_view(net, spikes(T, N, 2, 2, 2))
    found = find_readout(view)
    assert found.by_timestep(view(spikes(T, N, 2, 2, 2))).shape == (T, N, 3)


def test_an_ordinary_network_is_one_timestep():
    found = find_readout(model_view(nn.Sequential(nn.Linear(4, 2)), noise(3, 4), spiking=False))
    assert (found.name, found.layout, found.scale) == ("0", Layout.STEP, 1)


def test_zeros_leave_the_scale_open():
    view = model_view(viewed("mean").net, torch.zeros(T, N, 6))
    found = find_readout(view)
    assert found.scale is None
    assert found.scale_of(torch.ones(T, N, 3), torch.ones(N, 3)) == 1 / T


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [2, 10, 100])
def test_rounding_is_allowed_for_and_the_mean_told_from_the_sum(dtype, steps):
    net = jelly()
    found = find_readout(model_view(net, spikes(steps, N, 6)))
    heard = torch.randn(steps, N, 3, generator=torch.Generator().manual_seed(0)).add(1).to(dtype)
    total = heard[0]
    for step in heard[1:]:
        total = total + step  # rounds at each addition
    assert found.scale_of(heard, total) == 1
    assert found.scale_of(heard, total / steps) == 1 / steps
    assert found.scale_of(heard, heard) == 1


class After(nn.Module):
    """Something done to the summed spikes afterwards."""

    def __init__(self, after):
        super().__init__()
        self.net, self.after = jelly(), after

    def forward(self, x):
        return self.after(self.net(x))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (lambda x: x.sum(0) / 10, "differs by up to"),
        (lambda x: x.sum(0).log_softmax(1), "differs by up to"),
        (lambda x: x.cumsum(0), "differs by up to"),
        (lambda x: x.sum((0, 1)), r"of shape \(3,\), what the readout gives of shape \(4, 3, 3\)"),
        (lambda x: (x, x), "The output is a tuple"),
    ],
    ids=["scaled", "log-softmax", "running", "no batch", "tuple"],
)
def test_what_is_no_sum_is_refused(after, told):
    with pytest.raises(ModelError, match=r"is not the sum or mean over its 4 timesteps of readout 'net\.3'") as caught:
        find_readout(model_view(After(after), spikes(T, N, 6)))
    assert caught.match(told)
    assert caught.match("readout='...'")


def test_a_layer_called_once_is_no_readout():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.fc, self.fc0 = neuron.IFNode(step_mode="m"), nn.Linear(5, 3), layer.Linear(6, 5, step_mode="m")
            lively(self)

        def forward(self, x):
            return self.fc(self.lif(self.fc0(x)).mean(0))

    with pytest.raises(
        ModelError, match=r"readout 'fc' was called 1 times and gave \(3, 3\), which is not one output for each of the 4"
    ):
        find_readout(model_view(Once(), spikes(T, N, 6)))


def test_unknown_and_uncalled_names():
    net = Loop()
    net.spare = nn.Identity()
    view = model_view(net, spikes(T, N, 6))
    with pytest.raises(ModelError, match=r"no module 'lif22' for a readout\. Did you mean 'lif2'"):
        find_readout(view, "lif22")
    with pytest.raises(ModelError, match="readout 'spare' was not called"):
        find_readout(view, "spare")
    with pytest.raises(ModelError, match="not the sum or mean"):
        find_readout(view, "lif1")
    with pytest.raises(ModelError, match="a view is needed"):
        find_readout(net)


def test_outputs_that_are_not_finite():
    view = viewed("membrane")
    found = find_readout(view)
    heard = torch.ones(T, N, 3)
    heard[1, 1, 1] = torch.nan
    with pytest.raises(NonFinite, match="1 of 36 outputs of layer 'fc2'"):
        found.scale_of(heard, heard.sum(0))
    with pytest.raises(NonFinite, match=r"9 of 9 outputs of layer '\(model\)'"):
        found.scale_of(torch.ones(T, N, 3), torch.full((N, 3), torch.inf))
