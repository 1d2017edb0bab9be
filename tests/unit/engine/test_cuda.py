"""The engine of GPUs, run on the CPU: every network as the reference has it, what is kept and let go, what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from channel_nets import HalfBare, Joined, Leaky, Residual, awake, bare
from nets_over_time import NETS, batch
from small_nets import jelly, lively, noise, spikes
from spikeprune import model_view, zoo
from spikeprune.engine import Reference, make_plan
from spikeprune.engine import plan as p
from spikeprune.engine.cuda import CudaEngine
from spikeprune.engine.cuda_run import Dense

CPU, T = torch.device("cpu"), 4
MOST, MEAN = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
BFLOAT = torch.bfloat16


def together(given):
    return list(given) if isinstance(given, tuple | list) else [given]


def check(net, x, *others, forward=None):
    """In float64 the reference's outputs, in float32 its spikes."""
    plan = make_plan(model_view(net, x, forward=forward))
    exact, engine = CudaEngine.tuned(plan, x, CPU, torch.double), CudaEngine.tuned(plan, x, CPU)
    for given in (x, *others):
        for ours, wanted in zip(together(exact(given)), together(Reference(plan, torch.double)(given)), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)
        found = engine.agreement(given)
        assert (found.flipped, found.samples) == (
            0,
            engine(given).shape[0] if not plan.operations[-1].over_time else given.shape[1],
        )
        assert found.difference < 1e-5
    return engine


@pytest.mark.parametrize("name", NETS)
def test_every_way_over_time(name):
    make, _, forward, _ = NETS[name]
    check(make(), batch(name, 4), batch(name, 1, seed=3), forward=forward)


@pytest.mark.parametrize("make", [Residual, HalfBare, Joined, bare])
def test_sums_scales_and_joined_channels(make):
    check(make(), spikes(3, 4, 2, 4, 4), spikes(3, 5, 2, 4, 4, seed=1))


def test_neurons_of_both_frameworks():
    check(Leaky(reset_mechanism="subtract"), spikes(T, 3, 7))
    check(jelly("m", lambda: neuron.LIFNode(tau=3.0, v_reset=-0.25, decay_input=False)), 4 * spikes(T, 4, 6))
    check(jelly("m", lambda: neuron.IFNode(v_reset=None)), 4 * spikes(T, 4, 6))


@pytest.mark.parametrize("conv", [layer.Conv1d, layer.Conv2d, layer.Conv3d])
def test_convolutions_and_pools_of_one_two_and_three_axes(conv):
    axes = {layer.Conv1d: 1, layer.Conv2d: 2, layer.Conv3d: 3}[conv]
    most, mean = (layer.SeqToANNContainer(kinds[axes - 1](2)) for kinds in (MOST, MEAN))
    parts = [conv(2, 4, 3, padding=1), neuron.IFNode(), most, conv(4, 4, 3, padding=1, groups=2), neuron.LIFNode(), mean]
    net = nn.Sequential(*parts, layer.Flatten(), layer.Linear(4 * 2**axes, 3))
    functional.set_step_mode(net, "m")
    check(awake(net), spikes(3, 2, 2, *[8] * axes), spikes(3, 3, 2, *[8] * axes, seed=1))


@pytest.mark.parametrize("name", ["vggsnn", "sew_resnet18", "six_conv_two_fc", "vgg9"])
def test_networks_of_the_zoo(name):
    image, options = (
        {"vggsnn": (2, 16, 16), "vgg9": (3, 16, 16)}.get(name, (3, 8, 8)),
        {"coding": "direct"} if name == "vgg9" else {},
    )
    net = awake(zoo.make(name, classes=3, image=image, width=1 / 32, timesteps=2, **options)).eval()
    check(net, noise(*((2, 2) if net.coding == "events" else (2,)), *image))


def test_what_a_plan_has_no_word_for_is_run_and_told():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 3), neuron.IFNode(step_mode="m")
            lively(self)

        def forward(self, x):
            s = self.lif(self.fc(x))
            return s * s.mean(-1, keepdim=True).sigmoid()

    engine = check(Gated(), spikes(T, 3, 6))
    assert "mul runs as the network calls it: mul multiplies or divides two values" in engine.explain()


def by_hand(shape, steps, count=2, **ways):
    """Spikes and charges of neurons with constants of each channel."""
    draw = torch.Generator().manual_seed(0)
    names = ("decay", "gain", "rest", "threshold", "reset_to", "start")
    lows = (0.3, 0.5, -0.3, 0.2, -0.4, -0.2)
    rows = {n: low + 0.4 * torch.rand(shape[:1], generator=draw, dtype=torch.double) for n, low in zip(names, lows, strict=True)}
    cells = [
        p.Neuron(inputs=(0,), shape=shape, over_time=True, name="n", gives=gives, **rows, **ways)
        for gives in ("spikes", "charge")[:count]
    ]
    given = p.Input(inputs=(), shape=shape, over_time=True, time_axis=0)
    return p.Plan((given, *cells), outputs=tuple(range(1, count + 1)), timesteps=steps)


@pytest.mark.parametrize("shape", [(3,), (3, 5, 4)])
@pytest.mark.parametrize(("reset", "delayed"), [("hard", False), ("soft", False), ("none", False), ("soft", True)])
@pytest.mark.parametrize("strict", [False, True])
def test_neurons_are_the_references_bit_by_bit(shape, reset, delayed, strict):
    plan = by_hand(shape, T, reset=reset, delayed=delayed, strict=strict)
    x = noise(T, 2, *shape) * 2 - 0.5
    for ours, wanted in zip(CudaEngine(plan, CPU)(x), Reference(plan)(x), strict=True):
        assert torch.equal(ours, wanted)


def test_membranes_are_float32_in_half_precision():
    one, zero = p.constant(1.0), p.constant(0.0)
    ways = {"strict": False, "reset": "none", "delayed": False, "reset_to": zero, "rest": zero, "start": zero}
    cell = p.Neuron(
        inputs=(0,), shape=(1,), over_time=True, name="n", decay=one, gain=one, threshold=p.constant(1 + 2**-7), **ways
    )
    plan = p.Plan((p.Input(inputs=(), shape=(1,), over_time=True, time_axis=0), cell), outputs=(1,), timesteps=3)
    x = torch.tensor([1.0, 2**-8, 2**-8]).view(3, 1, 1)
    engine = CudaEngine(plan, CPU, BFLOAT)
    assert engine(x).flatten().tolist() == [0, 0, 1]
    assert Reference(plan, BFLOAT)(x.to(BFLOAT)).flatten().tolist() == [0, 0, 0]  # 1 + 1/256 is 1 in bfloat16
    assert engine(x).dtype == torch.float32


def test_readouts_are_summed_in_float32():
    given = p.Input(inputs=(), shape=(1,), over_time=True, time_axis=0)
    plan = p.Plan((given, p.Readout(inputs=(0,), shape=(1,), over_time=False, weights=(1.0, 1.0))), outputs=(1,), timesteps=2)
    assert CudaEngine(plan, CPU, BFLOAT)(torch.tensor([1.0, 2**-8]).view(2, 1, 1)).item() == 1 + 2**-8


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.0, 0.5, 0.5), (0.25, 0.0, 0.5), (0.5, 1.0, 2.0), (0.0, 0.0, 0.0)])
def test_readouts_of_some_timesteps_are_the_references(weights):
    given = p.Input(inputs=(), shape=(2,), over_time=True, time_axis=0)
    plan = p.Plan((given, p.Readout(inputs=(0,), shape=(2,), over_time=False, weights=weights)), outputs=(1,), timesteps=3)
    x = noise(3, 4, 2)
    assert torch.equal(CudaEngine(plan, CPU)(x), Reference(plan)(x))


@pytest.mark.parametrize("dtype", [BFLOAT, torch.float16])
def test_half_precision_is_near_where_no_spike_decides(dtype):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    x = noise(5, 2, 5, 5)
    plan = make_plan(model_view(awake(net).eval(), x, spiking=False))
    engine = CudaEngine.tuned(plan, x, CPU, dtype)
    torch.testing.assert_close(engine(x), net(x), rtol=0, atol=16 * torch.finfo(dtype).eps)
    assert str(dtype)[6:] in engine.explain()


def deep():
    return awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=T, coding="direct")).eval()


def test_what_no_timestep_changes_is_computed_once_and_channels_lie_innermost():
    x = noise(3, 1, 16, 16)
    plan = make_plan(model_view(deep(), x))
    dense = Dense(plan, CPU, torch.float32)
    first, second = [i for i, op in enumerate(plan.operations) if isinstance(op, p.Synapse)][:2]
    found = dense.run(x, {first, second})
    assert found[first].shape == (3, *plan.operations[first].shape)
    assert found[second].shape == (T, 3, *plan.operations[second].shape)
    for value in (found[first], found[second].flatten(0, 1)):
        assert value.is_contiguous(memory_format=torch.channels_last)
        assert not value.is_contiguous()


def test_values_are_let_go_when_they_have_been_read():
    x = spikes(3, 4, 2, 4, 4)
    plan = make_plan(model_view(Residual(), x))
    dense = Dense(plan, CPU, torch.float32)
    ends = dense._ends
    assert sorted(n for end in ends for n in end) == list(range(len(ends)))
    assert all(
        max([n, *(i for i, op in enumerate(plan.operations) if n in op.inputs)]) == at for at, e in enumerate(ends) for n in e
    )
    assert set(dense.run(x, {len(ends) - 1})) == {len(ends) - 1}
    assert not dense._exact._membranes


def test_a_run_that_fails_leaves_no_membranes_to_the_next(monkeypatch):
    x = spikes(T, 3, 6)
    engine = CudaEngine(make_plan(model_view(jelly("m", lambda: neuron.IFNode(v_threshold=0.9, v_reset=None)), x)), CPU)
    first, one = engine(x), engine._dense._one

    def fail(number, op, inputs):
        if number == 4:
            raise RuntimeError("out of memory")
        return one(number, op, inputs)

    with monkeypatch.context() as patched:
        patched.setattr(engine._dense, "_one", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            engine(x)
    assert torch.equal(engine(x), first)
    assert 0 < first.mean() < 1


INTERPRETED = """
import torch
from channel_nets import Residual, awake
from small_nets import noise, spikes
from spikeprune import model_view, zoo
from spikeprune.engine import make_plan
from spikeprune.engine.cuda import CudaEngine
direct = awake(zoo.make("vgg9", image=(3, 16, 16), width=1 / 32, timesteps=2, coding="direct")).eval()
for net, x in ((direct, noise(2, 3, 16, 16)), (Residual(), spikes(3, 4, 2, 4, 4))):
    engine = CudaEngine(make_plan(model_view(net, x)), torch.device("cpu"))
    found = engine.agreement(x)
    print(found.flipped, found.difference < 1e-5, engine.explain().count("neurons: Triton") == len(engine.plan.neurons) > 1)
"""


def test_neurons_by_triton_in_its_interpreter():
    """Which is switched on before Triton is imported, so in a process of its own."""
    pytest.importorskip("triton")
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["0 True True"] * 2
