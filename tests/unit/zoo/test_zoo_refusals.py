"""A neuron is built as told, and what makes no sense is refused in words."""

import math

import pytest
import torch
from spikingjelly.activation_based import neuron

from spikeprune import zoo
from spikeprune.errors import RecipeError

T, N = 3, 2


def vgg9(**options):
    return zoo.make("vgg9", **({"width": 1 / 32, "timesteps": T, "image": (3, 16, 16)} | options))


def test_a_neuron_is_built_as_told():
    node = zoo.Neuron("lif", tau=4, threshold=0.5, reset="soft", surrogate="sigmoid", decay_input=False).build()
    assert isinstance(node, neuron.LIFNode)
    assert (node.tau, node.v_threshold, node.v_reset, node.detach_reset, node.decay_input) == (4.0, 0.5, None, True, False)
    # h = v / tau' + x with v' = v (1 - 1/4): 0.4, then 0.3 + 0.4 = 0.7 fires and leaves 0.2, then 0.15 + 0.4 = 0.55.
    spikes = node(torch.full((3, 1, 1), 0.4)).flatten()
    assert spikes.tolist() == [0.0, 1.0, 1.0]
    hard = zoo.Neuron("if", threshold=0.5).build()
    assert isinstance(hard, neuron.IFNode)
    assert (hard.v_reset, hard.step_mode) == (0.0, "m")
    assert float(zoo.Neuron("plif", tau=4).build().w.sigmoid().detach()) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fil"}, r"unknown kind 'fil'\. There are: if, lif, plif, relu"),
        ({"reset": "sotf"}, "unknown reset 'sotf'; did you mean 'soft'"),
        ({"surrogate": "atann"}, "unknown surrogate 'atann'; did you mean 'atan'"),
        ({"tau": 1.0}, "tau is 1.0"),
        ({"threshold": 0.0}, "threshold is 0.0"),
    ],
)
def test_a_wrong_neuron_is_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        zoo.Neuron(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 0}, "got T = 0"),
        ({"timesteps": 2.5}, "a whole number; got T = 2.5"),
        ({"width": 0}, "width is 0"),
        ({"width": math.nan}, "width is nan"),
        ({"classes": 0}, "one class or more; got 0"),
        ({"coding": "event"}, "unknown coding 'event'; did you mean 'events'"),
        ({"image": (3, 15, 32)}, "pools 4 times and needs images of 16x16 or more; got 15x32"),
        ({"image": (0, 32, 32)}, r"got \(0, 32, 32\)"),
        ({"image": (32, 32)}, r"got \(32, 32\)"),
        ({"widht": 1}, "vgg9: unknown option 'widht'; did you mean 'width'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        vgg9(**options)


def test_an_unknown_network_offers_the_nearest():
    with pytest.raises(RecipeError, match="unknown network 'vgg_16'; did you mean 'vgg16'"):
        zoo.make("vgg_16")


@pytest.mark.parametrize(
    ("coding", "shape", "message"),
    [
        ("direct", (N, 1, 16, 16), r"takes \(N, 3, 16, 16\) under direct coding, but was given \(2, 1, 16, 16\)"),
        ("direct", (N, 3, 16, 12), r"given \(2, 3, 16, 12\)"),
        ("direct", (3, 16, 16), r"given \(3, 16, 16\)"),
        ("events", (N, T, 3, 16, 16), r"takes \(T = 3, N, 3, 16, 16\) under events coding, but was given \(2, 3, 3, 16, 16\)"),
        ("events", (N, 3, 16, 16), r"given \(2, 3, 16, 16\)"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(coding, shape, message):
    with pytest.raises(RecipeError, match=message):
        vgg9(coding=coding)(torch.zeros(shape))


def test_pixels_that_are_no_probabilities_are_refused():
    with pytest.raises(RecipeError, match=r"this batch reaches 2\.5"):
        vgg9(coding="poisson")(torch.full((N, 3, 16, 16), -2.5))
