"""Folding norms: which can be, that nothing else changes, and what is refused."""

import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from channel_nets import HalfBare, Joined, Leaky, Residual, awake, bare, jelly
from same_spikes import doubled, heard
from small_nets import noise, spikes
from spikeprune import model_view
from spikeprune.errors import ModelError, QuantizeError
from spikeprune.kernel.quantize import exact_step
from spikeprune.quantize import fold_norms, fold_steps, foldable, quantize_
from spikeprune.zoo import make

IMAGES = spikes(3, 4, 2, 4, 4)
NETS = {
    "jelly m": (jelly, IMAGES, None, {"1": "0", "4": "3"}),
    "jelly s": (lambda: jelly("s"), IMAGES, lambda net, x: torch.stack([net(step) for step in x]), {"1": "0", "4": "3"}),
    "residual": (Residual, IMAGES, None, {"norm1": "conv1", "norm2": "conv2", "norm3": "conv3"}),
    "half bare": (HalfBare, IMAGES, None, {"norm1": "conv1"}),
    "joined": (Joined, IMAGES, None, {}),
    "bare": (bare, IMAGES, None, {}),
    "leaky": (Leaky, spikes(3, 4, 7), None, {"norm1": "fc1", "norm2": "fc2"}),
}


def viewed(name):
    make_net, x, forward, _ = NETS[name]
    return model_view(make_net(), x, forward=forward)


@pytest.mark.parametrize("name", NETS)
def test_norms_that_follow_one_layer_alone_are_found(name):
    assert foldable(viewed(name)) == NETS[name][3]


@pytest.mark.parametrize("name", NETS)
def test_spikes_and_outputs_stay(name):
    view, (_, x, forward, pairs) = viewed(name), NETS[name]
    before = copy.deepcopy(view.net.state_dict())
    small = fold_norms(view)
    x = torch.cat([x, spikes(*x.shape, seed=5)], 1)
    dense, out = heard(doubled(view.net), x.double(), view.neurons, forward)
    folded, other = heard(doubled(small), x.double(), view.neurons, forward)
    torch.testing.assert_close(out, other, rtol=0, atol=1e-5)  # folded weights are float32
    assert all(torch.equal(dense[neuron], folded[neuron]) for neuron in view.neurons)
    assert sum(int(fired.sum()) for fired in dense.values()) > 0
    assert all(type(small.get_submodule(norm)) is nn.Identity for norm in pairs)
    assert all(small.get_submodule(layer).bias is not None for layer in pairs.values())
    assert all(torch.equal(value, before[key]) for key, value in view.net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for net in (view.net, small) for m in net.modules())


def test_factors_by_hand():
    net = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2, eps=1.0))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0], [3.0]]))
        net[0].bias.copy_(torch.tensor([1.0, 0.0]))
        net[1].weight.copy_(torch.tensor([4.0, -2.0]))
        net[1].bias.copy_(torch.tensor([0.5, 0.0]))
        net[1].running_mean.copy_(torch.tensor([3.0, 0.0]))
        net[1].running_var.copy_(torch.tensor([3.0, 0.0]))
    small = fold_norms(model_view(net, torch.ones(2, 1), spiking=False))
    assert small[0].weight.tolist() == [[4.0], [-6.0]]  # 4 / sqrt(3 + 1) = 2; -2 / sqrt(0 + 1)
    assert small[0].bias.tolist() == [(1 - 3) * 2 + 0.5, 0.0]


def test_a_norm_without_gain_is_folded_too():
    net = nn.Sequential(nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2, affine=False), nn.ReLU())
    net[1].running_mean += 0.3
    view = model_view(net.eval(), noise(4, 3), spiking=False)
    torch.testing.assert_close(fold_norms(view)(noise(4, 3)), net(noise(4, 3)))
    assert foldable(view) == {"1": "0"}


class Reads(nn.Module):
    """A layer and a norm, and between them what `way` does."""

    def __init__(self, way):
        super().__init__()
        self.way, self.fc, self.norm, self.out = way, nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)
        self.side = nn.Linear(3, 2)
        awake(self)

    def forward(self, x):
        return self.way(self, self.fc(x))


WAYS = {
    "reshaped": (lambda net, y: net.out(net.norm(y.view(2, -1, 3).flatten(0, 1))), True),
    "asked for its shape": (lambda net, y: net.out(net.norm(y[: y.shape[0] - y.dim() + 2])), True),
    "also read by a function": (lambda net, y: net.out(net.norm(y)) + y.mean(), False),
    "also read before": (lambda net, y: (y + 1, net.out(net.norm(y)))[1], False),
    "also read by a layer": (lambda net, y: net.out(net.norm(y)) + net.side(y), False),
    "also returned": (lambda net, y: (net.norm(y), y), False),
    "looked at": (lambda net, y: net.norm(y) if y[0, 0].item() < 100 else y, False),
    "rectified": (lambda net, y: net.out(net.norm(torch.relu(y))), False),
    "rectified in place": (lambda net, y: net.out(net.norm(torch.nn.functional.relu(y, inplace=True))), False),
    "added to in place": (lambda net, y: net.out(net.norm(y.add_(1))), False),
    "scaled by an operator": (lambda net, y: net.out(net.norm(y * 2)), False),
    "normed twice": (lambda net, y: net.norm(net.norm(y)), False),
    "added": (lambda net, y: net.norm(y + net.fc.bias), False),
}


@pytest.mark.parametrize("way", WAYS)
def test_alone_means_alone(way):
    act, alone = WAYS[way]
    view = model_view(Reads(act), noise(4, 3), spiking=False)
    assert foldable(view) == ({"norm": "fc"} if alone else {})
    fold_norms(view)


def test_a_norm_a_timestep_stays():
    class EachStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norms, self.lif = nn.Linear(3, 4), nn.ModuleList(nn.BatchNorm1d(4) for _ in range(3)), neuron.IFNode()
            awake(self)

        def forward(self, x):
            return torch.stack([self.lif(norm(self.fc(step))) for norm, step in zip(self.norms, x, strict=True)])

    assert foldable(model_view(EachStep(), spikes(3, 2, 3))) == {}


def test_a_norm_that_learns_from_each_batch_is_refused():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(QuantizeError, match=r"norm '1' keeps no running statistics.*into layer '0'.*track_running_stats=True"):
        fold_norms(model_view(net, noise(4, 3), spiking=False))


class Squared(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x).square()


class Across(nn.Module):
    """A norm over the second of three axes, where there are as many rows as channels."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        awake(self)

    def forward(self, x):
        return self.norm(self.fc(x))


@pytest.mark.parametrize(
    ("net", "x"),
    [(nn.Sequential(nn.Linear(3, 2), Squared(2)), noise(4, 3)), (Across(), noise(4, 3, 3))],
    ids=["squared", "across"],
)
def test_norms_that_do_something_else_are_refused(net, x):
    with pytest.raises(QuantizeError, match=r"outputs differ by .* in float64"):
        fold_norms(model_view(net, x, spiking=False))


def test_what_is_no_view_is_refused():
    with pytest.raises(ModelError, match="a view is needed"):
        fold_norms(jelly())


def test_containers_are_seen_through():
    net = nn.Sequential(layer.SeqToANNContainer(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), neuron.LIFNode(step_mode="m"))
    assert foldable(model_view(awake(net), IMAGES)) == {"0.1": "0.0"}


def test_pre_activation_norms_stay():
    view = model_view(make("preact_resnet18", width=1 / 16, timesteps=2), noise(2, 3, 32, 32))
    found = foldable(view)
    assert found
    assert all((norm.endswith("norm2") and taker.endswith("conv1")) for norm, taker in found.items())
    assert "norm1" not in found


def test_steps_of_a_quantized_network_follow_its_norms():
    view = model_view(jelly(), IMAGES)
    view.net[1].weight.data[1] *= -1
    view.net[4].weight.data[2] = 0
    quantization = quantize_(view, 4)
    folded = fold_steps(quantization, view)
    small = fold_norms(view)
    floats = small[0].weight.detach().clone()
    folded.apply_(small)
    torch.testing.assert_close(small[0].weight, floats, rtol=2**-16, atol=0)
    scale = (view.net[1].weight / (view.net[1].running_var + view.net[1].eps).sqrt()).detach()
    assert folded["0"].step.shape == (5,)
    torch.testing.assert_close(folded["0"].step, quantization["0"].step * scale.abs(), rtol=2**-16, atol=0)
    assert torch.equal(exact_step(folded["0"].step), folded["0"].step)
    assert torch.equal(folded["0"].integers[1], -quantization["0"].integers[1])
    assert torch.equal(folded["0"].integers[[0, 2, 3, 4]], quantization["0"].integers[[0, 2, 3, 4]])
    assert not folded["3"].integers[2].any()
    assert folded["7"] is quantization["7"]


def test_folding_a_network_in_step_mode_m_leaves_its_state_alone():
    view = viewed("jelly m")
    functional.reset_net(view.net)
    fold_norms(view)
    assert all(module.v == 0.0 for module in view.neurons.values())
