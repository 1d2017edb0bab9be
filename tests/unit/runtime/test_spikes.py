import pytest
import torch
import torch.nn.functional as F

from spikeprune.errors import LayoutError
from spikeprune.runtime import spikes
from spikeprune.runtime.spikes import SpikeMaps, SpikeRows

SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 2, 2, 2),
    (1, 3, 2, 6, 4),
    (1, 3, 2, 5, 4),
    (4, 5, 3, 4, 4),
    (2, 1, 2, 8, 8),
    (3, 2, 2, 9, 7),
    (2, 3, 5, 16, 16),
    (1, 2, 3, 2, 32),
]


def random(*shape, rate=0.3):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < rate).float()


def bits(words):
    """Bit i of each row, by Python's own arithmetic."""
    rows = [sum((int(word) % 2**64) << 64 * i for i, word in enumerate(row)) for row in words.flatten(0, 1)]
    return torch.tensor([[row >> i & 1 for i in range(64 * words.shape[2])] for row in rows]).float().view(*words.shape[:2], -1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_maps_hold_places_of_all_samples_in_a_row(shape, rate):
    x = random(*shape, rate=rate)
    maps = spikes.pack_maps(x)
    assert torch.equal(bits(maps.words)[..., : maps.lanes], x.permute(2, 0, 1, 3, 4).flatten(2))
    assert not bits(maps.words)[..., maps.lanes :].any()
    assert torch.equal(spikes.unpack_maps(maps), x)


@pytest.mark.parametrize("features", [1, 63, 64, 65, 200])
def test_rows_hold_features(features):
    x = random(3, 2, features)
    rows = spikes.pack_rows(x)
    assert torch.equal(bits(rows.words)[..., :features], x.transpose(0, 1))
    assert not bits(rows.words)[..., features:].any()
    assert torch.equal(spikes.unpack_rows(rows), x)


def test_whatever_is_not_zero_is_a_spike():
    x = torch.tensor([0.0, -0.0, -1.0, 1e-40, float("nan"), 2.0])
    assert spikes.unpack_rows(spikes.pack_rows(x.view(1, 1, -1))).flatten().tolist() == [0, 0, 1, 1, 1, 1]
    assert spikes.pack_rows(torch.tensor([[[True, False, True]]])).words.tolist() == [[[5]]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 2), (3, 1), (2, 3), (4, 4)])
def test_max_pool_is_that_of_torch(shape, size, stride):
    x = random(*shape, rate=0.1)
    if size > min(shape[3:]):
        with pytest.raises(LayoutError, match="do not fit maps"):
            spikes.max_pool(spikes.pack_maps(x), size, stride)
        return
    expected = F.max_pool2d(x.flatten(0, 1), size, stride).unflatten(0, x.shape[:2])
    assert torch.equal(spikes.unpack_maps(spikes.max_pool(spikes.pack_maps(x), size, stride)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_flatten_is_that_of_torch_and_spread_its_inverse(shape):
    x = random(*shape)
    rows = spikes.flatten(spikes.pack_maps(x))
    assert torch.equal(spikes.unpack_rows(rows), x.flatten(2))
    assert torch.equal(spikes.unpack_maps(spikes.spread(rows)), x.flatten(2)[..., None, None])


def test_or_and_counts():
    x, y = random(3, 2, 4, 5, 5), random(3, 2, 4, 5, 5).flip(0)
    either = spikes.any_of(spikes.pack_maps(x), spikes.pack_maps(y))
    assert torch.equal(spikes.unpack_maps(either), torch.maximum(x, y))
    assert torch.equal(spikes.counts(either), torch.maximum(x, y).sum((1, 3, 4)).long().T)
    assert torch.equal(spikes.counts(spikes.pack_rows(x.flatten(2))), x.sum((2, 3, 4)).long().T)
    with pytest.raises(LayoutError, match="do not fit each other"):
        spikes.any_of(spikes.pack_maps(x), spikes.pack_maps(x[:2]))


def test_what_is_no_layout_is_refused():
    words = torch.zeros(2, 2, 2, dtype=torch.int64)
    for wrong in (words.int(), words[0], words.transpose(0, 1)[:, :, :1]):
        with pytest.raises(LayoutError, match="contiguous int64 of three axes"):
            SpikeRows(wrong, 3)
    with pytest.raises(LayoutError, match="129 spikes a row do not fit"):
        SpikeRows(words, 129)
    with pytest.raises(LayoutError, match="none of these may be empty"):
        SpikeMaps(words, 0, 3, 3)
    for pack in (spikes.pack_rows, spikes.pack_maps):
        with pytest.raises(LayoutError, match=r"but \(2, 2\) was given"):
            pack(torch.zeros(2, 2))
