"""Prune whole channels while you train, by SCA, then cut them out: a plain, smaller network that emits the same spikes.

python examples/shrink_channels.py
"""

import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import data, zoo

torch.manual_seed(0)
sample = data.load("fashion-sample")


def batches(part, size):
    x = F.pad(part.x.float() / 255, (2, 2, 2, 2))  # 28 x 28 to 32 x 32
    return list(zip(x.split(size), part.y.split(size), strict=True))


train, test = batches(sample.train, 32), batches(sample.test, 250)
net = zoo.make("vgg9", image=(1, 32, 32), width=1 / 16, timesteps=2, coding="direct")
view = sp.model_view(net, train[0][0])
print(view.explain().splitlines()[0])


def accuracy(view):
    with view.undisturbed(), torch.no_grad():
        return sum(int((view(x).argmax(1) == y).sum()) for x, y in test) / 1000


epochs, steps = 4, len(train)
optimizer = torch.optim.Adam(net.parameters(), 5e-3)
method = sp.methods.SCA(regrow=0.1, stop=2 * steps)  # none comes back in the last two epochs
pruner = sp.Pruner(
    view,
    method,
    sp.schedules.every(0.5, steps // 2, start=steps // 2, stop=2 * steps),
    calibration=train[:4],
    loss_fn=F.cross_entropy,
).attach(optimizer)
for epoch in range(epochs):
    for x, y in train:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()
        pruner.step()
    kept = [int(mask.flatten(1).any(1).sum()) for mask in pruner.masks.values()]
    print(f"epoch {epoch + 1}: accuracy {accuracy(view):.1%}, channels {kept or 'all'}")

sp.recalibrate(view, train[:20])
small = sp.shrink(view, pruner.masks, calibration=train[:1])  # compared with the silenced network before it is returned
smaller = sp.model_view(small, train[0][0])
weights = [sum(p.numel() for p in model.parameters()) for model in (net, small)]
print(f"shrunk from {weights[0]:,} to {weights[1]:,} parameters, accuracy {accuracy(view):.1%} and {accuracy(smaller):.1%}")
print(sp.profile(smaller, test[:1]).to_markdown())

sp.save("small.safetensors", small, plan=sp.plan_shrink(view, pruner.masks))
fresh = zoo.make("vgg9", image=(1, 32, 32), width=1 / 16, timesteps=2, coding="direct")
loaded, _ = sp.load("small.safetensors", fresh)  # a network of the old form is made smaller, then filled
print(f"loaded: accuracy {accuracy(sp.model_view(loaded, train[0][0])):.1%}")
