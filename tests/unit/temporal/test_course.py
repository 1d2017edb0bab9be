"""The course of a model over its timesteps: by hand, as a value, from any batches, and what it refuses."""

import json
from itertools import pairwise

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from nets_over_time import NETS, N, T, batch, viewed
from small_nets import Loop, SnnGuest, assert_same, jelly, noise, photograph, spikes
from spikeprune.errors import EmptyCalibration, LayoutError, MeasureError, ModelError, NonFinite
from spikeprune.metrics import EnergyTable
from spikeprune.temporal import Course, course, decision, early_exit, find_readout
from spikeprune.view.model_view import model_view


def labelled(name, sizes=(3, 1, 2)):
    return [(batch(name, samples=n, seed=n), torch.arange(n) % 3) for n in sizes]


def wire(threshold=1.0):
    """Two integrators, each behind its own input: neuron 0 fires at every step, neuron 1 at every second."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), neuron.IFNode(v_threshold=threshold))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
    return model_view(net, torch.ones(3, 1, 2), forward=lambda net, x: torch.stack([net(step) for step in x]))


def test_by_hand():
    x = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])  # T = 3, N = 2
    # Sample 0 gives (0, 0), (1, 1), (1, 0), added up (0, 0), (1, 1), (2, 1); sample 1 adds up (0, 0), (0, 1), (0, 1).
    found = course(
        wire(), [(x, torch.tensor([0, 1]))], confidences=(0.7, 0.74), energy=EnergyTable(ac=2.0, mac=9.0, source="mine")
    )
    assert (found.timesteps, found.samples, found.readout, found.energy_source) == (3, 2, "1", "mine")
    # Ties go to class 0: at step 1 both say 0; at step 2 sample 0 is tied and sample 1 right.
    assert found.accuracy == (0.5, 1.0, 1.0)
    # A synapse an input: 2 spikes at step 1, then 3, then 2.
    assert found.synops == (1.0, 2.5, 3.5)
    assert found.energy_pj == (2.0, 5.0, 7.0)
    # Softmax of a lead of 1 is 0.731: sample 0 has it at step 3, sample 1 at step 2.
    early, late = found.exits
    assert (early.confidence, early.accuracy, early.steps, early.synops, early.energy_pj) == (0.7, 1.0, 2.5, (4 + 2) / 2, 6.0)
    assert (late.confidence, late.accuracy, late.steps, late.synops) == (0.74, 1.0, 3.0, 3.5)
    p = torch.tensor([1.0, 0.0], dtype=torch.double).softmax(0)
    kl = float((0.5 * (0.5 / p).log()).sum())
    assert found.per_sample == pytest.approx((kl / 2, kl / 2))
    assert found.decision == decision([kl, kl])
    assert found.paper_decision == decision(found.batch_mean)


def test_a_value_to_json_and_back():
    for batches in (labelled("mlp"), [x for x, _ in labelled("mlp")]):
        found = course(viewed("mlp"), batches)
        assert Course.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("name", NETS)
def test_batches_are_the_same_however_they_are_cut(name):
    view, batches = viewed(name), labelled(name)
    axis = 1 if NETS[name][1] else 0
    whole = (torch.cat([x for x, _ in batches], axis), torch.cat([y for _, y in batches]))
    apart, together = course(view, batches), course(view, [whole])
    assert apart.samples == together.samples == 6
    for key, value in apart.to_dict().items():
        if key == "exits":
            assert [pytest.approx(row, rel=1e-6) for row in value] == together.to_dict()[key]
        else:
            assert together.to_dict()[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", NETS)
def test_orders_that_must_hold(name):
    found = course(viewed(name), labelled(name))
    assert len(found.accuracy) == len(found.synops) == T
    assert len(found.per_sample) == T - 1
    assert all(a <= b for a, b in pairwise(found.synops))
    assert all(a.steps <= b.steps and a.synops <= b.synops for a, b in pairwise(found.exits))
    assert all(1 <= x.steps <= T and x.synops <= found.synops[-1] for x in found.exits)
    assert found.synops[-1] > 0


@pytest.mark.parametrize("name", ["loop", "mean", "mlp", "membrane"])
def test_exits_are_those_of_early_exit(name):
    view, (x, y) = viewed(name), labelled(name, sizes=(6,))[0]
    for row in course(view, [(x, y)], confidences=(0.4, 0.6, 0.8)).exits:
        outputs, steps = early_exit(view, x, row.confidence)
        assert row.steps == steps.double().mean()
        assert row.accuracy == pytest.approx(float((outputs.argmax(1) == y).double().mean()))


def test_a_layer_called_once_is_paid_at_the_first_timestep():
    found = course(viewed("mlp"), [batch("mlp")])
    assert found.synops[0] >= 30  # fc1, 6 inputs and 5 neurons, is all real values
    assert found.synops[-1] - found.synops[0] <= (T - 1) * 15
    assert found.energy_pj[0] >= 30 * 4.6


def test_means_that_are_no_spikes_have_no_batch_mean():
    view = viewed("membrane")
    with torch.no_grad():
        view.net.fc2.weight.abs_().neg_()
    found = course(view, [batch("membrane")])
    assert (found.batch_mean, found.paper_decision) == (None, None)
    assert len(found.per_sample) == T - 1


def test_one_timestep():
    x = noise(N, 4)
    found = course(model_view(nn.Sequential(nn.Linear(4, 2)), x, spiking=False), [(x, torch.zeros(N, dtype=torch.long))])
    assert (found.timesteps, found.per_sample, found.batch_mean or ()) == (1, (), ())
    assert len(found.accuracy) == len(found.synops) == 1
    assert (found.decision.steps, found.decision.saving, found.decision.floor) == (1, 0, 0)
    assert {row.steps for row in found.exits} == {1.0}


def test_no_confidences_and_a_readout_found_before():
    view = viewed("loop")
    found = course(view, [batch("loop")], readout=find_readout(view), confidences=())
    assert found.exits == ()
    assert found == course(view, [batch("loop")], readout="lif2", confidences=())


def test_the_model_is_left_as_found():
    net = SnnGuest()
    forward = lambda net, x: torch.stack([net.lif2(net.fc2(net.lif1(net.norm(net.fc1(step)))))[0] for step in x])  # noqa: E731
    view = model_view(net, spikes(T, N, 6), forward=forward)
    view(spikes(T, N, 6))
    net.train()
    before = photograph(net)
    course(view, [spikes(T, N, 6), spikes(T, 1, 6)])
    assert_same(before, photograph(net))
    with pytest.raises(MeasureError, match="could not run batch 1"):
        course(view, [spikes(T, N, 6), spikes(T, 1, 7)])
    assert_same(before, photograph(net))


def test_the_scale_may_be_found_in_a_later_batch():
    view = model_view(viewed("mean").net, torch.zeros(T, N, 6))
    late = course(view, [torch.zeros(T, 1, 6), batch("mean")])
    assert late == course(viewed("mean"), [torch.zeros(T, 1, 6), batch("mean")])


def test_a_scale_that_changes_is_refused():
    def fickle(net, x):
        return net(x).sum(0) if x.shape[1] == N else net(x).mean(0)

    view = model_view(jelly(), spikes(T, N, 6), forward=fickle)
    with pytest.raises(ModelError, match=r"is 1 times the sum of readout '3' at first, and 0\.25 times in batch 1"):
        course(view, [spikes(T, N, 6), spikes(T, 2, 6)])


def test_a_readout_that_never_spikes():
    with pytest.raises(MeasureError, match="readout '1' gave nothing but zeros for all 5 samples and 3 timesteps"):
        course(wire(threshold=9.0), [torch.ones(3, 2, 2), torch.ones(3, 3, 2)])


def test_no_batches_and_empty_ones():
    view = viewed("loop")
    with pytest.raises(EmptyCalibration, match="held no batch"):
        course(view, [])
    with pytest.raises(EmptyCalibration, match="batch 1 holds no sample"):
        course(view, [batch("loop"), torch.zeros(T, 0, 6)])
    with pytest.raises(MeasureError, match="one batch in place of batches"):
        course(view, batch("loop"))
    with pytest.raises(ModelError, match="a view is needed"):
        course(Loop(), [batch("loop")])


def test_numbers_that_are_not_finite():
    view, x = viewed("loop"), batch("loop")
    x[1, 0, 0] = torch.nan
    with pytest.raises(NonFinite, match=r"1 of 18 inputs of layer 'fc1' are NaN or infinite\. Check batch 1"):
        course(view, [batch("loop"), x])
    with torch.no_grad():
        view.net.fc2.weight[0, 0] = torch.inf
    with pytest.raises(NonFinite, match="1 of 15 weights of layer 'fc2'"):
        course(view, [batch("loop")])
    view = model_view(nn.Linear(2, 2), torch.ones(1, 2), spiking=False)
    with torch.no_grad():
        view.net.bias.fill_(torch.nan)
    with pytest.raises(NonFinite, match="outputs of layer ''"):
        course(view, [torch.ones(1, 2)], readout=None)


@pytest.mark.parametrize("bad", [0, -0.1, 1.1, 90, float("nan"), "0.9"])
def test_confidences_out_of_range(bad):
    with pytest.raises(MeasureError, match="a confidence must be above 0 and at most 1; got"):
        course(viewed("loop"), [batch("loop")], confidences=(0.5, bad))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (torch.tensor([0, 1]), r"labels of batch 0 are \(2,\) of torch\.int64; its 3 samples need class numbers of shape \(3,\)"),
        (torch.eye(3), r"are \(3, 3\) of torch\.float32.*y\.argmax\(1\)"),
        (torch.ones(3), r"are \(3,\) of torch\.float32"),
        (torch.tensor([0, 1, 3]), "run from 0 to 3, but the readout has 3 classes: 0 to 2"),
        (torch.tensor([0, -1, 2]), "run from -1 to 2"),
        ("cat", "are str"),
    ],
)
def test_labels_that_do_not_fit(labels, told):
    with pytest.raises(MeasureError, match=told):
        course(viewed("loop"), [(batch("loop"), labels)])


def test_labels_for_some_batches_only():
    with pytest.raises(MeasureError, match="3 of 5 samples have labels"):
        course(viewed("loop"), [(batch("loop"), torch.tensor([0, 1, 2])), batch("loop", samples=2)])


def test_other_timesteps_than_viewed():
    with pytest.raises(LayoutError, match="saw 2 timesteps in batch 1, but 4 when the model was viewed"):
        course(viewed("loop"), [batch("loop"), spikes(2, N, 6)])


def test_unknown_readout():
    with pytest.raises(ModelError, match=r"no module 'lif3' for a readout\. Did you mean"):
        course(viewed("loop"), [batch("loop")], readout="lif3")
