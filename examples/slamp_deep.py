"""A small VGG from the zoo, pruned by SLAMP in stages while it trains on; the gains of its layers, and what it costs.

python examples/slamp_deep.py
"""

import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import data, methods, schedules, zoo

torch.manual_seed(0)
net = zoo.make("vgg9", image=(1, 28, 28), width=1 / 16, timesteps=2, coding="direct", neuron=zoo.Neuron("lif"))
sample = data.load("fashion-sample")
train = list(zip((sample.train.x / 255).split(100), sample.train.y.split(100), strict=True))
test = list(zip((sample.test.x / 255).split(100), sample.test.y.split(100), strict=True))
view = sp.model_view(net, train[0][0])


def accuracy():
    net.eval()
    with torch.no_grad():
        return sum(int((view(x).argmax(1) == y).sum()) for x, y in test) / len(sample.test)


slamp = methods.SLAMP()
optimizer = torch.optim.Adam(net.parameters(), 3e-3)
stages = schedules.staircase({100: 0.5, 125: 0.75, 150: 0.9})
pruner = sp.Pruner(view, slamp, stages, calibration=train[:2], loss_fn=F.cross_entropy).attach(optimizer)
for epoch in range(4):
    net.train()
    for x, y in train:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()
        pruner.step()
    print(f"epoch {epoch}: pruned to {pruner.masks.sparsity if pruner.masks else 0:.0%}, accuracy {accuracy():.1%}")

print(f"{sp.recalibrate(view, train)} norms measured anew: {accuracy():.1%}\n")
stats = sp.measure(view, train[:2], slamp.needs, loss_fn=F.cross_entropy)
for layer in view.layers:
    gain = slamp.gains([layer], stats)[layer.name]
    print(f"{layer.name:>6}: gain^2 {gain:.2f}, density {pruner.masks[layer.name].double().mean():.1%}")
print(sp.profile(view, test).to_markdown())
