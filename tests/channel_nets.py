"""Tiny networks whose output channels can be removed, with norms that normalize: drawn gains, shifts and running statistics."""

import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

T, N = 3, 4


def loss_fn(out, y):
    return F.cross_entropy(out.mean(0), y)


def labels(samples=N):
    return torch.arange(samples) % 3


def awake(net, seed=0):
    """Draw weights that make neurons fire, and gains, shifts and running statistics that differ from channel to channel."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return low + (high - low) * torch.rand(like.shape, generator=draw)

    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=draw) if parameter.dim() > 1 else uniform(parameter, -0.3, 0.3)
            parameter.copy_(drawn)
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                module.weight.copy_(uniform(module.weight, 0.6, 1.4))
                module.bias.copy_(uniform(module.bias, 0.2, 0.8))
                module.running_mean.copy_(uniform(module.running_mean, -0.4, 0.4))
                module.running_var.copy_(uniform(module.running_var, 0.5, 2.0))
    return net


def jelly(mode="m", first=neuron.IFNode, second=neuron.LIFNode):
    """SpikingJelly: two normed convolutions of 5 and 6 channels, a readout; (T, N, 2, 4, 4) in."""
    net = nn.Sequential(
        layer.Conv2d(2, 5, 3, padding=1, bias=False),
        layer.BatchNorm2d(5),
        first(),
        layer.Conv2d(5, 6, 3),
        layer.BatchNorm2d(6),
        second(),
        layer.Flatten(),
        layer.Linear(24, 3),
    )
    functional.set_step_mode(net, mode)
    return awake(net)


class Residual(nn.Module):
    """SpikingJelly: spikes of two normed convolutions are added, so that their 5 channels are one family; 4 more follow."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.lif1 = layer.Conv2d(2, 5, 3, padding=1), layer.BatchNorm2d(5), neuron.IFNode()
        self.conv2, self.norm2, self.lif2 = layer.Conv2d(5, 5, 3, padding=1), layer.BatchNorm2d(5), neuron.IFNode()
        self.conv3, self.norm3, self.lif3 = layer.Conv2d(5, 4, 3, bias=False), layer.BatchNorm2d(4), neuron.LIFNode()
        self.flat, self.fc = layer.Flatten(), layer.Linear(16, 3)
        functional.set_step_mode(self, "m")
        awake(self)

    def forward(self, x):
        x = self.lif1(self.norm1(self.conv1(x)))
        x = self.lif2(self.norm2(self.conv2(x))) + x
        return self.fc(self.flat(self.lif3(self.norm3(self.conv3(x)))))


class HalfBare(nn.Module):
    """SpikingJelly: a normed and a bare convolution, with bias, are added before the neuron; one family of 5."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1, self.conv2 = layer.Conv2d(2, 5, 3), layer.BatchNorm2d(5), layer.Conv2d(2, 5, 3)
        self.lif, self.flat, self.fc = neuron.IFNode(), layer.Flatten(), layer.Linear(20, 3)
        functional.set_step_mode(self, "m")
        awake(self)

    def forward(self, x):
        return self.fc(self.flat(self.lif(self.norm1(self.conv1(x)) + self.conv2(x))))


class Joined(nn.Module):
    """SpikingJelly: two convolutions are joined, 2 and 3 channels, then flattened, normed and fired together."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.flat = layer.Conv2d(2, 2, 3), layer.Conv2d(2, 3, 3, bias=False), layer.Flatten()
        self.norm, self.lif, self.fc = nn.BatchNorm1d(20), neuron.LIFNode(), layer.Linear(20, 3)
        functional.set_step_mode(self, "m")
        awake(self)

    def forward(self, x):
        both = self.flat(torch.cat([self.conv1(x), self.conv2(x)], 2))
        return self.fc(self.lif(self.norm(both.flatten(0, 1)).unflatten(0, both.shape[:2])))


def bare(bias=True):
    """SpikingJelly: two convolutions without norms, of 4 and 3 channels."""
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=bias), neuron.IFNode(), layer.Conv2d(4, 3, 3, bias=bias), neuron.LIFNode(),
        layer.Flatten(), layer.Linear(12, 3),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return awake(net)


class Leaky(nn.Module):
    """snnTorch: two normed linear layers of 6 and 5 channels, a readout; loops over (T, N, 7) itself."""

    def __init__(self, **options):
        super().__init__()
        options = {"beta": 0.8, "init_hidden": True, **options}
        self.fc1, self.norm1, self.lif1 = nn.Linear(7, 6), nn.BatchNorm1d(6), snntorch.Leaky(**options)
        self.fc2, self.norm2, self.lif2 = nn.Linear(6, 5), nn.BatchNorm1d(5), snntorch.Leaky(**options)
        self.fc3 = nn.Linear(5, 3)
        awake(self)

    def forward(self, x):
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        return torch.stack([self._step(step) for step in x])

    def _step(self, x):
        x = self.lif1(self.norm1(self.fc1(x)))
        return self.fc3(self.lif2(self.norm2(self.fc2(x))))
