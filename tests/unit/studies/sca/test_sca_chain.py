"""One contender down the channels: exact counts, the same retraining for all, the smaller network measured."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from spikeprune import model_view
from spikeprune.methods import SCA, Slimming
from spikeprune.studies.measured import macs, samples, whole
from spikeprune.studies.sca import chain, latency, scratch
from spikeprune.studies.sca.contenders import ABOUT, CONTENDERS, build
from spikeprune.studies.sca.settings import QUICK

FEW = replace(QUICK, densities=(0.7, 0.4), batches=4, updates=2, contenders=("sca", "l1"), timed=1, calibration=1)


def total(lab):
    return sum(layer.weight.shape[0] for layer in lab.copy().view.channel_layers())


@pytest.mark.parametrize("name", ["sca", "soft", "l1", "slimming", "activity"])
def test_every_stop_keeps_its_share_of_channels_and_is_measured_small(lab, name):
    found, units = chain.chain(lab, name, FEW), total(lab)
    assert "ended" not in found
    dense = whole(lab)
    for density, stop in zip(FEW.densities, found["stops"], strict=True):
        kept = sum(stop["channels"]) - stop["channels"][-1]  # all but the classifier's
        assert abs(kept - density * units) <= (1 if name not in ("sca", "soft") else 2)
        assert stop["density"] == density
        assert stop["macs"] < dense["macs"]
        assert stop["parameters"] < dense["parameters"]
        assert ("speedup_64" in stop) == (name in chain.TIMED)
        assert ("unmasked" in stop) == (name == "soft")


def test_sca_decides_again_and_again_in_the_first_half_and_others_once(lab):
    again, once = (chain.chain(lab, name, FEW)["stops"] for name in ("sca", "l1"))
    assert [len(stop["history"]) for stop in again] == [3, 3]  # before the first batch, the second and the third
    assert [len(stop["history"]) for stop in once] == [1, 1]
    for stop in (*again, *once):
        assert stop["history"][-1] == stop["channels"][: len(stop["history"][-1])]


def test_each_stop_goes_on_from_the_one_before(lab):
    masks = [dict(pruner.masks) for _, pruner, _ in chain.stops(lab, "l1", FEW)]
    assert all(not bool((masks[1][name] & ~masks[0][name]).any()) for name in masks[0])


def test_slimming_alone_is_penalized(lab, monkeypatch):
    """The penalty pulls gains down; a large one shows."""
    monkeypatch.setattr(chain, "PENALTY", 100.0)

    def gains(name):
        _, pruner, _ = next(chain.stops(lab, name, FEW))
        return torch.cat([norm.gain.detach() for layer in pruner.view.channel_layers() for norm in layer.norms]).abs().mean()

    plain, pulled = gains("l1"), gains("slimming")
    assert abs(float(pulled - plain)) > 0.05


def test_what_is_zeroed_softly_lives_on_until_the_last_update(lab):
    for _, pruner, told in chain.stops(lab, "soft", FEW):
        assert {"unmasked", "history"} == told.keys()
        dead = sum(
            int((param[pruner.masks.dead(name, param.device)] != 0).sum())
            for name, param in pruner.masks.parameters(pruner.view.net)
        )
        assert dead == 0  # the last update came after the last batch


def test_a_structure_is_as_wide_as_the_contender_left_it_with_new_weights(lab):
    bench = chain.structure(lab, "sca", FEW, 0.4)
    torch.rand(3)  # whatever the process draws meanwhile, the weights are the seed's
    again = chain.structure(lab, "sca", FEW, 0.4)
    assert all(torch.equal(a, b) for a, b in zip(bench.net.parameters(), again.net.parameters(), strict=True))
    found = chain.chain(lab, "sca", FEW)["stops"][1]["channels"]
    assert [layer.weight.shape[0] for layer in bench.view.layers] == found
    trained = scratch.trained(lab, "sca", FEW, 0.4)
    assert trained["channels"] == found
    assert trained["batches"] > FEW.batches * 2 * 8 // 32


def test_macs_are_counted_by_hand():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))
    view = model_view(net, torch.rand(7, 2, 4, 4), spiking=False)
    assert macs(view) == 3 * 2 * 9 * 4 + 12 * 5
    assert samples(view) == 7


def test_time_is_that_of_the_first_over_the_second():
    class Slow(nn.Linear):
        def forward(self, x):
            for _ in range(300):
                super().forward(x)
            return super().forward(x)

    slow, fast = (model_view(kind(64, 64), torch.rand(64, 64), spiking=False) for kind in (Slow, nn.Linear))
    x = torch.rand(64, 64)
    assert latency.in_turns(slow, fast, x, 3) > 3 > 1 / 3 > latency.in_turns(fast, slow, x, 3)


def test_contenders_are_built_for_their_stop():
    assert build("sca", 0.7, 60, 1) == SCA(0.1, 60)
    assert build("sca", 0.1, 60, 1).regrow == pytest.approx(0.1 / 3)
    assert build("soft", 0.7, 60, 1).soft
    assert isinstance(build("slimming", 0.7, 60, 1), Slimming)
    assert set(ABOUT) == set(CONTENDERS)
    assert [dict(trial.facts)["method"] for trial in chain.chains(FEW)] == ["sca", "l1"]
    assert [dict(trial.facts) for trial in scratch.scratch(FEW)] == [{"part": "scratch", "method": "sca", "density": 0.4}]
    assert not list(scratch.scratch(replace(FEW, scratch=None)))
