"""How many timesteps does your network need? Measure every truncation in one pass, then run fewer.

python examples/fewer_timesteps.py
"""

import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import data
from spikeprune.zoo import SpikingMLP

torch.manual_seed(0)
sample = data.load("fashion-sample")
train = list(zip((sample.train.x / 255).split(100), sample.train.y.split(100), strict=True))
test = list(zip((sample.test.x / 255).split(500), sample.test.y.split(500), strict=True))

net = SpikingMLP((784, 100, 10), timesteps=10)
view = sp.model_view(net, train[0][0])
optimizer = torch.optim.Adam(net.parameters(), 2e-3)
for _ in range(3):
    for x, y in train:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()

course = sp.temporal.course(view, test)
print(f"readout {course.readout}, {course.samples} samples")
for t, (right, energy) in enumerate(zip(course.accuracy, course.energy_pj, strict=True), start=1):
    print(f"after {t:2d} timesteps: accuracy {right:.1%}, {energy / 1000:.1f} nJ a sample")

paper, ours = course.paper_decision, course.decision
print(f"the paper's KL test keeps {paper.term} of {paper.timesteps} (it can never keep all); sample by sample: {ours.steps}")

short = sp.temporal.truncate(view, 6)
with short.undisturbed(), torch.no_grad():
    right = sum(int((short(x).argmax(1) == y).sum()) for x, y in test) / 1000
print(f"truncated to {short.timesteps} timesteps: accuracy {right:.1%}")

readout = sp.temporal.find_readout(view)
answers = [sp.temporal.early_exit(view, x[:1], 0.7, readout=readout) for x in test[0][0].split(1)[:100]]
took = torch.cat([steps for _, steps in answers]).double().mean()
right = sum(int(out.argmax(1) == y) for (out, _), y in zip(answers, test[0][1], strict=False))
print(f"early exit at confidence 0.7, one image at a time: {took:.1f} timesteps on average, {right} of 100 right")
