"""The fused neurons do what SpikingJelly's do, and take over where they should."""

import copy

import pytest
import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import nn

from spikeprune import zoo
from spikeprune.runtime import jit
from spikeprune.zoo import fused
from spikeprune.zoo.fused import SURROGATES, FusedIF, FusedLIF

T = 4
PLAIN = {FusedIF: neuron.IFNode, FusedLIF: neuron.LIFNode}
BUILT = [
    zoo.Neuron("if", surrogate="sigmoid", detach_reset=False),
    zoo.Neuron("if", reset="soft", threshold=0.5),
    zoo.Neuron("lif", tau=4 / 3, surrogate="erf"),
    zoo.Neuron("lif", tau=101.0, reset="soft", surrogate="piecewise_quadratic", decay_input=False, detach_reset=False),
]


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def plain(module):
    """Return a copy on SpikingJelly's own neurons."""
    module = copy.deepcopy(module)
    for part in module.modules():
        part.__class__ = PLAIN.get(type(part), type(part))
    return module


@pytest.fixture
def calls(monkeypatch):
    """Record the inputs that reach the native kernel."""
    seen, real = [], fused.integrate_and_fire
    monkeypatch.setattr(fused, "integrate_and_fire", lambda x, *rest: seen.append(x) or real(x, *rest))
    return seen


@pytest.mark.parametrize("what", BUILT)
def test_spikes_state_and_gradients_are_those_of_spikingjelly(what, calls):
    ours = what.build()
    theirs = plain(ours)
    assert (type(theirs), theirs.step_mode) == (PLAIN[type(ours)], "m")
    x = drawn(2 * T, 3, 50)

    def gradient(node, x):
        x = x.requires_grad_()
        spikes = torch.cat([node(half) for half in x.split(T)])  # the membrane, and its gradient, go from one call to the next
        loss = (spikes * drawn(*x.shape, seed=1)).sum() + (node.v * drawn(*node.v.shape, seed=2)).sum()
        return spikes.detach(), node.v.detach(), torch.autograd.grad(loss, x)[0]

    found, expected = gradient(ours, x.clone()), gradient(theirs, x.clone())
    assert len(calls) == 2
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert 0.05 < found[0].mean() < 0.95
    theirs.reset()
    exact = gradient(theirs, x.double())  # SpikingJelly's float32 sigmoid loses digits far from the threshold
    assert torch.equal(found[0].double(), exact[0])
    torch.testing.assert_close(found[2].double(), exact[2], rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("what", BUILT[1:3])
def test_one_timestep_at_a_time(what, calls):
    ours = what.build()
    x = drawn(T, 3, 50)
    together = ours(x)
    ours.reset()
    ours.step_mode = "s"
    assert torch.equal(torch.stack([ours(step) for step in x]), together)
    assert len(calls) == 1


def test_state_after_a_call():
    ours = zoo.Neuron("lif").build()
    theirs = plain(ours)
    for shape in ((T, 3, 5), (T, 2, 5), (T, 2, 5), (1, 7)):  # a batch of another shape starts from rest
        x = drawn(*shape)
        assert torch.equal(ours(x), theirs(x))
        assert torch.equal(ours.v, theirs.v)
        assert (ours.v.shape, ours.v_seq) == (shape[1:], None)
    assert [name for name, _ in ours.named_memories()] == ["v"]
    ours.reset()
    assert ours.v == 0.0
    # A neuron that was given a membrane starts there.
    ours.v = theirs.v = torch.full((7,), 0.9)
    assert torch.equal(ours(x), theirs(x))
    # A state that was kept with its graph is let go by `detach`.
    ours(x.requires_grad_())
    assert ours.v.requires_grad
    ours.detach()
    assert not ours.v.requires_grad


def test_copies_hooks_and_state_dicts(calls):
    net = nn.Sequential(zoo.Neuron("if").build())
    heard = []
    handle = net[0].register_forward_hook(lambda module, args, out: heard.append(out))
    x = drawn(T, 3, 5)
    out = net(x)
    twin = copy.deepcopy(net)
    assert type(twin[0]) is FusedIF
    assert torch.equal(twin[0].v, net[0].v)
    assert torch.equal(twin(x), net(x))
    handle.remove()
    assert torch.equal(heard[0], out)
    assert (net.state_dict(), len(calls)) == ({}, 3)


def test_the_membrane_of_every_timestep(calls):
    ours = zoo.Neuron("lif").build()
    theirs = plain(ours)
    ours.store_v_seq = theirs.store_v_seq = True
    x = drawn(T, 3, 5)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.v_seq, theirs.v_seq)
    assert not calls


class Steep(surrogate.ATan):
    """A surrogate of the user's own."""


LEFT_ALONE = {
    "float64": lambda node, x: (node, x.double()),
    "a surrogate of the user's own": lambda node, x: (setattr(node, "surrogate_function", Steep(5.0)), x),
    "a surrogate that is no spike": lambda node, x: (node.surrogate_function.set_spiking_mode(False), x),
    "a learned steepness": lambda node, x: (setattr(node.surrogate_function, "alpha", torch.tensor(3.0)), x),
    "a threshold that is a tensor": lambda node, x: (setattr(node, "v_threshold", torch.tensor(0.5)), x),
    "a threshold that nothing reaches": lambda node, x: (setattr(node, "v_threshold", torch.inf), x),
    "an empty batch": lambda node, x: (node, x[:, :0]),
}


@pytest.mark.parametrize("why", LEFT_ALONE)
def test_what_the_kernel_does_not_know_goes_spikingjellys_way(why, calls):
    ours = zoo.Neuron("lif", detach_reset=False).build()
    x = LEFT_ALONE[why](ours, drawn(T, 3, 5))[1].requires_grad_()
    theirs = plain(ours)
    found, expected = ours(x), theirs(x)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(out.sum(), x)[0] for out in (found, expected)))
    assert not calls


def test_options_changed_later_are_followed(calls):
    ours = zoo.Neuron("lif").build()
    ours.v_threshold, ours.tau, ours.v_reset, ours.surrogate_function.alpha = 1, 3.0, None, 5
    theirs, x = plain(ours), drawn(T, 3, 50)
    assert torch.equal(ours(x), theirs(x))
    assert len(calls) == 1


def test_without_llvmlite_spikingjelly_does_it(calls, monkeypatch):
    monkeypatch.setattr(jit, "llvm", None)
    ours, x = zoo.Neuron("lif").build(), drawn(T, 3, 5)
    assert torch.equal(plain(ours)(x), ours(x))
    assert not calls


def test_a_learned_time_constant_stays_spikingjellys(calls):
    node = zoo.Neuron("plif").build()
    assert type(node) is neuron.ParametricLIFNode
    node(drawn(T, 3, 5)).sum().backward()
    assert node.w.grad is not None
    assert not calls


@pytest.mark.parametrize("half", [False, True])
def test_under_autocast(half, calls):
    net = nn.Sequential(nn.Linear(6, 40), zoo.Neuron("lif").build())
    x = drawn(T, 3, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        spikes = net(x)
    spikes.sum().backward()
    dtype = torch.bfloat16 if half else torch.float32
    assert {spikes.dtype, net[1].v.dtype, calls[0].dtype} == {dtype}
    assert net[0].weight.grad.dtype == torch.float32
    assert net[0].weight.grad.abs().sum() > 0
    # The membrane is float32 within the call: the spikes are those of the same currents in float32.
    assert torch.equal(spikes.float(), plain(zoo.Neuron("lif").build())(calls[0].detach().float()))


@pytest.mark.parametrize("name", ["vgg16", "sew_resnet18"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_network_trains_as_on_spikingjelly(name, order, calls):
    torch.manual_seed(0)
    ours = zoo.make(name, width=1 / 16, image=(3, 32, 32), timesteps=2).to(memory_format=order)
    theirs, images = plain(ours), drawn(2, 3, 32, 32).to(memory_format=order)
    outputs = [net(images) for net in (ours, theirs)]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    for output in outputs:
        output.square().sum().backward()
    assert len(calls) == sum(isinstance(part, FusedIF | FusedLIF) for part in ours.modules())
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        scale = float(its.grad.abs().max())
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-3, atol=1e-4 * scale)


def test_every_surrogate_of_the_zoo_has_a_kernel():
    for name, kind in SURROGATES.items():
        assert fused.equations_of(FusedIF(surrogate_function=kind())).surrogate == name
