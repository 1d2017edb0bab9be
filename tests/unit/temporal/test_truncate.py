"""Fewer timesteps of the same model: found, verified, trained, and put back."""

import pytest
import torch
from torch import nn

from nets_over_time import NETS, N, T, batch, summed, viewed
from small_nets import JellyGuest, Loop, assert_same, jelly, lively, noise, photograph, spikes
from spikeprune.errors import LayoutError, ModelError
from spikeprune.temporal import find_readout, rebin, truncate
from spikeprune.view.model_view import model_view
from spikeprune.zoo import Neuron
from spikeprune.zoo.parts import SpikingNet


@pytest.mark.parametrize("name", NETS)
def test_outputs_are_the_running_sums_of_the_whole(name):
    view, x = viewed(name), batch(name, samples=2, seed=5)
    heard = []
    with torch.no_grad(), find_readout(view).listening(view, heard.append):
        view(x)
    running = torch.cat(heard).cumsum(0)
    assert running.any()
    for t in range(1, T + 1):
        short = truncate(view, t)
        assert (short.timesteps, short.net) == (t, view.net)
        assert [layer.name for layer in short.layers] == [layer.name for layer in view.layers]
        expected = running[t - 1] / t if name == "mean" else running[t - 1]
        torch.testing.assert_close(summed(short(x).detach()), expected)
        torch.testing.assert_close(summed(view(x).detach()), running[-1] / (T if name == "mean" else 1))  # unchanged


@pytest.mark.parametrize("name", NETS)
def test_the_model_is_left_as_found(name):
    view = viewed(name)
    view(batch(name))
    before = photograph(view.net)
    short = truncate(view, 2)
    assert_same(before, photograph(view.net))
    keys = {name: dict(vars(module)) for name, module in view.net.named_modules()}
    short(batch(name))
    for name, module in view.net.named_modules():
        ints = {key: value for key, value in keys[name].items() if type(value) is int}
        assert ints == {key: value for key, value in vars(module).items() if type(value) is int}


def test_the_attribute_is_back_after_a_failure():
    view = viewed("told m")
    short = truncate(view, 2)
    with pytest.raises(RuntimeError):
        short(torch.ones(N, 7))
    assert view.net.T == T


@pytest.mark.parametrize("name", NETS)
def test_training_reaches_the_weights(name):
    view = viewed(name)
    truncate(view, 2)(batch(name)).sum().backward()
    assert all(layer.weight.grad is not None for layer in view.layers)
    assert any(layer.weight.grad.any() for layer in view.layers)


@pytest.mark.parametrize("name", ["loop", "mlp", "both"])
def test_a_truncated_view_is_truncated_again_and_cloned(name):
    view, x = viewed(name), batch(name)
    short = truncate(view, 3)
    again, copy = truncate(short, 2), short.clone()
    assert again.timesteps == 2
    assert torch.equal(again(x), truncate(view, 2)(x))
    assert truncate(copy, 2).net is copy.net is not view.net
    assert torch.equal(copy(x), short(x))
    with pytest.raises(ModelError, match="from 1 to the view's T = 3; got 4"):
        truncate(short, 4)


def test_all_timesteps_are_the_view():
    view = viewed("mlp")
    assert truncate(view, T) is view


def test_the_wrapped_forward_is_kept():
    called = []

    def wrapped(net, x):
        called.append(len(x))
        return 2 * net(x)

    view = model_view(Loop(), spikes(T, N, 6), forward=wrapped)
    short = truncate(view, 2)
    called.clear()
    x = spikes(T, N, 6, seed=1)
    assert torch.equal(short(x), 2 * view.net(x[:2]))
    assert called == [2]


class Closed(nn.Module):
    """T is a number in the code, and the batch's first axis counts samples: as many as timesteps."""

    def __init__(self):
        super().__init__()
        self.net = jelly("s")
        self.steps = 7  # a red herring

    def forward(self, x):
        return sum(self.net(x) for _ in range(T))


@pytest.mark.parametrize("samples", [N, T])
def test_what_sets_no_timesteps_is_refused_unless_a_forward_is_given(samples):
    view = model_view(Closed(), noise(samples, 6))
    with pytest.raises(
        ModelError, match=r"nothing was found that sets the T = 4 timesteps of Closed to 2.*Pass forward=lambda net, batch"
    ):
        truncate(view, 2)
    short = truncate(view, 2, forward=lambda net, x: net.net(x) + net.net(x))
    assert short.timesteps == 2
    assert short(noise(1, 6)).shape == (1, 3)
    with pytest.raises(ModelError, match="the model ran 4 timesteps, not the 2 asked for"):
        truncate(view, 2, forward=lambda net, x: net(x))


def test_an_attribute_that_does_nothing_is_not_believed():
    net = Closed()
    net.steps = T
    with pytest.raises(ModelError, match=r"Tried: attribute steps: the model ran 4 timesteps, not the 2"):
        truncate(model_view(net, noise(N, 6)), 2)
    assert net.steps == T


def test_leftover_timesteps_do_not_become_samples():
    """The attribute of `Both` alone gives two timesteps of twice the samples; that is not what was asked for."""
    view = viewed("both")
    with pytest.raises(ModelError, match=r"neuron 'lif' was given \(6, 3\) at a timestep, where it was given \(3, 3\)"):
        truncate(view, 2, forward=lambda net, x: net.lif(net.fc(x.flatten(0, 1)).reshape(2, -1, 3)).sum(0))


def test_one_timestep_stays_one():
    view = model_view(nn.Sequential(nn.Linear(4, 2)), noise(3, 4), spiking=False)
    assert truncate(view, 1) is view
    with pytest.raises(ModelError, match="from 1 to the view's T = 1; got 2"):
        truncate(view, 2)
    assert truncate(view, 1, forward=lambda net, x: -net(x)).timesteps == 1


@pytest.mark.parametrize("bad", [0, -1, T + 1, 2.0, True, "2", None])
def test_timesteps_out_of_range(bad):
    with pytest.raises(ModelError, match="an integer from 1 to the view's T = 4; got"):
        truncate(viewed("mlp"), bad)


def test_norms_and_dropout_in_training():
    """The guest's norm and dropout run in training mode over fewer timesteps too."""
    net = JellyGuest()
    short = truncate(model_view(net, spikes(T, N, 6)), 2)
    net.train()
    assert short(spikes(T, N, 6)).shape == (2, N, 3)


def test_the_example_is_kept_and_copied_to_no_one():
    x = spikes(T, N, 6)
    view = model_view(lively(jelly()), x)
    assert view.example is x
    assert view.clone().example is x


FRAMES = [name for name in NETS if NETS[name][1]]


def deep(coding, samples=N):
    """A zoo network and its view: events of (T, N, 1, 2, 3), or images."""
    parts = {"flat": nn.Flatten(), "fc": nn.Linear(6, 3, bias=False), "neuron": Neuron("if").build()}
    net = lively(SpikingNet(parts, image=(1, 2, 3), timesteps=T, coding=coding))
    return model_view(net, spikes(*([T] if coding == "events" else []), samples, 1, 2, 3))


@pytest.mark.parametrize("name", FRAMES)
def test_rebinned_is_the_short_model_on_fewer_frames(name):
    view, x = viewed(name), batch(name, samples=2, seed=5) * 3
    for t in range(1, T + 1):
        short, cut = truncate(view, t, rebin=True), truncate(view, t)
        assert (short.timesteps, short.net) == (t, view.net)
        assert torch.equal(short(x), cut(rebin(x, t)))
        assert t == T or not torch.equal(rebin(x, t), x[:t])
    assert torch.equal(short(x), view(x))


def test_the_zoo_takes_rebinned_events():
    view = deep("events")
    x, before = spikes(T, 2, 1, 2, 3, seed=3), photograph(view.net)
    short = truncate(view, 2, rebin=True)
    assert_same(before, photograph(view.net))
    assert (short.timesteps, view.net.timesteps) == (2, T)
    found = short(x)
    assert view.net.timesteps == T
    view.net.timesteps = 2
    assert torch.equal(found, view.net(rebin(x, 2)))
    assert found.any()


@pytest.mark.parametrize("name", [name for name in NETS if name not in FRAMES])
@pytest.mark.parametrize("samples", [N, T])
@pytest.mark.parametrize("t", [2, T])
def test_without_frames_there_is_nothing_to_rebin(name, samples, t):
    """As many samples as timesteps: the first axis is believed only if the neurons run over it."""
    view = model_view(NETS[name][0](), batch(name, samples=samples))
    if (samples, t) == (T, T):
        assert truncate(view, t, rebin=True) is view  # nothing is asked for
        return
    with pytest.raises(ModelError, match=rf"no frames to re-bin: its batch, \({samples}, 6\), must have the T = 4 timesteps"):
        truncate(view, t, rebin=True)
    assert truncate(view, t).timesteps == t


@pytest.mark.parametrize("coding", ["direct", "poisson"])
def test_images_of_the_zoo_are_no_frames(coding):
    with pytest.raises(ModelError, match=r"SpikingNet has no frames to re-bin.*Leave rebin out"):
        truncate(deep(coding), 2, rebin=True)
    assert truncate(deep(coding), 2).timesteps == 2


@pytest.mark.parametrize("name", ["loop", "both"])
def test_the_whole_is_rebinned_anew(name):
    view, x = viewed(name), batch(name, seed=5) * 0.4
    wanted = truncate(view, 2, rebin=True)(x)
    for first in (truncate(view, 3), truncate(view, 3, rebin=True), truncate(view, 2), truncate(view, 2, rebin=True).clone()):
        assert torch.equal(truncate(first, 2, rebin=True)(x), wanted)
        assert torch.equal(truncate(first, 2)(x), truncate(view, 2)(x))
    short = truncate(view, 2, rebin=True)
    assert truncate(short, 2, rebin=True) is short
    assert not torch.equal(wanted, truncate(view, 2)(x))


def test_other_numbers_of_frames_are_refused():
    short = truncate(viewed("loop"), 2, rebin=True)
    for frames in (2, 3, 5):
        with pytest.raises(LayoutError, match=rf"\({frames}, 3, 6\) has {frames} frames, but T = 4 are re-binned to 2"):
            short(spikes(frames, N, 6))


def test_a_forward_says_itself_what_becomes_of_frames():
    with pytest.raises(ModelError, match="or rebin=True, not both"):
        truncate(viewed("loop"), 2, forward=lambda net, x: net(x[:2]), rebin=True)


def test_training_on_rebinned_frames_reaches_the_weights():
    view = viewed("loop")
    truncate(view, 2, rebin=True)(batch("loop")).sum().backward()
    assert all(layer.weight.grad.any() for layer in view.layers)
