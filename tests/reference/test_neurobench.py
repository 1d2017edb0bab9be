"""Counts equal those of NeuroBench, an independent implementation.

NeuroBench takes data batch first, (N, T, ...), divides by the size of its first axis, judges AC or MAC call by call, and
removes the hooks of a model when an earlier Benchmark of it is collected; hence a model wrapper for each run.
"""

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from small_nets import lively, noise, spikes
from spikeprune.report import profile
from spikeprune.view.model_view import model_view

pytest.importorskip("neurobench", reason="NeuroBench is the oracle of these counts; install spikeprune[test]")

from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import SNNTorchModel, TorchModel

T, SAMPLES = 5, 7


class Driven(nn.Sequential):
    """snnTorch, one timestep a call; the last neuron gives spikes and membrane, as NeuroBench expects."""

    def reset(self):
        for module in self:
            if isinstance(module, snntorch.SpikingNeuron):
                module.reset_mem()


def lif(**options):
    return snntorch.Leaky(beta=0.9, init_hidden=True, **options)


def mlp():
    return lively(Driven(nn.Linear(12, 20), lif(), nn.Linear(20, 10), lif(), nn.Linear(10, 4), lif(output=True)))


def conv():
    return lively(
        Driven(
            nn.Conv2d(2, 6, 3, padding=1), lif(), nn.AvgPool2d(2),
            nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2), lif(), nn.Flatten(),
            nn.Linear(16, 4), lif(output=True),
        )
    )  # fmt: skip


def sparse(net, sparsity):
    """Zero the smallest weights of every layer."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                dead = int(module.weight.numel() * sparsity)
                module.weight.flatten()[module.weight.abs().flatten().argsort()[:dead]] = 0.0
    return net


def driven(net, x):
    """Call for each timestep of (N, T, ...)."""
    return torch.stack([net(x[:, t])[0] for t in range(x.shape[1])])


class SequenceModel(TorchModel):
    """A SpikingJelly model of step mode m, (T, N, ...), under data of (N, T, ...)."""

    def __call__(self, batch):
        functional.reset_net(self.net)
        return self.net(batch.transpose(0, 1)).mean(0)


def bench(model, loader):
    return Benchmark(model, loader, [], [], [[ConnectionSparsity], [SynapticOperations]]).run(quiet=True)


def assert_agree(report, theirs):
    operations = theirs["SynapticOperations"]
    assert report.macs == pytest.approx(operations["Effective_MACs"], rel=1e-12)
    assert report.acs == pytest.approx(operations["Effective_ACs"], rel=1e-12)
    assert report.operations == pytest.approx(operations["Dense"], rel=1e-12)
    assert round(1 - report.density, 4) == pytest.approx(theirs["ConnectionSparsity"], abs=1e-12)


@pytest.mark.parametrize("sparsity", [0.0, 0.89])
@pytest.mark.parametrize("draw", [spikes, noise], ids=["spikes", "real values"])
@pytest.mark.parametrize(("make", "shape"), [(mlp, (12,)), (conv, (2, 8, 8))], ids=["mlp", "conv"])
def test_snntorch(make, shape, draw, sparsity):
    net = sparse(make(), sparsity).eval()
    data = draw(SAMPLES, T, *shape)
    loader = DataLoader(TensorDataset(data, torch.zeros(SAMPLES)), batch_size=3)  # 3, 3 and 1
    report = profile(model_view(net, data[:3], forward=driven), loader)
    assert report.samples == SAMPLES
    assert report.acs > 0
    assert_agree(report, bench(SNNTorchModel(net), loader))


@pytest.mark.parametrize("sparsity", [0.0, 0.89])
def test_spikingjelly(sparsity):
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), neuron.LIFNode(tau=2.0), layer.Flatten(), layer.Linear(100, 10), neuron.IFNode(), nn.Linear(10, 3)
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    net = sparse(lively(net), sparsity).eval()
    data = spikes(SAMPLES, T, 2, 5, 5)
    loader = DataLoader(TensorDataset(data, torch.zeros(SAMPLES)), batch_size=3)
    report = profile(model_view(net, data[:3], forward=lambda net, x: net(x.transpose(0, 1))), loader)
    assert report.acs > 0
    assert_agree(report, bench(SequenceModel(net), loader))
