"""What holding costs: an epoch on MNIST under a Pruner against the same loop without spikeprune, in turns.

    make bench      (or: pytest benchmarks/test_overhead.py -m slow -s)

Full MNIST must be at hand or downloadable; see docs/guides/data.md. Writes results/overhead.json.
"""

import json
import platform
import statistics
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import data
from spikeprune.zoo import SpikingMLP

PAIRS, BATCH, SEED = 7, 128, 0
TARGET = Path(__file__).parent.parent / "results" / "overhead.json"


def make(batches):
    torch.manual_seed(SEED)
    net = SpikingMLP((784, 256, 128, 10))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    return net, optimizer, sp.model_view(net, batches[0][0])


def plain(net, optimizer, batches):
    start = time.perf_counter()
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return time.perf_counter() - start


def held(view, optimizer, pruner, batches):
    start = time.perf_counter()
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(view(x), y).backward()
        optimizer.step()
        pruner.step()
    return time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_epoch_under_a_pruner_is_at_most_a_tenth_slower():
    images = data.load("mnist").train
    x = images.x.flatten(1).float() / 255
    batches = list(zip(x.split(BATCH), images.y.split(BATCH), strict=True))
    calibration = list(zip(x[:4096].split(512), images.y[:4096].split(512), strict=True))
    net, free, _ = make(batches)
    _, optimizer, view = make(batches)
    schedule = sp.schedules.once(0.9)
    pruner = sp.Pruner(view, sp.methods.CQP(), schedule, calibration=calibration, loss_fn=F.cross_entropy).attach(optimizer)
    plain(net, free, batches[:50])
    sp.measure(view, calibration[:1], {sp.Need.WEIGHT_GRADIENT}, loss_fn=F.cross_entropy)
    start = time.perf_counter()
    assert pruner.step()
    update = time.perf_counter() - start
    assert pruner.masks.sparsity == pytest.approx(0.9, abs=1e-5)

    held(view, optimizer, pruner, batches[:50])
    pairs = []
    for i in range(PAIRS):  # in turns, the order changing, so that a drift of the machine hits both
        if i % 2:
            b = held(view, optimizer, pruner, batches)
            a = plain(net, free, batches)
        else:
            a = plain(net, free, batches)
            b = held(view, optimizer, pruner, batches)
        pairs.append((a, b))
    ratios = [b / a for a, b in pairs]
    with_update = [(b + update) / a for a, b in pairs]
    result = {
        "what": "seconds of one epoch on 60,000 MNIST images, batch 128, LIF MLP 784-256-128-10, T = 10, Adam; in turns",
        "command": "pytest benchmarks/test_overhead.py -m slow -s",
        "plain_seconds": [round(a, 3) for a, _ in pairs],
        "held_seconds": [round(b, 3) for _, b in pairs],
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "one_cqp_update_seconds": round(update, 3),
        "ratio_with_one_cqp_update_an_epoch": statistics.median(with_update),
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": sp.__version__},
    }
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    assert result["ratio"]["median"] <= 1.1
