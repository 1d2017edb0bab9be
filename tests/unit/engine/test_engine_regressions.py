"""What once went wrong around engines: inputs, modes and types that others set."""

import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import spikeprune as sp
from channel_nets import awake
from small_nets import Loop, lively, noise, spikes
from spikeprune import zoo
from spikeprune.engine import build, compile, engine, load_engine, save_engine
from spikeprune.errors import LayoutError, PlanError
from spikeprune.runtime import jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")
T = 4


def deep():
    return awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=T, coding="direct")).eval()


def images(samples, seed=0):
    return noise(samples, 1, 16, 16, seed=seed)


def events(*parts):
    net = nn.Sequential(*parts)
    functional.set_step_mode(net, "m")
    return lively(net)


@pytest.mark.parametrize("kernel", [(8, 8), (1, 9)])
def test_a_first_kernel_wider_than_native_ones_runs_in_torch(kernel):
    net = nn.Sequential(nn.Conv2d(1, 4, kernel, padding=4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    x = noise(2, 1, 9, 9)
    net(x)
    found = compile(sp.model_view(net, x, spiking=False))
    torch.testing.assert_close(found(x), net(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("first", [layer.AvgPool2d(2), layer.MaxPool2d(2), layer.Conv2d(2, 2, 1), layer.Flatten()])
def test_whatever_reads_spikes_first_nothing_else_is_taken_for_them(first):
    linear = layer.Linear(50 if isinstance(first, layer.Flatten | layer.Conv2d) else 8, 6)
    found = compile(events(copy.deepcopy(first), layer.Flatten(), linear, neuron.IFNode()), spikes(T, 2, 2, 5, 5))
    with pytest.raises(LayoutError, match="neither 0 nor 1, but the engine was compiled for spikes"):
        found(spikes(T, 2, 2, 5, 5) * 0.4)
    assert found.agreement(spikes(T, 2, 2, 5, 5)).flipped == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_inference_mode_is_the_callers(threads):
    found, x = compile(deep(), images(1), threads=threads), images(3)
    with torch.inference_mode():
        inside = found(x)
    assert torch.equal(found(x), inside)
    with torch.inference_mode():
        first = found.step(images(1))
    found.reset()
    assert torch.equal(found.step(images(1)), first)
    with torch.inference_mode(), pytest.raises(PlanError, match="inference_mode forbids; call it outside"):
        compile(deep(), images(1))


def test_whether_a_first_layer_is_native_is_decided_once(monkeypatch, tmp_path):
    clock = iter([1.0, 2.0])
    monkeypatch.setattr(build, "microseconds", lambda run: next(clock))
    found = compile(deep(), images(1), kernel="gather")  # its two looks at the clock are all that there are
    for size in (2, 3, 4, 5, 6):
        found(images(size))
    found.step(images(1))
    assert found.choices[0].kernel == "direct"
    save_engine(tmp_path / "net.engine", found)
    again = load_engine(tmp_path / "net.engine")
    assert torch.equal(again(images(2)), found(images(2)))
    forced = compile(deep(), images(1), kernel="dense")
    assert forced.choices[0].kernel == "dense"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_default_dtype_changes_nothing(dtype):
    net, x = deep(), images(2)
    expected = compile(net, x, kernel="scatter")(x)
    torch.set_default_dtype(dtype)
    try:
        for kernel in ("scatter", "gather", "event patches", "event rows"):
            found = compile(net, x, kernel=kernel)(x)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_engine_of_a_machine_without_llvmlite_chooses_where_there_is_one(monkeypatch, tmp_path):
    with monkeypatch.context() as without:
        for module in (jit, engine.jit):
            without.setattr(module, "available", lambda: False)
        save_engine(tmp_path / "net.engine", compile(Loop(), spikes(T, 2, 6)))
    found = load_engine(tmp_path / "net.engine")
    found(spikes(T, 2, 6))
    assert "llvmlite is not installed" not in found.explain()
    assert found.choices[0].name != "all layers"
