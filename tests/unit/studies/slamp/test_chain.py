"""One contender down the densities: exact counts, masks that only shrink, no zombies, the same retraining for all."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from spikeprune.errors import MeasureError, NonFinite, SparsityError
from spikeprune.kernel.allocate import kept
from spikeprune.masks import Masks
from spikeprune.methods import Magnitude
from spikeprune.recipes.splits import Part, Splits
from spikeprune.studies import retrain as retraining
from spikeprune.studies.retrain import SMALL, falling, held_out
from spikeprune.studies.slamp import chain
from spikeprune.studies.slamp.chain import measured
from spikeprune.studies.slamp.contenders import build
from spikeprune.studies.slamp.settings import QUICK

FEW = replace(QUICK, densities=(0.5, 0.2, 0.1), batches=2, contenders=("slamp", "lamp"))


def rates(steps, lr=1.0):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]]}, {"params": [weights[1]], "lr": 0.5}], lr=7.0)
    before, found = falling(optimizer, lr, steps), []
    for step in range(steps):
        before(step)
        assert len({group["lr"] for group in optimizer.param_groups}) == 1
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_learning_rate_rises_over_a_tenth_and_falls_towards_zero():
    found = rates(20, lr=2.0)
    assert found[:3] == [1.0, 2.0, 2.0]  # two steps of warm-up, then the cosine begins
    assert found[11] == pytest.approx(1.0)  # in the middle of the 18 that are left
    assert found[2:] == sorted(found[2:], reverse=True)
    assert 0 < found[-1] < 0.02


def test_a_single_step_has_the_whole_rate():
    assert rates(1) == [1.0]


def data_of(count):
    test = Part(torch.zeros(count, 1), torch.zeros(count, dtype=torch.long))
    return SimpleNamespace(splits=Splits(test, Part(torch.full((3, 1), 7, dtype=torch.uint8), torch.arange(3)), test))


def test_a_small_test_set_is_joined_by_the_validation_set():
    found = held_out(data_of(SMALL - 1))
    assert found.x[-4:].flatten().tolist() == [0, 7, 7, 7]
    assert found.y[-4:].tolist() == [0, 0, 1, 2]
    assert found.x.dtype == torch.float32


def test_a_large_test_set_stands_alone():
    lab = data_of(SMALL)
    assert held_out(lab) is lab.splits.test


@pytest.fixture
def retrained(monkeypatch):
    """The masks that `retrain` was given, the weights that it found, and those that it left."""
    calls = []
    plain = chain._retrain

    def weights(bench):
        return {layer.name: layer.weight.detach().clone() for layer in bench.view.layers}

    def retrain(lab, bench, masks, stop, batches):
        found = weights(bench)
        plain(lab, bench, masks, stop, batches)
        calls.append((masks, found, weights(bench)))

    monkeypatch.setattr(chain, "_retrain", retrain)
    return calls


@pytest.mark.parametrize("name", ["slamp", "uniform+", "random"])
def test_masks_are_exact_at_every_stop_and_only_shrink(lab, retrained, name):
    found = list(chain.stops(lab, build(name, 1), FEW))
    weights = sum(layer.weight.numel() for layer in lab.copy().view.layers)
    assert [stop["density"] for stop in found] == list(FEW.densities)
    for density, stop, (masks, _, after) in zip(FEW.densities, found, retrained, strict=True):
        assert sum(masks.kept.values()) == kept(weights, 1 - density)
        assert stop["achieved"] == masks.sparsity
        assert stop["revived"] == 0
        assert all(not bool((weight != 0)[~masks[key]].any()) for key, weight in after.items())
        assert stop["weights"] == pytest.approx(masks.density, abs=1e-4)  # a living weight may be zero by chance
    for (early, *_), (late, *_) in pairwise(retrained):
        assert all(not bool((late[key] & ~early[key]).any()) for key in late)


def test_each_stop_goes_on_with_the_weights_of_the_one_before(lab, retrained):
    list(chain.stops(lab, Magnitude(), FEW))
    left = {layer.name: layer.weight.detach() for layer in lab.copy().view.layers}
    for masks, found, after in retrained:
        assert all(torch.equal(found[name], left[name] * masks[name]) for name in masks)
        assert not torch.equal(after["conv1"], found["conv1"])
        left = after


def test_without_hold_dead_weights_come_back(lab, monkeypatch):
    monkeypatch.setattr(chain, "hold", lambda *_: nullcontext())
    assert next(chain.stops(lab, build("lamp", 1), FEW))["revived"] > 0


def test_slamp_tells_its_gains_and_others_have_none(lab):
    slamp, lamp, per_input, control = (
        next(chain.stops(lab, build(name, 1), FEW)) for name in ("slamp", "lamp", "per input", "inverted")
    )
    count = len(lab.copy().view.layers)
    assert len(slamp["gains"]) == len(slamp["steps"]) == len(slamp["layers"]) == count
    assert all(len(step) == 2 and sum(step) == pytest.approx(1) for step in slamp["steps"])
    assert slamp["gains"][-1] == 1.0  # the readout keeps no trace
    assert not {"gains", "steps"} & (lamp.keys() | per_input.keys() | control.keys())


def test_all_contenders_are_retrained_on_the_same_batches_in_the_same_order(lab, monkeypatch):
    seen = []

    def epoch(bench, optimizer, part, *, batch, seed, before, after):
        before(1)
        seen.append((part.x.sum().item(), part.y.tolist(), batch, seed, optimizer.param_groups[0]["lr"], len(optimizer.state)))

    monkeypatch.setattr(retraining, "epoch", epoch)
    for name in ("slamp", "random"):
        list(chain.stops(lab, build(name, 1), FEW))
    assert seen[:3] == seen[3:]
    assert len({call[0] for call in seen}) == 3  # but other samples at every stop
    assert all(len(call[1]) == FEW.batches * lab.recipe.prune.batch and call[-1] == 0 for call in seen)


def test_retraining_has_all_its_batches_on_few_samples_too(lab, monkeypatch):
    rates = []

    def counted(optimizer, lr, steps):
        before = falling(optimizer, lr, steps)
        return lambda step: (before(step), rates.append(optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(retraining, "falling", counted)
    next(chain.stops(lab, Magnitude(), replace(FEW, batches=60)))  # of 8 samples, and there are 400
    assert len(rates) == 60
    assert rates[-1] < 0.01 * max(rates)


def test_a_chain_gives_the_same_again(lab):
    few = replace(FEW, densities=(0.1,))
    assert chain.chain(lab, build("slamp", 1), few) == chain.chain(lab, build("slamp", 1), few)


def test_an_allocation_that_cannot_be_met_ends_the_chain_and_says_why(lab):
    found = chain.chain(lab, build("uniform+", 1), replace(FEW, densities=(0.5, 1e-4, 1e-5)))
    assert [stop["density"] for stop in found["stops"]] == [0.5]
    assert "a first convolution stays dense" in found["ended"]
    assert "ended" not in chain.chain(lab, build("uniform+", 1), replace(FEW, densities=(0.5,)))


class Failing:
    needs = frozenset()

    def __init__(self, error):
        self.error = error

    def __call__(self, layers, stats, masks, sparsity):
        raise self.error


@pytest.mark.parametrize("error", [SparsityError("too few"), NonFinite("a weight is NaN")])
def test_a_contender_that_cannot_begin_or_diverges_has_no_further_stop(lab, error):
    assert chain.chain(lab, Failing(error), FEW) == {"stops": [], "ended": str(error)}


def test_other_errors_are_raised(lab):
    with pytest.raises(MeasureError):
        chain.chain(lab, Failing(MeasureError("no gradient")), FEW)


def test_the_dense_network_is_measured_whole(lab):
    found = measured(lab, lab.copy(), Masks({}))
    assert found["achieved"] == found["revived"] == 0
    assert found["weights"] == found["unrolled"] == found["conv"] == 1.0
    assert set(found["layers"]) == {1.0}
    assert len(found["rates"]) == len(lab.copy().view.neurons)
    assert 0 <= found["accuracy"] <= found["top5"] <= 1


def test_a_trial_a_contender_in_order():
    assert [dict(trial.facts) for trial in chain.chains(FEW)] == [{"part": "sweep", "method": name} for name in ("slamp", "lamp")]


def test_trials_run_the_contender_that_they_name(lab, monkeypatch):
    """A loop's variable that is read too late would run the last contender for all."""
    monkeypatch.setattr(chain, "chain", lambda _, method, __: {"method": method})
    made = [trial.run(lab)["method"] for trial in chain.chains(FEW)]
    assert made == [build("slamp", 0), build("lamp", 0)]
