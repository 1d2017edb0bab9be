from functools import partial

import pytest
import torch

from spikeprune.data import augment
from spikeprune.errors import DataError

IMAGES = [augment.crop, augment.flip, partial(augment.cutout, side=3)]
FRAMES = [augment.flip_frames, augment.roll_frames]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count=64, dtype=torch.float32):
    """Every pixel differs and none is zero."""
    return torch.arange(1, count * 3 * 6 * 5 + 1).view(count, 3, 6, 5).to(dtype)


def recordings(count=64):
    return images(3 * count).view(3, count, 3, 6, 5)


CASES = [(function, images()) for function in IMAGES] + [(function, recordings()) for function in FRAMES]


@pytest.mark.parametrize(("function", "x"), CASES)
def test_the_generator_alone_decides(function, x):
    before, state = x.clone(), torch.get_rng_state()

    first = function(x, seeded(1))

    assert first.equal(function(x, seeded(1)))
    assert not first.equal(function(x, seeded(2)))
    assert x.equal(before)
    assert torch.get_rng_state().equal(state)
    assert (first.shape, first.dtype, first.is_contiguous()) == (x.shape, x.dtype, True)


@pytest.mark.parametrize("function", IMAGES)
def test_bytes_stay_bytes(function):
    x = images(4, torch.uint8)
    assert function(x, seeded()).dtype == torch.uint8


@pytest.mark.parametrize("function", IMAGES)
def test_images_draw_for_themselves(function):
    x = images(1).repeat(64, 1, 1, 1)
    assert len({tuple(image.flatten().tolist()) for image in function(x, seeded())}) > 1


@pytest.mark.parametrize("function", [*IMAGES, *FRAMES])
def test_another_shape_is_refused(function):
    with pytest.raises(DataError, match=r"needs a batch \(.*here the shape is \(2, 2\)"):
        function(torch.zeros(2, 2), seeded())


def test_crops_are_windows_of_the_padded_image_and_all_occur():
    x = images(200)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    seen = set()
    for index, found in enumerate(augment.crop(x, seeded(), padding=1)):
        places = [(r, c) for r in range(3) for c in range(3) if found.equal(padded[index, :, r : r + 6, c : c + 5])]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 9


def test_flips_mirror_about_half_and_leave_the_rest():
    x = images(200)
    y = augment.flip(x, seeded())
    mirrored = [bool(a.equal(b.flip(-1))) for a, b in zip(y, x, strict=True)]

    assert all(a.equal(b.flip(-1)) or a.equal(b) for a, b in zip(y, x, strict=True))
    assert 70 < sum(mirrored) < 130


def test_cutouts_are_squares_in_all_channels_that_may_reach_over_the_border():
    gone = augment.cutout(images(300), seeded(), side=3) == 0

    assert (gone.any(1) == gone.all(1)).all()
    for hole in gone[:, 0]:
        assert torch.equal(hole, hole.any(1, keepdim=True) & hole.any(0, keepdim=True))
    assert set(gone[:, 0].sum((1, 2)).tolist()) == {4, 6, 9}


def test_frames_move_alike_in_all_timesteps():
    x = recordings(1).expand(3, 50, 3, 6, 5)[:1].expand(3, -1, -1, -1, -1)
    for function in FRAMES:
        y = function(x, seeded())
        assert y[0].equal(y[1])
        assert y[0].equal(y[2])


def test_rolls_are_rolls_and_all_occur():
    x = recordings(200)
    seen = set()
    for index, found in enumerate(augment.roll_frames(x, seeded(), reach=1).unbind(1)):
        shifts = [(d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if found.equal(x[:, index].roll((d, r), (-2, -1)))]
        assert len(shifts) == 1
        seen.update(shifts)
    assert len(seen) == 9


def test_impossible_sizes_are_refused():
    with pytest.raises(DataError, match="padding of -1"):
        augment.crop(images(1), seeded(), padding=-1)
    with pytest.raises(DataError, match="square of 0"):
        augment.cutout(images(1), seeded(), side=0)
    with pytest.raises(DataError, match="up to -1"):
        augment.roll_frames(recordings(1), seeded(), reach=-1)
