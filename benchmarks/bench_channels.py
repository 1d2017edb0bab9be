"""What cutting channels out is worth in time: the smaller network against the dense one, and against its own ratio of MACs.

    make bench      (or: pytest benchmarks/bench_channels.py -m slow -s)

Eager PyTorch on one thread; CPU seconds of passes in turns, the ratio of each pair. Random weights and data, norms measured: what is timed is
the same whatever the network has learned, but for the neurons, whose time does not depend on their spikes. Writes results/channels.json.
"""

import json
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path

import pytest
import torch

import spikeprune as sp
from spikeprune import zoo

TIMESTEPS, PAIRS, SEED = 4, 5, 0
DENSITIES = (0.7, 0.5, 0.3, 0.1)
BATCHES = (1, 64)
SHARE = 0.7  # of the ratio of MACs
TARGET = Path(__file__).parent.parent / "results" / "channels.json"


def network(width):
    torch.manual_seed(SEED)
    net = zoo.make("vgg11", width=width, timesteps=TIMESTEPS, coding="direct").eval()
    view = sp.model_view(net, torch.rand(8, 3, 32, 32))
    sp.recalibrate(view, [torch.rand(16, 3, 32, 32)])
    return view


def macs(view):
    total = []

    def hook(module, args, out):
        total.append(out.numel() / module.weight.shape[0] * module.weight.numel())

    handles = [layer.module.register_forward_hook(hook) for layer in view.layers]
    with view.undisturbed(), torch.no_grad():
        view(view.example)
    for handle in handles:
        handle.remove()
    return sum(total) / len(view.example)


def seconds(view, x):
    start = time.process_time()
    view(x)
    return time.process_time() - start


def in_turns(dense, small, x):
    with dense.undisturbed(), small.undisturbed(), torch.no_grad():
        for view in (dense, small):
            view(x)
        return [seconds(dense, x) / seconds(small, x) for _ in range(PAIRS)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_smaller_network_is_faster_nearly_as_its_macs_fall():
    torch.set_num_threads(1)
    rows = []
    for width in (0.25, 1.0):
        dense = network(width)
        for density in DENSITIES:
            method = sp.methods.Magnitude(sp.allocate.uniform, sp.patterns.Channel())
            view = dense.clone()
            masks = sp.prune(view, method, 1 - density)
            small = sp.model_view(sp.shrink(view, masks), dense.example)
            ratio = macs(dense) / macs(small)
            for batch in BATCHES:
                pairs = in_turns(dense, small, torch.rand(batch, 3, 32, 32))
                faster = statistics.median(pairs)
                rows.append(
                    {
                        "width": width, "channels": density, "batch": batch, "macs_ratio": round(ratio, 3), "speedup": round(faster, 3),
                        "least": round(min(pairs), 3), "most": round(max(pairs), 3), "of_macs_ratio": round(faster / ratio, 3),
                    }
                )  # fmt: skip
                print(rows[-1])
    facts = {
        "command": "pytest benchmarks/bench_channels.py -m slow -s",
        "what": "vgg11, 3x32x32, T = 4, direct coding, eager; CPU seconds of the dense network over those of the smaller one, in turns",
        "pairs": PAIRS,
        "seed": SEED,
        "versions": {name: metadata.version(name) for name in ("torch", "spikingjelly", "llvmlite")},
        "machine": platform.processor() or platform.machine(),
        "threads": 1,
    }
    TARGET.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    # Below half the channels neurons, norms and pools, whose work falls as the channels and not as their square, take over.
    wide = [row for row in rows if row["width"] == 1.0 and row["batch"] == 64 and row["channels"] >= 0.5]
    assert all(row["of_macs_ratio"] >= SHARE for row in wide), wide
