"""The compiled network: batches of any size, threads, forced kernels, few bits, streaming, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import spikeprune as sp
from channel_nets import awake
from small_nets import Loop, jelly, lively, noise, spikes
from spikeprune import zoo
from spikeprune.engine import Engine, Reference, compile, make_plan
from spikeprune.engine.attempt import TRIED
from spikeprune.engine.plan import Neuron
from spikeprune.errors import LayoutError, MissingExtra, PlanError, QuantizeError
from spikeprune.runtime import jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")
T = 4


def deep():
    """Convolutions, average pools and a linear layer on direct input, whose neurons fire."""
    return awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=T, coding="direct")).eval()


def images(samples, seed=0):
    return noise(samples, 1, 16, 16, seed=seed)


def same(engine, x, share=1e-5):
    found = engine.agreement(x)
    assert found.samples > 0
    assert found.flipped == 0, engine.explain()
    assert found.difference < share


@pytest.mark.parametrize("kernel", ["event rows", "event patches", "scatter", "gather", "dense", None])
def test_every_kernel_gives_what_torch_gives(kernel):
    engine = compile(deep(), images(3), kernel=kernel)
    same(engine, images(3))
    same(engine, images(5, seed=1))
    used = {choice.kernel for choice in engine.choices if not choice.note}
    assert kernel is None or kernel in used
    assert all(choice.rate > 0 for choice in engine.choices if choice.rate is not None)


@pytest.mark.parametrize("bits", [None, 8])
def test_dead_blocks_are_passed_over_by_a_kernel_of_their_own(bits):
    net = awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 8, timesteps=T, coding="direct")).eval()
    view = sp.model_view(net, images(2))
    sp.prune(view, sp.methods.Magnitude(pattern=sp.patterns.Block(1, 32)), sparsity=0.8, layers=["conv3", "conv4", "conv5"])
    engine = compile(view, kernel={"conv3": "block scatter", "conv4": "block scatter"}, bits=bits)
    same(engine, images(3))
    with pytest.raises(PlanError, match="'conv2' cannot run by 'block scatter': its weights are not zero in blocks"):
        compile(view, kernel={"conv2": "block scatter"})


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_whole_numbers_have_a_kernel_that_goes_by_their_digits(bits):
    engine = compile(deep(), images(9), bits=bits, kernel="bit-sliced gather")
    assert sum(choice.kernel == "bit-sliced gather" for choice in engine.choices) >= 7
    same(engine, images(9), 1e-6)
    same(engine, images(2, seed=3), 1e-6)
    with pytest.raises(PlanError, match="'conv2' cannot run by 'bit-sliced gather': its weights are no whole numbers"):
        compile(deep(), images(1), kernel={"conv2": "bit-sliced gather"})


def test_averages_are_part_of_the_weights_behind_them():
    engine = compile(deep(), images(2), kernel="scatter")
    pooled = [choice for choice in engine.choices if choice.name in ("conv3", "conv5", "conv7", "fc")]
    assert {choice.kernel for choice in pooled} == {"scatter"}
    same(engine, images(2))


def test_weights_rounded_to_bits_are_whole_numbers_and_exact():
    net = deep()
    whole, few = (compile(net, images(4), bits=bits, kernel="gather") for bits in (None, 4))
    same(few, images(4, seed=2), 1e-6)
    assert few.agreement(images(4)).difference < 1e-6
    rounded = Reference(few.plan)(images(4))
    assert not torch.allclose(rounded, Reference(whole.plan)(images(4)), atol=1e-4)
    layers = [few._stock.layer(choice.number).layer for choice in few.choices if choice.rate is not None]
    assert layers
    assert all(layer.weight.dtype == torch.int8 and int(layer.weight.abs().max()) == 7 for layer in layers)


def test_a_quantized_network_runs_on_its_own_whole_numbers():
    net = deep()
    view = sp.model_view(net, images(2))
    folded = sp.model_view(sp.fold_norms(view), images(2))
    found = sp.quantize_(folded, bits=5)
    engine = compile(folded)
    for choice in engine.choices:
        if choice.rate is not None and choice.name in ("conv2", "conv4"):
            layer = engine._stock.layer(choice.number).layer
            assert layer.weight.dtype == torch.int8
            steps = folded.net.get_submodule(choice.name).weight.double().abs().flatten(1).amax(1)
            kept = steps > 0
            assert torch.equal(layer.weight[kept].bool(), found[choice.name].integers[kept].bool())
    same(engine, images(3, seed=5))


def test_threads_share_a_batch_and_change_nothing():
    net = deep()
    one, three = compile(net, images(6), kernel="scatter"), compile(net, images(6), kernel="scatter", threads=3)
    for samples in (1, 2, 6, 7):
        torch.testing.assert_close(three(images(samples)), one(images(samples)), rtol=0, atol=1e-6)


def test_many_callers_at_once_get_their_own_answers():
    engine = compile(deep(), images(2))
    batches = [images(1 + seed % 3, seed=seed) for seed in range(12)]
    wanted = [engine(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for ours, theirs in zip(pool.map(engine, batches), wanted, strict=True):
            assert torch.equal(ours, theirs)


def test_what_it_returns_is_not_overwritten_by_the_next_call():
    engine = compile(deep(), images(2))
    first = engine(images(2))
    copy = first.clone()
    engine(images(2, seed=9))
    assert torch.equal(first, copy)


def test_later_changes_of_the_network_do_not_reach_it():
    net = deep()
    engine = compile(net, images(2))
    before = engine(images(2))
    with torch.no_grad():
        net.fc.weight.zero_()
    assert torch.equal(engine(images(2)), before)


def test_the_least_used_batch_size_is_forgotten():
    engine = compile(deep(), images(1))
    for samples in (2, 3, 4, 5, 6):
        engine(images(samples))
    assert list(engine._ways) == [3, 4, 5, 6]
    same(engine, images(1))


def test_steps_add_up_and_another_batch_needs_a_reset():
    net = jelly("m")
    x = spikes(T, 3, 6)
    engine = compile(net, x)
    steps = [engine.step(frame) for frame in x]
    whole = engine(x)
    assert torch.equal(torch.stack(steps), whole) or torch.allclose(sum(steps), whole, atol=1e-5)
    with pytest.raises(LayoutError, match=r"all 4 timesteps have been; call reset\(\)"):
        engine.step(x[0])
    engine.reset()
    again = [engine.step(frame) for frame in x]
    assert all(torch.equal(one, other) for one, other in zip(again, steps, strict=True))
    engine.reset()
    single = [engine.step(frame[:1]) for frame in x]  # another batch size after a reset
    assert all(torch.equal(one, other[:1]) for one, other in zip(single, steps, strict=True))
    engine.reset()
    engine.step(x[0])
    with pytest.raises(LayoutError, match="this step has 1 samples, and those before 3"):
        engine.step(x[1][:1])


def test_explain_names_each_layer_its_kernel_and_why():
    engine = compile(deep(), images(2))
    lines = engine.explain().splitlines()
    assert lines[0].split()[:2] == ["layer", "kernel"]
    first, second = lines[1].split(), lines[2].split()
    assert first[0] == "conv1"
    assert "its input is no spikes" in lines[1]
    assert second[0] == "conv2"
    assert "%" in lines[2]
    assert 2 <= len(engine.choices[1].measured) <= TRIED


def test_a_forced_kernel_is_not_measured():
    engine = compile(deep(), images(2), kernel={"conv2": "gather"})
    found = {choice.name: choice for choice in engine.choices}
    assert found["conv2"].kernel == "gather"
    assert found["conv2"].measured == {}
    assert 2 <= len(found["conv3"].measured) <= TRIED


def test_events_that_are_counts_are_refused_by_an_engine_for_spikes():
    net, x = Loop(), spikes(T, 3, 6)
    engine = compile(net, x)
    with pytest.raises(LayoutError, match="1 of 72 entries are neither 0 nor 1"):
        engine(x.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(0)), torch.tensor(2.0)))
    same(engine, x)
    counted = compile(net, x * 2)
    same(counted, x * 2)
    same(counted, x)
    assert counted.choices[0].note == "its input is no spikes"


def test_flattened_events_are_bits_and_counts_among_them_refused():
    net = nn.Sequential(layer.Flatten(), layer.Linear(8, 5), neuron.IFNode(), layer.Linear(5, 3), neuron.IFNode())
    functional.set_step_mode(net, "m")
    x = spikes(T, 3, 2, 2, 2)
    engine = compile(lively(net), x)
    same(engine, x)
    assert engine.choices[0].rate == pytest.approx(float(x.mean()), abs=1e-6)
    assert next(iter(engine._ways.values())).builds[0].steps.torch <= 1  # torch does no more than to stack what it returns
    with pytest.raises(LayoutError, match="2 of 96 entries are neither 0 nor 1"):
        engine(odd(x))


def odd(x):
    """Two entries that are no spikes."""
    x = x.clone()
    x[0, 0, 0, 0, 0], x[1, 2, 1, 1, 1] = 0.5, 3.0
    return x


def test_all_zeros_in_another_batch_do_not_make_real_inputs_spikes():
    engine = compile(Loop(), noise(T, 3, 6))
    same(engine, torch.zeros(T, 5, 6))
    same(engine, noise(T, 5, 6, seed=3))


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: compile(deep()), PlanError, "needs an example"),
        (lambda: compile(deep(), images(1), bits=1), QuantizeError, "bits is 1, but .* 2 to 8"),
        (lambda: compile(deep(), images(1), bits=9), QuantizeError, "bits is 9"),
        (lambda: compile(deep(), images(1), bits=True), QuantizeError, "bits is True"),
        (lambda: compile(deep(), images(1), kernel="csr"), PlanError, "no kernel 'csr'; there are event rows, scatter"),
        (lambda: compile(deep(), images(1), kernel={"conv99": "gather"}), PlanError, "no native layer is named 'conv99'"),
        (lambda: compile(deep(), images(1), kernel={"conv2": "event rows"}), PlanError, "'conv2' cannot run by 'event rows'"),
        (lambda: compile(deep(), images(1), threads=0), LayoutError, "threads is 0"),
        (lambda: compile(deep(), images(1))(images(1)[..., :8]), LayoutError, r"the plan takes \(N, 1, 16, 16\)"),
        (lambda: compile(deep(), images(1))(images(0)), LayoutError, r"given \(0, 1, 16, 16\)"),
        (lambda: compile(Loop(), spikes(T, 3, 6))(spikes(T + 1, 3, 6)), LayoutError, r"\(T = 4, N, 6\), but was given \(5, 3, 6\)"),
        (lambda: compile(Loop(), spikes(T, 3, 6)).step(spikes(3, 7)), LayoutError, r"a step takes \(N, 6\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(call, error, told):
    with pytest.raises(error, match=told):
        call()


def test_without_llvmlite_torch_runs_everything_and_it_says_so(monkeypatch):
    net, x = Loop(), spikes(T, 3, 6)
    batches = [x, spikes(T, 5, 6, seed=2)]
    native = [compile(net, x)(batch) for batch in batches]
    monkeypatch.setattr("spikeprune.runtime.jit.llvm", None)
    engine = compile(net, x)
    assert "llvmlite is not installed: pip install" in engine.explain()
    for batch, wanted in zip(batches, native, strict=True):
        torch.testing.assert_close(engine(batch), wanted, rtol=0, atol=1e-5)
    steps = torch.stack([engine.step(frame) for frame in x])
    assert torch.equal(steps, engine(x))
    engine.reset()
    assert torch.equal(engine.step(x[0]), steps[0])
    with pytest.raises(MissingExtra, match="a native kernel needs llvmlite"):
        compile(net, x, kernel="gather")


def test_neurons_that_native_code_lacks_run_in_torch():
    x = spikes(T, 3, 6)
    plan = make_plan(sp.model_view(jelly("m"), x))
    zero = torch.zeros((), dtype=torch.double)
    forgetful = [replace(op, decay=zero, reset="soft", delayed=True) if isinstance(op, Neuron) else op for op in plan.operations]
    engine = Engine.tuned(replace(plan, operations=tuple(forgetful)), x)
    assert any("keeps nothing" in choice.note for choice in engine.choices)
    same(engine, x)


def test_a_layer_that_lives_wholly_in_its_bias_is_right():
    net = lively(Loop())
    with torch.no_grad():
        net.fc2.weight.zero_()
        net.fc2.bias.fill_(0.4)
    same(compile(net, spikes(T, 3, 6)), spikes(T, 3, 6))


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (2, 0), (1, 0), (4, 1), (6, 2), (5, 2), (3, 0), (4, 0)])
@pytest.mark.parametrize("name", ["gather", "bit-sliced gather", "scatter"])
def test_a_stride_of_two_is_one_of_one_on_maps_that_are_split(name, kernel, padding):
    net = nn.Sequential(
        layer.Conv2d(1, 6, 3, padding=1), neuron.IFNode(), layer.Conv2d(6, 7, kernel, 2, padding), neuron.IFNode()
    )
    functional.set_step_mode(net, "m")
    x = spikes(T, 3, 1, 8, 8)
    engine = compile(lively(net), x, kernel={"2": name}, bits=8 if "bit" in name else None)
    same(engine, x)
    same(engine, spikes(T, 2, 1, 8, 8, seed=3))
    halves = engine._ways[3].builds[0]._held[engine._stock.layer(engine.choices[-1].number).source].halves
    assert (halves is not None) == (name != "scatter" and (kernel, padding) not in ((3, 0), (4, 0)))


def test_batches_of_the_last_shape_are_run_at_once_whatever_came_between():
    net, x = Loop(), spikes(T, 3, 6)
    engine = compile(net, x)
    wanted = engine(x).clone()
    for other in (
        x.double(),
        x.clone().requires_grad_(),
        spikes(T, 5, 6),
        x.transpose(0, 1).contiguous().transpose(0, 1),
        x.bool().float(),
    ):
        assert torch.equal(engine(x), wanted)
        found = engine(other)
        assert found.shape[1] == other.shape[1]
        assert other.shape != x.shape or torch.equal(found, wanted)
        assert torch.equal(engine(x), wanted)
    with pytest.raises(LayoutError, match="1 of 72 entries"):
        engine(x.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(0)), torch.tensor(2.0)))
    for wrong in (x[:-1], x[..., :-1], x.numpy()):
        with pytest.raises(LayoutError, match="the plan takes"):
            engine(wrong)
    for wrong in (x.to_sparse(), x.to("meta")):
        with pytest.raises(LayoutError, match=r"takes a dense tensor .* but was given torch"):
            engine(wrong)
    same(engine, x)
