"""The stand-in for CIFAR10-DVS; its events follow from the image, so most can be said beforehand."""

import math

import pytest
import torch

from spikeprune.data import DataSet, Framing, Images, simulated
from spikeprune.data.simulated import ClosedLoop, cifar10_dvs_sim

ONE = ClosedLoop(loops=1)


def image(seed=0):
    return torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def edge():
    """Dark on the left, bright on the right."""
    x = torch.zeros(3, 32, 32, dtype=torch.uint8)
    x[:, :, 16:] = 255
    return x


def test_an_even_image_makes_no_events():
    assert len(ONE(torch.full((3, 32, 32), 77, dtype=torch.uint8))) == 0


def test_a_loop_brings_every_pixel_back():
    events = ONE(image())
    total = torch.zeros(128 * 128).index_add(0, events.y * 128 + events.x, 2.0 * events.p - 1)

    # What is left of up and down is less than one threshold, on either side of the start.
    assert total.abs().max() <= 1
    assert len(events) > 1000


def test_a_bright_edge_that_moves_right_darkens_and_comes_back():
    events = ONE(edge())
    half = len(events.between(0, 100_000))

    assert events.p[:half].sum() == 0
    assert events.p[half:].all()


def test_events_per_pixel_follow_from_the_contrast():
    # One step of the whole loop takes the pixel at the edge from bright to dark: log(1.02 / 0.02) in thresholds.
    events = ClosedLoop(loops=1, threshold=0.5, reach=4)(edge())
    counts = (events.y[events.p == 0] * 128 + events.x[events.p == 0]).bincount(minlength=128 * 128).view(128, 128)

    assert counts.max() == math.floor(math.log(1.02 / 0.02) / 0.5)
    assert counts.eq(counts[:1]).all()


def test_later_loops_repeat_one_another():
    events = ClosedLoop(loops=3)(image())
    second, third = events.between(200_000, 400_000), events.between(400_000, 600_000)

    assert abs(len(second) - len(third)) <= 0.01 * len(second)
    assert events.t[-1] <= 600_000


def test_the_same_image_makes_the_same_events():
    first, again = ONE(image()), ONE(image())

    assert torch.equal(first.t, again.t)
    assert torch.equal(first.x, again.x)


def test_a_lower_threshold_makes_more_events():
    assert len(ClosedLoop(loops=1, threshold=0.1)(image())) > 1.5 * len(ONE(image()))


@pytest.fixture
def cifar(monkeypatch):
    monkeypatch.setattr(simulated, "TRAIN", 2)
    monkeypatch.setattr(simulated, "TEST", 1)
    x = torch.stack([image(seed) for seed in range(6)])
    part = Images(x, torch.tensor([1, 0, 1, 1, 0, 0]))
    return DataSet("cifar10", 2, part, part, "folder", "none")


def test_the_set_says_that_it_is_simulated(cifar):
    made = cifar10_dvs_sim(cifar, ONE)

    assert (made.name, made.classes, made.size, made.licence) == ("cifar10-dvs-sim", 2, (128, 128), "none")
    assert made.source.startswith("simulated, not recorded: ClosedLoop(threshold=0.2, loops=1")
    assert made.source.endswith("on cifar10 of folder")
    assert [(recording.name, recording.label) for recording in made.train] == [
        ("simulated/train/00001", 0),
        ("simulated/train/00004", 0),
        ("simulated/train/00000", 1),
        ("simulated/train/00002", 1),
    ]
    assert [recording.name for recording in made.test] == ["simulated/test/00001", "simulated/test/00000"]
    assert torch.equal(made.train[2].read().t, ONE(image(0)).t)


def test_it_becomes_frames_like_any_other(cifar):
    assert cifar10_dvs_sim(cifar, ONE).frames("test", Framing(4, side=48)).x.shape == (2, 4, 2, 48, 48)
