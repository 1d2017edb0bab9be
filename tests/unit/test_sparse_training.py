"""Training under `sparse_training` against the same training without; which layers run how; the model as it was."""

import sys

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from small_nets import hooks, lively, noise
from spikeprune import Masks, Need, Pruner, hold, measure, methods, model_view, prune, schedules
from spikeprune.errors import MaskMismatch, ModelError, NoPrunableLayers, SparsityError
from spikeprune.runtime import jit
from spikeprune.sparse_training import sparse_training

T, N = 3, 4
ATAN = surrogate.ATan()
OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.01),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.01),
}


@pytest.fixture
def eager(monkeypatch):
    """Let sparse code run where dense would win, so that tests may be small."""
    monkeypatch.setattr(sys.modules["spikeprune.sparse_training"], "WORTH", 0.0)


class Folded(nn.Module):
    """SpikingJelly: all timesteps in one call."""

    def __init__(self):
        super().__init__()
        fire = lambda: neuron.LIFNode(tau=2.0, step_mode="m", surrogate_function=ATAN)  # noqa: E731
        self.conv1, self.lif1 = layer.Conv2d(2, 8, 3, padding=1, step_mode="m"), fire()
        self.conv2, self.lif2 = layer.Conv2d(8, 8, 3, stride=2, padding=1, step_mode="m"), fire()
        self.fc = layer.Linear(8 * 9, 16, step_mode="m")

    def forward(self, x):
        functional.reset_net(self)
        x = self.lif2(self.conv2(self.lif1(self.conv1(x.repeat(T, 1, 1, 1, 1)))))
        return self.fc(x.flatten(2)).mean(0)


class Loop(nn.Module):
    """snnTorch: a loop over timesteps."""

    def __init__(self):
        super().__init__()
        fire = lambda: snntorch.Leaky(beta=0.5, init_hidden=True, spike_grad=snntorch.surrogate.atan())  # noqa: E731
        self.conv1, self.lif1 = nn.Conv2d(2, 8, 3, padding=1), fire()
        self.conv2, self.lif2 = nn.Conv2d(8, 8, 3, stride=2, padding=1), fire()
        self.fc = nn.Linear(8 * 9, 16)

    def forward(self, x):
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        return sum(self.fc(self.lif2(self.conv2(self.lif1(self.conv1(x)))).flatten(1)) for _ in range(T)) / T


def batch():
    return 2 * noise(N, 2, 6, 6), torch.arange(N)


def pruned(make=Folded, sparsity=0.8):
    net = lively(make())
    view = model_view(net, batch()[0])
    return net, view, prune(view, methods.Magnitude(), sparsity)


def gradients(net):
    net.zero_grad()
    x, y = batch()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    return {"loss": loss.detach()} | {name: param.grad.clone() for name, param in net.named_parameters()}


def train(net, optimizer, steps=5):
    for _ in range(steps):
        gradients(net)
        optimizer.step()


def assert_close(found, expected):
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-5 * value.abs().max(), name


def ran(training):
    return {name: training.calls(name) for name in ("conv1", "conv2", "fc")}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("make", [Folded, Loop])
def test_gradients_are_those_of_dense_training(make):
    net, view, masks = pruned(make)
    dense = gradients(net)
    with sparse_training(view, masks, min_sparsity=0) as training:
        found = gradients(net)
    assert ran(training) == dict.fromkeys(ran(training), (1 if make is Folded else T, 0))
    dead = {f"{name}.weight": ~mask for name, mask in masks.items()}
    assert all(bool(dense[name][entries].any()) for name, entries in dead.items())
    assert not any(bool(found[name][entries].any()) for name, entries in dead.items())
    assert_close(found, {n: grad.masked_fill(dead[n], 0) if n in dead else grad for n, grad in dense.items()})


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("inside", [True, False])
def test_training_is_dense_training_under_hold(make, inside):
    net, view, masks = pruned()
    twin = view.clone().net
    optimizer, other = make(net.parameters()), make(twin.parameters())
    first = hold(optimizer, view, masks) if inside else sparse_training(view, masks, min_sparsity=0)
    second = sparse_training(view, masks, min_sparsity=0) if inside else hold(optimizer, view, masks)
    with first, second:
        train(net, optimizer)
        assert not any(bool(net.get_parameter(f"{name}.weight")[~mask].any()) for name, mask in masks.items())
    with hold(other, model_view(twin, batch()[0]), masks):
        train(twin, other)
    for one, before in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, before, rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("eager")
def test_dead_weights_are_not_read():
    net, view, masks = pruned()
    clean = gradients(net)["loss"]
    with torch.no_grad():
        net.conv2.weight[~masks["conv2"]] = 1.0
    with sparse_training(view, masks, min_sparsity=0):
        assert_close({"loss": gradients(net)["loss"]}, {"loss": clean})
    assert abs(gradients(net)["loss"] - clean) > 1e-3  # the twin: outside, they are


@pytest.mark.usefixtures("eager")
def test_the_model_is_left_alone_even_by_an_error():
    net, view, masks = pruned()

    def look():
        return (
            [sorted(vars(module)) for module in net.modules()],
            hooks(net),
            list(net.state_dict()),
            {type(m) for m in net.modules()},
        )

    before, dense = look(), gradients(net)

    def broken():
        with sparse_training(view, masks, min_sparsity=0):
            gradients(net)
            assert look() == before
            raise RuntimeError("the loop broke")

    with pytest.raises(RuntimeError, match="the loop broke"):
        broken()
    assert look() == before
    assert all(torch.equal(value, dense[name]) for name, value in gradients(net).items())


@pytest.mark.usefixtures("eager")
def test_a_copy_is_not_followed():
    net, view, masks = pruned()
    dense = gradients(net)
    with sparse_training(view, masks, min_sparsity=0) as training:
        found = gradients(view.clone().net)
    assert ran(training) == dict.fromkeys(ran(training), (0, 0))
    assert all(torch.equal(value, dense[name]) for name, value in found.items())


@pytest.mark.usefixtures("eager")
def test_masks_that_are_replaced_are_followed():
    net, view, masks = pruned(sparsity=0.5)
    with sparse_training(view, masks) as training:
        gradients(net)
        assert training.calls("conv2") == (0, 1)
        masks.replace_(prune(view, methods.Magnitude(), 0.95))
        grad = gradients(net)["conv2.weight"]
    assert training.calls("conv2") == (1, 1)
    assert torch.equal(grad != 0, masks["conv2"] & (grad != 0))
    assert "sparse in 1 call; dense in 1 call, because its mask removes" in training.explain()


@pytest.mark.usefixtures("eager")
def test_evaluation_with_gradients_sees_the_dead():
    net, view, masks = pruned()
    batches, needs = [batch()], {Need.WEIGHT_GRADIENT}
    dense = measure(view, batches, needs, loss_fn=F.cross_entropy)
    with sparse_training(view, masks, min_sparsity=0) as training:
        inside = measure(view, batches, needs, loss_fn=F.cross_entropy)
        assert training.calls("conv2") == (0, 1)
        with torch.no_grad():
            net.eval()(batch()[0])
        assert training.calls("conv2") == (1, 1)
    for name in masks:
        assert torch.equal(inside[name].weight_gradient, dense[name].weight_gradient)
    assert "in evaluation mode gradients are those of all weights" in training.explain()


@pytest.mark.usefixtures("eager")
def test_rigl_regrows_inside():
    net = lively(Folded())
    view = model_view(net, batch()[0])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    method = methods.RigL(fraction=0.5)
    pruner = Pruner(view, method, schedules.every(0.8, 1), calibration=[batch()], loss_fn=F.cross_entropy).attach(optimizer)
    pruner.step()
    first = Masks(dict(pruner.masks))
    with sparse_training(view, pruner.masks, min_sparsity=0) as training:
        train(net, optimizer, 1)
        pruner.step()
        train(net, optimizer, 1)
    assert training.calls("conv2")[0] == 2
    assert any(bool((pruner.masks[name] & ~first[name]).any()) for name in first)


def one_layer(module, x, mask=None, **options):
    """Run one layer forward and backward under `sparse_training`; return how it ran."""
    torch.manual_seed(0)
    net = nn.Sequential(module)
    view = model_view(net, x, spiking=False)
    masks = Masks({"0": torch.rand(module.weight.shape) < 0.05 if mask is None else mask})
    with sparse_training(view, masks, **options) as training:
        net(x).sum().backward()
    return training.explain()


LARGE = torch.ones(64, 32, 8, 8)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("module", "x", "why"),
    [
        (nn.Conv2d(32, 32, 3, padding=1, groups=2), LARGE, "it has groups"),
        (nn.Conv2d(32, 32, 3, padding=1, dilation=2), LARGE, "it is dilated"),
        (nn.Conv2d(32, 32, (2, 3), padding="same"), LARGE, "its padding is not the same on both sides"),
        (nn.Conv2d(32, 32, 3).double(), LARGE.double(), "its input is torch.float64, not float32"),
        (nn.Conv2d(32, 32, 3), LARGE[:1], "dense wins here: sparse code promises x0."),
        (nn.Linear(8, 8), LARGE, "dense wins here: sparse code promises x0.0"),
    ],
)
def test_why_a_layer_runs_dense(module, x, why):
    assert one_layer(module, x).startswith(f"0: dense in 1 call, because {why}")


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Conv2d(32, 32, 3, padding=1), LARGE),
        (nn.Conv2d(32, 64, 3, padding="same", bias=False), LARGE),
        (nn.Conv2d(32, 64, 5, padding="valid"), LARGE),
        (nn.Conv2d(32, 64, 3, padding=1, padding_mode="circular"), LARGE),
        (nn.Linear(1024, 1024), torch.ones(2, 128, 1024)),
    ],
)
def test_layers_that_run_sparse(module, x):
    assert one_layer(module, x) == "0: sparse in 1 call"
    net, mask = nn.Sequential(module), torch.rand(module.weight.shape, generator=torch.Generator().manual_seed(3)) < 0.05
    with torch.no_grad():
        module.weight.mul_(mask)
        expected = net(x)
        with sparse_training(model_view(net, x, spiking=False), Masks({"0": mask})) as training:
            torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)
    assert training.calls("0") == (1, 0)


def test_an_input_without_a_batch_runs_dense():
    net = nn.Conv2d(32, 32, 3)
    masks = Masks({"": torch.zeros(net.weight.shape, dtype=torch.bool)})
    with sparse_training(model_view(net, LARGE, spiking=False), masks) as training:
        assert net(LARGE[0]).shape == (32, 6, 6)
        assert net(LARGE).shape == (64, 32, 6, 6)
    why = "its input (32, 8, 8) does not go with its weight (32, 32, 3, 3)"
    assert training.explain() == f"the model: sparse in 1 call; dense in 1 call, because {why}"


def test_why_masks_keep_a_layer_dense():
    mask = torch.arange(32 * 32 * 9).view(32, 32, 3, 3) % 4 == 0
    conv = nn.Conv2d(32, 32, 3, padding=1)
    assert one_layer(conv, LARGE, mask) == "0: dense in 1 call, because its mask removes 75.0%, less than 80.0%"
    assert one_layer(conv, LARGE, mask, min_sparsity=0.75, layers="0") == "0: sparse in 1 call"
    mask.view(-1)[0] = False
    assert one_layer(conv, LARGE, mask, min_sparsity=0.7501) == "0: sparse in 1 call"  # which is of these weights the next below
    assert one_layer(conv, LARGE, mask, layers=[]) == "0: dense in 1 call, because it was not named"
    assert one_layer(nn.Conv1d(32, 32, 3), LARGE[..., 0]) == "0: dense, because it is a Conv1d"


def test_why_autocast_and_a_missing_compiler_keep_a_layer_dense(monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        assert "because autocast is on" in one_layer(nn.Conv2d(32, 32, 3), LARGE)
    monkeypatch.setattr(jit, "llvm", None)
    assert "because llvmlite is not installed" in one_layer(nn.Conv2d(32, 32, 3), LARGE)


def test_channels_silenced_at_a_norm_keep_a_layer_dense():
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    view = model_view(net, batch()[0], spiking=False)
    masks = prune(view, methods.Slimming(), 0.5)
    with sparse_training(view, masks, min_sparsity=0) as training:
        net(batch()[0])
    assert "0: dense in 1 call, because the norms behind it silence its channels; shrink the network" in training.explain()


def test_a_layer_that_is_not_run():
    _, view, masks = pruned()
    with sparse_training(view, masks, min_sparsity=0, layers="conv*") as training:
        pass
    assert training.explain().splitlines() == ["conv1: not run", "conv2: not run", "fc: dense, because it was not named"]


def test_what_is_refused():
    _, view, masks = pruned()
    with pytest.raises(SparsityError, match=r"sparsity is 1.5"), sparse_training(view, masks, min_sparsity=1.5):
        pass
    with pytest.raises(MaskMismatch, match="dict"), sparse_training(view, dict(masks)):
        pass
    with pytest.raises(MaskMismatch, match="'other'"), sparse_training(view, Masks({"other": masks["fc"]})):
        pass
    with pytest.raises(NoPrunableLayers, match="conv3"), sparse_training(view, masks, layers="conv3"):
        pass
    with pytest.raises(ModelError, match="Folded"), sparse_training(view.net, masks):
        pass
    nn.utils.parametrizations.weight_norm(view.net.fc)
    with pytest.raises(ModelError, match="parametrized"), sparse_training(view, masks):
        pass
