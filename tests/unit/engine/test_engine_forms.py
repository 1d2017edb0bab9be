"""Compiled networks in the forms that are easily got wrong: odd maps, ties, layouts, threads, streams after a refusal."""

import copy
import pickle
from dataclasses import replace

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import spikeprune as sp
from channel_nets import awake
from small_nets import Loop, jelly, lively, noise, spikes
from spikeprune import zoo
from spikeprune.engine import build, compile, make_plan
from spikeprune.engine.engine import compared
from spikeprune.engine.firing import native
from spikeprune.engine.grid import on_grid
from spikeprune.errors import LayoutError, NonFinite, PlanError
from spikeprune.runtime import jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")
T = 4


def same(engine, x, share=1e-5):
    found = engine.agreement(x)
    assert found.flipped == 0, engine.explain()
    assert found.difference < share


def firing():
    return neuron.IFNode(v_threshold=0.7, v_reset=None)


def events(*parts):
    net = nn.Sequential(*parts)
    functional.set_step_mode(net, "m")
    return lively(net)


def test_threads_share_samples_not_timesteps():
    net, x = jelly("m", firing), spikes(T, 5, 6)
    one, three = compile(net, x), compile(net, x, threads=3)
    assert not torch.equal(one(x)[:, :1].expand(T, 5, 3), one(x))
    assert torch.equal(three(x), one(x))
    same(three, x)


def test_agreement_is_counted_by_sample_of_outputs_over_time():
    x = spikes(T, 5, 6)
    engine, other = compile(Loop(), x), compile(lively(Loop(), seed=1), x)
    assert engine.agreement(x).samples == 5
    differ = (engine(x) != other(x)).flatten(2).any(2).any(0)
    assert compared(other.plan, engine(x), x).flipped == int(differ.sum()) > 0  # as if spikes had flipped


def test_the_batch_size_that_was_used_last_is_kept():
    x = spikes(T, 6, 6)
    engine = compile(Loop(), x[:, :1])
    for samples in (2, 3, 4, 1, 5):
        engine(x[:, :samples])
    assert list(engine._ways) == [3, 4, 1, 5]


def test_reset_forgets_membranes():
    net, x = jelly("m", firing), spikes(T, 3, 6)
    engine = compile(net, x)
    first = [engine.step(x[0]) for _ in x]
    assert not torch.equal(first[0], first[1])
    engine.reset()
    assert torch.equal(engine.step(x[0]), first[0])


def test_what_is_the_same_at_all_timesteps_is_given_with_the_first():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 3), neuron.IFNode(step_mode="m")
            lively(self)

        def forward(self, x):
            functional.reset_net(self)
            current = self.fc(x)
            return self.lif(current.unsqueeze(0).repeat(T, 1, 1)).sum(0), current

    x = noise(3, 6)
    engine = compile(Both().eval(), x)
    steps = [engine.step(x) for _ in range(T)]
    for found, whole in zip(zip(*steps, strict=True), engine(x), strict=True):
        torch.testing.assert_close(sum(found), whole)


@pytest.mark.parametrize("kernel", ["scatter", "gather", "event rows", "dense", None])
def test_a_charge_at_the_threshold_does_not_fire_where_it_must_exceed_it(kernel):
    net = Loop(lambda: snntorch.Leaky(beta=0.5, init_hidden=True))
    with torch.no_grad():
        net.fc1.weight.copy_(torch.eye(5, 6))
        net.fc2.weight.copy_(torch.eye(3, 5))
    x = torch.ones(T, 3, 6)
    engine = compile(net, x, kernel=kernel)
    assert engine(x)[:, 0, 0].tolist() == net(x)[:, 0, 0].tolist()
    assert engine.step(x[0]).sum() == 0
    same(engine, x)


def test_constants_that_float32_cannot_hold_are_for_torch():
    plan = make_plan(sp.model_view(jelly("m"), spikes(T, 3, 6)))
    op = plan.operations[2]
    assert native(replace(op, threshold=torch.tensor(1e300, dtype=torch.double))) == "a constant of it is not finite in float32"
    assert not isinstance(native(op), str)


@pytest.mark.parametrize(("side", "native"), [(7, True), (8, False)])
def test_kernels_wider_than_native_ones_run_in_torch(side, native):
    net = events(layer.Conv2d(1, 2, 3, padding=1), neuron.IFNode(), layer.Conv2d(2, 3, side), neuron.IFNode())
    x = spikes(T, 2, 1, 9, 9)
    engine = compile(net, x, kernel="gather")
    assert any("wider than native ones" in choice.note for choice in engine.choices) != native
    same(engine, x)


def test_weights_near_a_grid_are_not_on_it_and_silent_rows_are_on_any():
    near = torch.tensor([[7.0, -2.0, 3.001]], dtype=torch.double)
    assert on_grid(near) is None
    numbers, step = on_grid(torch.tensor([[0.5, -0.25], [0.0, 0.0]], dtype=torch.double))
    assert numbers.tolist() == [[2, -1], [0, 0]]
    assert step.tolist() == [0.25, 1.0]


@pytest.mark.parametrize("kernel", ["scatter", "gather", "event rows"])
@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (3, 3)])
def test_maps_of_one_row_are_read_flat(shape, kernel):
    side = tuple(3 if s == 3 else 1 for s in shape)
    places = (shape[0] - side[0] + 1) * (shape[1] - side[1] + 1)
    net = events(layer.Conv2d(2, 4, side), neuron.IFNode(), layer.Flatten(), layer.Linear(4 * places, 5), neuron.IFNode())
    x = spikes(T, 3, 2, *shape)
    engine = compile(net, x, kernel={"3": kernel})
    assert engine(x).any()
    same(engine, x)


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 7), (7, 7)])
@pytest.mark.parametrize("side", [2, 3])
def test_odd_maps_are_not_split(height, width, side):
    net = events(layer.Conv2d(1, 6, 3, padding=1), neuron.IFNode(), layer.Conv2d(6, 7, side, 2, side // 2), neuron.IFNode())
    x = spikes(T, 3, 1, height, width)
    same(compile(net, x, kernel="gather"), x)
    net = events(layer.Conv2d(1, 6, 3, padding=1), neuron.IFNode(), layer.Conv2d(6, 7, 2, 2), neuron.IFNode())
    same(compile(net, x, kernel="gather"), x)


def test_the_fastest_of_those_that_were_measured_runs():
    net = awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=T, coding="direct")).eval()
    engine = compile(net, noise(2, 1, 16, 16))
    tried = [choice for choice in engine.choices if choice.measured]
    assert tried
    assert all(choice.kernel == min(choice.measured, key=lambda name: choice.measured[name]) for choice in tried)


def test_an_image_of_black_and_white_is_no_spikes():
    net = awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=T, coding="direct")).eval()
    engine = compile(net, noise(3, 1, 16, 16).round())
    assert 0 not in engine.spikes
    same(engine, noise(3, 1, 16, 16).round())
    same(engine, noise(2, 1, 16, 16, seed=1))


def test_a_frame_that_is_refused_is_as_if_it_had_not_been():
    net, x = jelly("m", firing), spikes(T, 3, 6)
    engine = compile(net, x)
    engine.step(x[0])
    with pytest.raises(LayoutError, match="neither 0 nor 1"):
        engine.step(x[1] * 2)
    rest = [engine.step(frame) for frame in x[1:]]
    assert torch.equal(torch.stack(rest), engine(x)[1:])


def test_a_value_is_read_as_maps_and_flat():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lif1 = layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode()
            self.deep, self.lif2 = layer.Conv2d(4, 5, 3), neuron.IFNode()
            self.fc, self.lif3 = layer.Linear(256, 3), neuron.IFNode()
            functional.set_step_mode(lively(self), "m")

        def forward(self, x):
            spk = self.lif1(self.conv(x))
            return self.lif3(self.fc(spk.flatten(2))), self.lif2(self.deep(spk))

    x = spikes(T, 3, 2, 8, 8)
    same(compile(Fork(), x, kernel={"fc": "event rows", "deep": "dense"}), x)


@pytest.mark.parametrize(("side", "part"), [
    (9, lambda: layer.Conv2d(4, 3, (2, 2), dilation=(1, 2))),
    (9, lambda: nn.Sequential(layer.AvgPool2d(3, 3, 1), layer.Conv2d(4, 3, 1))),
    (6, lambda: nn.Sequential(layer.AvgPool2d(3, 2), layer.Conv2d(4, 3, 1))),
    (6, lambda: nn.Sequential(layer.AvgPool2d((2, 3)), layer.Conv2d(4, 3, 1))),
])  # fmt: skip
def test_forms_that_differ_by_axis_or_are_padded(side, part):
    net = events(layer.Conv2d(2, 4, 3, padding=1), neuron.IFNode(), part(), neuron.IFNode(v_threshold=0.3))
    x = spikes(T, 3, 2, side, side)
    engine = compile(net, x, kernel="gather")
    assert engine(x).any()
    same(engine, x)


def test_batches_first_are_kept_in_a_file_and_every_tensor_is_summed(tmp_path):
    from spikeprune.engine import load_engine, save_engine
    from spikeprune.errors import StorageError
    from spikeprune.files import read_tensors, write_tensors

    x = spikes(3, T, 6)
    view = sp.model_view(jelly("m", firing), x, forward=lambda net, x: net(x.transpose(0, 1)).mean(0))
    engine = compile(view, bits=4)
    assert engine.plan.input.time_axis == 1
    path = tmp_path / "net"
    save_engine(path, engine)
    assert torch.equal(load_engine(path)(x), engine(x))
    tensors, metadata = read_tensors(path)
    for name in tensors:
        changed = {key: value.clone() for key, value in tensors.items()}
        changed[name].reshape(-1).view(torch.uint8)[0] ^= 1
        write_tensors(path, changed, metadata)
        with pytest.raises(StorageError, match="checksum differs"):
            load_engine(path)


def test_maps_are_read_out():
    net, x = events(layer.Conv2d(2, 4, 3), neuron.IFNode()), spikes(T, 3, 2, 5, 4)
    engine = compile(sp.model_view(net, x, forward=lambda net, x: net(x).mean(0)))
    assert engine(x).shape == (3, 4, 3, 2)
    same(engine, x)


def test_a_network_that_draws_its_input_is_compiled_from_what_was_drawn():
    net = awake(
        zoo.make("vgg9", width=1 / 16, timesteps=3, image=(2, 16, 16), norm="gain", neuron=zoo.Neuron("if", threshold=0.2))
    ).eval()
    images, drawn = noise(3, 2, 16, 16), spikes(3, 2, 2, 16, 16)
    with pytest.raises(PlanError, match=r"draws its input by chance.*compile\(model_view\(net, images\), drawn\)"):
        compile(net, images)
    engine = compile(sp.model_view(net, images), drawn)
    same(engine, drawn)
    assert engine.choices[0].rate == pytest.approx(float(drawn.mean()), abs=1e-6)


def test_a_kernel_is_forced_where_it_fits_though_the_current_is_read_as_well():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(6, 5), snntorch.Leaky(beta=0.9)
            self.fc2, self.lif2 = nn.Linear(5, 3), snntorch.Leaky(beta=0.9)
            lively(self)

        def forward(self, x):
            mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
            out, membranes = [], []
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
                membranes.append(mem2)
            return torch.stack(out), torch.stack(membranes)

    engine = compile(Read(), spikes(T, 3, 6), bits=8, kernel={"fc2": "bit-sliced gather"})
    same(engine, spikes(T, 3, 6))
    assert "bit-sliced gather" in {choice.kernel for choice in engine.choices if choice.name == "fc2"}
    assert [choice.number for choice in engine.choices] == sorted(choice.number for choice in engine.choices)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda x: compile(Loop(), x)(x.numpy()), LayoutError, "takes a dense tensor .* was given ndarray"),
        (lambda x: compile(sp.model_view(Loop(), x), (x, x)), PlanError, "must be one tensor, but holds 2"),
        (lambda x: compile(Loop(), x, kernel=3), PlanError, "kernel is 3, but must be the name"),
    ],
)  # fmt: skip
def test_what_is_no_batch_or_no_kernel_is_told(call, error, told):
    with pytest.raises(error, match=told):
        call(spikes(T, 3, 6))


def test_weights_that_are_not_finite_are_named():
    net = Loop()
    with torch.no_grad():
        net.fc2.weight[0, 0] = float("nan")
    with pytest.raises(NonFinite, match="1 of 15 weights of layer 'fc2' are NaN"):
        compile(net, spikes(T, 3, 6))


@pytest.mark.parametrize("samples", [1, 3])
def test_layers_that_read_sums_of_spikes_are_native(samples):
    torch.manual_seed(0)
    net, x = zoo.make("sew_resnet18", width=1 / 16, timesteps=T, image=(3, 16, 16)), torch.rand(samples, 3, 16, 16)
    engine = compile(awake(net), x, kernel="scatter")
    others = [choice.name for choice in engine.choices if choice.kernel != "scatter"]
    assert others == ["conv1"], engine.explain()
    assert len(engine.choices) == 21
    same(engine, x)


def test_a_network_with_sums_of_spikes_runs_step_by_step_and_from_a_file(tmp_path):
    torch.manual_seed(0)
    net, x = zoo.make("sew_resnet18", width=1 / 16, timesteps=T, image=(3, 16, 16)), torch.rand(2, 3, 16, 16)
    engine = compile(awake(net), x, kernel="gather")
    whole = engine(x)
    assert torch.allclose(sum(engine.step(x) for _ in range(T)), whole, atol=1e-5)
    sp.save_engine(tmp_path / "net", engine)
    assert torch.equal(sp.load_engine(tmp_path / "net")(x), whole)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (2, 2, 1), (3, 1, 1)])
def test_max_pools_with_padding_are_native(size, stride, padding):
    pool = layer.MaxPool2d(size, stride, padding)
    net = events(layer.Conv2d(2, 8, 3, padding=1), firing(), pool, layer.Conv2d(8, 4, 3), firing())
    x = spikes(T, 2, 2, 9, 9)
    engine = compile(net, x, kernel="scatter")
    assert [choice.kernel for choice in engine.choices] == ["scatter", "scatter"]
    assert engine._ways[2].builds[0].steps.torch == 0
    same(engine, x)


def test_currents_that_are_summed_over_time_are_no_step_of_torch():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.neuron, self.fc = layer.Linear(6, 20), firing(), layer.Linear(20, 4)
            functional.set_step_mode(self, "m")

        def forward(self, x):
            return self.fc(self.neuron(self.hidden(x))).mean(0)

    x = spikes(T, 3, 6)
    engine = compile(lively(Summed()), x)
    assert engine._ways[3].builds[0].steps.torch == 0
    same(engine, x)


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_currents_that_are_added_are_no_step_of_torch(name):
    torch.manual_seed(0)
    net, x = zoo.make(name, width=1 / 16, timesteps=T, image=(3, 16, 16)), torch.rand(2, 3, 16, 16)
    engine = compile(awake(net), x, kernel="scatter")
    assert engine._ways[2].builds[0].steps.torch <= 3, engine.explain()  # the first convolution, and the readout
    assert {choice.kernel for choice in engine.choices if choice.name != "conv1"} == {"scatter", "neurons"}, engine.explain()
    same(engine, x)


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_engine_is_not_copied(take):
    with pytest.raises(PlanError, match="not copied or pickled; save it by save_engine"):
        take(compile(Loop(), spikes(T, 2, 6)))


@pytest.mark.parametrize("faster", [True, False])
@pytest.mark.parametrize("coding", ["direct", "frames"])
def test_a_first_layer_of_real_numbers_is_native_where_that_is_faster(monkeypatch, coding, faster):
    found = iter([1.0, 2.0] if faster else [2.0, 1.0])  # of native code, and of torch
    monkeypatch.setattr(build, "microseconds", lambda run: (run(), next(found))[1])
    net = awake(
        zoo.make("vgg9", image=(2, 16, 16), width=1 / 16, timesteps=T, coding="direct" if coding == "direct" else "events")
    ).eval()
    x = noise(3, 2, 16, 16) if coding == "direct" else noise(T, 3, 2, 16, 16)
    engine = compile(net, x, kernel="gather")
    same(engine, x)
    assert (engine.choices[0].kernel, engine.choices[0].note) == ("direct" if faster else "dense", "its input is no spikes")
    assert engine(x).abs().sum() > 0
    other = noise(*x.shape, seed=5)
    assert engine.agreement(other).flipped == 0
