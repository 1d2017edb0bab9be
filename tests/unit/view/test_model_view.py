"""The view finds what a model is made of, leaves it as found, and refuses what it cannot tell."""

import copy

import pytest
import snntorch
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn
from torch.nn.utils import parametrize, prune

from small_nets import (
    Block,
    JellyGuest,
    Loop,
    SnnGuest,
    assert_same,
    hooks,
    jelly,
    lively,
    nested,
    noise,
    photograph,
    spikes,
    unroll,
)
from spikeprune.errors import LayoutError, MeasureError, ModelError, NoPrunableLayers
from spikeprune.measure import Need, measure
from spikeprune.report import profile
from spikeprune.view.layer import Layout
from spikeprune.view.model_view import model_view

T, N = 4, 2


# What it finds


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 3)  # made first, called last
        self.fc1, self.lif1 = nn.Linear(6, 5), neuron.IFNode(step_mode="m")
        self.fc2, self.lif2 = nn.Linear(5, 5), neuron.IFNode(step_mode="m")
        self.skip = nn.Linear(6, 5, bias=False)
        self.unused = nn.Linear(9, 9)
        self.table = nn.Parameter(torch.zeros(2, 2))
        lively(self)

    def forward(self, x):
        return self.last(self.lif2(self.fc2(self.lif1(self.fc1(x))) + self.skip(x)))


def test_layers_come_in_call_order_and_the_rest_is_uncounted():
    view = model_view(Residual(), noise(T, N, 6))
    assert [found.name for found in view.layers] == ["fc1", "fc2", "skip", "last"]
    assert {found.layout for found in view.layers} == {Layout.SEQUENCE}
    assert list(view.neurons) == ["lif1", "lif2"]
    assert view.uncounted == ("table", "unused.weight")
    assert view.device == torch.device("cpu")


def test_layers_without_a_neuron_behind_them():
    net = lively(nn.Sequential(Block(6, 5), nn.Linear(5, 3)))
    view = model_view(net, noise(T, N, 6), forward=unroll)
    assert [found.name for found in view.layers] == ["0.fc", "1"]


def test_an_ordinary_network_has_one_timestep():
    view = model_view(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), noise(N, 6), spiking=False)
    assert view.timesteps == 1
    assert view.neurons == {}
    assert [found.layout for found in view.layers] == [Layout.STEP, Layout.STEP]


def test_the_call_resets_and_returns_what_the_model_returns():
    net = nested()
    view = model_view(net, noise(T, N, 6), forward=lambda net, x: {"out": unroll(net, x)})
    x = noise(T, N, 6, seed=1)
    assert torch.equal(view(x)["out"], view(x)["out"])


def test_select():
    view = model_view(Residual(), noise(T, N, 6))
    names = lambda *args: [found.name for found in view.select(*args)]  # noqa: E731
    assert names() == names(None) == ["fc1", "fc2", "skip", "last"]
    assert names("fc1") == ["fc1"]
    assert names("fc*") == ["fc1", "fc2"]
    assert names(["last", "fc2"]) == ["fc2", "last"]
    assert names(["fc?", "fc1"]) == ["fc1", "fc2"]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("fc3", "Did you mean 'fc"), ("lst", "Did you mean 'last'?"), ("features.*", "The layers are: fc1, fc2, skip, last.")],
)
def test_select_what_is_not_there(pattern, told):
    view = model_view(Residual(), noise(T, N, 6))
    with pytest.raises(NoPrunableLayers, match=f"no synaptic layer fits '{pattern.replace('*', '[*]')}'") as error:
        view.select(["fc1", pattern])
    assert told in str(error.value)


# Left as found


def loss(out, y):
    return ((out.mean(0) - y) ** 2).mean()


def broken_loss(out, y):
    raise ValueError("the loss broke")


def run_view(net, x):
    model_view(net, x)


def run_clone(net, x):
    model_view(net, x).clone()


def run_gradients(net, x):
    measure(model_view(net, x), [(x, torch.ones(N, 3))] * 2, set(Need), loss_fn=loss)


def run_profile(net, x):
    profile(model_view(net, x), [x, x])


def run_another_batch_size(net, x):
    profile(model_view(net, x), [noise(T, 7, 6)])


def fail_view(net, x):
    net.fail = True
    try:
        with pytest.raises(ModelError, match="the model broke"):
            model_view(net, x)
    finally:
        net.fail = False


def fail_measure(net, x):
    view = model_view(net, x)
    net.fail = True
    try:
        with pytest.raises(MeasureError, match=r"batch 0, of shape .*the model broke"):
            measure(view, [x], {Need.INPUT_COUNT, Need.SPIKE_RATE})
    finally:
        net.fail = False


def fail_loss(net, x):
    with pytest.raises(MeasureError, match="the loss broke"):
        measure(model_view(net, x), [(x, torch.ones(N, 3))], set(Need), loss_fn=broken_loss)


def fail_batches(net, x):
    def batches():
        yield x
        raise OSError("the data broke")

    with pytest.raises(OSError, match="the data broke"):
        measure(model_view(net, x), batches(), {Need.INPUT_COUNT})


PASSES = [
    run_view,
    run_clone,
    run_gradients,
    run_profile,
    run_another_batch_size,
    fail_view,
    fail_measure,
    fail_loss,
    fail_batches,
]


def lived_in(make):
    """A model in the midst of training: live state with a graph, gradients, a frozen bias, mixed flags, a hook."""
    torch.manual_seed(0)
    net = make()
    net(noise(T, N, 6)).sum().backward(retain_graph=True)
    net.fc1.bias.requires_grad_(False)
    net.drop.eval()
    net.fc2.register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("act", PASSES)
@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
def test_left_as_found(make, act, grad):
    net = lived_in(make)
    with torch.set_grad_enabled(grad):
        before = photograph(net)
        act(net, noise(T, N, 6, seed=1))
        assert_same(before, photograph(net))


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
def test_an_ordinary_forward_disturbs_what_the_photograph_sees(make):
    net = lived_in(make)
    before = photograph(net)
    state = ("lif1", "mem", "object") if make is SnnGuest else ("lif1", "v", "object")
    was = getattr(net.lif1, state[1])  # kept, so that nothing new is made in its place in memory
    net.drop.train()
    model_view(net, noise(T, N, 6)).reset()  # SpikingJelly draws a dropout mask after a reset only
    net(noise(T, N, 6, seed=1))
    after = photograph(net)
    assert before["hooks"] == after["hooks"] == 1
    assert not torch.equal(before["norm", "running_mean", "value"], after["norm", "running_mean", "value"])
    assert before[state] == id(was) != after[state]
    assert not torch.equal(before["random"], after["random"])


def test_attributes_that_a_forward_makes_do_not_stay():
    net = SnnGuest()
    before = photograph(net)
    model_view(net, noise(T, N, 6))
    assert not hasattr(net, "last")
    assert_same(before, photograph(net))


def test_buffers_written_in_place_return():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen += 1
            return x

    net = jelly()
    net.append(Counter())
    before = photograph(net)
    profile(model_view(net, noise(T, N, 6)), [noise(T, N, 6)])
    assert_same(before, photograph(net))


def test_memories_reset_in_place_return():
    net = jelly()
    net[1].set_reset_value("v", torch.zeros(N, 5))  # of the memory's own shape: SpikingJelly then writes on the memory
    net(noise(T, N, 6)).sum()
    net[1].v = net[1].v.detach()
    assert net[1].v.abs().sum() > 0
    before = photograph(net)
    model_view(net, noise(T, N, 6))
    assert_same(before, photograph(net))


def test_no_other_device_is_seeded(monkeypatch):
    net, x = Loop(), noise(T, N, 6)
    monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("this seeds every device of the process"))
    model_view(net, x).clone()


def test_undisturbed_is_calm_inside():
    net = lived_in(SnnGuest)
    view = model_view(net, noise(T, N, 6))
    with view.undisturbed(seed=3):
        assert not any(module.training for module in net.modules())
        assert net.lif1.mem.abs().sum() == 0
        drawn = torch.rand(2)
    with view.undisturbed(seed=3):
        assert torch.equal(torch.rand(2), drawn)
    with view.undisturbed(seed=4):
        assert not torch.equal(torch.rand(2), drawn)


# Copies


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
def test_plain_deepcopy_fails_after_a_forward(make):
    net = lived_in(make)
    with pytest.raises(RuntimeError, match="Only Tensors created explicitly by the user"):
        copy.deepcopy(net)


@pytest.mark.parametrize("make", [SnnGuest, JellyGuest])
def test_clone_after_a_forward(make):
    net = lived_in(make)
    view = model_view(net, noise(T, N, 6))
    twin = view.clone()
    assert [module.training for module in twin.net.modules()] == [module.training for module in net.modules()]
    assert (twin.timesteps, twin.uncounted, list(twin.neurons)) == (view.timesteps, view.uncounted, list(view.neurons))
    net.eval()
    twin.net.eval()
    x = noise(T, N, 6, seed=1)
    assert torch.equal(twin(x), view(x))
    assert twin.net.fc1.weight.requires_grad
    assert not twin.net.fc1.bias.requires_grad

    before = photograph(net)
    with torch.no_grad():
        twin.layers[0].weight.zero_()
    twin(x)
    assert_same(before, photograph(net))
    assert {id(p) for p in net.parameters()}.isdisjoint(id(p) for p in twin.net.parameters())
    assert twin.layers[0].module is twin.net.fc1
    assert twin.neurons["lif1"] is twin.net.lif1


def test_the_neurons_of_a_clone_are_at_rest():
    twin = model_view(lived_in(SnnGuest), noise(T, N, 6)).clone()
    assert twin.net.lif1.mem.abs().sum() == 0
    twin = model_view(lived_in(JellyGuest), noise(T, N, 6)).clone()
    assert twin.net.lif1.v == 0.0


# Refusals


class Odd(nn.Module):
    """fc1 - lif - fc2 - lif in SpikingJelly's step mode m, wired as told."""

    def __init__(self, wire, **modules):
        super().__init__()
        self.wire = wire
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 6)
        self.lif1, self.lif2 = neuron.IFNode(step_mode="m"), neuron.IFNode(step_mode="m")
        for name, module in modules.items():
            setattr(self, name, module)
        lively(self)

    def forward(self, x):
        return self.wire(self, x)


def straight(net, x):
    return net.lif2(net.fc2(net.lif1(net.fc1(x))))


def mixed():
    return nn.Sequential(nn.Linear(6, 5), snntorch.Leaky(beta=0.9, init_hidden=True), neuron.IFNode())


class Flip(nn.Module):
    def forward(self, weight):
        return -weight


def parametrized():
    net = Odd(straight)
    parametrize.register_parametrization(net.fc2, "weight", Flip())
    return net


def masked():
    net = Odd(straight)
    prune.l1_unstructured(net.fc2, "weight", 0.5)
    return net


def lazy():
    net = Odd(straight)
    net.fc2 = nn.LazyLinear(6)
    return net


def doubled():
    net = Odd(straight)
    net.fc2.register_forward_hook(lambda module, args, out: 2 * out)
    return net


def tied():
    net = Odd(straight)
    net.fc2.weight = net.fc1.weight
    return net


def standardized_conv():
    return nn.Sequential(layer.WSConv2d(1, 2, 3, step_mode="m"), neuron.IFNode(step_mode="m"))


REFUSALS = {
    "no neuron": (lambda: nn.Linear(6, 3), (T, N, 6), ModelError, ["no spiking neuron", "snntorch, spikingjelly", "spiking=False"]),
    "no layer": (lambda: neuron.IFNode(), (N, 6), NoPrunableLayers, ["IFNode called no Linear or Conv layer", "nothing to prune"]),
    "neurons never reached": (lambda: Odd(lambda net, x: net.fc1(x)), (T, N, 6), ModelError, ["reached no spiking neuron", "whole model"]),
    "mixed frameworks": (mixed, (N, 6), ModelError, ["mixes neurons of snntorch and spikingjelly", "one framework"]),
    "parametrized": (parametrized, (T, N, 6), ModelError, ["'fc2'", "parametrized", "remove_parametrizations"]),
    "masked by torch": (masked, (T, N, 6), ModelError, ["'fc2'", "mask of torch.nn.utils.prune", "prune.remove"]),
    "tied": (tied, (T, N, 6), ModelError, ["layers 'fc1' and 'fc2' share one weight", "only one mask"]),
    "lazy": (lazy, (T, N, 6), ModelError, ["'fc2' is lazy", "run one forward"]),
    "output changed by a hook": (doubled, (T, N, 6), ModelError, ["'fc2' (Linear)", "differs from weight times input"]),
    "standardized conv": (standardized_conv, (T, N, 1, 5, 5), ModelError, ["'0' (WSConv2d)", "not the plain Conv2d", "use a plain layer"]),
    "standardized linear": (
        lambda: Odd(straight, fc1=layer.WSLinear(6, 6, step_mode="m")), (T, N, 6), ModelError, ["'fc1' (WSLinear)", "not the plain Linear"],
    ),
    "layer used twice": (
        lambda: Odd(lambda net, x: net.lif1(net.fc1(net.fc1(x)))), (T, N, 6), LayoutError,
        ["'fc1' was called 2 times", f"T = {T} timesteps and N = {N}", "several times a timestep are not supported"],
    ),
    "layer used twice, T = N = 2": (
        lambda: Odd(lambda net, x: net.lif1(net.fc1(net.fc1(x)))), (2, 2, 6), LayoutError, ["'fc1' was called 2 times", "another batch size"],
    ),
    "neuron shared, T = 1": (
        lambda: Odd(lambda net, x: net.one(net.fc2(net.one(net.fc1(x)))), one=neuron.IFNode()), (N, 6), LayoutError,
        ["'fc2' was called once, amid the 2 calls of neuron 'one'", "Give each layer its own"],
    ),
    "neuron shared over a sequence": (
        lambda: Odd(lambda net, x: net.lif1(net.fc2(net.lif1(net.fc1(x))))), (T, N, 6), LayoutError, ["'lif1' takes all timesteps", "called 2 times"],
    ),
    "timesteps disagree": (
        lambda: Odd(lambda net, x: net.lif2(net.fc2(net.lif1(net.fc1(x))[:2]))), (T, N, 6), LayoutError,
        ["do not agree", f"lif1: T = {T}, N = {N}", f"lif2: T = 2, N = {N}"],
    ),
    "shapes change": (
        lambda: Odd(lambda net, x: [net.lif1(net.fc1(x)), net.fc1(x[:1])]), (T, N, 6), LayoutError, ["'fc1' was called with (4, 2, 6) and then (1, 2, 6)"],
    ),
    "no batch axis": (lambda: jelly("s"), (6,), LayoutError, ["the neurons do not agree"]),
    "input by keyword": (
        lambda: Odd(lambda net, x: net.lif1(net.fc1(input=x))), (T, N, 6), ModelError, ["'fc1' was not given its input as first positional"],
    ),
    "wrong example": (lambda: Odd(straight), (T, N, 5), ModelError, ["Odd could not run the example", "RuntimeError", "without labels", "forward=fn"]),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "error", "told"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(make, shape, error, told):
    net = make()
    before = hooks(net)
    with pytest.raises(ModelError) as caught:
        model_view(net, noise(*shape))
    assert type(caught.value) is error
    for part in told:
        assert part in str(caught.value)
    assert hooks(net) == before


def test_what_is_no_module():
    with pytest.raises(ModelError, match=r"needs a torch.nn.Module, but was given int"):
        model_view(3, noise(T, N, 6))


def test_hooks_are_gone_when_a_later_layer_is_refused():
    net = parametrized()
    with pytest.raises(ModelError):
        model_view(net, noise(T, N, 6))
    assert hooks(net) == 0


def test_labels_in_the_example():
    with pytest.raises(
        ModelError, match=r"could not run the example: .* one batch as the model's forward takes it, without labels"
    ):
        model_view(Loop(), (noise(T, N, 6), torch.zeros(N)))


def test_a_standardized_layer_that_the_example_leaves_silent():
    net = Odd(straight, fc1=nn.Linear(6, 6), fc2=layer.WSLinear(6, 6, step_mode="m"))
    with torch.no_grad():
        net.fc1.weight.zero_()
    with pytest.raises(ModelError, match=r"'fc2' \(WSLinear\) is not the plain Linear"):
        model_view(net, noise(T, N, 6))


def test_no_batch_axis_where_features_pass_for_samples():
    net = lively(nn.Sequential(nn.Linear(6, 6), neuron.IFNode()))
    with pytest.raises(LayoutError, match=r"'0' was called 4 times with inputs of shape \(6,\)"):
        model_view(net, noise(T, 6), forward=unroll)


def test_lone_numbers_and_sequences_without_a_batch():
    net = lively(nn.Sequential(nn.Linear(6, 1), nn.Flatten(0), neuron.IFNode(step_mode="m")))
    with pytest.raises(LayoutError, match=r"'2' takes all timesteps at once, \(T, N, ...\), but was given \(4,\)"):
        model_view(net, noise(T, 6))


def test_one_neuron_a_sample():
    net = lively(nn.Sequential(nn.Linear(6, 1), nn.Flatten(0), neuron.IFNode()))
    view = model_view(net, spikes(T, N, 6), forward=unroll)
    rates = measure(view, [spikes(T, N, 6)], {Need.SPIKE_RATE}).rates["2"]
    assert torch.equal(rates, view(spikes(T, N, 6)).double().mean(1))
