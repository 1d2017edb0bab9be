"""Losses, learning rates, ranks, clipping, the running average: what a step of training is made of."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikeprune import zoo
from spikeprune.errors import NonFinite
from spikeprune.hold import hold
from spikeprune.masks import Masks
from spikeprune.recipes import memory
from spikeprune.recipes.average import Average
from spikeprune.recipes.losses import Objective, tet
from spikeprune.recipes.splits import Part
from spikeprune.recipes.tables import Machine, Prune, Train
from spikeprune.recipes.train import Bench, accuracies, accuracy, clip_gradients, epoch, learning_rate, ranks
from spikeprune.view.model_view import model_view

X = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 0, 1])
WHOLE = Part(X, Y)
PLAIN = Objective()


def bench(objective=PLAIN, **machine):
    torch.manual_seed(0)
    neuron = zoo.Neuron(threshold=0.3)
    net = zoo.make("vgg9", width=1 / 32, timesteps=3, classes=4, image=(1, 16, 16), neuron=neuron, coding="direct")
    return Bench(net, X[:2], Machine(device="cpu", **machine), objective)


def train(made, part=WHOLE, seed=0):
    optimizer = torch.optim.SGD(made.net.parameters(), lr=0.1)
    loss = epoch(made, optimizer, part, batch=4, seed=seed, before=lambda _: None, after=lambda: None)
    return loss, made.net.conv1.weight.detach().clone()


def test_tet_is_the_mean_of_every_timesteps_loss():
    outputs = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
    every = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1))]
    distance = (1 + 1 + 1 + 0) / 4
    assert tet(outputs, torch.tensor([0]), 0.25).item() == pytest.approx(0.75 * sum(every) / 2 + 0.25 * distance)
    assert tet(outputs, torch.tensor([0]), 0.0).item() == pytest.approx(sum(every) / 2)


def test_tet_of_one_timestep_without_distance_is_the_cross_entropy():
    outputs = torch.rand(1, 5, 4)
    labels = torch.arange(5) % 4
    assert torch.allclose(tet(outputs, labels, 0.0, 0.1), F.cross_entropy(outputs[0], labels, label_smoothing=0.1))


def test_a_bench_trains_by_its_objective():
    made = bench(Objective(smoothing=0.2))
    made.net.eval()
    assert torch.equal(made.loss(X, Y), F.cross_entropy(made.view(X), Y, label_smoothing=0.2))
    timed = bench(Objective(tet_lambda=0.05))
    timed.net.eval()
    assert torch.equal(timed.loss(X, Y), tet(timed.net.over_time(X), Y, 0.05))
    assert not torch.allclose(timed.loss(X, Y), made.loss(X, Y))


@pytest.mark.parametrize(
    "table", [Train(epochs=2), Prune(stages=[0.5]), Train(epochs=2, loss="tet", tet_lambda=0.5, smoothing=0.1)]
)
def test_the_objective_follows_the_table(table):
    timed = table.loss == "tet"
    assert Objective.of(table) == (Objective(0.1, 0.5) if timed else Objective())


def test_the_learning_rate_rises_and_then_falls():
    table = Train(epochs=3, warmup=1, lr=1.0)
    rates = [learning_rate(table, step, 4) for step in range(12)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])
    constant = Prune(stages=[0.5], epochs=2, lr=1.0)
    assert {learning_rate(constant, step, 4) for step in range(8)} == {1.0}
    assert learning_rate(Prune(stages=[0.5], epochs=2, lr=1.0, decay="cosine"), 4, 4) == pytest.approx(0.5)


def test_a_label_that_is_equal_to_a_lower_class_comes_after_it():
    outputs = torch.tensor([[1.0, 1.0, 0.0, 1.0]] * 4)
    assert ranks(outputs, torch.arange(4)).tolist() == [0, 1, 3, 2]
    with pytest.raises(NonFinite, match="NaN"):
        ranks(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))


def test_accuracies_count_the_labels_among_the_highest_and_the_first_is_the_accuracy():
    made, part = bench(), WHOLE
    with made.view.undisturbed(), torch.no_grad():
        outputs = made.view(X)
    best = outputs.argsort(dim=1, descending=True, stable=True)
    wanted = [sum(int(Y[i] in best[i, :places]) for i in range(6)) / 6 for places in (1, 2, 4)]
    assert accuracies(made, part, top=(1, 2, 4)) == tuple(wanted)
    assert wanted[2] == 1.0
    assert accuracy(made, part) == wanted[0]


def test_networks_of_convolutions_are_evaluated_in_smaller_batches():
    assert bench().evaluate == 200
    net = zoo.SpikingMLP((256, 4), timesteps=2)
    assert Bench(net, X[:2], Machine(device="cpu")).evaluate == 1000


def test_an_epoch_follows_its_seed_also_where_it_augments():
    part = Part(X, Y, ("crop", "flip"))
    (one, w), (two, again), (other, _) = train(bench(), part), train(bench(), part), train(bench(), part, seed=1)
    assert one == two != other
    assert torch.equal(w, again)
    assert train(bench())[0] != one


def test_gradients_are_clipped_without_those_of_dead_weights():
    net = nn.Linear(2, 1, bias=False)
    view = model_view(net, torch.ones(1, 2), spiking=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    with hold(optimizer, view, Masks({"": torch.tensor([[True, False]])})), torch.no_grad():
        clip_gradients(optimizer, 2.0)
        before = net.weight.clone()
        net.weight.grad = torch.tensor([[3.0, 4.0]])
        optimizer.step()
    assert (before - net.weight).tolist() == [[pytest.approx(2.0, abs=1e-5), 0.0]]


def test_without_clipping_gradients_stay_as_they_are():
    net = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    clip_gradients(optimizer, 0.0)
    net.weight.grad = torch.tensor([[3.0, 4.0]])
    optimizer.step()
    assert net.weight.grad.tolist() == [[3.0, 4.0]]


def test_the_average_follows_weights_and_the_statistics_of_norms():
    net = nn.BatchNorm1d(1)
    average = Average(net, 0.5)
    net.running_mean.fill_(1.0)
    net.num_batches_tracked.fill_(7)
    average.update(0)  # decay 0.1
    net.running_mean.fill_(2.0)
    average.update(100)  # decay 0.5
    assert average.state["running_mean"].item() == pytest.approx(0.5 * 0.9 + 0.5 * 2.0)
    assert average.state["num_batches_tracked"].item() == 7
    assert average.state["running_var"].item() == 1.0
    with average.lent():
        assert net.running_mean.item() == pytest.approx(1.45)
    assert net.running_mean.item() == 2.0
    average.keep()
    assert net.running_mean.item() == pytest.approx(1.45)


def test_an_average_of_another_network_is_refused():
    with pytest.raises(KeyError):
        Average(nn.BatchNorm1d(1), 0.5).load({"weight": torch.ones(1)})


def test_peak_memory_never_falls():
    before = memory.peak(torch.device("cpu"))
    assert 1 < before <= memory.peak(torch.device("cpu"))
    assert memory.KINDS["cpu"] == "RSS"


@pytest.mark.parametrize("options", [{"channels_last": True}, {"precision": "bf16-mixed"}])
def test_a_deep_network_trains_in_another_layout_and_precision(options):
    other, kinds = bench(**options), set()
    other.net.conv2.register_forward_hook(lambda _, __, out: kinds.add(out.dtype))
    loss, weight = train(other)
    plain, reference = train(bench())
    assert kinds == {torch.bfloat16 if "precision" in options else torch.float32}
    assert loss == pytest.approx(plain, rel=0.05)
    assert torch.allclose(weight, reference, atol=0.05)
    made = bench(channels_last=True)
    assert made.net.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert bench().net.conv2.weight.is_contiguous()
