"""Threads that share a batch: by outputs or by samples, to the last bit what one thread gives; and only where that is faster."""

import os
import signal
import threading

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import spikeprune as sp
from channel_nets import awake
from small_nets import lively, noise, spikes
from spikeprune import zoo
from spikeprune.engine import attempt, compile, load_engine, save_engine, sharing
from spikeprune.engine.crew import Crew, Lanes, usual
from spikeprune.runtime import bits, jit
from spikeprune.runtime.program import Program

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")
T = 4


def net():
    """Layers of 8, 16, 32 and 64 channels and a linear layer."""
    return awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 8, timesteps=T, coding="direct")).eval()


def images(samples, seed=0):
    return noise(samples, 1, 16, 16, seed=seed)


WAYS = ["one thread", "by samples", "by outputs"]


def prefer(monkeypatch, way):
    """Say that a way is the fastest, however short layers take."""

    def clock(runs):
        for run in runs:
            run()
        names = WAYS if len(runs) == 3 else WAYS[::2]
        return [1.0 if name == way else 9.0 for name in names]

    monkeypatch.setattr(attempt, "WORTH", 0.0)
    monkeypatch.setattr(sharing, "usual", clock)


@pytest.fixture
def outputs(monkeypatch):
    prefer(monkeypatch, "by outputs")


def whole(engine, samples):
    (build,) = engine._ways[samples].builds
    return build


@pytest.mark.parametrize(
    ("kernel", "bits", "threads"),
    [
        ("scatter", None, 2),
        ("scatter", 8, 2),
        ("scatter", 8, 3),
        ("gather", None, 2),
        ("gather", 8, 2),
        ("bit-sliced gather", 4, 2),
    ],
)
def test_outputs_shared_over_threads_are_those_of_one(outputs, kernel, bits, threads):
    one, several = (compile(net(), images(1), kernel=kernel, bits=bits, threads=n) for n in (1, threads))
    for seed in range(3):
        assert torch.equal(one(images(1, seed)), several(images(1, seed)))
    assert one(images(1)).abs().sum() > 0
    assert {"conv6", "conv7", "conv8"} <= set(whole(several, 1).shared)
    assert "conv5" not in whole(several, 1).shared  # 32 channels are no two blocks
    assert torch.equal(one(images(5)), several(images(5)))
    assert "1 samples at a time: by outputs (one thread 9 us, by outputs 1 us)" in several.explain()


def test_blocks_are_shared(outputs):
    view = sp.model_view(net(), images(1))
    sp.prune(view, sp.methods.Magnitude(pattern=sp.patterns.Block(1, 32)), sparsity=0.8, layers=["conv6", "conv7", "conv8"])
    names = {name: "block scatter" for name in ("conv6", "conv7", "conv8")}
    one, two = (compile(view, kernel=names, bits=8, threads=n) for n in (1, 2))
    assert torch.equal(one(images(1)), two(images(1)))
    assert names.keys() <= set(whole(two, 1).shared)


@pytest.mark.parametrize("kernel", ["scatter", "gather"])
def test_a_stride_and_outputs_that_fill_no_block_are_shared(outputs, kernel):
    firing = [neuron.IFNode(v_threshold=0.7, v_reset=None) for _ in range(2)]
    parts = nn.Sequential(layer.Conv2d(3, 70, 3, stride=2, padding=1), firing[0], layer.Conv2d(70, 5, 1), firing[1])
    functional.set_step_mode(parts, "m")
    x = spikes(T, 2, 3, 8, 8)
    one, two = (compile(lively(parts), x, kernel=kernel, threads=n) for n in (1, 2))
    assert whole(two, 2).shared == ["0"]
    assert torch.equal(one(x), two(x))
    assert 0 < one(x).mean() < 1


def test_streams_and_engines_from_files_share_too(outputs, tmp_path):
    one = compile(net(), images(1), kernel="scatter")
    save_engine(tmp_path / "net.engine", one)
    two = load_engine(tmp_path / "net.engine", threads=2)
    assert torch.equal(two(images(1)), one(images(1)))
    assert whole(two, 1).shared
    for _ in range(2):
        two.reset()
        total = sum(two.step(images(1)) for _ in range(T))
        torch.testing.assert_close(total, one(images(1)))
    assert two._stream.shared


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_run_the_way_that_is_fastest(monkeypatch, way):
    prefer(monkeypatch, way)
    one, two = (compile(net(), images(3), kernel="scatter", threads=n) for n in (1, 2))
    calls, each = [], Crew.each
    monkeypatch.setattr(Crew, "each", lambda *args: (calls.append(1), each(*args))[1])
    assert torch.equal(one(images(3)), two(images(3)))
    assert len(calls) == (way != "one thread")
    assert len(two._ways[3].builds) == 1 + (way == "by samples")
    assert f"3 samples at a time: {way} (" in two.explain()


def test_a_stream_is_not_shared_where_that_is_slower(monkeypatch):
    prefer(monkeypatch, "one thread")
    engine = compile(net(), images(1), kernel="scatter", threads=2)
    engine.step(images(1))
    assert not engine._stream.shared


def test_layers_that_take_no_time_are_not_shared(monkeypatch):
    monkeypatch.setattr(attempt, "WORTH", 1e9)
    engine = compile(net(), images(1), kernel="scatter", threads=2)
    assert not whole(engine, 1).shared
    assert "samples at a time" not in engine.explain()


def test_a_crew_waits_for_all_and_tells_of_errors():
    seen = threading.Event()

    def late(i):
        if i == 0:
            raise ValueError("first")
        threading.Event().wait(0.2)
        seen.set()

    with pytest.raises(ValueError, match="first"):
        Crew(2).each(late, [0, 1])
    assert seen.is_set()
    with pytest.raises(ZeroDivisionError):
        Crew(3).each(lambda i: 1 // (1 - i), [0, 1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of Python 3.12 and later
def test_a_forked_process_has_threads_of_its_own():
    crew = Crew(2)
    assert crew.each(str, [1, 2]) == ["1", "2"]
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(crew.each(str, [3, 4]) != ["3", "4"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def copy(program, source, target):
    program.add(bits.copy(), source, target, 1, len(source), len(target))


def test_lanes_do_in_order_what_needs_each_other():
    """Words go round, through every thread: a thread that did not wait would copy what is not there yet."""
    crew, words = Crew(3), [torch.zeros(1 << 14, dtype=torch.int64) for _ in range(7)]
    lanes = Lanes(crew)
    for first in (0, 3):
        program = Program()
        copy(program, words[first], words[first + 1])
        lanes.alone(program)
        parts = [Program(), Program()]
        copy(parts[0], words[first], words[first])
        copy(parts[1], words[first + 1], words[first + 2])
        lanes.share(parts)
        parts = [Program(), Program(), Program()]
        copy(parts[2], words[first + 2], words[first + 3])
        lanes.share(parts)
    for value in range(200):
        words[0].fill_(value)
        lanes.run()
        assert int(words[-1].min()) == int(words[-1].max()) == value


def test_threads_are_let_go_if_the_caller_is_stopped(monkeypatch):
    lanes, one = Lanes(Crew(2)), torch.zeros(1, dtype=torch.int64)
    for _ in range(2):
        parts = [Program(), Program()]
        copy(parts[0], one, one)
        lanes.share(parts)
    run = Program.run

    def stopped(program):
        if program is lanes._programs[0]:
            raise KeyboardInterrupt
        run(program)

    monkeypatch.setattr(Program, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        lanes.run()  # else the other thread would wait for ever
    monkeypatch.setattr(Program, "run", run)
    lanes.run()


def test_the_clock_gives_the_median_of_calls_that_take_turns():
    order = []
    quick, slow = usual([lambda: order.append("quick"), lambda: (order.append("slow"), threading.Event().wait(0.02))])
    assert quick < 10_000 < slow
    assert order[:4] == ["quick", "slow", "quick", "slow"]
