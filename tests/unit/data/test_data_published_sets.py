"""CIFAR-10 and real recordings as published; run where SPIKEPRUNE_DATA names a folder that has them."""

import os
from pathlib import Path

import pytest
import torch

from spikeprune.data import Framing, load, load_events
from spikeprune.errors import DataError

FOLDER = Path(os.environ.get("SPIKEPRUNE_DATA", ""))


def needs(name):
    there = bool(os.environ.get("SPIKEPRUNE_DATA")) and (FOLDER / name).is_dir()
    return pytest.mark.skipif(not there, reason=f"SPIKEPRUNE_DATA names no folder with {name}")


@needs("cifar10/cifar-10-batches-bin")
def test_cifar10_has_the_mean_of_the_literature():
    data = load("cifar10")

    assert (data.train.x.shape, data.test.x.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert data.train.y.bincount().tolist() == [5000] * 10
    assert data.test.y.bincount().tolist() == [1000] * 10
    # A frog, two trucks, a deer and an automobile come first.
    assert data.train.y[:5].tolist() == [6, 9, 9, 4, 1]
    mean = data.train.x.sum((0, 2, 3), dtype=torch.int64) / (50_000 * 1024 * 255)
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=5e-5)


@needs("nmnist-1k")
def test_real_recordings_are_whole_in_order_and_inside_the_sensor():
    data = load_events("nmnist-1k")

    assert (len(data.train), len(data.test), data.source) == (1000, 100, str(FOLDER / "nmnist-1k"))
    # The first training digits of MNIST.
    assert [recording.label for recording in data.train[:10]] == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    lengths = [len(recording.read()) for recording in data.train + data.test]
    assert (sum(lengths), min(lengths), max(lengths)) == (4_518_827, 1069, 7152)


@needs("nmnist-1k")
def test_real_recordings_become_frames(tmp_path):
    data = load_events("nmnist-1k")

    found = data.frames("test", Framing(10), cache=tmp_path)

    assert found.x.shape == (100, 10, 2, 34, 34)
    assert found.x.sum().item() == 385_596
    assert torch.equal(found.x, data.frames("test", Framing(10), cache=tmp_path).x)


@needs("nmnist-1k")
def test_real_digits_stand_upright():
    data = load_events("nmnist-1k")
    ones = [recording for recording in data.train if recording.label == 1][:20]

    spread = torch.tensor([[part.double().std() for part in (r.read().x, r.read().y)] for r in ones]).mean(0)

    # A one is higher than it is wide.
    assert spread[1] > spread[0]


@needs("nmnist-1k")
def test_the_subset_does_not_pass_for_the_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEPRUNE_DATA", str(tmp_path))
    (tmp_path / "nmnist").symlink_to(FOLDER / "nmnist-1k")

    with pytest.raises(
        DataError, match=r"1,000 training and 100 test .* has 60,000 and 10,000.*These are the counts of 'nmnist-1k'"
    ):
        load_events("nmnist")
