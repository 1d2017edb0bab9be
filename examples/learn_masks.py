"""Learn which 2 of every 4 weights live while the network trains, fine-tune with what was learned, and pack it.

python examples/learn_masks.py
"""

import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import data, zoo

torch.manual_seed(0)
sample = data.load("fashion-sample")
TWO_OF_FOUR = sp.patterns.NM(2, 4)


def batches(part, size):
    x = F.pad(part.x.float() / 255, (2, 2, 2, 2))  # 28 x 28 to 32 x 32
    return list(zip(x.split(size), part.y.split(size), strict=True))


train, test = batches(sample.train, 32), batches(sample.test, 250)
net = zoo.make("vgg9", image=(1, 32, 32), width=1 / 16, timesteps=2, coding="direct")
view = sp.model_view(net, train[0][0])
optimizer = torch.optim.Adam(net.parameters(), 5e-3)


def epoch():
    for x, y in train:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()


def accuracy():
    with view.undisturbed(), torch.no_grad():
        return sum(int((view(x).argmax(1) == y).sum()) for x, y in test) / 1000


searched = 3
method = sp.methods.SpikeNM(2, 4)
steps = searched * len(train)
with sp.learn_masks(optimizer, view, method, steps, calibration=train[:8], loss_fn=F.cross_entropy) as learning:
    for i in range(searched):
        epoch()
        sure = 1 - learning.learner.entropy()
        print(f"searched {i + 1}: accuracy {accuracy():.1%} with the best masks so far, logits {sure:.0%} sure")

with sp.hold(optimizer, view, learning.masks):  # from here on as with any other masks
    epoch()
sp.recalibrate(view, train[:20])
print(f"fine-tuned: accuracy {accuracy():.1%}")
print(sp.profile(view, test[:1], pattern=TWO_OF_FOUR).to_markdown())

packed = sp.pack_nm(view, TWO_OF_FOUR, masks=learning.masks)
packed.save("packed.safetensors")
dense = sum(view.net.get_submodule(name).weight.numel() * 4 for name in packed)
print(f"packed: {packed.bytes:,} bytes of values and indices, {dense:,} as dense weights")
