"""What packing N:M weights costs and saves, and on a GPU what 2:4 products are worth against dense ones of the same precision.

    pytest benchmarks/bench_packing.py -m slow -s              packing, on the CPU (make bench too)
    pytest benchmarks/bench_packing.py -m "slow and gpu" -s    products, on a CUDA device of capability 8.0 or more

Packing is timed in CPU seconds on one thread. Products are bfloat16 of both contestants, in one run, in rounds whose order turns; a ratio is
that of two times of one round. A convolution is timed against cuDNN's, channels innermost, and against the same patches times the dense
matrix, which tells what the patches cost. Random weights and spikes. Whether 2:4 pays is what is measured: no ratio is asserted. Writes
results/packing.json.
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
from spikeprune.kernel.packing import pack, unpack
from spikeprune.runtime import semi_structured

SHAPE, PATTERNS = (512, 512, 3, 3), [(1, 2), (2, 4), (1, 4), (4, 8), (8, 16), (16, 32)]
ROUNDS, CALLS, SEED, RATE = 15, 20, 0, 0.1
MAPS = [
    (rows, size, size) for rows in (256, 4096, 16384) for size in (512, 1024, 4096)
]  # samples times timesteps, inputs, outputs
CONVOLUTIONS = [(256, 128, 16), (256, 256, 8), (256, 512, 4)]  # samples times timesteps, channels in and out, height and width
TARGET = Path(__file__).parent.parent / "results" / "packing.json"


def pruned(shape, pattern):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
    alive = pattern.select(weight.abs(), pattern.count(weight))
    return weight * alive, alive


def spikes(*shape):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(SEED)) < RATE).to("cuda", torch.bfloat16)


def publish(part, result, **facts):
    """Write one part of the results beside the other."""
    known = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": sp.__version__}
    known[part] = {**result, **facts, "seed": SEED, "versions": versions}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(known, indent=2) + "\n")
    print(json.dumps({part: known[part]}, indent=2))


def least_seconds(run):
    times = []
    for _ in range(5):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return round(min(times), 4)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_packing_a_large_convolution_takes_well_under_a_second():
    rows = []
    for n, m in PATTERNS:
        pattern = sp.patterns.NM(n, m)
        weight, alive = pruned(SHAPE, pattern)
        values, indices = pack(weight, alive, pattern)
        assert torch.equal(unpack(values, indices, weight.shape, m), weight)
        size = values.numel() * 4 + indices.numel()
        seconds = {
            "pack_seconds": least_seconds(lambda w=weight, a=alive, p=pattern: pack(w, a, p)),
            "unpack_seconds": least_seconds(lambda v=values, i=indices, m=m: unpack(v, i, torch.Size(SHAPE), m)),
        }
        rows.append({"pattern": f"{n}:{m}", "bytes": size, "of_dense": round(size / (4 * weight.numel()), 4), **seconds})
    what = f"CPU seconds, the least of 5, and bytes of a float32 weight {SHAPE} and its indices"
    command = "pytest benchmarks/bench_packing.py -m slow -s"
    publish("packing", {"what": what, "rows": rows}, command=command, threads=1, machine=platform.machine())
    assert max(row["pack_seconds"] for row in rows) < 1


def milliseconds(contestants):
    """Time each once a round, in an order that turns, after three rounds that do not count."""
    times = {name: [] for name in contestants}
    names = list(contestants)
    for i in range(ROUNDS + 3):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(CALLS):
                contestants[name]()
            end.record()
            torch.cuda.synchronize()
            if i >= 3:
                times[name].append(start.elapsed_time(end) / CALLS)
    return times


def ratio(slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def row(contestants, **facts):
    """Check that all contestants give the same, and time them."""
    found = {name: run().float() for name, run in contestants.items()}
    for name, output in found.items():
        gap = (output - found["dense"]).abs().max() / found["dense"].abs().max()
        assert gap <= 2**-7, (name, gap, facts)  # a rounding to bfloat16 or two
    times = milliseconds(contestants)
    others = {f"{name}_over_sparse": ratio(times[name], times["sparse"]) for name in contestants if name != "sparse"}
    made = {**facts, "milliseconds": {name: round(statistics.median(values), 4) for name, values in times.items()}, **others}
    print(made)
    return made


def weight_on_gpu(*shape):
    weight = pruned(shape, sp.patterns.NM(2, 4))[0].to("cuda", torch.bfloat16)
    return weight, semi_structured.compress(weight)


def device():
    major, minor = torch.cuda.get_device_capability()
    return {"device": torch.cuda.get_device_name(), "capability": f"{major}.{minor}", "cuda": torch.version.cuda}


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
COMMAND = 'pytest benchmarks/bench_packing.py -m "slow and gpu" -s'


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs_cuda
def test_linear_maps_against_dense_ones():
    rows = []
    for batch, inputs, outputs in MAPS:
        (weight, sparse), x = weight_on_gpu(outputs, inputs), spikes(batch, inputs)
        contestants = {
            "dense": lambda x=x, w=weight: F.linear(x, w),
            "sparse": lambda x=x, s=sparse: semi_structured.linear(x, s),
        }
        with torch.no_grad():
            rows.append(row(contestants, rows=batch, inputs=inputs, outputs=outputs))
    what = "milliseconds of x @ W' in bfloat16: torch's dense product over the 2:4 one"
    publish("linear", {"what": what, "rounds": ROUNDS, "rows": rows}, command=COMMAND, **device())
    assert len(rows) == len(MAPS)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs_cuda
def test_convolutions_against_dense_ones(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    rows = []
    for batch, channels, side in CONVOLUTIONS:
        weight, sparse = weight_on_gpu(channels, channels, 3, 3)
        x = spikes(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
        filter_, dense = weight.contiguous(memory_format=torch.channels_last), semi_structured.matrix_of(weight)
        same = semi_structured.SemiStructured(dense, None, weight.shape)
        contestants = {
            "dense": lambda x=x, w=filter_: F.conv2d(x, w, padding=1),
            "dense_patches": lambda x=x, s=same: semi_structured.convolution(x, s, padding=1),
            "sparse": lambda x=x, s=sparse: semi_structured.convolution(x, s, padding=1),
        }
        with torch.no_grad():
            rows.append(row(contestants, samples=batch, channels=channels, side=side, kernel=3))
    what = "milliseconds of a 3x3 convolution in bfloat16: cuDNN's, and patches times the dense matrix, over patches times the 2:4 one"
    publish("convolution", {"what": what, "rounds": ROUNDS, "rows": rows}, command=COMMAND, **device())
    assert len(rows) == len(CONVOLUTIONS)
