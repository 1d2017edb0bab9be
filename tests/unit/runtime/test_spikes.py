import pytest
import torch

from programs import run_again, runs_each
from spikeprune.errors import LayoutError
from spikeprune.runtime import spikes
from spikeprune.runtime.odd import prepare_count_odd
from spikeprune.runtime.once import once
from spikeprune.runtime.program import Program
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
def test_a_program_packs_and_unpacks_maps_that_it_holds_then(shape):
    inputs, x = [random(*shape, rate=rate) for rate in (0.3, 1.0, 0.0)], torch.zeros(shape)
    found = runs_each(lambda made: spikes.prepare_pack_maps(made, x), x.copy_, inputs)
    assert all(torch.equal(one, spikes.pack_maps(y).words) for one, y in zip(found, [*inputs, inputs[0]], strict=True))
    again = runs_each(lambda made: spikes.prepare_unpack_maps(made, spikes.prepare_pack_maps(made, x)), x.copy_, inputs)
    assert all(torch.equal(one, y) for one, y in zip(again, [*inputs, inputs[0]], strict=True))


@pytest.mark.parametrize("features", [1, 64, 200])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_program_packs_and_unpacks_rows_that_it_holds_then(features, samples):
    inputs, x = [random(3, samples, features, rate=rate) for rate in (0.3, 1.0, 0.0)], torch.zeros(3, samples, features)
    found = runs_each(lambda made: spikes.prepare_pack_rows(made, x), x.copy_, inputs)
    assert all(torch.equal(one, spikes.pack_rows(y).words) for one, y in zip(found, [*inputs, inputs[0]], strict=True))
    again = runs_each(lambda made: spikes.prepare_unpack_rows(made, spikes.prepare_pack_rows(made, x)), x.copy_, inputs)
    assert all(torch.equal(one, y) for one, y in zip(again, [*inputs, inputs[0]], strict=True))


@pytest.mark.parametrize("prepare", [spikes.prepare_pack_maps, spikes.prepare_pack_rows])
def test_what_is_the_same_at_all_timesteps_may_be_expanded(prepare):
    x = random(2, 70)
    expanded = x.expand(3, -1, -1)
    pack = spikes.pack_maps if prepare is spikes.prepare_pack_maps else spikes.pack_rows
    assert torch.equal(once(prepare, expanded).words, pack(expanded).words)


def test_what_is_neither_0_nor_1_is_counted_in_each_run():
    made, x = Program(), torch.zeros(2, 3, 50)
    odd = prepare_count_odd(made, x)
    run_again(made)
    assert odd.item() == 0
    x[0, 0, :6] = torch.tensor([1.0, -0.0, -1.0, 0.5, float("nan"), 1e-40])
    x[1, 2, 49] = 2.0
    run_again(made)
    assert odd.item() == 5
    x[:] = 1.0
    run_again(made)
    assert odd.item() == 0
    for wrong in (x.double(), x.transpose(1, 2)):
        with pytest.raises(LayoutError, match=r"float32|contiguous"):
            prepare_count_odd(Program(), wrong)


def test_what_a_program_cannot_pack_is_refused():
    for prepare in (spikes.prepare_pack_maps, spikes.prepare_pack_rows):
        for wrong in (torch.zeros(1, 2, 3).double(), torch.zeros(1, 3, 2).transpose(1, 2)):
            with pytest.raises(LayoutError, match="float32 on the CPU, each timestep contiguous"):
                prepare(Program(), wrong)
        with pytest.raises(LayoutError, match="none of these may be empty"):
            prepare(Program(), torch.zeros(0, 2, 3))


def test_counts():
    x = random(3, 2, 4, 5, 5)
    assert torch.equal(spikes.counts(spikes.pack_maps(x)), x.sum((1, 3, 4)).long().T)
    assert torch.equal(spikes.counts(spikes.pack_rows(x.flatten(2))), x.sum((2, 3, 4)).long().T)


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
