"""SLAMP: its limits in LAMP, its gains by hand, and what it refuses."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import Loop, jelly, lively, noise, spikes, unroll
from spikeprune import Masks, Need, Pruner, measure, model_view, prune
from spikeprune.errors import MethodError, NotMeasured, SparsityError
from spikeprune.kernel.allocate import kept, lamp
from spikeprune.kernel.schedules import stages
from spikeprune.methods import Magnitude
from spikeprune.methods.slamp import SLAMP, by_gradient, by_nearness, evenly, input_gain, peak_gain, trace_gain
from spikeprune.stats import Stats
from spikeprune.view.layer import Layer, Layout

YES, NO = True, False
T = 4
STEPS, GAINS = (by_gradient, by_nearness, evenly), (trace_gain, input_gain, peak_gain)
# Every switch but the cap: `per_input` excludes exponents.
SWITCHES = [
    SLAMP(steps=steps, gain=gain, exponent=exponent) for steps, gain, exponent in itertools.product(STEPS, GAINS, (False, True))
] + [SLAMP(steps=steps, per_input=True) for steps in STEPS]


def loss(out, y):
    return nn.functional.cross_entropy(out.mean(0), y)


def weights(name, rows, drives="lif"):
    rows = torch.as_tensor(rows)
    module = nn.Linear(rows.shape[1], rows.shape[0], bias=False)
    with torch.no_grad():
        module.weight.copy_(rows)
    return Layer(name, module, Layout.ONCE, drives)


def found(given, trace=None, step=None, near=None):
    """Statistics of a layer with one channel, a number a timestep."""
    given = torch.tensor(given, dtype=torch.double)
    column = given.view(-1, 1) if given.dim() == 1 else given
    trace = column if trace is None else torch.tensor(trace, dtype=torch.double).view_as(column)
    step, near = (
        torch.ones(len(column), dtype=torch.double) if x is None else torch.tensor(x, dtype=torch.double) for x in (step, near)
    )
    return SimpleNamespace(input_power=column, trace_power=trace, step_weight=step, near_threshold=near)


def constant(gain, names="ab"):
    """Statistics whose trace gain is the same in every layer."""
    return {name: found([1.0, 1.0], [gain, gain]) for name in names}


def drawn(*shapes, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [weights(name, torch.randn(shape, generator=draw)) for name, shape in zip("abcdef", shapes, strict=False)]


def decide(method, layers, stats, sparsity, masks=None):
    return {name: mask.tolist() for name, mask in method(layers, stats, masks or Masks({}), sparsity).items()}


PAIR = [weights("a", [[1.0, 2.0, 3.0, 4.0]]), weights("b", [[0.1, 0.2]])]  # LAMP: 1/30, 4/29, 9/25, 1 and 0.2, 1


@pytest.mark.parametrize(
    ("gain_a", "gain_b", "exponent", "a", "b"),
    [
        (1, 1, False, [NO, NO, YES, YES], [NO, YES]),
        (1, 2, False, [NO, NO, NO, YES], [YES, YES]),  # 0.36 against 0.4
        (1, 1.75, False, [NO, NO, YES, YES], [NO, YES]),  # 0.36 against 0.35
        (4, 1, False, [NO, NO, YES, YES], [NO, YES]),
        (1, 4, True, [NO, NO, NO, YES], [YES, YES]),  # 0.36 against 0.2 ** (1 / 2) = 0.45
        (1, 2, True, [NO, NO, YES, YES], [NO, YES]),  # 0.36 against 0.2 ** (1 / 1.41) = 0.32
        (0.25, 1, True, [NO, NO, NO, YES], [YES, YES]),  # 0.36 ** 2 = 0.13 against 0.2
    ],
)
def test_the_score_by_hand(gain_a, gain_b, exponent, a, b):
    stats = constant(gain_a, "a") | constant(gain_b, "b")
    assert decide(SLAMP(steps=evenly, exponent=exponent), PAIR, stats, 0.5) == {"a": [a], "b": [b]}


def test_the_gains_by_hand():
    # Input powers 1, 3; trace powers 1, 5; weights 1 : 3.
    stats = {"a": found([1.0, 3.0], [1.0, 5.0], step=[2.0, 6.0], near=[0.3, 0.1])}
    one = [weights("a", [[1.0]])]
    expected = {
        (by_gradient, trace_gain): (1 / 4 + 15 / 4) / (1 / 4 + 9 / 4),
        (by_gradient, input_gain): (1 / 4 + 9 / 4) / 2,
        (by_gradient, peak_gain): (15 / 4) / 3,
        (by_nearness, trace_gain): (3 / 4 + 5 / 4) / (3 / 4 + 3 / 4),
        (evenly, trace_gain): 6 / 4,
        (evenly, input_gain): 1,
        (evenly, peak_gain): 2.5 / 3,
    }
    for (steps, gain), value in expected.items():
        assert SLAMP(steps=steps, gain=gain).gains(one, stats)["a"] == pytest.approx(value, rel=1e-12)


def test_channels_are_added_before_the_quotient():
    stats = {"a": found([[1.0, 9.0], [1.0, 9.0]], [[1.0, 9.0], [3.0, 17.0]])}
    assert SLAMP(steps=evenly).gains([weights("a", [[1.0, 1.0]])], stats)["a"] == pytest.approx(30 / 20)


# Limits


def one_timestep(make):
    net, x = make(), spikes(1, 6, 6)
    view = model_view(net, x)
    every = {Need.INPUT_POWER, Need.TRACE_POWER, Need.STEP_WEIGHT, Need.NEAR_THRESHOLD}
    return view, measure(view, [(x, torch.arange(6) % 3)], every, loss_fn=loss)


@pytest.mark.parametrize("method", SWITCHES)
def test_at_one_timestep_it_is_lamp_bit_for_bit_also_in_rounds(method):
    for make in (Loop, jelly):
        view, stats = one_timestep(make)
        masks, plain = Masks({}), Masks({})
        for sparsity in (0.0, 0.2, 0.5, 0.5, 0.8, 0.95):
            masks = method(view.layers, stats, masks, sparsity)
            plain = Magnitude(allocation=lamp)(view.layers, Stats({}, None, 0, 0), plain, sparsity)
            assert masks == plain
        if not method.per_input:
            assert set(method.gains(view.layers, stats).values()) == {1.0}


@pytest.mark.parametrize("method", [m for m in SWITCHES if m.gain is trace_gain])
def test_with_more_timesteps_it_is_not_lamp(method):
    """What the test above could not tell from a method that forgets its gains."""
    many = drawn((30, 20), (20, 30), (9, 7))
    stats = {"a": found([[1.0] * 20] * 2), "b": found([[1.0] * 30] * 2, [[5.0] * 30] * 2), "c": found([[1.0] * 7] * 2)}
    stats["b"].trace_power[:, 0] *= 7
    assert method(many, stats, Masks({}), 0.8) != Magnitude(allocation=lamp)(many, stats, Masks({}), 0.8)


@pytest.mark.parametrize(
    ("gain", "exponent"), [(g, False) for g in (1e-6, 0.3, 1.0, 7.0, 1e6)] + [(g, True) for g in (0.3, 1.0, 7.0, 1e6)]
)
def test_gains_that_are_alike_make_it_lamp(gain, exponent):
    many = drawn((30, 20), (20, 30), (3, 2))
    for sparsity in (0.5, 0.9, 0.99):
        masks = SLAMP(steps=evenly, exponent=exponent)(many, constant(gain, "abc"), Masks({}), sparsity)
        assert masks == Magnitude(allocation=lamp)(many, {}, Masks({}), sparsity)


@pytest.mark.parametrize("method", SWITCHES)
@pytest.mark.parametrize("factor", [2.0**-20, 0.5, 64.0])
def test_the_scale_of_a_layer_does_not_matter(method, factor):
    many, stats = drawn((30, 20), (20, 30), (3, 2)), {}
    draw = torch.Generator().manual_seed(3)
    for x in many:
        given = torch.rand(T, x.weight.shape[1], generator=draw, dtype=torch.double)
        louder, step, near = 1 + torch.rand(3, T, generator=draw, dtype=torch.double)
        stats[x.name] = SimpleNamespace(
            input_power=given, trace_power=given * louder.view(T, 1), step_weight=step, near_threshold=near
        )
    before = [method(many, stats, Masks({}), sparsity) for sparsity in (0.5, 0.9)]
    many[1].weight.data.mul_(factor)
    assert [method(many, stats, Masks({}), sparsity) for sparsity in (0.5, 0.9)] == before


# Counts


def deep():
    """Twelve layers, of which most have a handful of weights."""
    sizes = [100, 40, 2, 1, 3, 2, 2, 50, 40, 1, 2, 4, 3]
    parts = [
        part for a, b in itertools.pairwise(sizes) for part in (layer.Linear(a, b), neuron.LIFNode(tau=1.5, v_threshold=0.3))
    ]
    net = nn.Sequential(*parts)
    functional.set_step_mode(lively(net), "m")
    return net


@pytest.mark.parametrize("method", [*SWITCHES, SLAMP(cap=10)])
def test_no_layer_is_emptied_and_the_count_is_exact(method):
    x = spikes(T, 5, 100)
    view = model_view(deep(), x)
    masks, total = None, sum(found.weight.numel() for found in view.layers)
    for sparsity in (0.0, 0.5, 0.9, 0.98, 1 - 12 / total):
        before, masks = masks, prune(view, method, sparsity, calibration=[(x, torch.arange(5) % 3)], loss_fn=loss, masks=masks)
        assert sum(masks.kept.values()) == kept(total, sparsity)
        assert min(masks.kept.values()) >= 1
        assert before is None or not any(bool((mask & ~before[name]).any()) for name, mask in masks.items())
    assert set(masks.kept.values()) == {1}


def test_without_the_floor_a_layer_of_small_gain_would_be_emptied():
    stats = constant(1.0, "a") | constant(1e-9, "b")
    scores = {x.name: lamp(x.weight.detach().abs()) * g for x, g in zip(PAIR, (1.0, 1e-9), strict=True)}
    assert float(scores["b"].max()) < float(scores["a"].min())
    assert decide(SLAMP(steps=evenly), PAIR, stats, 0.6) == {"a": [[NO, NO, NO, YES]], "b": [[NO, YES]]}
    with pytest.raises(SparsityError, match="at most"):
        SLAMP(steps=evenly)(PAIR, stats, Masks({}), 0.9)


def test_within_a_layer_the_largest_stay():
    draw = torch.Generator().manual_seed(5)
    many = drawn((12, 10), (10, 12), seed=5)
    stats = {x.name: found(torch.rand(T, generator=draw).tolist(), (2 * torch.rand(T, generator=draw)).tolist()) for x in many}
    for method in SWITCHES:
        if not method.per_input:
            for name, mask in method(many, stats, Masks({}), 0.7).items():
                size = next(x for x in many if x.name == name).weight.abs()
                assert size[mask].min() >= size[~mask].max()


def test_the_dead_stay_dead_whatever_the_gain():
    force = Masks({"a": torch.tensor([[YES, YES, YES, NO]]), "b": torch.tensor([[YES, NO]])})
    for gain, exponent in itertools.product((0.0, 1e-9, 1.0, 1e9), (False, True)):
        stats = constant(gain, "a") | constant(1.0, "b")
        masks = SLAMP(steps=evenly, exponent=exponent)(PAIR, stats, force, 0.5)
        assert masks.kept == {"a": 2, "b": 1}
        assert masks["a"].tolist() == [[NO, YES, YES, NO]]
        assert masks["b"].tolist() == [[YES, NO]]


@pytest.mark.parametrize("exponent", [False, True])
def test_a_gain_of_zero_brings_no_dead_weight_back(exponent):
    force = Masks({"a": torch.tensor([[NO, NO, NO, YES]])})  # zero times minus infinity is no number
    stats, method = constant(0.0, "a") | constant(1.0, "b"), SLAMP(steps=evenly, exponent=exponent)
    assert decide(method, PAIR, stats, 0.5, force) == {"a": [[NO, NO, NO, YES]], "b": [[YES, YES]]}
    with pytest.raises(SparsityError, match="earlier masks left only 3 alive"):
        method(PAIR, stats, force, 0.3)


def test_in_rounds_the_scores_are_of_those_alive():
    # LAMP of 3, 2, 1 with 4 dead: 9/9, 4/13, 1/14; of 0.2, 0.1: 1, 0.2.
    force = Masks({"a": torch.tensor([[YES, YES, YES, NO]])})
    assert decide(SLAMP(steps=evenly), PAIR, constant(1.0), 0.5, force) == {"a": [[NO, YES, YES, NO]], "b": [[NO, YES]]}
    assert decide(SLAMP(steps=evenly), PAIR, constant(1.0, "a") | constant(1.6, "b"), 0.5, force) == {
        "a": [[NO, NO, YES, NO]],
        "b": [[YES, YES]],
    }


# Silence


def test_a_layer_without_input_has_gain_one():
    silent = {"a": found([0.0, 0.0]), "b": found([1.0, 1.0], [1.0, 3.0])}
    for gain in GAINS:
        gains = SLAMP(steps=evenly, gain=gain).gains(PAIR, silent)
        assert gains["a"] == 1.0
    assert SLAMP(steps=evenly).gains(PAIR, silent)["b"] == 2.0


def test_where_nothing_is_felt_timesteps_weigh_alike():
    stats = {"a": found([1.0, 3.0], step=[0.0, 0.0], near=[0.0, 0.0])}
    for steps in STEPS:
        assert SLAMP(steps=steps).weights(PAIR[0], stats).tolist() == [0.5, 0.5]
    stats["a"].step_weight = torch.tensor([0.0, 2.0], dtype=torch.double)
    assert SLAMP().weights(PAIR[0], stats).tolist() == [0.0, 1.0]


def test_a_readout_has_even_weights_by_nearness():
    view = model_view(nn.Sequential(*jelly(), layer.Linear(3, 3, step_mode="m")), spikes(T, 6, 6))
    masks = prune(view, SLAMP(steps=by_nearness), 0.5, calibration=[spikes(T, 6, 6)])
    assert sum(masks.kept.values()) == 27  # 30 + 15 + 9 weights
    method, stats = SLAMP(steps=by_nearness), measure(view, [spikes(T, 6, 6)], SLAMP(steps=by_nearness).needs)
    assert method.weights(view.layers[-1], stats).tolist() == [1 / T] * T
    assert method.gains(view.layers, stats)["4"] == 1.0  # no neuron, no trace
    with pytest.raises(NotMeasured, match="it drives no neuron"):
        by_nearness(stats["4"])


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("exponent", [False, True])
def test_inputs_when_nothing_is_felt_give_a_gain_of_zero_and_a_ranking_all_the_same(gain, exponent):
    stats = {"a": found([1.0, 0.0], step=[0.0, 1.0]), "b": found([1.0, 1.0])}
    method = SLAMP(gain=gain, exponent=exponent)
    assert method.gains(PAIR, stats)["a"] == (1.0 if gain is trace_gain else 0.0)
    assert sum(method(PAIR, stats, Masks({}), 0.5).kept.values()) == 3
    assert SLAMP(gain=gain, cap=4).gains(PAIR, stats)["b"] <= 4


@pytest.mark.parametrize("method", SWITCHES)
def test_a_readout_that_is_called_once_has_gain_one(method):
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif, self.fc2 = nn.Linear(6, 5), neuron.LIFNode(step_mode="m"), nn.Linear(5, 3)
            lively(self)

        def forward(self, x):
            return self.fc2(self.lif(self.fc1(x)).mean(0))

    x, y = spikes(T, 6, 6), torch.arange(6) % 3
    view = model_view(Mean(), x)
    stats = measure(view, [(x, y)], method.needs, loss_fn=nn.functional.cross_entropy)
    gains = method.gains(view.layers, stats)
    assert gains["fc2"] == pytest.approx(1 / T if method.gain is peak_gain else 1.0)
    assert sum(method(view.layers, stats, Masks({}), 0.5).kept.values()) == 22  # of 45


# Caps and channels


def test_the_cap_clips_about_the_median():
    many = drawn((2, 2), (2, 2), (2, 2))
    stats = constant(0.02, "a") | constant(2.0, "b") | constant(3000.0, "c")
    assert SLAMP(steps=evenly, cap=10).gains(many, stats) == pytest.approx({"a": 0.1, "b": 1.0, "c": 10.0})
    assert SLAMP(steps=evenly, cap=1).gains(many, stats) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert SLAMP(steps=evenly, cap=math.inf).gains(many, stats) == pytest.approx({"a": 0.01, "b": 1.0, "c": 1500.0})
    nothing = constant(0.0, "a") | constant(0.0, "b") | constant(1.0, "c")
    assert SLAMP(steps=evenly, cap=10).gains(many, nothing) == pytest.approx({"a": 0.1, "b": 0.1, "c": 10.0})


def test_per_input_a_busy_input_keeps_more():
    # Gains of the two inputs: 9 and 1, so sizes 3 |w| and |w|.
    stats = {"a": found([[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [17.0, 1.0]])}
    one = [weights("a", [[1.0, 2.0], [0.5, 4.0]])]
    assert decide(SLAMP(steps=evenly, per_input=True), one, stats, 0.5) == {"a": [[YES, NO], [NO, YES]]}
    assert decide(SLAMP(steps=evenly), one, stats, 0.5) == {"a": [[NO, YES], [NO, YES]]}


def test_per_input_a_convolution_goes_by_channel_and_a_grouped_one_is_refused():
    for groups in (1, 2):
        net = nn.Sequential(layer.Conv2d(2, 4, 2, groups=groups), neuron.IFNode(), layer.Flatten(), layer.Linear(16, 3))
        functional.set_step_mode(lively(net), "m")
        x = spikes(T, 4, 2, 3, 3)
        view = model_view(net, x)
        method = SLAMP(steps=evenly, per_input=True)
        if groups == 1:
            assert sum(prune(view, method, 0.5, calibration=[x]).kept.values()) == 40
            continue
        with pytest.raises(MethodError, match=r"layer '0' is grouped: 2 channels, 1 columns\. Leave the layer out"):
            prune(view, method, 0.5, calibration=[x])
        assert prune(view, SLAMP(steps=evenly), 0.5, calibration=[x]).kept.keys() == {"0", "3"}


# On a network


def test_gains_differ_between_layers_and_follow_the_data():
    net = jelly(make=lambda: neuron.LIFNode(tau=2.0))
    busy = torch.ones(T, 6, 6)
    early = torch.zeros(T, 6, 6)
    early[0] = 1
    y, view, gains = torch.arange(6) % 3, model_view(net, busy), []
    for x in (busy, early):
        stats = measure(view, [(x, y)], SLAMP().needs, loss_fn=loss)
        gains.append(SLAMP(steps=evenly).gains(view.layers, stats))
        assert all(sum(SLAMP().weights(found, stats).tolist()) == pytest.approx(1) for found in view.layers)
    # At leak 1 / 2 the traces of a constant are 1, 3/2, 7/4, 15/8; those of a lone spike 1, 1/2, 1/4, 1/8.
    assert gains[0]["0"] == pytest.approx((1 + 9 / 4 + 49 / 16 + 225 / 64) / 4)
    assert gains[1]["0"] == pytest.approx(1 + 1 / 4 + 1 / 16 + 1 / 64)
    assert abs(gains[0]["0"] - gains[0]["2"]) > 0.05


def test_without_a_leaky_trace_evenly_weighed_it_would_be_lamp():
    """The negative twin: the same network, whose gains without trace and weights are one."""
    view, x, y = model_view(jelly(), spikes(T, 6, 6)), spikes(T, 6, 6), torch.arange(6) % 3
    stats = measure(view, [(x, y)], SLAMP().needs, loss_fn=loss)
    assert SLAMP(steps=evenly, gain=input_gain).gains(view.layers, stats) == pytest.approx({"0": 1.0, "2": 1.0})
    assert min(SLAMP().gains(view.layers, stats).values()) > 1.2


def test_gains_are_measured_anew_at_every_stage():
    x, y, seen = spikes(T, 6, 6), torch.arange(6) % 3, []
    view = model_view(jelly(make=lambda: neuron.LIFNode(tau=2.0)), x)

    def spied(stats, weights):
        seen.append(trace_gain(stats, weights))
        return seen[-1]

    pruner = Pruner(view, SLAMP(gain=spied), stages([0.3, 0.6], every=1), calibration=[(x, y)], loss_fn=loss)
    pruner.step()
    view.net[0].weight.data.mul_(3)
    pruner.step()
    assert len(seen) == 4
    assert seen[1] != seen[3]


# The front


def test_what_it_needs():
    powers = {Need.INPUT_POWER, Need.TRACE_POWER}
    assert SLAMP().needs == powers | {Need.STEP_WEIGHT}
    assert SLAMP(steps=by_nearness).needs == powers | {Need.NEAR_THRESHOLD}
    assert SLAMP(steps=evenly).needs == powers
    assert SLAMP() == SLAMP(by_gradient, trace_gain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "gradient"}, r"steps is 'gradient', but must be a function of methods\.slamp"),
        ({"gain": None}, r"gain is None, but must be a function of methods\.slamp"),
        ({"cap": 0.5}, r"cap is 0\.5, but must be 1 or more"),
        ({"cap": math.nan}, r"cap is nan, but must be 1 or more"),
        ({"per_input": True, "exponent": True}, r"per_input has no gain of a layer"),
        ({"per_input": True, "cap": 10}, r"per_input has no gain of a layer"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(MethodError, match=message):
        SLAMP(**options)


def test_a_frozen_layer_is_named_unless_it_is_left_out():
    x, y = spikes(T, 6, 6), torch.arange(6) % 3
    view = model_view(jelly(), x)
    view.layers[0].weight.requires_grad_(False)
    with pytest.raises(NotMeasured, match=r"step_weight of layer '0' was not gathered: its weight is frozen"):
        prune(view, SLAMP(), 0.5, calibration=[(x, y)], loss_fn=loss)
    assert prune(view, SLAMP(), 0.6, calibration=[(x, y)], loss_fn=loss, layers="2").kept == {"2": 6}


def test_step_by_step_or_all_at_once_the_masks_are_the_same():
    x, y = noise(T, 6, 6), torch.arange(6) % 3
    view = model_view(jelly("s", lambda: neuron.LIFNode(tau=2.0)), x, forward=unroll)
    whole = model_view(jelly("m", lambda: neuron.LIFNode(tau=2.0)), x)
    data = {"calibration": [(x, y)], "loss_fn": loss}
    assert prune(view, SLAMP(), 0.7, **data) == prune(whole, SLAMP(), 0.7, **data)
