"""Noise on the input, and the accuracy that is left: counts kept, shares right, draws repeated, nonsense refused."""

import doctest
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nets_over_time import N, T, viewed
from small_nets import Loop, SnnGuest, assert_same, jelly, lively, photograph, spikes
from spikeprune.errors import DataError, EmptyCalibration, LayoutError, MeasureError, ModelError, NonFinite
from spikeprune.robustness import Deletion, Gaussian, Jitter, accuracy_under, curve
from spikeprune.temporal import rebin, truncate
from spikeprune.view.model_view import model_view
from spikeprune.zoo import Neuron
from spikeprune.zoo.parts import SpikingNet

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(1, 4))


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def counts(shape, seed=0, high=5):
    return torch.randint(0, high, shape, generator=drawn(seed)).float()


@pytest.mark.parametrize("noise", [Gaussian(0.3), Gaussian(2, -1, 1), Deletion(0.4), Jitter(2)])
def test_the_input_is_left_as_it_is_and_the_draw_repeats(noise):
    x = counts((6, 2, 50))
    before = x.clone()
    found = noise(x, drawn(1))
    assert torch.equal(x, before)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    assert torch.equal(found, noise(x, drawn(1)))
    assert not torch.equal(found, noise(x, drawn(2)))
    assert not torch.equal(found, x)


def test_gaussian():
    x = torch.full((200, 500), 3.0)
    added = Gaussian(0.5)(x, drawn()) - x
    assert abs(float(added.mean())) < 0.01
    assert float(added.std()) == pytest.approx(0.5, abs=0.01)
    held = Gaussian(0.5, low=2.9, high=3.2)(x, drawn())
    assert torch.equal(held, (x + added).clamp(2.9, 3.2))
    assert float(Gaussian(0.5, low=2.9)(x, drawn()).max()) > 3.2
    assert torch.equal(Gaussian(0)(x, drawn()), x)
    assert Gaussian(0.1)(x.half(), drawn()).dtype is torch.half


@given(SHAPES, st.floats(0, 1), st.integers(0, 99))
def test_deletion_never_adds(shape, share, seed):
    x = counts(shape, seed)
    left = Deletion(share)(x, drawn(seed))
    assert bool(((left >= 0) & (left <= x) & (left == left.round())).all())


def test_deletion_is_binomial():
    x = torch.full((40_000,), 4.0)
    left = Deletion(0.25)(x, drawn())
    for k in range(5):
        assert float((left == k).double().mean()) == pytest.approx(math.comb(4, k) * 0.75**k * 0.25 ** (4 - k), abs=0.01)
    assert torch.equal(Deletion(0)(x, drawn()), x)
    assert not Deletion(1)(x, drawn()).any()
    assert Deletion(0.5)(torch.tensor([9, 0]), drawn()).dtype is torch.int64


@given(SHAPES, st.integers(0, 9), st.integers(0, 99))
def test_jitter_keeps_every_event_at_its_place(shape, steps, seed):
    x = counts(shape, seed)
    moved = Jitter(steps)(x, drawn(seed))
    assert torch.equal(moved.sum(0), x.sum(0))
    assert bool((moved >= 0).all())
    # As many events by timestep t as had come by t - steps at the least, and by t + steps at the most.
    before, after = x.cumsum(0), moved.cumsum(0)
    for t in range(len(x) - 1):
        assert bool((after[t] <= before[min(t + steps, len(x) - 1)]).all())
        assert t < steps or bool((after[t] >= before[t - steps]).all())


def test_jitter_is_uniform_and_held_at_the_ends():
    x = torch.zeros(7, 1, 2)
    x[3, 0, 0], x[1, 0, 1] = 50_000, 50_000
    share = Jitter(2)(x, drawn())[:, 0] / 50_000
    assert share[:, 0].tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0], abs=0.01)
    assert share[:, 1].tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2, 0, 0, 0], abs=0.01)
    assert torch.equal(Jitter(0)(x, drawn()), x)
    assert torch.equal(Jitter(3)(x[:1] + 2, drawn()), x[:1] + 2)
    assert Jitter(3)(torch.zeros(0, 2, 3), drawn()).shape == (0, 2, 3)
    assert Jitter(3)(torch.zeros(2, 0, 3), drawn()).shape == (2, 0, 3)


def test_counts_that_outgrow_their_type_are_refused():
    with pytest.raises(DataError, match=r"counts up to 1[3-9][0-9] events once they are moved, more than torch\.int8 holds"):
        Jitter(1)(torch.full((3, 4), 127, dtype=torch.int8), drawn())


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.1", None, True])
def test_sigmas_that_are_none(bad):
    with pytest.raises(DataError, match="sigma must be a number of 0 or more; got"):
        Gaussian(bad)


@pytest.mark.parametrize("bounds", [(1, 1), (1, -1), (math.nan, None), (None, math.nan), ("0", 1)])
def test_bounds_that_are_none(bounds):
    with pytest.raises(DataError, match="low must be below high, each a number or None; got"):
        Gaussian(0.1, *bounds)


@pytest.mark.parametrize("bad", [-0.1, 1.1, 50, math.nan, "0.1", None, True])
def test_shares_that_are_none(bad):
    with pytest.raises(DataError, match=r"must be a number in \[0, 1\]; got"):
        Deletion(bad)


@pytest.mark.parametrize("bad", [-1, 1.0, 0.5, math.nan, True, None, "1"])
def test_steps_that_are_none(bad):
    with pytest.raises(DataError, match="steps must be an integer of 0 or more; got"):
        Jitter(bad)


@pytest.mark.parametrize("noise", [Deletion(0.1), Jitter(1)])
def test_frames_that_hold_no_counts(noise):
    for bad in (0.5, -1.0, math.nan, math.inf):
        with pytest.raises(DataError, match=rf"1 of 4 entries are none, the first {bad:.4g}\. Frames that were resized"):
            noise(torch.tensor([[1.0, bad], [0, 2]]), drawn())
    with pytest.raises(DataError, match=r"whole numbers of 0 or more, but 1 of 2"):
        noise(torch.tensor([-1, 2]), drawn())
    with pytest.raises(DataError, match=r"needs frames of event counts; got \(2,\) of torch\.bool"):
        noise(torch.tensor([True, False]), drawn())
    with pytest.raises(DataError, match="got a list"):
        noise([1], drawn())


def test_other_inputs_that_do_not_go_with_a_noise():
    with pytest.raises(DataError, match=r"floating point values; got \(2,\) of torch\.int64"):
        Gaussian(0.1)(torch.tensor([1, 2]), drawn())
    with pytest.raises(LayoutError, match="time first; got a tensor without axes"):
        Jitter(1)(torch.tensor(2.0), drawn())


def wire(scale=1.0):
    """The input is the output."""
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(scale * torch.eye(2))
    return model_view(net, torch.ones(1, 2), spiking=False)


def loop(make=Loop):
    return model_view(make(), spikes(T, N, 6), forward=lambda net, x: net(x).sum(0))


def labelled(sizes=(3, 2), seed=0):
    return [(spikes(T, n, 6, seed=seed + n), torch.arange(n) % 3) for n in sizes]


def test_accuracy_by_hand():
    x, y = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 0, 0, 1])
    view, none = wire(), lambda x, generator: x
    assert accuracy_under(view, [(x, y)], none) == (0.5, 0.5, 0.5)  # the lower class wins ties
    assert accuracy_under(view, [(x[:1], y[:1]), (x[1:], y[1:])], none, repeats=1) == (0.5,)
    assert accuracy_under(view, [(x, y)], lambda x, generator: x.flip(1), repeats=1) == (0.5,)
    assert accuracy_under(view, [(x, y)], lambda x, generator: torch.zeros_like(x), repeats=1) == (0.75,)


def test_more_noise_is_right_as_often_as_theory_says():
    x = torch.tensor([[1.0, 0.0]]).expand(4000, 2)
    for sigma in (0.5, 1.0, 3.0):
        right = 0.5 * (1 + math.erf(1 / (sigma * math.sqrt(2)) / math.sqrt(2)))  # N(1, 2 sigma^2) is above 0
        found = accuracy_under(wire(), [(x, torch.zeros(4000, dtype=torch.long))], Gaussian(sigma))
        assert found == pytest.approx((right,) * 3, abs=0.03)


def test_repeats_differ_batches_differ_and_the_seed_repeats_them():
    seen = []

    def noise(x, generator):
        seen.append(torch.rand(1, generator=generator).item())
        return x

    view, batches = loop(), labelled()
    found = accuracy_under(view, batches, noise, seed=1)
    first = list(seen)
    assert len(found) == 3
    assert len(set(first)) == 6
    seen.clear()
    accuracy_under(view, batches, noise, seed=1, repeats=2)
    assert seen == first[:4]
    seen.clear()
    accuracy_under(view, batches, noise, seed=2)
    assert not set(first) & set(seen)


def test_curve_is_each_noise_by_itself():
    view, batches = loop(), labelled((20,))
    noises = [Gaussian(0.5), Deletion(0.5), Jitter(1), Deletion(1)]
    found = curve(view, batches, noises, repeats=4, seed=5)
    assert list(found) == noises
    assert found == {noise: accuracy_under(view, batches, noise, repeats=4, seed=5) for noise in noises}
    assert found[Deletion(1)] == (7 / 20,) * 4  # nothing is left, so all say class 0
    assert len(set(found[Gaussian(0.5)])) > 1


def poisson():
    parts = {"flat": nn.Flatten(), "fc": nn.Linear(6, 3, bias=False), "neuron": Neuron("if").build()}
    net = lively(SpikingNet(parts, image=(1, 2, 3), timesteps=T, coding="poisson"))
    return model_view(net, spikes(N, 1, 2, 3))


def test_poisson_spikes_are_drawn_anew_in_each_repeat_and_apart_from_the_noise():
    view, drawn_inside = poisson(), []
    forward = view.forward

    def listening(net, x):
        drawn_inside.append(torch.rand(3).tolist())
        return forward(net, x)

    view.forward = listening
    noises = []

    def noise(x, generator):
        noises.append(torch.rand(3, generator=generator).tolist())
        return Gaussian(0.2, -1, 1)(x, generator)

    x = torch.rand(40, 1, 2, 3, generator=drawn())
    found = accuracy_under(view, [(x, torch.arange(40) % 3)], noise, seed=4)
    assert len({tuple(row) for row in drawn_inside + noises}) == 6
    assert accuracy_under(view, [(x, torch.arange(40) % 3)], noise, seed=4) == found
    assert drawn_inside[:3] == drawn_inside[3:]
    with pytest.raises(Exception, match=r"pixels in \[-1, 1\]"):
        accuracy_under(view, [(x, torch.arange(40) % 3)], Gaussian(1.0))


def test_the_model_and_the_random_state_are_left_as_found():
    view = model_view(
        SnnGuest(),
        spikes(T, N, 6),
        forward=lambda net, x: sum(net.lif2(net.fc2(net.lif1(net.norm(net.fc1(step)))))[0] for step in x),
    )
    view(spikes(T, N, 6))
    view.net.train()
    before = photograph(view.net)
    accuracy_under(view, labelled(), Jitter(1))
    assert_same(before, photograph(view.net))
    with pytest.raises(MeasureError, match="could not run batch 1"):
        accuracy_under(view, [*labelled((3,)), (spikes(T, 2, 7), torch.tensor([0, 1]))], Jitter(1))
    assert_same(before, photograph(view.net))


def test_rebinned_views_take_whole_recordings():
    view, batches = viewed("membrane"), labelled((40,))
    with torch.no_grad():
        view.net.fc1.weight *= 0.3
    found = accuracy_under(truncate(view, 2, rebin=True), batches, Jitter(2))
    assert found == accuracy_under(truncate(view, 2), batches, lambda x, draw: rebin(Jitter(2)(x, draw), 2))
    assert found != accuracy_under(truncate(view, 2), batches, Jitter(2))
    assert len(set(found)) > 1


def test_time_must_come_first_to_be_jittered():
    images = (torch.ones(3, 2), torch.tensor([0, 1, 0]))
    with pytest.raises(
        LayoutError, match=r"first axis, but that of batch 0, \(3, 2\) of torch\.float32, is not time: with 3 labels"
    ):
        accuracy_under(wire(), [images], Jitter(1))
    assert accuracy_under(wire(), [images], Deletion(0)) == (2 / 3,) * 3
    with pytest.raises(LayoutError, match="is not time"):
        accuracy_under(wire(), [([1], torch.tensor([0]))], Jitter(1))


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (None, "batch 0 needs labels.*Got a NoneType"),
        (torch.eye(3), r"needs labels.*Got \(3, 3\) of torch\.float32"),
        (torch.ones(3), r"needs labels.*Got \(3,\) of torch\.float32"),
        (torch.ones(3, dtype=torch.bool), r"needs labels.*torch\.bool"),
        ([0, 1, 2], "needs labels.*Got a list"),
        (torch.tensor([0, 1]), r"output of batch 0 is \(3, 3\) of torch\.float32; with 2 labels it must be \(2, classes\)"),
        (torch.tensor([0, 1, 3]), "run from 0 to 3, but the output has 3 classes: 0 to 2"),
        (torch.tensor([0, -1, 2]), "run from -1 to 2"),
    ],
)
def test_labels_that_do_not_fit(y, told):
    with pytest.raises(MeasureError, match=told):
        accuracy_under(loop(), [(spikes(T, N, 6), y)], Gaussian(0.1))
    if y is None:
        with pytest.raises(MeasureError, match=told):
            accuracy_under(loop(), [spikes(T, N, 6)], Gaussian(0.1))


def test_outputs_that_are_no_classes():
    sequence = model_view(jelly(), spikes(T, N, 6))
    with pytest.raises(
        MeasureError, match=r"is \(4, 3, 3\).*must be \(3, classes\)\. View the model with a forward that returns the sum"
    ):
        accuracy_under(sequence, [(spikes(T, N, 6), torch.arange(3))], Gaussian(0.1))
    pair = model_view(jelly(), spikes(T, N, 6), forward=lambda net, x: (net(x), 1))
    with pytest.raises(MeasureError, match="is a tuple"):
        accuracy_under(pair, [(spikes(T, N, 6), torch.arange(3))], Gaussian(0.1))


def test_what_is_no_batches_no_view_no_noise_no_repeat():
    view, batches = loop(), labelled()
    with pytest.raises(MeasureError, match="one batch in place of batches"):
        accuracy_under(view, batches[0], Gaussian(0.1))
    with pytest.raises(EmptyCalibration, match="held no batch"):
        accuracy_under(view, [], Gaussian(0.1))
    with pytest.raises(EmptyCalibration, match="a generator is empty the second time"):
        accuracy_under(view, iter(batches), Gaussian(0.1))
    with pytest.raises(EmptyCalibration, match="batch 0 holds no sample"):
        accuracy_under(view, [(spikes(T, 0, 6), torch.tensor([]))], Gaussian(0.1))
    with pytest.raises(ModelError, match="a view is needed"):
        accuracy_under(view.net, batches, Gaussian(0.1))
    with pytest.raises(MeasureError, match=r"such as Gaussian.*got float"):
        accuracy_under(view, batches, 0.1)
    for bad in (0, -1, 1.5, True, None):
        with pytest.raises(MeasureError, match="repeats must be a whole number of 1 or more; got"):
            accuracy_under(view, batches, Gaussian(0.1), repeats=bad)


def test_what_is_not_finite():
    x, y = labelled((3,))[0]
    spiking = loop()  # a spiking network answers zeros to NaN, so the input itself is looked at
    with pytest.raises(NonFinite, match=r"batch 0, disturbed by Gaussian\(sigma=0\.1"):
        accuracy_under(spiking, [(x.index_fill(0, torch.tensor(1), torch.nan), y)], Gaussian(0.1))
    with pytest.raises(NonFinite, match="the output of batch 0 has entries"):
        accuracy_under(wire(math.inf), [(torch.ones(3, 2), torch.zeros(3, dtype=torch.long))], Gaussian(0.1))


def test_the_guide_runs():
    guide = Path(__file__).parents[2] / "docs" / "guides" / "robustness.md"
    (block,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    found = doctest.DocTestRunner().run(doctest.DocTestParser().get_doctest(block, {}, guide.name, None, 0))
    assert (found.failed, found.attempted) == (0, 10)
