"""Networks that give their output in every way that time allows."""

import snntorch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import Loop, jelly, lively, noise, spikes, unroll
from spikeprune.view.model_view import model_view
from spikeprune.zoo import SpikingMLP

T, N = 4, 3


class Mean(Loop):
    """The mean over time in place of the sequence."""

    def forward(self, x):
        return super().forward(x).mean(0)


class Membrane(nn.Module):
    """A readout that does not spike: the last layer's currents are added up; counts its calls."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1, self.fc2 = nn.Linear(6, 5), snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(5, 3)
        lively(self)

    def forward(self, x):
        return sum(self.fc2(self.lif1(self.fc1(step))) for step in x)


class Told(nn.Module):
    """SpikingJelly with an attribute T: an image (N, 6) repeated T times, in step mode s or m."""

    def __init__(self, mode="m"):
        super().__init__()
        self.T, self.mode = T, mode
        self.net = jelly(mode)

    def forward(self, x):
        if self.mode == "m":
            return self.net(x.repeat(self.T, 1, 1)).sum(0)
        return sum(self.net(x) for _ in range(self.T))


class Both(nn.Module):
    """Takes (T, N, 6) and folds it by its own attribute, so that neither alone will do."""

    def __init__(self):
        super().__init__()
        self.num_steps = T
        self.fc, self.lif = nn.Linear(6, 3), neuron.IFNode(step_mode="m")
        lively(self)

    def forward(self, x):
        return self.lif(self.fc(x.flatten(0, 1)).reshape(self.num_steps, -1, 3)).sum(0)


def mlp():
    return lively(SpikingMLP((6, 5, 3), timesteps=T), seed=1)


def folded():
    """A last layer that does not spike and sees time folded into the batch."""
    net = lively(nn.Sequential(layer.Linear(6, 5), neuron.IFNode(), layer.SeqToANNContainer(nn.Linear(5, 3))))
    functional.set_step_mode(net, "m")
    return net


# Name: how to make it, whether time comes first in its input, its forward, its readout
NETS = {
    "loop": (Loop, True, None, "lif2"),
    "mean": (Mean, True, None, "lif2"),
    "mlp": (mlp, False, None, "lif2"),
    "jelly s": (lambda: jelly("s"), True, unroll, "3"),
    "jelly m": (jelly, True, None, "3"),
    "told s": (lambda: Told("s"), False, None, "net.3"),
    "told m": (Told, False, None, "net.3"),
    "both": (Both, True, None, "lif"),
    "membrane": (Membrane, True, None, "fc2"),
    "folded": (folded, True, None, "2.0"),
}


def batch(name, samples=N, seed=0):
    return spikes(T, samples, 6, seed=seed) if NETS[name][1] else noise(samples, 6, seed=seed)


def viewed(name):
    make, _, forward, _ = NETS[name]
    return model_view(make(), batch(name), forward=forward)


def summed(output):
    """A model's output, added up if it is a sequence."""
    return output.sum(0) if output.dim() == 3 else output
