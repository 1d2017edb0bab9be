"""AutoAugment against Pillow, in whose operations its policy is stated: to the byte, image by image."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from spikeprune.data import augment, auto_augment, pixels
from spikeprune.data.auto_augment import CIFAR10_POLICY, OPERATIONS, Strength
from spikeprune.errors import DataError

GREY = 128


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count, channels=3, height=32, width=32, low=0, high=256):
    return torch.randint(low, high, (count, channels, height, width), dtype=torch.uint8, generator=seeded())


def pictures(channels=3, height=32, width=32):
    """Noise, low contrast, two values, one value and a ramp: where histograms and roundings differ."""
    size = (channels, height, width)
    ramp = torch.arange(channels * height * width).mul(3).remainder(256).to(torch.uint8).view(1, *size)
    two = torch.where(torch.rand(1, *size, generator=seeded()) < 0.01, 200, 30).to(torch.uint8)
    dull = noise(1, *size, low=90, high=140)
    return torch.cat([noise(2, *size), dull, two, torch.full((1, *size), 77, dtype=torch.uint8), ramp])


def image(x):
    rows = x.permute(1, 2, 0).numpy()
    return Image.fromarray(rows[:, :, 0] if rows.shape[2] == 1 else rows)


def tensor(picture):
    rows = np.array(picture)
    return torch.from_numpy(rows if rows.ndim == 3 else rows[:, :, None]).permute(2, 0, 1)


def colour(picture):
    return (GREY,) * len(picture.getbands())


def moved(picture, matrix):
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, fillcolor=colour(picture))


def enhanced(kind):
    return lambda picture, m, sign: kind(picture).enhance(m * 1.8 / 10 + 0.1)


def posterized(picture, bits):
    return ImageOps.posterize(picture, bits) if bits else picture.point(lambda _: 0)


PILLOW = {
    "shear_y": lambda p, m, sign: moved(p, (1, 0, 0, sign * m * 0.3 / 10, 1, 0)),
    "translate_x": lambda p, m, sign: moved(p, (1, 0, sign * int(m * p.width / 32), 0, 1, 0)),
    "translate_y": lambda p, m, sign: moved(p, (1, 0, 0, 0, 1, sign * int(m * p.height / 32))),
    "rotate": lambda p, m, sign: p.rotate(sign * 3 * m, fillcolor=colour(p)),
    "autocontrast": lambda p, m, sign: ImageOps.autocontrast(p),
    "invert": lambda p, m, sign: ImageOps.invert(p),
    "equalize": lambda p, m, sign: ImageOps.equalize(p),
    "solarize": lambda p, m, sign: ImageOps.solarize(p, 256 - int(m * 256 / 10)),
    "posterize": lambda p, m, sign: posterized(p, 4 - int(m * 4 / 10)),
    "contrast": enhanced(ImageEnhance.Contrast),
    "color": enhanced(ImageEnhance.Color),
    "brightness": enhanced(ImageEnhance.Brightness),
    "sharpness": enhanced(ImageEnhance.Sharpness),
}
"""Slow twins: one picture, its magnitude from 0 to 9, and 1 or -1."""


@pytest.mark.parametrize("size", [(3, 32, 32), (1, 28, 28), (3, 9, 14), (3, 2, 1)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_those_of_pillow_to_the_byte(name, size):
    x = pictures(*size)
    for magnitude in range(10):
        for sign in (1, -1):
            strength = Strength(torch.full((len(x),), magnitude), torch.full((len(x),), sign), GREY)
            twins = [tensor(PILLOW[name](image(each), magnitude, sign)) for each in x]
            assert OPERATIONS[name](x, strength).equal(torch.stack(twins)), (magnitude, sign)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_image_has_its_own_strength(name):
    x, magnitude, sign = pictures(), torch.tensor([0, 9, 4, 7, 1, 3]), torch.tensor([1, -1, 1, -1, -1, 1])

    together = OPERATIONS[name](x, Strength(magnitude, sign, GREY))

    for index in range(len(x)):
        alone = OPERATIONS[name](x[index, None], Strength(magnitude[index, None], sign[index, None], GREY))
        assert together[index].equal(alone[0])


def test_amounts_by_hand():
    x = torch.tensor([[[[0, 100, 255]]]], dtype=torch.uint8)

    assert pixels.invert(x).flatten().tolist() == [255, 155, 0]
    assert pixels.solarize(x, torch.tensor([100])).flatten().tolist() == [0, 155, 0]
    assert pixels.posterize(x, torch.tensor([2])).flatten().tolist() == [0, 64, 192]
    assert pixels.posterize(x, torch.tensor([0])).flatten().tolist() == [0, 0, 0]
    assert pixels.brightness(x, torch.tensor([1.9])).flatten().tolist() == [0, 190, 255]
    assert pixels.autocontrast(x // 5).flatten().tolist() == [0, 100, 255]


def test_the_policy_has_25_pairs_of_known_operations():
    steps = [step for pair in CIFAR10_POLICY for step in pair]

    assert [len(pair) for pair in CIFAR10_POLICY] == [2] * 25
    assert {name for name, _, _ in steps} == set(OPERATIONS)
    assert all(0 <= probability <= 1 and magnitude in range(10) for _, probability, magnitude in steps)
    # As many of each as the paper's table has.
    assert Counter(name for name, _, _ in steps) == {
        "equalize": 9,
        "autocontrast": 7,
        "sharpness": 5,
        "translate_y": 5,
        "brightness": 4,
        "color": 5,
        "invert": 3,
        "solarize": 4,
        "contrast": 2,
        "shear_y": 2,
        "translate_x": 2,
        "posterize": 1,
        "rotate": 1,
    }


def test_a_batch_is_its_images_one_by_one_in_pillow():
    x = noise(200, low=40, high=200)
    generator = seeded(3)
    drawn = torch.randint(25, (200,), generator=generator).tolist()
    coins = torch.rand(2, 200, generator=generator).tolist()
    signs = (torch.randint(2, (2, 200), generator=generator) * 2 - 1).tolist()
    twins = []
    for index, each in enumerate(x):
        picture = image(each)
        for step, (name, probability, magnitude) in enumerate(CIFAR10_POLICY[drawn[index]]):
            if coins[step][index] < probability:
                picture = PILLOW[name](picture, magnitude, signs[step][index])
        twins.append(tensor(picture))

    assert augment.auto_augment(x, seeded(3)).equal(torch.stack(twins))
    assert set(drawn) == set(range(25))


def test_the_generator_alone_decides():
    x = noise(64)
    before, state = x.clone(), torch.get_rng_state()

    first = augment.auto_augment(x, seeded(1))

    assert first.equal(augment.auto_augment(x, seeded(1)))
    assert not first.equal(augment.auto_augment(x, seeded(2)))
    assert x.equal(before)
    assert torch.get_rng_state().equal(state)
    assert (first.shape, first.dtype) == (x.shape, torch.uint8)


def test_an_image_does_not_depend_on_the_others():
    x = noise(16)
    other = x.clone()
    other[1:] = 0

    assert augment.auto_augment(x, seeded())[0].equal(augment.auto_augment(other, seeded())[0])


def test_images_draw_for_themselves():
    x = noise(1).repeat(64, 1, 1, 1)
    results = {tuple(each.flatten().tolist()) for each in augment.auto_augment(x, seeded())}
    assert len(results) > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floats_go_by_way_of_bytes(dtype):
    x = noise(32)

    y = augment.auto_augment(x.to(dtype) / 255, seeded())

    assert y.dtype == dtype
    assert y.equal(augment.auto_augment(x, seeded()).to(dtype) / 255)


def test_what_comes_from_outside_has_the_fill():
    x = torch.full((300, 3, 8, 8), 10, dtype=torch.uint8)
    strength = Strength(torch.tensor([9]), torch.tensor([1]), 77)

    assert OPERATIONS["translate_x"](x[:1], strength)[0, 0, 0].tolist() == [10] * 6 + [77] * 2
    assert not augment.auto_augment(x, seeded(), fill=77).equal(augment.auto_augment(x, seeded(), fill=0))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 2), r"needs a batch \(N, C, H, W\) of images with 1 or 3 channels, here the shape is \(2, 2\)"),
        (torch.zeros(2, 2, 8, 8), r"here the shape is \(2, 2, 8, 8\)"),
        (torch.zeros(4, 2, 3, 8, 8), r"here the shape is \(4, 2, 3, 8, 8\)"),
        (torch.zeros(2, 3, 0, 8), r"here the shape is \(2, 3, 0, 8\)"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.int64), "here they are torch.int64"),
        (torch.tensor([0.0, 1.0, 1.5, -1.0]).view(1, 1, 2, 2), r"2 of 4 pixels are not, the first is 1.5\. Augment first"),
        (torch.tensor([0.0, torch.nan]).view(1, 1, 1, 2), "1 of 2 pixels are not, the first is nan"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(x, message):
    with pytest.raises(DataError, match=message):
        augment.auto_augment(x, seeded())


def test_a_fill_that_is_no_byte_is_refused():
    with pytest.raises(DataError, match="cannot fill pixels with 256; choose a byte"):
        augment.auto_augment(noise(1), seeded(), fill=256)


def test_it_is_one_function_under_both_names():
    assert augment.auto_augment is auto_augment.auto_augment
