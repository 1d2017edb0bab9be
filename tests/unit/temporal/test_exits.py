"""Early exit against the course's rule written as a loop over samples; and that it really stops."""

import pytest
import torch

from nets_over_time import N, T, batch, summed, viewed
from small_nets import Loop, SnnGuest, assert_same, hooks, jelly, photograph, spikes
from spikeprune.errors import EmptyCalibration, MeasureError, ModelError, NonFinite
from spikeprune.temporal import early_exit, find_readout, truncate
from spikeprune.view.model_view import model_view

LOOPS = ["loop", "mean", "mlp", "jelly s", "told s", "membrane"]


def slowly(view, x, confidence, *, mean):
    """Run each sample by itself for 1, 2, ... timesteps until the largest probability is high enough."""
    outputs, steps = [], []
    samples = x.unbind(-2)
    for sample in samples:
        for t in range(1, view.timesteps + 1):
            out = summed(truncate(view, t)(sample.unsqueeze(-2)).detach())[0]
            out = out * t / view.timesteps if mean else out
            if out.double().softmax(0).max() >= confidence or t == view.timesteps:
                break
        outputs.append(out)
        steps.append(t)
    return torch.stack(outputs), torch.tensor(steps)


@pytest.mark.parametrize("confidence", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("name", LOOPS)
def test_by_the_slow_rule(name, confidence):
    view, x = viewed(name), batch(name, samples=6, seed=2)
    outputs, steps = early_exit(view, x, confidence)
    expected = slowly(view, x, confidence, mean=name == "mean")
    torch.testing.assert_close(outputs, expected[0])
    assert steps.tolist() == expected[1].tolist()
    assert steps.dtype is torch.long


def test_the_slow_rule_sees_samples_that_stop_apart():
    view = viewed("membrane")
    assert len(set(early_exit(view, batch("membrane", samples=6, seed=2), 0.8)[1].tolist())) > 1


@pytest.mark.parametrize("name", LOOPS)
def test_out_of_reach_runs_everything(name):
    view, x = viewed(name), batch(name, seed=3)
    outputs, steps = early_exit(view, x, 1.0)
    assert steps.tolist() == [T] * N
    # A sequence comes back added up.
    torch.testing.assert_close(outputs, summed(view(x).detach()))


def test_later_timesteps_are_not_computed():
    view, x = viewed("mlp"), batch("mlp", seed=1)
    readout, calls = find_readout(view), []
    view.net.fc2.register_forward_hook(lambda *_: calls.append(1))
    _, steps = early_exit(view, x, 0.34, readout=readout)
    assert len(calls) == steps.max() < T
    calls.clear()
    _, steps = early_exit(view, x, 1.0, readout=readout)
    assert len(calls) == T


class Stubborn(Loop):
    """Catches every Exception of its timesteps."""

    def forward(self, x):
        try:
            return super().forward(x)
        except Exception:
            return x.new_zeros((*x.shape[:2], 3))


def test_a_model_that_catches_exceptions_stops_too():
    calls = []
    view = model_view(Stubborn(), spikes(T, N, 6))
    view.net.fc1.register_forward_hook(lambda *_: calls.append(1))
    readout = find_readout(view)
    calls.clear()
    _, steps = early_exit(view, torch.ones(T, N, 6), 0.34, readout=readout)
    assert len(calls) == steps.max() < T


@pytest.mark.parametrize("confidence", [0.34, 1.0])
def test_the_model_is_left_as_found(confidence):
    net = SnnGuest()
    forward = lambda net, x: torch.stack([net.lif2(net.fc2(net.lif1(net.fc1(step))))[0] for step in x])  # noqa: E731
    view = model_view(net, spikes(T, N, 6), forward=forward)
    view(spikes(T, N, 6))
    net.train()
    before = photograph(net)
    early_exit(view, spikes(T, N, 6), confidence)
    assert_same(before, photograph(net))


def test_the_model_is_left_as_found_when_it_breaks():
    view = viewed("loop")
    view(batch("loop"))
    before = photograph(view.net)
    with pytest.raises(MeasureError, match="could not run batch 0"):
        early_exit(view, torch.ones(T, N, 7), 0.9)
    assert_same(before, photograph(view.net))
    assert hooks(view.net) == 0


@pytest.mark.parametrize("name", ["jelly m", "told m", "both", "folded"])
def test_one_call_for_all_timesteps_is_refused(name):
    with pytest.raises(ModelError, match=r"computes all 4 timesteps, so none can be saved\. Use step mode 's'"):
        early_exit(viewed(name), batch(name), 0.9)


def test_one_timestep_has_nothing_to_save():
    view = model_view(jelly(), spikes(1, N, 6))
    outputs, steps = early_exit(view, spikes(1, N, 6), 0.9)
    assert torch.equal(outputs, view(spikes(1, N, 6))[0])
    assert steps.tolist() == [1] * N


def test_a_silent_example_leaves_the_scale_open():
    view = model_view(viewed("mean").net, torch.zeros(T, N, 6))
    with pytest.raises(ModelError, match="gave zeros only for the example"):
        early_exit(view, batch("mean"), 0.9)


def test_bad_input():
    view = viewed("membrane")
    for bad in (0, 1.5, float("nan")):
        with pytest.raises(MeasureError, match="the confidence must be above 0 and at most 1"):
            early_exit(view, batch("membrane"), bad)
    with pytest.raises(EmptyCalibration, match="holds no sample"):
        early_exit(view, torch.zeros(T, 0, 6), 0.9)
    readout = find_readout(view)
    with torch.no_grad():
        view.net.fc2.weight[0, 0] = torch.nan
    with pytest.raises(NonFinite, match="outputs of layer 'fc2'"):
        early_exit(view, batch("membrane"), 0.9, readout=readout)


def test_fewer_timesteps_than_viewed():
    with pytest.raises(ModelError, match="was called 2 times, not 4"):
        early_exit(viewed("loop"), spikes(2, N, 6), 1.0)
