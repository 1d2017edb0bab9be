"""What cannot be balanced is refused, with the name of the neuron, and the network is left as it was."""

import pytest
import snntorch
import torch
from spikingjelly.activation_based import neuron
from torch import nn

import spikeprune as sp
from small_nets import assert_same, hooks, jelly, noise, photograph, stack
from spikeprune import zoo
from spikeprune.balance import balance_
from spikeprune.errors import EmptyCalibration, MeasureError, ModelError, NonFinite, QuantizeError


class Identity(nn.Module):
    """Adds what it is given to the current of its second layer."""

    def __init__(self):
        super().__init__()
        self.one, self.two = stack([[2.0, 0.0], [0.0, 2.0]]), stack([[1.0, 0.5], [0.5, 1.0]])

    def forward(self, x):
        x = self.one(x)
        return self.two[1](self.two[0](x) + x)


def test_a_current_that_does_not_scale_is_refused_and_the_network_left_as_it_was():
    net, x = Identity(), torch.ones(4, 2, 2)
    view, before = sp.model_view(net, x), photograph(net)
    with pytest.raises(QuantizeError, match=r"neuron 'two\.1' does not scale .* should be 1 now, but is 1\.\d.*identity"):
        balance_(view, [x])
    assert_same(before, photograph(net))


def test_currents_added_before_a_neuron_with_an_identity_are_refused_with_its_name():
    torch.manual_seed(0)
    options = {"image": (3, 8, 8), "width": 1 / 32, "timesteps": 4, "neuron": zoo.Neuron("if", threshold=0.5, reset="soft")}
    net = zoo.make("resnet18", **options).eval()
    with pytest.raises(QuantizeError, match=r"neuron 'block1_1\.neuron2' does not scale"):
        balance_(sp.model_view(net, noise(4, 3, 8, 8)), [noise(4, 3, 8, 8)], percentile=99)


class Late(nn.Module):
    """Calls the second layer before the first neuron."""

    def __init__(self):
        super().__init__()
        self.one, self.two = stack([[2.0]]), stack([[3.0]])

    def forward(self, x):
        late = self.two[0](x)
        return torch.cat([self.one[1](self.one[0](x)), self.two[1](late)], dim=2)


class Twice(nn.Module):
    """A neuron behind a neuron, with no layer between."""

    def __init__(self):
        super().__init__()
        self.one, self.two = stack([[2.0]]), neuron.IFNode(v_reset=None, step_mode="m")

    def forward(self, x):
        return self.two(self.one(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Late, r"layer 'two\.0' is called before neuron 'one\.1', but its channels were not seen to reach it"),
        (Twice, "no layer is called between neuron 'two' and the one before"),
        (lambda: stack([[-1.0]]), r"percentile of the current of neuron '1' is 0: 4 of 4"),
        (lambda: stack([[1.0]], make=lambda: neuron.IFNode(v_reset=0.25)), r"neuron '1' rests at 0\.25"),
        (lambda: stack([[1.0]], make=lambda: neuron.IFNode(v_threshold=0.0)), r"threshold of 0\.0"),
    ],
)
def test_what_cannot_be_balanced_is_told_by_name(make, message):
    net, x = make(), torch.ones(4, 1, 1)
    view, before = sp.model_view(net, x), photograph(net)
    with pytest.raises(QuantizeError, match=message):
        balance_(view, [x])
    assert_same(before, photograph(net))
    assert hooks(net) == 0


def test_a_neuron_with_several_thresholds_is_refused():
    net = nn.Sequential(nn.Linear(2, 2), snntorch.Leaky(beta=0.9, init_hidden=True, threshold=torch.tensor([1.0, 2.0])))
    view = sp.model_view(net, torch.ones(1, 2))
    with pytest.raises(QuantizeError, match="neuron '1' has 2 thresholds"):
        balance_(view, [torch.ones(1, 2)])


def test_neurons_of_unknown_dynamics_are_refused():
    net = jelly(make=lambda: neuron.QIFNode())
    with pytest.raises(MeasureError, match="neuron '1': the threshold of a QIFNode neuron is not known"):
        balance_(sp.model_view(net, noise(4, 2, 6)), [noise(4, 2, 6)])
    net = nn.Sequential(nn.Linear(2, 2), snntorch.Lapicque(beta=0.9, init_hidden=True))
    with pytest.raises(MeasureError, match="threshold of a Lapicque neuron is not known"):
        balance_(sp.model_view(net, torch.ones(1, 2)), [torch.ones(1, 2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 0}, "percentile is 0"), ({"percentile": "99.9"}, "percentile is '99.9'"), ({"scale": True}, "is True"), ({"percentile": 100.1}, r"percentile is 100\.1"), ({"percentile": float("nan")}, "percentile is nan"),
        ({"scale": 0.0}, r"scale of the thresholds is 0\.0"), ({"scale": -1}, "is -1"), ({"scale": float("inf")}, "is inf"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options, message):
    net, x = stack([[1.0]]), torch.ones(4, 1, 1)
    with pytest.raises(QuantizeError, match=message):
        balance_(sp.model_view(net, x), [x], **options)


def test_batches_and_networks_that_are_none_are_refused():
    net, x = stack([[1.0]]), torch.ones(4, 1, 1)
    view = sp.model_view(net, x)
    with pytest.raises(EmptyCalibration, match="no batch to balance on"):
        balance_(view, [])
    with pytest.raises(EmptyCalibration, match="no sample"):
        balance_(view, [x[:, :0]])
    with pytest.raises(MeasureError, match="one batch in place of batches"):
        balance_(view, x)
    with pytest.raises(ModelError, match="a view is needed"):
        balance_(net, [x])
    with pytest.raises(NonFinite, match="current of neuron '1'"):
        balance_(view, [x * torch.inf])
    ann = zoo.make("vgg9", width=1 / 32, timesteps=1, coding="direct", neuron=zoo.Neuron("relu"))
    with pytest.raises(QuantizeError, match=r"no spiking neurons.*not its ANN twin"):
        balance_(sp.model_view(ann, noise(1, 3, 32, 32), spiking=False), [noise(1, 3, 32, 32)])
    assert net[0].weight.item() == 1.0
