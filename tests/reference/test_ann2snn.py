"""Balanced networks beside those of SpikingJelly's own converter, which sets thresholds by the activations of the ANN."""

import copy

import pytest
import torch
from spikingjelly.activation_based import ann2snn, functional, layer, neuron
from torch import nn

import spikeprune as sp
from small_nets import noise
from spikeprune.balance import balance_

SIZES = ((12, 16), (16, 16), (16, 8))


def relus(seed):
    """An ANN of mostly positive weights without biases, as both conversions take it."""
    parts = []
    for i, (n_in, n_out) in enumerate(SIZES):
        linear = nn.Linear(n_in, n_out, bias=False)
        linear.weight.data = noise(n_out, n_in, seed=10 * seed + i) - 0.3
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts)


def balanced(ann, x, timesteps):
    """The ANN on IF neurons, balanced here; its output rates times the product of its thresholds; and its first threshold."""
    parts = []
    for i, (n_in, n_out) in enumerate(SIZES):
        parts += [layer.Linear(n_in, n_out, bias=False, step_mode="m"), neuron.IFNode(v_reset=None, step_mode="m")]
        parts[-2].load_state_dict(ann[2 * i].state_dict())
    net, frames = nn.Sequential(*parts), x.expand(timesteps, *x.shape)
    view = sp.model_view(net, frames)
    found = balance_(view, [frames], percentile=100)
    with torch.no_grad():
        return view(frames).mean(0) * torch.tensor(list(found.values())).prod(), found["1"]


def converted(ann, x, timesteps):
    """The ANN converted by SpikingJelly; its output and its first threshold."""
    recipe = ann2snn.RateCodingRecipe(dataloader=[(x, torch.zeros(len(x)))], mode="Max", momentum=1.0)
    net = ann2snn.Converter(recipe).convert(copy.deepcopy(ann))
    functional.reset_net(net)
    with torch.no_grad():
        return sum(net(x) for _ in range(timesteps)) / timesteps, 1 / float(net.state_dict()["spiking_0.scaler0.scale"])


@pytest.mark.parametrize("seed", [1, 2])
def test_both_approach_the_outputs_of_the_ann(seed):
    ann, x = relus(seed), noise(32, 12, seed=seed)
    activations = ann(x).detach()
    assert (activations > 0).float().mean() > 0.5
    gaps = {}
    for timesteps in (32, 256):
        (ours, threshold), (theirs, other) = balanced(ann, x, timesteps), converted(ann, x, timesteps)
        assert threshold == pytest.approx(other, rel=1e-3)  # the first current is the same at all timesteps
        gaps[timesteps] = [float((out - activations).abs().mean() / activations.max()) for out in (ours, theirs)]
        assert float(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]) > (0.99 if timesteps == 256 else 0.9)
    assert max(gaps[256]) < 0.02, gaps
    assert all(late < early / 4 for early, late in zip(gaps[32], gaps[256], strict=True)), gaps
