import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spikeprune.data
from spikeprune.data import Images, holdout
from spikeprune.errors import DataError


def numbered(labels):
    """Images whose first pixel is their index."""
    x = torch.zeros(len(labels), 1, 28, 28, dtype=torch.uint8)
    x[:, 0, 0, 0] = torch.arange(len(labels))
    return Images(x, torch.tensor(labels))


def indices(images):
    return images.x[:, 0, 0, 0].tolist()


def test_public_names_are_sorted_and_there():
    public = {name for name in vars(spikeprune.data) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(spikeprune.data, name)) is type(spikeprune.data)}

    assert spikeprune.data.__all__ == sorted(public - modules)


def test_shares_follow_the_classes_and_largest_remainders_round_up():
    # 4 of 10: shares 4 * 5/10 = 2.0, 4 * 3/10 = 1.2, 4 * 2/10 = 0.8, so the last class gets the fourth.
    train, validation = holdout(numbered([0, 0, 0, 0, 0, 1, 1, 1, 2, 2]), 4, seed=0)

    assert validation.y.bincount().tolist() == [2, 1, 1]
    assert train.y.bincount().tolist() == [3, 2, 1]


def test_ties_of_remainders_go_to_the_lower_class():
    _, validation = holdout(numbered([2, 2, 1, 1, 0, 0]), 2, seed=3)
    assert sorted(validation.y.tolist()) == [0, 1]


@settings(max_examples=50)
@given(data=st.data(), labels=st.lists(st.integers(0, 4), min_size=2, max_size=60), seed=st.integers(0, 2**31))
def test_parts_are_exact_disjoint_ordered_and_stratified(data, labels, seed):
    size = data.draw(st.integers(1, len(labels) - 1))

    train, validation = holdout(numbered(labels), size, seed)

    assert (len(train), len(validation)) == (len(labels) - size, size)
    assert sorted(indices(train) + indices(validation)) == list(range(len(labels)))
    for part in (train, validation):
        assert indices(part) == sorted(indices(part))
        assert [labels[index] for index in indices(part)] == part.y.tolist()
    for label in range(5):
        exact = size * labels.count(label) / len(labels)
        assert abs(validation.y.tolist().count(label) - exact) < 1


def test_the_seed_decides():
    images = numbered([0, 1] * 20)

    assert indices(holdout(images, 10, seed=1)[1]) == indices(holdout(images, 10, seed=1)[1])
    assert indices(holdout(images, 10, seed=1)[1]) != indices(holdout(images, 10, seed=2)[1])


def test_the_global_generator_is_neither_used_nor_moved():
    images = numbered([0, 1] * 20)
    torch.manual_seed(1)
    before = torch.get_rng_state()

    first = holdout(images, 10, seed=1)[1]

    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert indices(holdout(images, 10, seed=1)[1]) == indices(first)


@pytest.mark.parametrize("size", [-1, 0, 3, 4])
def test_a_part_cannot_be_empty(size):
    with pytest.raises(DataError, match=f"cannot hold out {size} of 3 images.*between 1 and 2"):
        holdout(numbered([0, 1, 1]), size, seed=0)


@pytest.mark.parametrize("size", [1, 2])
def test_but_one_image_is_enough(size):
    assert len(holdout(numbered([0, 1, 1]), size, seed=0)[1]) == size
