"""Fewer channels, fewer timesteps, fewer bits: STPrune's three stages on a small network, and the integers that a chip gets.

python examples/spatio_temporal.py
"""

import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import data, quantize, zoo

torch.manual_seed(0)
sample = data.load("fashion-sample")


def batches(part, size):
    x = F.pad(part.x.float() / 255, (2, 2, 2, 2))  # 28 x 28 to 32 x 32
    return list(zip(x.split(size), part.y.split(size), strict=True))


train, held = batches(sample.train, 32)[:75], batches(sample.train, 32)[75:110]
test = batches(sample.test, 250)


def fit(view, epochs, lr):
    optimizer = torch.optim.Adam(view.net.parameters(), lr)
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            F.cross_entropy(view(x), y).backward()
            optimizer.step()


def accuracy(view, data):
    with view.undisturbed(), torch.no_grad():
        return sum(int((view(x).argmax(1) == y).sum()) for x, y in data) / sum(len(y) for _, y in data)


def tell(what, view):
    weights = sum(p.numel() for p in view.net.parameters())
    report = sp.profile(view, test[:1])
    print(
        f"{what}: accuracy {accuracy(view, test):.1%}, {weights:,} parameters, T = {view.timesteps}, {report.energy_pj / 1000:,.1f} nJ a sample"
    )


net = zoo.make("vgg9", image=(1, 32, 32), width=1 / 16, timesteps=4, coding="direct", neuron=zoo.Neuron())
view = sp.model_view(net, train[0][0])
fit(view, 3, 5e-3)
tell("dense", view)

# Channels: as many as the averaged membrane potential has significant dimensions, drawn anew.
method = sp.methods.STPrune(variance=0.95)
masks = sp.prune(view.clone(), method, calibration=train[:8])
view = sp.model_view(sp.shrink(view, masks, reinit=True), train[0][0])
fit(view, 4, 5e-3)
tell("significant widths", view)

# Timesteps: T falls, each level goes on from the one before, until accuracy on images held out for it has fallen by 3 points.
descent = sp.temporal.Descent(sp.schedules.staircase({0: 4, 1: 2, 2: 1}), epochs=3, budget=0.03)
short = sp.temporal.shorten(
    view, descent, train=lambda view, epoch: fit(view, 1, 1e-3), evaluate=lambda view: accuracy(view, held), calibration=test[:1]
)
print(short.to_markdown())
tell("and fewer timesteps", short.view)

# Bits: norms are folded into the weights, which become a step times integers.
folded = sp.model_view(sp.fold_norms(short.view), train[0][0], forward=short.view.forward)
found = sp.quantize_(folded, bits=5)
tell("and 5 bits", folded)
print(found.describe())
found.save("weights.safetensors")

# What a chip computes: integers in the layers, and the same spikes. Pixels are put onto a grid first.
x = quantize.grid(test[0][0], bits=12)
twin = quantize.integer_twin(folded, found)
with torch.no_grad():
    same = torch.equal(folded.forward(twin, x.double()), folded.forward(folded.net.double().eval(), x.double()))
print(f"integer layers give the same outputs: {same}")
