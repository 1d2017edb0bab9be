import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from small_nets import Loop, lively, noise, spikes
from spikeprune import model_view, recalibrate, zoo
from spikeprune.bench import frameworks, peers
from spikeprune.bench.folded import Folded
from spikeprune.bench.peers import Absent, Task, calls
from spikeprune.engine import Reference, make_plan
from spikeprune.engine.plan import Add, Concatenate, Input, Neuron, Outside, Plan, ReLU, Scale
from spikeprune.errors import PlanError

SOFT = zoo.Neuron("lif", tau=2.0, reset="soft", decay_input=False)


def vgg(neuron=SOFT, **options):
    torch.manual_seed(0)
    return zoo.make("vgg11", width=1 / 16, timesteps=3, image=(1, 32, 32), coding="direct", neuron=neuron, **options).eval()


def task(net, x, **options):
    return Task(net, make_plan(model_view(net, x)), x, [x], **options)


@pytest.mark.parametrize(
    "neuron", [SOFT, zoo.Neuron("lif"), zoo.Neuron("if", threshold=0.5, reset="soft")], ids=["soft", "hard", "if"]
)
def test_a_folded_network_is_its_plan(neuron):
    net, x = vgg(neuron), noise(2, 1, 32, 32)
    view = model_view(net, x)
    recalibrate(view, [noise(16, 1, 32, 32, seed=1)])  # or nothing fires
    plan = make_plan(view)
    assert torch.allclose(Folded(plan)(x), Reference(plan)(x), atol=1e-5)
    assert float(Reference(plan)(x).abs().max()) > 0


def test_a_folded_network_takes_events_and_snntorchs_delayed_reset():
    net, x = lively(Loop()), spikes(4, 2, 6)
    plan = make_plan(model_view(net, x))
    assert torch.allclose(Folded(plan)(x), Reference(plan)(x), atol=1e-5)
    vote = zoo.make("vggsnn", width=1 / 16, timesteps=2, image=(2, 34, 34)).eval()
    x = spikes(2, 3, 2, 34, 34)
    plan = make_plan(model_view(vote, x))
    assert torch.allclose(Folded(plan)(x), Reference(plan)(x), atol=1e-5)


def test_a_folded_network_joins_what_changes_with_time_and_what_does_not():
    x = Input(inputs=(), shape=(2,), over_time=True, time_axis=1)
    half = {"gain": torch.tensor(0.5), "shift": torch.tensor([1.0, -1.0])}
    scaled = Scale(inputs=(0,), shape=(2,), over_time=True, **half)
    both = Concatenate(inputs=(0, 1), shape=(4,), over_time=True)
    plan = Plan((x, scaled, both, ReLU(inputs=(2,), shape=(4,), over_time=True)), (3,), 3)
    batch = noise(2, 3, 2) - 0.5
    assert torch.equal(Folded(plan)(batch), Reference(plan)(batch))
    still = Input(inputs=(), shape=(2,), over_time=False, time_axis=None)
    one, none = torch.tensor(1.0), torch.tensor(0.0)
    level = {"decay": one / 2, "gain": one, "rest": none, "threshold": one, "reset_to": none, "start": none}
    fires = Neuron(inputs=(0,), shape=(2,), over_time=True, name="n", strict=False, reset="soft", delayed=False, **level)
    both = Add(inputs=(0, 1), shape=(2,), over_time=True)
    plan = Plan((still, fires, both), (2,), 3)
    batch = noise(2, 2) + 0.3
    assert torch.equal(Folded(plan)(batch), Reference(plan)(batch))
    assert Folded(plan)(batch).shape == (3, 2, 2)


def test_what_no_other_engine_can_be_given_is_refused():
    x = Input(inputs=(), shape=(2,), over_time=False, time_axis=None)
    own = Outside(inputs=(0,), shape=(2,), over_time=False, name="f", call=lambda x: x, reason="why")
    with pytest.raises(PlanError, match="function of the network"):
        Folded(Plan((x, own), (1,), 1))
    with pytest.raises(PlanError, match="2"):
        Folded(Plan((x,), (0, 0), 1))


def test_spikingjellys_own_neurons_give_the_same_and_ours_are_left_as_they_are():
    net, x = vgg(), noise(2, 1, 32, 32)
    kinds = [type(module) for module in net.modules()]
    own = frameworks.spikingjelly(net)
    assert {type(one).__name__ for one in frameworks.neurons_of(own)} == {"LIFNode"}
    assert [type(module) for module in net.modules()] == kinds
    with torch.no_grad():
        assert torch.allclose(own(x), net(x), atol=1e-6)


def small(neuron, low, high):
    net = zoo.SpikingNet(
        {"flat": nn.Flatten(), "fc1": nn.Linear(4, 5), "neuron1": neuron.build(), "fc": nn.Linear(5, 3)},
        image=(1, 2, 2), timesteps=4, coding="direct",
    ).eval()  # fmt: skip
    with torch.no_grad():
        net.fc1.weight.uniform_(low, high, generator=torch.Generator().manual_seed(0))
    return net


@torch.no_grad()
def test_snntorchs_loop_gives_the_same_where_no_membrane_stays_above_its_threshold():
    net, x = small(SOFT, 0.1, 0.3), noise(6, 1, 2, 2)
    assert torch.allclose(frameworks.Loop(net, frameworks.leaky)(x), net(x), atol=1e-6)
    assert float((net(x) - net.fc.bias).abs().max()) > 0  # it fired
    assert not frameworks.runnable(vgg(zoo.Neuron("lif")))  # its input decays


@torch.no_grad()
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_norses_loop_gives_the_same(reset):
    pytest.importorskip("norse")
    net, x = small(replace(SOFT, reset=reset), 0.1, 1.5), noise(6, 1, 2, 2)
    assert torch.allclose(frameworks.Loop(net, frameworks.lif_box)(x), net(x), atol=1e-6)
    assert len((net(x) - net.fc.bias).unique()) > 3
    assert not torch.allclose(frameworks.Loop(small(SOFT, 0.1, 0.3), frameworks.lif_box)(x), net(x), atol=1e-6)


def test_a_peer_that_is_not_installed_is_told(monkeypatch):
    given = task(vgg(), noise(1, 1, 32, 32))
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "snntorch", None)
    monkeypatch.setitem(sys.modules, "norse.torch", None)
    for name, package in (("OpenVINO", "openvino"), ("snnTorch", "snntorch"), ("Norse", "norse")):
        with pytest.raises(Absent, match=f"not installed: {package}"):
            calls(name, given)


def test_a_peer_that_fails_is_told_and_stops_nobody(monkeypatch):
    def broken(task):
        raise RuntimeError("no such luck\nand more")

    monkeypatch.setitem(peers.PEERS, "torch folded", broken)
    with pytest.raises(Absent, match=r"failed: RuntimeError: no such luck$"):
        calls("torch folded", task(vgg(), noise(1, 1, 32, 32)))


def test_torch_compile_is_left_out_where_it_cannot_or_should_not_run(monkeypatch):
    given = task(vgg(), noise(1, 1, 32, 32))
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(Absent, match=r"C\+\+ compiler"):
        calls("torch.compile", given)
    with pytest.raises(Absent, match="quick"):
        calls("torch.compile", task(given.net, given.x, quick=True))


@pytest.mark.parametrize("name", ["ONNX Runtime", "ONNX Runtime int8", "OpenVINO", "OpenVINO int8"])
def test_other_engines_compute_the_network(name):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    net = zoo.SpikingNet(
        {"flat": nn.Flatten(), "fc1": nn.Linear(4, 32), "neuron1": SOFT.build(), "fc": nn.Linear(32, 3)},
        image=(1, 2, 2), timesteps=3, coding="events",
    ).eval()  # fmt: skip
    lively(net)
    x = spikes(3, 5, 1, 2, 2)
    found = torch.as_tensor(calls(name, task(net, x))())
    with torch.no_grad():
        expected = net(x)
    assert float(expected.abs().max()) > 0.1
    # Rounding may flip a spike here and there.
    assert float((found - expected).abs().mean()) < (0.1 if "int8" in name else 1e-5)
