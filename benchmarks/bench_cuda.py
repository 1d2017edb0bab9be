"""What the engine of GPUs is worth there: against the network in eager torch, and its neurons against a scan in torch.

    pytest benchmarks/bench_cuda.py -m "slow and gpu" -s     on a CUDA device

Milliseconds between CUDA events, in one run, in rounds whose order turns; a ratio is that of two times of one round. Networks of the
zoo with SpikingJelly's neurons, which pick its kernels by themselves, in eager torch as they are; all have the same precision. The
peer to beat is the engine's own plan as torch modules, timesteps in the batch, under torch.compile with CUDA graphs. Random data and weights: dense layers do not mind. No ratio is asserted.
Writes results/cuda.json.
"""

import json
import platform
import statistics
from pathlib import Path

import pytest
import torch

import spikeprune as sp
from spikeprune import model_view, zoo
from spikeprune.bench.folded import Folded
from spikeprune.engine import compile
from spikeprune.engine import plan as p
from spikeprune.engine.cuda import CudaEngine
from spikeprune.engine.reference import Reference

ROUNDS, CALLS, SEED, WARM = 15, 10, 0, 3
NETWORKS = [("vgg11", (3, 32, 32)), ("sew_resnet18", (3, 32, 32))]
BATCHES = (1, 16, 128)
NEURONS = [(4, 128, 64, 32, 32), (32, 16, 64, 32, 32)]  # T, samples, channels, height, width
TARGET = Path(__file__).parent.parent / "results" / "cuda.json"
COMMAND = 'pytest benchmarks/bench_cuda.py -m "slow and gpu" -s'

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def milliseconds(contestants):
    """Time each once a round, in an order that turns, after some rounds that do not count."""
    times, names = {name: [] for name in contestants}, list(contestants)
    for i in range(ROUNDS + WARM):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(CALLS):
                contestants[name]()
            end.record()
            end.synchronize()
            if i >= WARM:
                times[name].append(start.elapsed_time(end) / CALLS)
    return times


def row(contestants, **facts):
    with torch.no_grad():
        times = milliseconds(contestants)
    ratios = {}
    for name in contestants:
        if name != "engine":
            found = [a / b for a, b in zip(times[name], times["engine"], strict=True)]
            ratios[f"{name}_over_engine"] = {
                k: round(f(found), 3) for k, f in (("median", statistics.median), ("min", min), ("max", max))
            }
    made = {**facts, "milliseconds": {name: round(statistics.median(found), 4) for name, found in times.items()}, **ratios}
    print(made)
    return made


def publish(part, what, rows):
    known = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": sp.__version__}
    device = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    known[part] = {"what": what, "rounds": ROUNDS, "rows": rows, "command": COMMAND, "seed": SEED, "versions": versions, **device}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(known, indent=2) + "\n")


def draw(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(SEED))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "image"), NETWORKS)
def test_networks_against_eager_torch(name, image, dtype):
    torch.manual_seed(SEED)
    net = zoo.make(name, classes=10, image=image, timesteps=4, coding="direct").eval()
    view, rows = model_view(net, draw(2, *image)), []
    for samples in BATCHES:
        x = draw(samples, *image).cuda()
        engine = compile(view, draw(samples, *image), device="cuda", dtype=dtype)
        agreement = engine.agreement(x)
        without = CudaEngine(engine.plan, engine.device, dtype)
        without.no_graphs = "asked for"
        eager, given = zoo.make(name, classes=10, image=image, timesteps=4, coding="direct").eval(), x.to(dtype)
        eager.load_state_dict(net.state_dict())
        eager.to("cuda", dtype)
        fast = torch.compile(Folded(engine.plan).to("cuda", dtype), mode="reduce-overhead")
        contestants = {
            "eager": lambda e=eager, x=given: e(x),
            "compiled": lambda e=fast, x=given: e(x),
            "engine_without_graph": lambda e=without, x=x: e(x),
            "engine": lambda e=engine, x=x: e(x),
        }
        facts = {
            "difference": agreement.difference,
            "flipped": agreement.flipped,
            "neurons": engine._dense.torch_neurons or "Triton",
        }
        rows.append(row(contestants, samples=samples, graph=engine.no_graphs or samples <= 16, **facts))
    publish(f"{name} {str(dtype)[6:]}", f"{name}, {image}, T = 4, inference", rows)
    assert len(rows) == len(BATCHES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_neurons_against_a_scan_in_torch(dtype):
    rows = []
    for steps, samples, *shape in NEURONS:
        one, zero = p.constant(1.0), p.constant(0.0)
        ways = {"strict": False, "reset": "hard", "delayed": False, "reset_to": zero, "rest": zero, "start": zero}
        cell = p.Neuron(
            inputs=(0,), shape=tuple(shape), over_time=True, name="n", decay=p.constant(0.5), gain=one, threshold=one, **ways
        )
        given = p.Input(inputs=(), shape=tuple(shape), over_time=True, time_axis=0)
        plan = p.Plan((given, cell), outputs=(1,), timesteps=steps)
        x = 2 * draw(steps, samples, *shape).to("cuda", dtype)
        engine, scan = CudaEngine(plan, torch.device("cuda", 0), dtype), Reference(plan, dtype, "cuda")
        assert engine._dense.torch_neurons == "", engine.explain()
        found = engine._dense.run(x, {1})[1]
        assert dtype != torch.float32 or torch.equal(found, scan(x))
        contestants = {"torch": lambda s=scan, x=x: s(x), "engine": lambda e=engine, x=x: e._dense.run(x, {1})}
        rows.append(row(contestants, timesteps=steps, neurons=x[0].numel()))
    publish(f"neurons {str(dtype)[6:]}", "forward of LIF neurons, all timesteps", rows)
    assert len(rows) == len(NEURONS)


@pytest.mark.parametrize("size", [1024, 4096])
def test_2_4_layers_in_a_network_end_to_end(size):
    """Of linear layers alone, where 2:4 can pay at all; each engine chose by the clock."""
    rows = []
    for samples in (64, 1024):
        torch.manual_seed(SEED)
        net = zoo.SpikingMLP((size, size, size, 10), timesteps=4).eval()
        x = draw(samples, size)
        dense = compile(model_view(net, x), device="cuda", dtype=torch.bfloat16)
        view = model_view(net, x)
        sp.prune(view, sp.methods.Magnitude(pattern=sp.patterns.NM(2, 4)))
        sparse = compile(view, device="cuda", dtype=torch.bfloat16)
        layers = {choice.name: {"runs": choice.kernel, **choice.measured} for choice in sparse.choices if choice.measured}
        given = x.cuda()
        contestants = {"dense": lambda e=dense, x=given: e(x), "engine": lambda e=sparse, x=given: e(x)}
        rows.append(row(contestants, samples=samples, size=size, layers=layers))
    publish(f"2:4 {size}", "spiking MLP, T = 4, bfloat16: the dense engine over that of the network pruned 2:4", rows)
    assert len(rows) == 2
