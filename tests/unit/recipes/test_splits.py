"""The parts of a data set, as a network takes them."""

from dataclasses import replace

import pytest
import torch

from spikeprune.data import DataSet, Frames, Images, holdout
from spikeprune.recipes.splits import Part, Splits, compact, opened, statistics
from spikeprune.recipes.tables import Data

CPU = torch.device("cpu")


def images(count, channels=1):
    draw = torch.Generator().manual_seed(count)
    x = torch.randint(256, (count, channels, 8, 8), generator=draw).to(torch.uint8)
    return Images(x, torch.arange(count) % 3)


@pytest.fixture
def made(monkeypatch):
    found = DataSet("cifar10", 3, images(30, 3), images(9, 3), "here", "none")
    monkeypatch.setattr("spikeprune.recipes.splits.load", lambda name: found)
    return found


def test_frames_come_time_first_and_as_floats():
    x = torch.arange(3 * 2 * 2 * 4).to(torch.uint8).view(3, 2, 2, 2, 2)
    (batch, y), (last, _) = Part(x, torch.tensor([5, 6, 7])).batches(2, torch.tensor([2, 0, 1]))
    assert (batch.shape, batch.dtype, y.tolist()) == ((2, 2, 2, 2, 2), torch.float32, [7, 5])
    assert torch.equal(batch[1, 0], x[2, 1].float())
    assert torch.equal(last[:, 0], x[1].float())


def test_recordings_are_held_out_as_images_are():
    pictures = images(20)
    whole = Frames(torch.arange(20.0).view(20, 1, 1, 1, 1).expand(20, 2, 2, 1, 1), pictures.y)
    splits = Splits.of_frames(whole, whole, 5, CPU)
    rest, held = holdout(Images(torch.arange(20), pictures.y), 5, seed=0)
    assert splits.validation.x[:, 0, 0, 0, 0].tolist() == held.x.tolist()
    assert splits.train.y.tolist() == rest.y.tolist()
    assert splits.test.x.dtype == torch.uint8


@pytest.mark.parametrize(
    ("value", "kind"),
    [(0.0, torch.uint8), (255.0, torch.uint8), (256.0, torch.float16), (2049.0, torch.float32), (0.1, torch.float32), (-1.0, torch.float16)],
)  # fmt: skip
def test_counts_are_kept_in_the_smallest_type_that_holds_them(value, kind):
    x = torch.tensor([1.0, value])
    assert compact(x).dtype == kind
    assert torch.equal(compact(x).float(), x)


def test_pixels_lie_in_0_to_1_or_are_normalized_by_the_training_part(made):
    _, plain = opened(Data(name="cifar10", validation=9), 4, CPU)
    assert torch.equal(plain.test.x, made.test.x.float() / 255)
    _, splits = opened(Data(name="cifar10", validation=9, normalize="channel"), 4, CPU)
    assert splits.train.x.mean((0, 2, 3)).abs().max() < 1e-6
    assert torch.allclose(splits.train.x.std((0, 2, 3), correction=0), torch.ones(3))
    mean, deviation = statistics(plain.train.x)
    assert torch.equal(splits.test.x, (plain.test.x - mean) / deviation)


def test_a_channel_that_never_changes_is_not_divided_by_zero():
    mean, deviation = statistics(torch.full((2, 1, 2, 2), 0.5))
    assert (mean.item(), deviation.item()) == (0.5, 1.0)


def test_black_pixels_are_set_around_images(made):
    _, splits = opened(Data(name="cifar10", validation=9, pad=2), 4, CPU)
    assert splits.train.x.shape[-2:] == (12, 12)
    assert splits.train.x[..., :2].abs().sum() == 0


def test_augmentation_changes_training_batches_when_asked_and_follows_its_generator(made):
    _, splits = opened(Data(name="cifar10", validation=9, augment=["crop", "flip"]), 4, CPU)
    x = next(splits.train.batches(21))[0]
    twice = [splits.train.augmented(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(twice[0], twice[1])
    assert not torch.equal(twice[0], twice[2])
    assert not torch.equal(twice[0], x)
    assert torch.equal(x, next(splits.train.batches(21))[0])
    assert splits.validation.augment == splits.test.augment == ()


def test_the_name_of_an_augmentation_is_the_function():
    x = torch.rand(2, 3, 2, 8, 8)
    part = Part(x, torch.zeros(2), ("roll_frames", "flip_frames"))
    changed = part.augmented(x, torch.Generator().manual_seed(0))
    assert torch.allclose(changed.sum((2, 3, 4)), x.sum((2, 3, 4)))


def test_auto_augment_sees_pixels_whatever_the_network_is_given():
    """It works on pixels in [0, 1]; normalization is undone before and done again after."""
    pixels, generators = torch.rand(8, 3, 8, 8), [torch.Generator().manual_seed(0) for _ in range(2)]
    mean, deviation = statistics(pixels)
    plain = Part(pixels, torch.arange(8), ("auto_augment",))
    scaled = replace(plain, x=(pixels - mean) / deviation, scale=(mean, deviation))
    bright, seen = (part.augmented(part.x, generator) for part, generator in zip((plain, scaled), generators, strict=True))
    assert not torch.equal(bright, pixels)
    # A pixel between two bytes may round to either on its way back.
    torch.testing.assert_close(seen * deviation + mean, bright, rtol=0, atol=2 / 255)
