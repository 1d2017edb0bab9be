"""The engine of GPUs on one: as the reference, as torch, with and without graphs, 2:4 as dense."""

import threading

import pytest
import torch
from torch import nn

import spikeprune as sp
from channel_nets import Joined, Residual, awake
from nets_over_time import NETS, batch
from small_nets import noise, spikes
from spikeprune import model_view, zoo
from spikeprune.engine import compile, make_plan
from spikeprune.engine.cuda import SMALL, CudaEngine
from spikeprune.errors import LayoutError
from spikeprune.runtime import triton_lif

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
T = 4


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch):
    """Convolutions round to 10 bits otherwise, and a spike may flip."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def deep():
    return awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=T, coding="direct")).eval()


def same(engine, x):
    found = engine.agreement(x.cuda())
    assert (found.flipped, found.samples > 0) == (0, True), engine.explain()
    assert found.difference < 1e-4


@pytest.mark.parametrize("name", NETS)
def test_every_way_over_time(name):
    make, _, forward, _ = NETS[name]
    engine = compile(model_view(make(), batch(name, 4), forward=forward), device="cuda")
    same(engine, batch(name, 4))
    same(engine, batch(name, 1, seed=3))
    assert engine.no_graphs == ""


@pytest.mark.parametrize("make", [Residual, Joined])
def test_sums_and_joined_channels(make):
    x = spikes(3, 4, 2, 4, 4)
    same(compile(make(), x, device="cuda"), x)


def test_a_deep_network_in_all_batch_sizes_and_from_a_network_on_the_gpu():
    x = noise(20, 1, 16, 16)
    for engine in (compile(deep(), x[:2], device="cuda"), compile(deep().cuda(), x[:2].cuda(), device="cuda:0")):
        for samples in (1, 3, SMALL, SMALL + 1, 20):
            same(engine, x[:samples])
        assert (engine.no_graphs, list(engine._graphs)) == ("", [1, 3, SMALL])


def test_neurons_by_triton_are_those_by_torch():
    pytest.importorskip("triton")
    x = noise(3, 1, 16, 16)
    engine, plain = (CudaEngine(make_plan(model_view(deep(), x)), torch.device("cuda", 0)) for _ in range(2))
    assert engine._dense.torch_neurons == ""
    plain._dense.torch_neurons = "asked for"
    assert torch.equal(engine(x.cuda()), plain(x.cuda()))
    assert triton_lif.refuses(torch.device("cuda", 0)) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_replayed_graph_gives_what_a_run_gives(dtype):
    x = noise(12, 1, 16, 16).cuda()
    engine, plain = (compile(deep(), x[:3], device="cuda", dtype=dtype) for _ in range(2))
    plain.no_graphs = "asked for"
    kept = []
    for start in (0, 3, 6, 9):
        kept.append((engine(x[start : start + 3]), plain(x[start : start + 3])))
    assert engine._graphs
    assert not plain._graphs
    for ours, wanted in kept:  # what was returned is not overwritten by later calls
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.02)
    assert not torch.equal(kept[0][0], kept[1][0])


def test_calls_on_several_streams_and_threads_get_their_own_answers():
    x = noise(24, 1, 16, 16).cuda()
    engine = compile(deep(), x[:3], device="cuda")
    wanted, found = [engine(part).clone() for part in x.split(3)], [None] * 8
    torch.cuda.synchronize()

    def call(place, part):
        with torch.cuda.stream(torch.cuda.Stream()):
            found[place] = engine(part)
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=call, args=one) for one in enumerate(x.split(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))


@pytest.mark.skipif(torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0), reason="needs sparse tensor cores")
def test_2_4_layers_give_what_dense_ones_give(monkeypatch):
    net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 64))
    x = noise(64, 256)
    view = model_view(net, x, spiking=False)
    sp.prune(view, sp.methods.Magnitude(pattern=sp.patterns.NM(2, 4)), layers=["0", "2"])
    times = iter([2.0, 1.0] * 2)  # as if 2:4 won
    dense = compile(view, device="cuda", dtype=torch.bfloat16)
    assert all(set(choice.measured) == {"dense", "2:4"} for choice in dense.choices), dense.explain()
    monkeypatch.setattr("spikeprune.engine.cuda_sparse.microseconds", lambda run: next(times))
    sparse = compile(view, device="cuda", dtype=torch.bfloat16)
    assert [choice.kernel for choice in sparse.choices] == ["2:4", "2:4"]
    plain = CudaEngine(dense.plan, dense.device, torch.bfloat16)
    torch.testing.assert_close(sparse(x.cuda()), plain(x.cuda()), rtol=2**-6, atol=2**-6)
    torch.testing.assert_close(sparse(x[:8].cuda()), plain(x[:8].cuda()), rtol=2**-6, atol=2**-6)  # as a graph


def test_an_input_elsewhere_is_refused():
    x = noise(3, 1, 16, 16)
    engine = compile(deep(), x, device="cuda")
    with pytest.raises(LayoutError, match=r"runs on cuda:0, but was given a tensor on cpu; x.to\('cuda:0'\)"):
        engine(x)
