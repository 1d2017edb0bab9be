"""Networks that are sparse from the start: when each method acts, and as many samples as were promised."""

from dataclasses import replace

import pytest
import torch

from spikeprune.kernel.allocate import kept
from spikeprune.methods import SET, SNIP, RigL
from spikeprune.norms import recalibrate
from spikeprune.recipes.train import epoch
from spikeprune.studies.slamp import scratch
from spikeprune.studies.slamp.settings import QUICK

FEW = replace(QUICK, densities=(0.5, 0.05), batches=3, updates=3)


def due(schedule, batches):
    return [step for step in range(batches) if schedule(step) is not None]


def test_snip_acts_once_before_training():
    method, schedule = scratch.plan("snip", 0.95, 100, 4, 0)
    assert method == SNIP()
    assert due(schedule, 100) == [0]
    assert schedule(0) == 0.95


@pytest.mark.parametrize("name", ["set", "rigl"])
def test_sparse_training_exchanges_until_three_quarters(name):
    method, schedule = scratch.plan(name, 0.95, 100, 5, 0)
    assert isinstance(method, {"set": SET, "rigl": RigL}[name])
    assert due(schedule, 100) == [0, 15, 30, 45, 60, 75]
    if name == "rigl":
        assert method.stop == 75
    assert scratch.plan(name, 0.95, 100, 5, 1)[0] != method  # another seed, another draw


def test_more_updates_than_batches_exchange_at_every_one():
    assert due(scratch.plan("set", 0.5, 4, 40, 0)[1], 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["snip", "set", "rigl"])
def test_it_starts_where_the_dense_network_started_and_falls_in_rate(lab, name, monkeypatch):
    begun, rates, norms = [], [], []

    def looked(bench, optimizer, part, *, batch, seed, before, after):
        def first(step):
            before(step)
            begun.append({layer.name: layer.weight.detach().clone() for layer in bench.view.layers})
            rates.append(optimizer.param_groups[0]["lr"])

        return epoch(bench, optimizer, part, batch=batch, seed=seed, before=first, after=after)

    monkeypatch.setattr(scratch, "epoch", looked)
    monkeypatch.setattr(scratch, "recalibrate", lambda view, batches: norms.append(len(rates)) or recalibrate(view, batches))
    found = scratch.trained(lab, name, 0.05, FEW)
    for layer in lab.untrained().view.layers:
        alive = begun[0][layer.name] != 0
        assert torch.equal(begun[0][layer.name][alive], layer.weight.detach()[alive])
        assert 0 < int(alive.sum()) < alive.numel()
    assert norms == [0, found["batches"]]  # before the first batch, and after the last
    assert max(rates) == pytest.approx(lab.recipe.train.lr, rel=0.05)
    assert rates == sorted(rates, reverse=True)  # the rise is over within the first batch
    assert rates[0] > 20 * rates[-1]


def test_every_exchange_has_another_batch_and_all_methods_the_same_first(lab):
    fresh = scratch.Fresh(lab)
    (first,), (second,), (third,) = list(fresh), list(fresh), list(fresh)
    assert torch.equal(first[0], lab.calibration[0][0])
    assert not torch.equal(second[0], third[0])
    assert len(second[1]) == lab.recipe.train.batch
    assert torch.equal(next(iter(scratch.Fresh(lab)))[0], first[0])


@pytest.mark.parametrize("name", ["snip", "set", "rigl"])
def test_it_trains_as_long_as_the_dense_network_and_a_whole_chain(lab, name):
    found = scratch.trained(lab, name, 0.05, FEW)
    table, tune = lab.recipe.train, lab.recipe.prune
    assert found["batches"] == table.epochs * lab.steps + 2 * 3 * tune.batch // table.batch
    weights = sum(layer.weight.numel() for layer in lab.copy().view.layers)
    assert found["achieved"] == pytest.approx(1 - kept(weights, 0.95) / weights)
    assert found["revived"] == 0


def test_trials_are_named_by_method_and_density(lab, monkeypatch):
    trials = list(scratch.scratch(replace(FEW, scratch=("snip", "set"), scratch_densities=(0.5, 0.05))))
    pairs = [("snip", 0.5), ("set", 0.5), ("snip", 0.05), ("set", 0.05)]
    assert [(trial.facts["method"], trial.facts["density"]) for trial in trials] == pairs
    monkeypatch.setattr(scratch, "trained", lambda _, name, density, __: {"ran": (name, density)})
    assert [trial.run(lab)["ran"] for trial in trials] == pairs
