"""Train a small network, prune it, and run it natively: the same answers, how much faster, and in how small a file.

python examples/compile_network.py
"""

import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import data, zoo

torch.manual_seed(0)
torch.set_num_threads(1)
sample = data.load("fashion-sample")


def batches(part, size):
    x = F.pad(part.x.float() / 255, (2, 2, 2, 2))  # 28 x 28 to 32 x 32
    return list(zip(x.split(size), part.y.split(size), strict=True))


train, test = batches(sample.train, 32), batches(sample.test, 250)
net = zoo.make("vgg9", image=(1, 32, 32), width=1 / 8, timesteps=2, coding="direct")
view = sp.model_view(net, train[0][0])
optimizer = torch.optim.Adam(net.parameters(), 3e-3)


def epoch(rows):
    net.train()
    for x, y in rows:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()
    net.eval()


def accuracy(run):
    with torch.no_grad():
        return sum(int((run(x).argmax(1) == y).sum()) for x, y in test) / 1000


def milliseconds(run, x, rounds=9):
    def once():
        start = time.process_time()
        run(x)
        return (time.process_time() - start) * 1000

    with torch.no_grad():
        once()
        return statistics.median(once() for _ in range(rounds))


epoch(train)
masks = sp.prune(view, sp.methods.Magnitude(allocation=sp.allocate.lamp), 0.9)
with sp.hold(optimizer, view, masks):
    epoch(train[:80])
print(f"eager: accuracy {accuracy(net):.1%}")

x = test[0][0][:16]
for bits in (None, 8, 4):
    engine = sp.compile(view, x, bits=bits)
    sp.save_engine("net.engine", engine)
    size = Path("net.engine").stat().st_size
    ratio = milliseconds(net, x) / milliseconds(engine, x)
    print(
        f"{bits or 'float32'} bits: accuracy {accuracy(engine):.1%}, {ratio:.1f} times faster at batch 16, {size:,} bytes in a file"
    )
dense = 4 * sum(p.numel() for p in net.parameters())
print(f"the network itself: {dense:,} bytes of parameters")
print(engine.explain())

again = sp.load_engine("net.engine")
print(f"loaded without the network: accuracy {accuracy(again):.1%}")
