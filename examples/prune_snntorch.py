"""Your own snnTorch network and your own loop: train, prune in stages while training goes on, measure, save.

python examples/prune_snntorch.py
"""

import snntorch as snn
import torch
import torch.nn.functional as F
from torch import nn

import spikeprune as sp
from spikeprune import data

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(784, 100), snn.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(100, 10), snn.Leaky(beta=0.9)

    def forward(self, x):
        m1, m2, count = self.lif1.reset_mem(), self.lif2.reset_mem(), 0
        for _ in range(8):
            s1, m1 = self.lif1(self.fc1(x), m1)
            s2, m2 = self.lif2(self.fc2(s1), m2)
            count = count + s2
        return count


sample = data.load("fashion-sample")
train = list(zip((sample.train.x.flatten(1) / 255).split(100), sample.train.y.split(100), strict=True))
test = list(zip((sample.test.x.flatten(1) / 255).split(100), sample.test.y.split(100), strict=True))

net = Net()
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
view = sp.model_view(net, train[0][0])
print(f"{view.timesteps} timesteps, layers {[layer.name for layer in view.layers]}")


def epoch(step=lambda: None):
    for x, y in train:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()
        step()


def accuracy():
    with torch.no_grad():
        return sum(int((view(x).argmax(1) == y).sum()) for x, y in test) / len(sample.test)


for _ in range(3):
    epoch()
print(f"dense: {accuracy():.1%}")

schedule = sp.schedules.stages([0.5, 0.8, 0.9], every=len(train))
pruner = sp.Pruner(view, sp.methods.CQP(alpha=0.5), schedule, calibration=train[:4], loss_fn=F.cross_entropy).attach(optimizer)
for _ in range(3):
    epoch(pruner.step)
print(f"pruned to {pruner.masks.sparsity:.1%}: {accuracy():.1%}\n")
print(sp.profile(view, test).to_markdown())

sp.save("pruned.safetensors", net, pruner.masks)
again, masks = sp.load("pruned.safetensors", Net())
assert masks.kept == pruner.masks.kept
