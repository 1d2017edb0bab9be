"""The engine of GPUs, on the CPU: which sizes are graphs, which layers are 2:4, what `compile` gives, what is refused."""

from collections import Counter
from typing import ClassVar

import pytest
import torch
from torch import nn

import spikeprune as sp
from channel_nets import awake
from small_nets import Loop, noise, spikes
from spikeprune import model_view, zoo
from spikeprune.engine import Engine, compile, cuda, cuda_sparse, make_plan
from spikeprune.engine import plan as p
from spikeprune.engine.cuda import CudaEngine, place
from spikeprune.errors import LayoutError, PlanError, QuantizeError
from spikeprune.runtime import semi_structured
from spikeprune.runtime.semi_structured import SemiStructured, matrix_of

CPU, T = torch.device("cpu"), 4
BFLOAT = torch.bfloat16


def deep():
    return awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=T, coding="direct")).eval()


class Recorder:
    """Stands for a CUDA graph."""

    made: ClassVar = Counter()

    def __init__(self, run, x):
        self.run, self.shape = run, x.shape
        Recorder.made[x.shape[0]] += 1

    def __call__(self, x):
        assert x.shape == self.shape
        return [out.clone() for out in self.run(x)]


def captured(monkeypatch, graph=Recorder):
    monkeypatch.setattr(cuda, "Graph", graph)
    Recorder.made.clear()
    x = noise(20, 1, 16, 16)
    plan = make_plan(model_view(deep(), x[:2]))
    engine = CudaEngine(plan, CPU)
    assert "no CUDA graphs: the engine runs on cpu" in engine.explain()
    engine.no_graphs = ""  # as on a GPU
    return engine, x, CudaEngine(plan, CPU)


def test_small_batches_are_captured_and_the_last_sizes_kept(monkeypatch):
    engine, x, plain = captured(monkeypatch)
    assert "batches of up to 16 samples are CUDA graphs" in engine.explain()
    for samples in (1, 2, 3, 4, 1, 5, 16, 17, 20, 1):
        assert torch.equal(engine(x[:samples]), plain(x[:samples]))
    assert Recorder.made == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 16: 1}
    assert list(engine._graphs) == [4, 5, 16, 1]


def test_a_run_that_cannot_be_recorded_goes_on_without(monkeypatch):
    def refuse(run, x):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    engine, x, plain = captured(monkeypatch, refuse)
    assert torch.equal(engine(x[:3]), plain(x[:3]))
    assert "no CUDA graphs: CUDA recorded none (operation not permitted when stream is capturing)" in engine.explain()


def test_networks_functions_are_not_recorded():
    outside = p.Outside(inputs=(0,), shape=(3,), over_time=False, name="sort", call=torch.sort, reason="sort is not known")
    plan = p.Plan((p.Input(inputs=(), shape=(3,), over_time=False, time_axis=None), outside), outputs=(1,), timesteps=1)
    assert cuda._no_graphs(plan, torch.device("cuda", 0)) == "sort runs as the network calls it"
    assert cuda._no_graphs(p.Plan(plan.operations[:1], (0,), 1), torch.device("cuda", 0)) == ""


def sparse_plan(*, biased=True):
    net = nn.Sequential(nn.Linear(6, 5, bias=biased), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        net[0].weight.mul_(torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0]))
    return make_plan(model_view(net, torch.rand(2, 6), spiking=False))


def layered(monkeypatch, dense, sparse):
    """The clock shows these microseconds, and no device is asked for."""
    times = iter((dense, sparse))
    monkeypatch.setattr(cuda_sparse, "microseconds", lambda run: (run(), next(times))[1])

    def plain(weight, bias=None):
        filled = None if bias is None else nn.functional.pad(bias, (0, -len(bias) % semi_structured.ROWS))
        return SemiStructured(matrix_of(weight), filled, weight.shape)

    monkeypatch.setattr(semi_structured, "compress", plain)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("dense", "sparse", "won"), [(3.0, 2.0, "2:4"), (2.0, 3.0, "dense")])
def test_2_4_weights_run_as_such_where_it_is_faster(monkeypatch, biased, dense, sparse, won):
    plan, x = sparse_plan(biased=biased), noise(4, 6)
    assert cuda_sparse.candidates(plan) == [1]
    layered(monkeypatch, dense, sparse)
    trial = cuda_sparse.tried(plan.operations[1], x.to(BFLOAT))
    engine = CudaEngine(plan, CPU, BFLOAT, {1: trial})
    first, last = engine.choices
    assert (first.kernel, first.measured, first.density, last.kernel) == (won, {"dense": dense, "2:4": sparse}, 20 / 30, "dense")
    calls, product = [], semi_structured.linear
    monkeypatch.setattr(semi_structured, "linear", lambda x, weight: (calls.append(weight), product(x, weight))[1])
    torch.testing.assert_close(engine(x), CudaEngine(plan, CPU, BFLOAT)(x), rtol=2**-7, atol=2**-8)
    assert calls == ([trial.sparse] if won == "2:4" else [])


def test_why_2_4_weights_do_not_run_as_such_is_told():
    op = sparse_plan().operations[1]
    assert "pays in half precision only: dtype=torch.bfloat16" in cuda_sparse.tried(op, noise(4, 6)).note
    trial = cuda_sparse.tried(op, noise(4, 6).to(BFLOAT))
    assert trial.note.startswith("no 2:4 product: the weight lies on cpu")
    engine = CudaEngine(sparse_plan(), CPU, BFLOAT, {1: trial})
    assert "no 2:4 product" in engine.explain()


@pytest.fixture
def pretended(monkeypatch):
    """`compile` believes in a GPU; its engine runs on the CPU."""
    tuned = CudaEngine.tuned
    monkeypatch.setattr("spikeprune.engine.compiling.place", lambda device: torch.device("cuda", 0))
    monkeypatch.setattr(CudaEngine, "tuned", staticmethod(lambda plan, x, where, dtype: tuned(plan, x, CPU, dtype)))


@pytest.mark.usefixtures("pretended")
def test_compile_gives_it_and_bits_round_its_weights():
    net, x = deep(), noise(4, 1, 16, 16)
    whole, few = compile(net, x, device="cuda"), compile(net, x, device="cuda", bits=3, dtype=BFLOAT)
    assert isinstance(whole, CudaEngine)
    assert (whole.dtype, few.dtype) == (torch.float32, BFLOAT)
    assert whole.agreement(x).flipped == 0
    weights = [op.weight for op in few.plan.operations if isinstance(op, p.Synapse)]
    assert all(row.unique().numel() <= 7 for weight in weights[1:] for row in weight.flatten(1))
    assert weights[0][0].unique().numel() == 9  # what real numbers are multiplied by stays


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"kernel": "gather"}, PlanError, "kernel is 'gather', but kernels are those of the CPU"),
        ({"threads": 2}, LayoutError, "threads is 2, but a GPU shares no batch"),
        ({"dtype": torch.int8}, PlanError, "dtype is torch.int8, but must be torch.float32, torch.bfloat16 or torch.float16"),
        ({"dtype": "bfloat16"}, PlanError, "dtype is 'bfloat16'"),
        ({"bits": 9}, QuantizeError, "bits is 9"),
    ],
)
def test_options_that_a_gpu_lacks(options, error, told):
    with pytest.raises(error, match=told):
        compile(Loop(), spikes(T, 3, 6), device="cuda", **options)


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("gpu", "device is 'gpu', but must be 'cpu', 'cuda' or 'cuda:' and a number"),
        (None, "device is None"),
        ("meta", "device is 'meta', but engines run on 'cpu' and 'cuda'"),
        ("cuda", "device is 'cuda', but torch .* finds no CUDA device. Install a torch with CUDA .*device='cpu'"),
        (torch.device("cuda", 3), "device is 'cuda:3', but torch"),
    ],
)
def test_devices_that_are_none(monkeypatch, device, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PlanError, match=told):
        compile(Loop(), spikes(T, 3, 6), device=device)


def test_cuda_devices_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert (place("cuda"), place("cuda:0")) == (torch.device("cuda", 1), torch.device("cuda", 0))
    with pytest.raises(PlanError, match="device is 'cuda:2', but there are 2 CUDA devices"):
        place("cuda:2")


def test_the_cpu_is_the_default_and_has_no_other_dtype():
    x = spikes(T, 3, 6)
    assert isinstance(compile(Loop(), x, device=CPU), Engine)
    assert isinstance(sp.compile(Loop(), x), Engine)
    with pytest.raises(PlanError, match=r"dtype is torch.bfloat16, but engines on the CPU are float32"):
        compile(Loop(), x, dtype=BFLOAT)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda e, x: e(x.to("meta")), LayoutError, r"the engine runs on cpu, but was given a tensor on meta; x.to\('cpu'\)"),
        (lambda e, x: e(x[:, :, :5]), LayoutError, r"the plan takes \(T = 4, N, 6\), but was given \(4, 3, 5\)"),
        (lambda e, x: e(x.numpy()), LayoutError, "given ndarray"),
        (lambda e, x: e(x[:, :0]), LayoutError, "given"),
        (lambda e, x: e.step(x[0]), PlanError, "all timesteps at once; for timesteps one by one compile for the CPU"),
        (lambda e, x: e.reset(), PlanError, "keeps nothing between calls"),
    ],
)
def test_what_it_does_not_take(call, error, told):
    x = spikes(T, 3, 6)
    engine = CudaEngine(make_plan(model_view(Loop(), x)), CPU)
    with pytest.raises(error, match=told):
        call(engine, x)
