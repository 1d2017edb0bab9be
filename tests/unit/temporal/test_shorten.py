"""Training at ever fewer timesteps: levels, budget, what is put back, what is measured, and what is refused."""

import math

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from nets_over_time import N, T, batch, viewed
from small_nets import JellyGuest, SnnGuest, assert_same, photograph, spikes
from spikeprune import methods, metrics, profile, prune, schedules
from spikeprune.errors import EmptyCalibration, MeasureError, ModelError, ScheduleError
from spikeprune.hold import hold
from spikeprune.temporal import Descent, Level, rebin, shorten, truncate
from spikeprune.view.model_view import model_view
from spikeprune.zoo import Neuron
from spikeprune.zoo.parts import SpikingNet

STAIRS = schedules.staircase({0: 4, 2: 3, 3: 1})


class Lesson:
    """Trains by adding 1 to every weight and to a norm's mean, evaluates to given accuracies, and notes all."""

    def __init__(self, *accuracies):
        self.accuracies = list(accuracies)
        self.epochs, self.exams = [], []

    def train(self, view, epoch):
        self.epochs.append((view.timesteps, epoch))
        with torch.no_grad():
            for tensor in [*view.net.parameters(), *(b for n, b in view.net.named_buffers() if n.endswith("running_mean"))]:
                tensor += 1

    def evaluate(self, view):
        self.exams.append((view.timesteps, value(view)))
        return self.accuracies[len(self.exams) - 1]


def value(view):
    return view.layers[0].weight[0, 0].item()


def guest(make=JellyGuest):
    forward = (
        None
        if make is JellyGuest
        else lambda net, x: torch.stack([net.lif2(net.fc2(net.lif1(net.norm(net.fc1(step)))))[0] for step in x])
    )
    return model_view(make(), spikes(T, N, 6), forward=forward)


def run(view, lesson, schedule=STAIRS, epochs=5, calibration=None, **rest):
    descent = Descent(schedule, epochs, **rest)
    return shorten(view, descent, train=lesson.train, evaluate=lesson.evaluate, calibration=calibration)


def test_every_level_goes_on_from_the_last():
    view, lesson = viewed("loop"), Lesson(0.9, 0.5, 0.7)
    start = value(view)
    found = run(view, lesson)
    assert lesson.epochs == [(4, 0), (4, 1), (3, 2), (1, 3), (1, 4)]
    assert [t for t, _ in lesson.exams] == [4, 3, 1]
    assert [w - start for _, w in lesson.exams] == pytest.approx([2, 3, 5], abs=1e-5)
    assert found.levels == tuple(
        Level(t, epochs, accuracy, None, None, None, within=True)
        for t, epochs, accuracy in ((4, 2, 0.9), (3, 1, 0.5), (1, 2, 0.7))
    )
    assert (found.timesteps, found.view.timesteps, found.view.net, found.samples) == (1, 1, view.net, 0)
    assert found.view(batch("loop")).shape == (1, N, 3)
    assert view(batch("loop")).shape == (T, N, 3)


@pytest.mark.parametrize("make", [JellyGuest, SnnGuest])
def test_the_first_level_outside_of_the_budget_ends_it_and_is_undone(make):
    view, lesson = guest(make), Lesson(0.9, 0.8, 0.7)
    before = {name: tensor.clone() for name, tensor in view.net.state_dict().items()}
    parameters = [id(p) for p in view.net.parameters()]
    found = run(view, lesson, schedule=schedules.staircase({0: 4, 2: 3, 3: 2, 4: 1}), epochs=9, budget=0.15)
    assert lesson.epochs == [(4, 0), (4, 1), (3, 2), (2, 3)]
    assert [(x.timesteps, x.accuracy, x.within) for x in found.levels] == [(4, 0.9, True), (3, 0.8, True), (2, 0.7, False)]
    assert found.timesteps == 3
    assert [id(p) for p in view.net.parameters()] == parameters  # an optimizer still knows them
    for name, tensor in view.net.state_dict().items():
        trained = name in dict(view.net.named_parameters()) or name.endswith("running_mean")
        torch.testing.assert_close(tensor, before[name] + 3 * trained, msg=name)
    assert view.net.state_dict()["norm.running_mean"].tolist() == [3.0] * 5


def test_without_a_budget_nothing_is_undone():
    view, lesson = viewed("loop"), Lesson(0.9, 0.1, 0.0)
    start = value(view)
    assert run(view, lesson).timesteps == 1
    assert value(view) - start == pytest.approx(5, abs=1e-5)


@pytest.mark.parametrize(
    ("accuracies", "budget", "levels", "timesteps"),
    [
        ((0.9, 0.89, 0.88), 0.01, 3, 3),  # 0.9 - 0.89 is more than 0.01 in floating point
        ((90.0, 89.0, 88.99), 1, 3, 3),
        ((0.9, 0.8999, 0.9), 0, 2, 4),
        ((0.9, 0.9, 0.9), 0, 3, 1),
        ((0.5, 0.9, 0.5), 0.1, 3, 1),  # against the first level, not the best
    ],
)
def test_the_budget(accuracies, budget, levels, timesteps):
    found = run(viewed("loop"), Lesson(*accuracies), budget=budget)
    assert (len(found.levels), found.timesteps) == (levels, timesteps)
    assert [x.within for x in found.levels] == [True] * (levels - (timesteps != 1)) + [False] * (timesteps != 1)


def test_costs_by_hand():
    """One integrator a wire, threshold 1: inputs 1 and 0.5 at every timestep."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), neuron.IFNode())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
    view = model_view(net, torch.ones(4, 1, 2), forward=lambda net, x: torch.stack([net(step) for step in x]))
    x = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).expand(4, 2, 2)  # sample 0 drives both wires, sample 1 the second
    levels = shorten(
        view,
        Descent(schedules.staircase({0: 4, 1: 3, 2: 1}), 3),
        train=lambda view, epoch: None,
        evaluate=lambda view: 1,
        calibration=[x[:, :1], (x[:, 1:], torch.tensor([0]))],
    ).levels
    # Wire 0 fires T times for one sample of two, wire 1 floor(T / 2) times for both; an input a synapse that is not zero.
    assert [(x.spikes, x.synops, x.energy_pj) for x in levels] == [
        (4 / 2 + 2, 6.0, pytest.approx(5.4)),
        (3 / 2 + 1, 4.5, pytest.approx(4.05)),
        (1 / 2 + 0, 1.5, pytest.approx(1.35)),
    ]


@pytest.mark.parametrize("name", ["loop", "jelly m", "mlp", "told s", "both"])
def test_costs_are_those_of_the_report(name):
    view, data = viewed(name), [batch(name, samples=n, seed=n) for n in (2, 3)]
    before = photograph(view.net)
    found = run(view, Lesson(1, 1, 1), calibration=data)
    assert found.samples == 5
    assert found.energy_source == metrics.HOROWITZ_45NM.source
    neurons = {"lif1": 5, "lif2": 3, "lif": 3, "1": 5, "3": 3, "net.1": 5, "net.3": 3}
    report = profile(found.view, data)
    last = found.levels[-1]
    assert (last.synops, last.energy_pj) == (report.synops_effective, report.energy_pj)
    assert last.spikes == pytest.approx(sum(sum(rate) * neurons[name] for name, rate in report.rates.items()))
    assert last.spikes > 0
    assert photograph(view.net)["hooks"] == before["hooks"]


def test_calibration_is_rebinned_with_the_levels():
    view, data = viewed("loop"), [batch("loop", samples=2, seed=2)]
    stairs = schedules.staircase({0: 4, 1: 2})
    added = run(view, Lesson(1, 1), stairs, 2, data, rebin=True)
    report = profile(truncate(view, 2), [rebin(data[0], 2)])
    assert added.levels[1].synops == report.synops_effective
    assert run(viewed("loop"), Lesson(1, 1), stairs, 2, data).levels[1].synops != added.levels[1].synops
    assert torch.equal(added.view(data[0]), truncate(view, 2)(rebin(data[0], 2)))


def test_neurons_are_at_rest_and_flags_as_training_leaves_them():
    view, seen = guest(SnnGuest), []

    def rest():
        return not view.net.lif1.mem.any() and not view.net.lif2.mem.any()

    def train(short, epoch):
        seen.append((rest(), view.net.training, view.net.drop.training))
        view.net.train()
        view.net.drop.eval()
        view.forward(view.net, spikes(T, N, 6))

    def evaluate(short):
        seen.append((rest(), view.net.training, view.net.drop.training))
        view.net.eval()
        view.forward(view.net, spikes(T, N, 6))
        return 1.0

    view.net.eval()
    shorten(view, Descent(schedules.staircase({0: 4, 2: 1}), 3), train=train, evaluate=evaluate, calibration=[spikes(T, N, 6)])
    assert seen == [(True, False, False)] + [(True, True, False)] * 4
    assert (rest(), view.net.training, view.net.drop.training) == (True, True, False)


def test_what_training_raises_comes_out_and_attributes_are_back():
    view = viewed("told m")

    def broken(short, epoch):
        if epoch == 2:
            short(torch.ones(N, 7))

    with pytest.raises(RuntimeError):
        shorten(view, Descent(STAIRS, 5), train=broken, evaluate=lambda view: 1.0)
    assert view.net.T == T


def test_trained_under_masks_of_the_zoo():
    """Real training of a pruned network: what is pruned stays zero at every T, and the loss falls at the last."""
    torch.manual_seed(0)
    parts = {"flat": nn.Flatten(), "fc": nn.Linear(6, 3, bias=False), "neuron": Neuron("if").build()}
    view = model_view(SpikingNet(parts, image=(1, 2, 3), timesteps=T, coding="events"), spikes(T, N, 1, 2, 3))
    x, y = spikes(T, 8, 1, 2, 3, seed=1) * 2, torch.arange(8) % 3
    masks = prune(view, methods.Magnitude(), 0.5)
    optimizer = torch.optim.Adam(view.net.parameters(), lr=0.05)
    losses = []

    def train(short, epoch):
        short.net.train()
        loss = nn.functional.cross_entropy(short(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((short.timesteps, loss.item()))

    def evaluate(short):
        return (short(x).argmax(1) == y).float().mean()  # a tensor of one number serves

    with hold(optimizer, view, masks):
        stairs = schedules.staircase({0: 4, 10: 3, 20: 2})
        found = shorten(view, Descent(stairs, 40, rebin=True), train=train, evaluate=evaluate, calibration=[(x, y)])
    assert int((view.layers[0].weight != 0).sum()) == 9
    assert [x.timesteps for x in found.levels] == [4, 3, 2]
    last = [loss for t, loss in losses if t == 2]
    assert len(last) == 20
    assert last[-1] < last[0]


def test_the_table():
    view = viewed("loop")
    found = run(view, Lesson(0.9, 0.85, 0.2), budget=0.1, calibration=[batch("loop")])
    lines = found.to_markdown().splitlines()
    assert lines[0] == "| T | epochs | accuracy | spikes | SynOps effective | energy nJ | within budget |"
    assert {line.count("|") for line in lines[:5]} == {8}
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| 4", "| 3", "| 1"]
    assert lines[3].startswith("| 3 | 1 | 0.85 | ")
    assert lines[4].endswith(" | no |")
    assert lines[6].startswith("Kept: T = 3. Per sample, mean of 3 samples; energy: 45 nm")
    bare = run(viewed("loop"), Lesson(0.9, 0.85, 0.2)).to_markdown().splitlines()
    assert bare[4] == "| 1 | 2 | 0.2 | - | - | - | yes |"
    assert bare[-1] == "Kept: T = 1."


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ({0: 4, 2: 4}, r"T must fall from level to level; got \(4, 4\)"),
        ({0: 2, 2: 4}, r"must fall .*\(2, 4\)"),
        ({0: 4, 2: 0}, r"whole number of 1 or more; got \(4, 0\)"),
        ({0: 4, 2: -1}, r"whole number of 1 or more; got \(4, -1\)"),
        ({0: 4, 2: 2.5}, r"whole number of 1 or more; got \(4, 2\.5\)"),
        ({0: 0.9}, r"whole number of 1 or more; got \(0\.9,\)"),
        ({0: math.nan}, "whole number of 1 or more; got"),
        ({0: math.inf, 1: 3}, "whole number of 1 or more; got"),
        ({0: True}, "whole number of 1 or more; got"),
        ({0: "4"}, "whole number of 1 or more; got"),
        ({1: 4, 2: 3}, r"first level must begin at epoch 0.*got \(1, 2\)"),
    ],
)
def test_staircases_that_are_none(steps, told):
    with pytest.raises(ScheduleError, match=told):
        Descent(schedules.staircase(steps), 5)


@pytest.mark.parametrize("schedule", [schedules.cubic(0.9, stop=4), schedules.every(0.4, 2), {0: 4}, 4, None, lambda step: 4])
def test_other_schedules(schedule):
    with pytest.raises(ScheduleError, match="no Staircase"):
        Descent(schedule, 5)


@pytest.mark.parametrize("epochs", [0, 2, 3, 4.0, True, None])
def test_epochs_that_leave_a_level_none(epochs):
    with pytest.raises(ScheduleError, match=r"last level begins at epoch 3, so epochs must be a whole number above it; got"):
        Descent(STAIRS, epochs)


@pytest.mark.parametrize("budget", [-0.01, math.nan, math.inf, "1%", True])
def test_budgets_that_are_none(budget):
    with pytest.raises(ScheduleError, match="budget must be an accuracy of 0 or more, or None; got"):
        Descent(STAIRS, 5, budget)


def test_whole_numbers_may_be_floats():
    assert Descent(schedules.staircase({0: 4.0, 2: 2.0}), 3).levels == ((4, range(2)), (2, range(2, 3)))


def refused(error, told, view, lesson=None, **rest):
    """Check that it is refused before anything is trained, and that the model is as it was."""
    lesson, before = lesson or Lesson(), photograph(view.net)
    with pytest.raises(error, match=told):
        run(view, lesson, **rest)
    assert lesson.epochs == []
    assert_same(before, photograph(view.net))


def test_levels_that_the_model_cannot_run_are_refused_before_training():
    refused(
        ScheduleError, r"first level has T = 5, but the view runs T = 4", viewed("loop"), schedule=schedules.staircase({0: 5})
    )
    refused(ModelError, "no frames to re-bin", viewed("mlp"), rebin=True)
    with pytest.raises(ModelError, match="a view is needed"):
        shorten(nn.Linear(1, 1), Descent(STAIRS, 5), train=None, evaluate=None)
    with pytest.raises(ScheduleError, match=r"a Descent\(schedule, epochs\); got Staircase"):
        shorten(viewed("loop"), STAIRS, train=None, evaluate=None)


def test_a_first_level_below_the_views_T():
    found = run(viewed("loop"), Lesson(1, 1), schedules.staircase({0: 3, 1: 2}), 2)
    assert [x.timesteps for x in found.levels] == [3, 2]


def test_calibration_that_cannot_serve_is_refused_before_training():
    x = batch("loop")
    refused(MeasureError, "one batch in place of batches", viewed("loop"), calibration=x)
    refused(
        MeasureError, "gone over at every level, but a generator only once", viewed("loop"), calibration=(x for _ in range(2))
    )
    refused(EmptyCalibration, "holds no batch", viewed("loop"), calibration=[])


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, "0.9", torch.ones(2), torch.tensor(math.nan)])
def test_accuracies_that_are_none(bad):
    with pytest.raises(MeasureError, match="evaluate must return the accuracy, a finite number; at T = 4 it returned"):
        run(viewed("loop"), Lesson(bad))


@pytest.mark.parametrize("reset", [0.0, None])
@pytest.mark.parametrize("make", [
    lambda **to: neuron.IFNode(**to),
    lambda **to: neuron.LIFNode(tau=2.5, decay_input=True, **to),
    lambda **to: neuron.LIFNode(tau=2.5, decay_input=False, **to),
])  # fmt: skip
@pytest.mark.parametrize("gain", [0.25, 0.7, 1.9])
def test_a_gain_before_a_neuron_is_its_threshold(make, reset, gain):
    """Reset to zero or by subtraction: a threshold of 1 behind a gain g fires as one of 1 / g does."""
    current = 4 * torch.randn(20, 3, 50, dtype=torch.double, generator=torch.Generator().manual_seed(0)) + 0.5
    one, scaled = (make(v_threshold=v, v_reset=reset, step_mode="m") for v in (1.0, 1 / gain))
    fired = one(gain * current)
    assert torch.equal(fired, scaled(current))
    assert 0.02 < fired.mean() < 0.7
    torch.testing.assert_close(one.v, gain * scaled.v)
    other = make(v_threshold=1.0, v_reset=reset, step_mode="m")
    assert not torch.equal(fired, other(current))


def test_a_gain_is_no_threshold_where_the_reset_is_not_to_zero():
    current = 4 * torch.randn(20, 3, 50, dtype=torch.double, generator=torch.Generator().manual_seed(0)) + 0.5
    one, scaled = (neuron.IFNode(v_threshold=v, v_reset=-0.5, step_mode="m") for v in (1.0, 2.0))
    assert not torch.equal(one(0.5 * current), scaled(current))
