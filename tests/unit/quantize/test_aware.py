"""Training with quantized weights: against autograd, with `hold`, and with every manner of stepping."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from small_nets import noise
from spikeprune import Masks, hold, model_view
from spikeprune.errors import ModelError, NonFinite, NoPrunableLayers, QuantizeError, UnsupportedOptimizer
from spikeprune.kernel.quantize import exact_bias, exact_step, from_integers, largest, step_of, to_integers
from spikeprune.quantize import quantize_aware

OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.01),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.003, momentum=0.9, weight_decay=0.01),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.02),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.02, weight_decay=0.1),
}


def make_net():
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.5)
    return net


def viewed(net):
    return model_view(net, noise(1, 4), spiking=False)


def loss_of(forward, seed):
    x = noise(8, 4, seed=seed)
    return (forward(x) - x[:, :3].cos()).square().sum()


def train(net, optimizer, steps=5, start=0):
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss_of(net, step).backward()
        optimizer.step()


def weights_of(net):
    return [net[0].weight, net[2].weight]


def is_quantized(weight, bits):
    values = weight.detach().abs().unique()
    values = values[values > 0]
    if not len(values):
        return True
    ratios = values.double() / (values.double().max() / torch.arange(1, largest(bits) + 1)[:, None])
    return bool(((ratios - ratios.round()).abs() < 1e-6).all(1).any())


# The straight-through estimator, against autograd


class Reference:
    """The same net on masters, quantized in the forward; steps as `step_of` gives them or learned by an autograd function."""

    def __init__(self, make_optimizer, bits, *, learned=False, per_channel=False):
        self.net, self.bits, self.per_channel = make_net(), bits, per_channel
        self.steps = [nn.Parameter(self._start(w)) if learned else None for w in weights_of(self.net)]
        self.optimizer = make_optimizer(self.net.parameters())
        if learned:
            plain = {"weight_decay": 0.0} if "weight_decay" in self.optimizer.defaults else {}
            self.optimizer.add_param_group({"params": self.steps, **plain})

    def _start(self, weight):
        size = weight.detach().abs().mean(1) if self.per_channel else weight.detach().abs().mean()
        return 2 * size / math.sqrt(largest(self.bits))

    def quantized(self):
        return [self._quantize(w, s) for w, s in zip(weights_of(self.net), self.steps, strict=True)]

    def _quantize(self, w, s):
        if s is not None:
            return LSQ.apply(w, s.view(-1, 1) if self.per_channel else s, largest(self.bits))
        step = step_of(w, self.bits, per_channel=self.per_channel)
        q = from_integers(to_integers(w, step, self.bits), step, w.dtype)
        return w + (q - w).detach()

    def __call__(self, x):
        one, two = self.quantized()
        return F.linear(torch.tanh(F.linear(x, one, self.net[0].bias)), two, self.net[2].bias)

    def train(self, steps=5):
        for step in range(steps):
            self.optimizer.zero_grad()
            loss_of(self, step).backward()
            self.optimizer.step()


class LSQ(torch.autograd.Function):
    """Equations 1 to 5 of the paper, with Q on both sides."""

    @staticmethod
    def forward(ctx, w, s, top):
        s = exact_step(s)
        ctx.save_for_backward(w, s)
        ctx.top = top
        return (w / s).clamp(-top, top).round() * s

    @staticmethod
    def backward(ctx, grad):
        w, s = ctx.saved_tensors
        v, top = w / s, ctx.top
        to_step = torch.where(v <= -top, -top, torch.where(v >= top, top, v.round() - v)) * grad
        shared = w.numel() / s.numel()
        to_step = to_step.sum(1, keepdim=True) if s.dim() else to_step.sum()
        return grad * ((v > -top) & (v < top)), to_step / math.sqrt(shared * top), None


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_updates_are_those_of_autograd_with_the_largest_weight(bits, per_channel, make_optimizer):
    net, reference = make_net(), Reference(make_optimizer, bits, per_channel=per_channel)
    optimizer = make_optimizer(net.parameters())
    with quantize_aware(optimizer, viewed(net), bits, per_channel=per_channel):
        for step in range(6):
            train(net, optimizer, steps=1, start=step)
        reference.train(6)
        for mine, theirs in zip(weights_of(net), reference.quantized(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
        torch.testing.assert_close(net[0].bias, reference.net[0].bias, rtol=0, atol=1e-6)
    before = weights_of(make_net())
    assert all((w - b).abs().max().item() > 1e-2 for w, b in zip(weights_of(reference.net), before, strict=True))


SLOWLY = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.003),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.001, momentum=0.9, weight_decay=0.01),
}


@pytest.mark.parametrize("make_optimizer", SLOWLY.values(), ids=SLOWLY)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_learned_steps_are_the_papers_with_sgd(bits, per_channel, make_optimizer):
    net, reference = make_net(), Reference(make_optimizer, bits, learned=True, per_channel=per_channel)
    optimizer = make_optimizer(net.parameters())
    with quantize_aware(optimizer, viewed(net), bits, step="learned", per_channel=per_channel) as aware:
        start = [x.step for x in aware.quantization().values()]
        train(net, optimizer, 6)
        reference.train(6)
        found = aware.quantization()
        for x, first, step, mine, theirs in zip(
            found.values(), start, reference.steps, weights_of(net), reference.quantized(), strict=True
        ):
            torch.testing.assert_close(x.step, step.detach(), rtol=2**-15, atol=0)
            assert bool(((x.step - first).abs() / first > 1e-3).any())
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_learned_steps_move_in_proportion_with_adam():
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    with quantize_aware(optimizer, viewed(net), 8, step="learned") as aware:
        before = {name: float(x.step) for name, x in aware.quantization().items()}
        train(net, optimizer, 1)
        after = {name: float(x.step) for name, x in aware.quantization().items()}
    for name, step in after.items():
        assert abs(step / before[name] - 1) == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("step", ["max", "learned"])
@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_goes_down_on_quantized_weights(make_optimizer, step):
    net = make_net()
    optimizer = make_optimizer(net.parameters())
    with quantize_aware(optimizer, viewed(net), 3, step=step):
        before = float(loss_of(net, 99).detach())
        for i in range(30):
            train(net, optimizer, 1, start=i)
            assert all(is_quantized(w, 3) for w in weights_of(net))
        assert float(loss_of(net, 99).detach()) < 0.6 * before


def test_twin_the_check_of_quantized_weights_sees_floats():
    assert not is_quantized(make_net()[0].weight, 3)


# What is left behind


def test_the_model_keeps_its_quantized_weights_and_no_hooks():
    net = make_net()
    attributes, keys = [sorted(vars(m)) for m in net.modules()], list(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    groups = len(optimizer.param_groups)
    with quantize_aware(optimizer, viewed(net), {"0": 2, "2": 4}, step="learned") as aware:
        train(net, optimizer)
        assert [sorted(vars(m)) for m in net.modules()] == attributes
        assert list(net.state_dict()) == keys
        assert type(net[0].weight) is nn.Parameter
        during = aware.quantization()
        assert all(torch.equal(net.get_parameter(f"{n}.weight"), x.weight()) for n, x in during.items())
        copy.deepcopy(optimizer.state_dict())
    assert len(optimizer.param_groups) == groups
    assert len(optimizer.state) == 4
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    for name, x in aware.quantization().items():
        assert torch.equal(net.get_parameter(f"{name}.weight"), x.weight())
        bias = net.get_parameter(f"{name}.bias")
        assert torch.equal(exact_bias(bias, x.step), bias)
    assert aware.quantization()["0"].bits == 2
    train(net, optimizer)
    assert not is_quantized(net[0].weight, 2)


def test_hooks_leave_on_an_exception_and_the_weights_are_quantized():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ZeroDivisionError), quantize_aware(optimizer, viewed(net), 2):
        1 / 0  # noqa: B018
    assert not optimizer._optimizer_step_pre_hooks
    assert is_quantized(net[0].weight, 2)


def test_layers_that_are_not_named_stay_in_floating_point():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with quantize_aware(optimizer, viewed(net), 2, layers="2"):
        train(net, optimizer)
    assert is_quantized(net[2].weight, 2)
    assert not is_quantized(net[0].weight, 2)


def test_schedulers_are_followed_by_learned_steps():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: float(epoch == 0))
    with quantize_aware(optimizer, viewed(net), 3, step="learned") as aware:
        start = float(aware.quantization()["0"].step)
        train(net, optimizer, 1)
        schedule.step()
        moved = float(aware.quantization()["0"].step)
        train(net, optimizer, 3)
        assert float(aware.quantization()["0"].step) == moved != start


def test_a_learned_step_stays_above_zero():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e3)
    with quantize_aware(optimizer, viewed(net), 3, step="learned") as aware:
        first = {name: float(x.step) for name, x in aware.quantization().items()}
        for weight in weights_of(net):  # all inside, so that only the steps feel it
            weight.grad = torch.where(weight == 0, 0, weight.sign()) * 1e3
        optimizer.step()
        for name, x in aware.quantization().items():
            assert float(x.step) >= first[name] * 2**-10 * (1 - 2**-16) > 0


def test_a_weight_that_is_written_meanwhile_is_taken_over():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    with quantize_aware(optimizer, viewed(net), 4) as aware:
        net[0].weight.data[0] = 0
        net[0].weight.data[1, 0] = 3.0
        train(net, optimizer, 1)
        assert not net[0].weight[0].any()
        assert net[0].weight[1, 0].item() == pytest.approx(3.0, rel=1e-4)
        assert float(aware.quantization()["0"].step) == pytest.approx(3 / 7, rel=1e-4)


# With hold


MASKS = Masks({"0": torch.arange(24).reshape(6, 4) % 3 == 0, "2": torch.arange(18).reshape(3, 6) % 2 == 0})


@pytest.mark.parametrize("step", ["max", "learned"])
@pytest.mark.parametrize("first", ["hold", "aware"])
@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_dead_stay_dead_in_either_order(make_optimizer, first, step):
    net = make_net()
    optimizer = make_optimizer(net.parameters())
    train(net, optimizer, 3)  # the optimizer remembers what is about to die
    view = viewed(net)
    one, two = hold(optimizer, view, MASKS), quantize_aware(optimizer, view, 3, step=step)
    with one if first == "hold" else two as outer, two if first == "hold" else one as inner:
        aware = inner if first == "hold" else outer
        for i in range(5):
            train(net, optimizer, 1, start=i)
            for name, mask in MASKS.items():
                weight = net.get_parameter(f"{name}.weight")
                assert not weight[~mask].any()
                assert bool(weight[mask].any())
                assert is_quantized(weight, 3)
                assert not aware._masters[["0", "2"].index(name)].values[~mask].any()
        assert all(not x.integers[~MASKS[name]].any() for name, x in aware.quantization().items())
    assert all(not net.get_parameter(f"{name}.weight")[~mask].any() for name, mask in MASKS.items())


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_twin_without_hold_the_dead_return(make_optimizer):
    net = make_net()
    optimizer = make_optimizer(net.parameters())
    MASKS.apply_(net)
    with quantize_aware(optimizer, viewed(net), 8):
        train(net, optimizer, 5)
    assert bool(net[0].weight[~MASKS["0"]].any())


@pytest.mark.parametrize("first", ["hold", "aware"])
def test_both_orders_train_alike(first):
    nets = []
    for order in ("hold", first):
        net = make_net()
        MASKS.apply_(net)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        view = viewed(net)
        one, two = hold(optimizer, view, MASKS), quantize_aware(optimizer, view, 4, step="learned")
        with one if order == "hold" else two, two if order == "hold" else one:
            train(net, optimizer, 6)
        nets.append(net)
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)


@pytest.mark.parametrize("first", ["hold", "aware"])
def test_a_nan_gradient_of_the_dead_moves_nothing(first):
    net = make_net()
    MASKS.apply_(net)
    optimizer, view = torch.optim.SGD(net.parameters(), lr=0.1), viewed(net)
    one, two = hold(optimizer, view, MASKS), quantize_aware(optimizer, view, 4, step="learned")
    with one if first == "hold" else two as outer, two if first == "hold" else one as inner:
        loss_of(net, 0).backward()
        net[0].weight.grad[~MASKS["0"]] = torch.nan
        optimizer.step()
        aware = inner if first == "hold" else outer
        assert all(bool(torch.isfinite(x.step)) for x in aware.quantization().values())
    assert bool(torch.isfinite(net[0].weight).all())


@pytest.mark.parametrize("first", ["hold", "aware"])
def test_a_step_that_hold_refuses_leaves_everything_in_order(first):
    net = make_net()
    MASKS.apply_(net)
    optimizer, view = torch.optim.SGD(net.parameters(), lr=0.1), viewed(net)
    one, two = hold(optimizer, view, MASKS), quantize_aware(optimizer, view, 4)
    with one if first == "hold" else two as outer, two if first == "hold" else one as inner:
        aware = inner if first == "hold" else outer
        train(net, optimizer, 2)
        masters = [master.values.clone() for master in aware._masters]
        loss_of(net, 0).backward()
        net[0].weight.grad[MASKS["0"]] = torch.nan
        with pytest.raises(NonFinite):
            optimizer.step()
        aware.quantization()
        assert all(torch.equal(a, m.values) for a, m in zip(masters, aware._masters, strict=True))
        train(net, optimizer, 2)
        assert is_quantized(net[0].weight, 4)
    assert is_quantized(net[0].weight, 4)


# Manners of stepping


@pytest.mark.parametrize("call", [lambda o, c: o.step(c), lambda o, c: o.step(closure=c)], ids=["position", "keyword"])
def test_a_closure_sees_quantized_weights(call):
    net, other = make_net(), make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    plain = torch.optim.Adam(other.parameters(), lr=0.02)
    with quantize_aware(optimizer, viewed(net), 3), quantize_aware(plain, viewed(other), 3):
        for step in range(4):

            def closure(step=step):
                assert all(is_quantized(w, 3) for w in weights_of(net))
                optimizer.zero_grad()
                loss = loss_of(net, step)
                loss.backward()
                return loss

            assert call(optimizer, closure).item() > 0
            train(other, plain, 1, start=step)
    assert torch.equal(net[0].weight, other[0].weight)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("step", ["max", "learned"])
def test_grad_scaler_steps_as_without_and_skips(step, fused):
    net, other = make_net(), make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, fused=fused)
    plain = torch.optim.SGD(other.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with (
        quantize_aware(optimizer, viewed(net), 3, step=step) as aware,
        quantize_aware(plain, viewed(other), 3, step=step) as twin,
    ):
        for i, factor in enumerate((1.0, torch.inf, 1.0)):
            optimizer.zero_grad()
            scaler.scale(loss_of(net, i) * factor).backward()
            scaler.step(optimizer)
            scaler.update()
            if factor == 1:
                train(other, plain, 1, start=i)
            torch.testing.assert_close(net[0].weight, other[0].weight, rtol=1e-4, atol=1e-6)
            steps = [[x.step for x in found.quantization().values()] for found in (aware, twin)]
            torch.testing.assert_close(*steps, rtol=1e-4, atol=0)
        assert scaler.get_scale() == 512.0


# Refusals


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"bits": 0}, QuantizeError, "bits is 0"),
        ({"bits": 1, "step": "learned"}, QuantizeError, "a learned step needs 2 bits or more, but layer '0' has 1"),
        ({"step": "min"}, QuantizeError, "no step 'min'; choose one of max, learned"),
        ({"layers": "5"}, NoPrunableLayers, "no synaptic layer fits '5'"),
    ],
)
def test_bad_options_are_refused(options, error, told):
    net = make_net()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(error, match=told), quantize_aware(optimizer, viewed(net), **options):
        pass
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not optimizer._optimizer_step_pre_hooks


def test_closure_optimizers_are_refused():
    net = make_net()
    with (
        pytest.raises(UnsupportedOptimizer, match="LBFGS cannot be held"),
        quantize_aware(torch.optim.LBFGS(net.parameters()), viewed(net)),
    ):
        pass


def test_optimizers_that_cannot_train_steps_are_refused_for_learned_ones():
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False))
    optimizer = torch.optim.Muon(net.parameters())
    with (
        pytest.raises(UnsupportedOptimizer, match=r"Muon cannot train steps .*step='max'"),
        quantize_aware(optimizer, viewed(net), step="learned"),
    ):
        pass
    with quantize_aware(optimizer, viewed(net), 3):
        train(net, optimizer, 2)
    assert is_quantized(net[0].weight, 3)


def test_the_optimizer_of_another_model_is_refused():
    net = make_net()
    optimizer = torch.optim.SGD(copy.deepcopy(net).parameters(), lr=0.1)
    with (
        pytest.raises(UnsupportedOptimizer, match=r"SGD updates no layer.*not of a copy"),
        quantize_aware(optimizer, viewed(net)),
    ):
        pass


def test_what_is_no_view_is_refused():
    net = make_net()
    with pytest.raises(ModelError, match="a view is needed"), quantize_aware(torch.optim.SGD(net.parameters(), lr=0.1), net):
        pass


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(UnsupportedOptimizer, match="was given list"), quantize_aware([], viewed(make_net())):
        pass
