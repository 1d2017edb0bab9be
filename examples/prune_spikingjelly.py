"""A SpikingJelly convolutional network, multi-step, pruned in one shot and held at zero while it is fine-tuned.

python examples/prune_spikingjelly.py
"""

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

import spikeprune as sp
from spikeprune import data

torch.manual_seed(0)


def lif():
    return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=True)


net = nn.Sequential(
    layer.Conv2d(1, 8, 3, stride=2, padding=1), layer.BatchNorm2d(8), lif(),
    layer.Conv2d(8, 16, 3, stride=2, padding=1), layer.BatchNorm2d(16), lif(),
    layer.Flatten(), layer.Linear(16 * 7 * 7, 10),
)  # fmt: skip
functional.set_step_mode(net, "m")


def forward(net, x):
    """Images (N, 1, 28, 28), the same at each of four timesteps, to mean outputs (N, 10)."""
    return net(x.expand(4, *x.shape)).mean(0)


sample = data.load("fashion-sample")
train = list(zip((sample.train.x / 255).split(100), sample.train.y.split(100), strict=True))
test = list(zip((sample.test.x / 255).split(100), sample.test.y.split(100), strict=True))
view = sp.model_view(net, train[0][0], forward=forward)


def epoch(optimizer):
    net.train()
    for x, y in train:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()
    net.eval()


def accuracy():
    with torch.no_grad():
        return sum(int((view(x).argmax(1) == y).sum()) for x, y in test) / len(sample.test)


optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
for _ in range(3):
    epoch(optimizer)
print(f"dense: {accuracy():.1%}")

masks = sp.prune(view, sp.methods.Magnitude(allocation=sp.allocate.lamp), 0.8)
print(f"pruned to {masks.sparsity:.0%} in one shot: {accuracy():.1%}")
with sp.hold(optimizer, view, masks):
    epoch(optimizer)
print(f"after one epoch of fine-tuning: {accuracy():.1%}\n")
print(sp.profile(view, test).to_markdown())
