"""What a second thread gains, where outputs or samples may be shared: against one thread, and against torch on two.

    make bench      (or: pytest benchmarks/bench_threads.py -m slow -s)

Time on the wall, in rounds whose order turns; a ratio is that of two times of one round. VGG11 of full width on 1x32x32, T = 4, weights
drawn and pruned by magnitude layer by layer, 12 % of what a layer reads fires, 8 bit. Writes results/threads.json.
"""

import json
import os
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path

import pytest
import torch

import spikeprune as sp
from spikeprune.bench.folded import Folded
from spikeprune.bench.networks import Network, untrained
from spikeprune.engine import compile, make_plan

ROUNDS, SEED, THREADS, RATE = 9, 0, 2, 0.12
SECONDS = 0.2  # of calls in a row, as of an engine in use: a processor that slept is awake after the first
TARGET = Path(__file__).parent.parent / "results" / "threads.json"


def seconds(contestants):
    """Time each for a while in every round, in an order that turns, after one round that does not count."""
    times, names = {name: [] for name in contestants}, list(contestants)
    for i in range(ROUNDS + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            calls, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < SECONDS:
                contestants[name]()
                calls += 1
            if i:
                times[name].append(spent / calls)
    return times


def ratio(slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


@torch.no_grad()
def result(sparsity, samples):
    view, _ = untrained(Network("vgg", timesteps=4, sparsity=sparsity, rate=RATE, seed=SEED))
    x = torch.rand(samples, 1, 32, 32, generator=torch.Generator().manual_seed(SEED))
    ours = {threads: compile(view, x, bits=8, threads=threads) for threads in (1, THREADS)}
    assert torch.equal(ours[1](x), ours[THREADS](x))
    folded = Folded(make_plan(view)).eval()

    def on(threads, call):
        def run():
            torch.set_num_threads(threads)
            call(x)

        return run

    peers = {f"torch folded, {THREADS} threads": on(THREADS, folded), "one thread": on(1, ours[1])}
    times = seconds(peers | {"ours": on(THREADS, ours[THREADS])})
    told = [line for line in ours[THREADS].explain().splitlines() if "samples at a time" in line]
    found = {"milliseconds": {name: round(1000 * statistics.median(values), 3) for name, values in times.items()}}
    return found | {f"{name} over ours": ratio(times[name], times["ours"]) for name in peers} | {"measured at compile time": told}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif((os.cpu_count() or 1) < THREADS, reason="there is one processor")
def test_a_second_thread_is_worth_having():
    found = {f"{sparsity:.0%}, batch {n}": result(sparsity, n) for sparsity in (0.0, 0.9) for n in (1, 16)}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": sp.__version__}
    about = {
        "command": "pytest benchmarks/bench_threads.py -m slow -s",
        "seed": SEED,
        "threads": THREADS,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "versions": versions | {"llvmlite": metadata.version("llvmlite")},
    }
    TARGET.write_text(json.dumps(about | found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    for name, numbers in found.items():  # one image may be over before a second processor is awake; then one thread must be kept
        assert numbers["one thread over ours"]["median"] >= (0.85 if name.endswith("batch 1") else 1.2)
