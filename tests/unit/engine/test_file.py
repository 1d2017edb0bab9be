"""An engine in a file: the same answers without the network, small, and refused when anything in it was changed."""

import json
from dataclasses import replace
from weakref import ref

import pytest
import torch

import spikeprune as sp
from channel_nets import awake
from nets_over_time import NETS, batch
from small_nets import Loop, noise, spikes
from spikeprune import zoo
from spikeprune.engine import compile, load_engine, save_engine
from spikeprune.engine.plan import Synapse
from spikeprune.engine.stored import Stored
from spikeprune.errors import LayoutError, PlanError, SpikepruneError, StorageError
from spikeprune.files import read_tensors, write_tensors
from spikeprune.runtime import jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")


def saved(tmp_path, net, x, **options):
    engine = compile(net, x, **options)
    save_engine(tmp_path / "net.engine", engine)
    return engine, tmp_path / "net.engine"


@pytest.mark.parametrize("bits", [None, 8, 3])
@pytest.mark.parametrize("name", ["vgg9", "sew_resnet18"])
def test_what_is_read_answers_alike_with_the_same_kernels(name, bits, tmp_path):
    net = awake(zoo.make(name, image=(1, 16, 16), width=1 / 32, timesteps=2, coding="direct")).eval()
    engine, path = saved(tmp_path, net, noise(2, 1, 16, 16), bits=bits)
    again = load_engine(path)
    x = noise(3, 1, 16, 16, seed=4)
    torch.testing.assert_close(again(x), engine(x), rtol=0, atol=1e-6)
    assert again.explain() == engine.explain()
    assert [choice.kernel for choice in again.choices] == [choice.kernel for choice in engine.choices]


@pytest.mark.parametrize("name", list(NETS))
def test_every_layout_over_time_is_kept(name, tmp_path):
    make, _, forward, _ = NETS[name]
    view = sp.model_view(make(), batch(name, 4), forward=forward)
    try:
        engine = compile(view)
    except PlanError:
        pytest.skip("no plan")
    save_engine(tmp_path / "net", engine)
    torch.testing.assert_close(load_engine(tmp_path / "net")(batch(name, 4)), engine(batch(name, 4)), rtol=0, atol=1e-6)


def test_a_network_of_few_living_weights_of_8_bits_is_a_tenth_of_the_dense_one(tmp_path):
    net = zoo.make("vgg9", image=(3, 32, 32), width=1 / 4, timesteps=2, coding="direct").eval()
    view = sp.model_view(net, noise(1, 3, 32, 32))
    sp.prune(view, sp.methods.Magnitude(), sparsity=0.9)
    _, path = saved(tmp_path, view, noise(1, 3, 32, 32), bits=8, kernel="gather")
    dense = 4 * sum(layer.weight.numel() for layer in view.layers)
    assert path.stat().st_size < dense / 10


@pytest.mark.parametrize("part", ["values", "alive", "step", "bias", "text"])
def test_a_file_that_was_changed_is_refused(part, tmp_path):
    _, path = saved(tmp_path, Loop(), spikes(4, 3, 6), bits=8)
    tensors, metadata = read_tensors(path)
    if part == "text":
        metadata["engine"] = metadata["engine"].replace('"timesteps": 4', '"timesteps": 3')
    else:
        name = next(name for name in tensors if name.endswith(part))
        tensors[name].view(torch.uint8)[0] ^= 1
    write_tensors(path, tensors, metadata)
    with pytest.raises(StorageError, match="checksum differs"):
        load_engine(path)


def test_files_cut_or_of_noise_are_refused_and_never_crash(tmp_path):
    _, path = saved(tmp_path, Loop(), spikes(4, 3, 6), bits=8)
    whole = path.read_bytes()
    draw = torch.Generator().manual_seed(0)
    for trial in range(150):
        content = bytearray(whole)
        if trial % 3 == 0:
            content = content[: int(torch.randint(len(whole), (1,), generator=draw))]
        for place in torch.randint(max(1, len(content)), (1 + trial % 4,), generator=draw).tolist():
            if content:
                content[place % len(content)] ^= 1 << int(torch.randint(8, (1,), generator=draw))
        path.write_bytes(bytes(content))
        with pytest.raises(SpikepruneError):
            load_engine(path)


EDITS = {
    "an unknown operation": lambda told: told["operations"][1].update(operation="Exec"),
    "an input from the future": lambda told: told["operations"][1].update(inputs=[99]),
    "another shape": lambda told: told["operations"][1].update(shape=[7]),
    "another weight shape": lambda told: told["operations"][1]["weight"].update(shape=[6, 5]),
    "bits that do not fit": lambda told: told["operations"][1]["weight"].update(bits=9),
    "no such output": lambda told: told.update(outputs=[99]),
    "no output": lambda told: told.update(outputs=[]),
    "no operations": lambda told: told.update(operations=[]),
    "timesteps of text": lambda told: told.update(timesteps="4"),
    "missing": lambda told: told.pop("choices"),
    "an unknown choice": lambda told: told["choices"][0].update(color="red"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_engine_that_does_not_hold_together_is_refused_whatever_its_checksum(edit, tmp_path):
    from spikeprune.engine.file import _checksum

    _, path = saved(tmp_path, Loop(), spikes(4, 3, 6), bits=8)
    tensors, metadata = read_tensors(path)
    told = json.loads(metadata["engine"])
    EDITS[edit](told)
    metadata["engine"] = json.dumps(told)
    write_tensors(path, tensors, {**metadata, "checksum": _checksum(tensors, metadata["engine"])})
    with pytest.raises(StorageError, match="holds no engine"):
        load_engine(path)


def test_another_file_of_ours_is_no_engine_and_threads_are_the_readers(tmp_path):
    sp.save(tmp_path / "model", Loop())
    with pytest.raises(StorageError, match="does not hold an engine"):
        load_engine(tmp_path / "model")
    with pytest.raises(StorageError, match="cannot read"):
        load_engine(tmp_path / "nothing")
    _, path = saved(tmp_path, Loop(), spikes(4, 3, 6))
    assert load_engine(path, threads=2).threads == 2
    with pytest.raises(LayoutError, match="threads is 0"):
        load_engine(path, threads=0)


def test_what_torch_runs_by_the_networks_own_functions_cannot_be_saved(tmp_path):
    class Odd(Loop):
        def forward(self, x):
            return super().forward(x).sigmoid()

    engine = compile(Odd(), spikes(4, 3, 6))
    with pytest.raises(PlanError, match=r"cannot be saved.*sigmoid"):
        save_engine(tmp_path / "net", engine)
    assert not (tmp_path / "net").exists()


def vgg(tmp_path, bits, kernel="gather"):
    net = awake(zoo.make("vgg9", image=(1, 16, 16), width=1 / 16, timesteps=2, coding="direct")).eval()
    return saved(tmp_path, net, noise(2, 1, 16, 16), bits=bits, kernel=kernel)


@pytest.mark.parametrize("bits", [None, 8, 5])
def test_a_plan_that_is_read_is_the_one_that_was_written_and_is_kept_by_whoever_holds_it(bits, tmp_path):
    engine, path = vgg(tmp_path, bits)
    again = load_engine(path)
    assert any(op.weight.is_meta for op in again._plan.operations if isinstance(op, Synapse))  # as long as nobody asks
    plan = again.plan
    assert plan is again.plan
    for one, other in zip(plan.operations, engine.plan.operations, strict=True):
        if isinstance(one, Synapse):
            torch.testing.assert_close(one.weight, other.weight, rtol=1e-6, atol=0)
    gone = ref(plan)
    del plan
    assert gone() is None


@pytest.mark.parametrize("bits", [None, 8])
def test_what_is_read_can_do_what_was_compiled(bits, tmp_path):
    engine, path = vgg(tmp_path, bits)
    again, x = load_engine(path), noise(5, 1, 16, 16, seed=3)
    assert again.agreement(x).difference < 1e-5
    torch.testing.assert_close(again(x[:1]), engine(x[:1]), rtol=0, atol=1e-6)
    steps = sum(again.step(x) for _ in range(2))
    torch.testing.assert_close(steps, engine(x), rtol=0, atol=1e-5)
    save_engine(tmp_path / "again", again)
    torch.testing.assert_close(load_engine(tmp_path / "again")(x), engine(x), rtol=0, atol=1e-6)


def test_layers_that_torch_runs_have_their_weights_and_native_ones_have_not(tmp_path):
    _, path = vgg(tmp_path, 8, {"conv2": "dense", "conv4": "gather"})
    weights = {op.name: op.weight for op in load_engine(path)._plan.operations if isinstance(op, Synapse)}
    assert not weights["conv1"].is_meta  # its input is no spikes
    assert not weights["conv2"].is_meta
    assert not weights["conv3"].is_meta  # an average becomes part of it
    assert weights["conv4"].is_meta


def test_a_choice_that_a_layer_cannot_have_is_told_when_it_runs(tmp_path):
    from spikeprune.engine.file import _checksum

    _, path = vgg(tmp_path, None)
    tensors, metadata = read_tensors(path)
    text = metadata["engine"].replace('"kernel": "gather"', '"kernel": "bit-sliced gather"')
    write_tensors(path, tensors, {**metadata, "engine": text, "checksum": _checksum(tensors, text)})
    with pytest.raises(PlanError, match=r"cannot run by 'bit-sliced gather': its weights are no whole numbers.*again"):
        load_engine(path)(noise(1, 1, 16, 16))
    text = metadata["engine"].replace('"kernel": "gather"', '"kernel": "magic"')
    write_tensors(path, tensors, {**metadata, "engine": text, "checksum": _checksum(tensors, text)})
    with pytest.raises(PlanError, match="cannot run by 'magic': no kernel has that name"):
        load_engine(path)(noise(1, 1, 16, 16))


def test_a_weight_that_torch_would_need_is_told_where_native_code_does_not_take_it_any_more(tmp_path, monkeypatch):
    _, path = vgg(tmp_path, 8)
    monkeypatch.setattr("spikeprune.engine.stock.connect", lambda operations, synapse: "not any more")
    with pytest.raises(PlanError, match=r"saved for a native kernel, but has none here. Compile the network again."):
        load_engine(path)(noise(1, 1, 16, 16))


FAULTS = {
    "no such bits": {"bits": 1},
    "a shape of one axis": {"shape": torch.Size([6])},
    "too few bits of life": {"alive": torch.zeros(1, dtype=torch.uint8)},
    "another kind of values": {"values": torch.zeros(2)},
    "too few values": {"values": torch.zeros(1, dtype=torch.uint8)},
    "steps of others": {"step": torch.ones(3, dtype=torch.double)},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_parts_of_a_weight_that_do_not_fit_are_refused(fault):
    one = Stored.of(torch.tensor([[0.5, 0.0, 1.5, 0.25, 0, 0, 0, 0, 1], [1.0, 0, 0, 0, 0, 0, 0, 0, -2.0]], dtype=torch.double))
    for parts, fits in (({}, True), (FAULTS[fault], False)):
        tensors: dict = {}
        told = replace(one, **parts).write("w.", tensors)
        if fits:
            assert torch.equal(Stored.read("w.", told, tensors).whole(), one.whole())
        else:
            with pytest.raises(PlanError, match=r"the weight 'w.' of shape .* is none"):
                Stored.read("w.", told, tensors)


@pytest.mark.parametrize("bits", [2, 3, 7, 8])
def test_whole_numbers_of_all_sizes_come_back(bits):
    most = 2 ** (bits - 1) - 1
    numbers = torch.tensor([[most, -most, 0, 1, 0], [0, -most, most, 0, 1]], dtype=torch.int8)
    one = Stored.of(numbers.double() * 0.5)
    assert one.bits == bits
    assert torch.equal(one.numbers(), numbers)
    assert torch.equal(one.whole(), numbers.double() * 0.5)


@pytest.mark.parametrize("form", [(1, 1, 1, 1), (2, 1, 1, 2), (1, 0, 2, 1), (3, 2, 1, 4)])
def test_the_shape_that_a_convolution_makes_is_that_of_torch_and_what_does_not_fit_is_refused(form):
    from spikeprune.engine.file import _through

    stride, padding, dilation, groups = form
    weight = torch.zeros(8, 4 // groups, 3, 2)
    pairs = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (dilation,) * 2}
    op = Synapse(inputs=(0,), shape=(), over_time=True, name="a", weight=weight, bias=None, groups=groups, **pairs)
    found = torch.nn.functional.conv2d(torch.zeros(1, 4, 9, 7), weight, None, **pairs, groups=groups)
    assert _through(op, (4, 9, 7)) == tuple(found.shape[1:])
    short = {"bias": torch.zeros(7)}
    for other, shape in ((op, (5, 9, 7)), (replace(op, **short), (4, 9, 7)), (replace(op, padding=(0, 0)), (4, 2, 7))):
        with pytest.raises(PlanError, match=r"a has a weight .* for an input"):
            _through(other, shape)
