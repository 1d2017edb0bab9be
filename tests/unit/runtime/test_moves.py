"""Spikes pooled, flattened and spread, once and by programs that run again."""

import pytest
import torch
import torch.nn.functional as F

from programs import runs_each
from spikeprune.errors import LayoutError
from spikeprune.runtime import moves, spikes, turns
from spikeprune.runtime.program import Program, Room

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
    (2, 1, 9, 4, 8),
    (1, 3, 2, 4, 4),
    (2, 2, 3, 4, 2),
]


def random(*shape, rate=0.3):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < rate).float()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 2), (3, 2), (3, 1), (2, 3), (4, 4)])
def test_max_pool_is_that_of_torch(shape, size, stride):
    x = random(*shape, rate=0.1)
    if size > min(shape[3:]):
        with pytest.raises(LayoutError, match="do not fit maps"):
            moves.max_pool(spikes.pack_maps(x), size, stride)
        return
    expected = F.max_pool2d(x.flatten(0, 1), size, stride).unflatten(0, x.shape[:2])
    assert torch.equal(spikes.unpack_maps(moves.max_pool(spikes.pack_maps(x), size, stride)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_flatten_is_that_of_torch_and_spread_its_inverse(shape):
    x = random(*shape)
    rows = turns.flatten(spikes.pack_maps(x))
    assert torch.equal(spikes.unpack_rows(rows), x.flatten(2))
    assert torch.equal(spikes.unpack_maps(turns.spread(rows)), x.flatten(2)[..., None, None])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 1), (3, 2, 1), (3, 1, 1), (5, 3, 2)])
def test_max_pool_with_padding_is_that_of_torch(shape, size, stride, padding):
    x = random(*shape, rate=0.1)
    if size > min(shape[3:]) + 2 * padding:
        with pytest.raises(LayoutError, match=f"padded by {padding}, do not fit maps"):
            moves.max_pool(spikes.pack_maps(x), size, stride, padding)
        return
    expected = F.max_pool2d(x.flatten(0, 1), size, stride, padding).unflatten(0, x.shape[:2])
    assert torch.equal(spikes.unpack_maps(moves.max_pool(spikes.pack_maps(x), size, stride, padding)), expected)


def test_padding_of_more_than_half_a_window_is_refused():
    with pytest.raises(LayoutError, match="padded by 2, do not fit"):
        moves.max_pool(spikes.pack_maps(random(1, 1, 1, 8, 8)), 3, 1, 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_joined_maps_have_their_channels_in_a_row(shape):
    x, y = random(*shape), random(*shape[:2], 3, *shape[3:], rate=0.6)
    found = moves.join([spikes.pack_maps(x), spikes.pack_maps(y), spikes.pack_maps(x)])
    assert torch.equal(found.words, spikes.pack_maps(torch.cat([x, y, x], 2)).words)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 5), (5, 3), (5, 5)])
def test_a_crop_keeps_the_first_rows_and_columns(height, width):
    x = random(3, 4, 3, 5, 5)
    found = moves.crop(spikes.pack_maps(x), height, width)
    assert torch.equal(found.words, spikes.pack_maps(x[..., :height, :width]).words)


def test_a_crop_of_smaller_maps_is_refused():
    with pytest.raises(LayoutError, match="maps of 5 x 4 have no 5 x 5 to keep"):
        moves.crop(spikes.pack_maps(random(1, 1, 1, 5, 4)), 5, 5)


@pytest.mark.parametrize(("samples", "features"), [(1, 1), (3, 5), (64, 64), (65, 130), (7, 784)])
def test_rows_are_turned_into_channels_of_one_place_and_back(samples, features):
    x = random(3, samples, features)
    rows = spikes.pack_rows(x)
    maps = turns.spread(rows)
    assert torch.equal(maps.words, spikes.pack_maps(x).words)
    assert torch.equal(turns.flatten(maps).words, rows.words)


@pytest.mark.parametrize("other", [(2, 3, 4, 5, 5), (3, 2, 4, 5, 5), (3, 3, 4, 5, 4)])
def test_maps_that_differ_are_not_joined(other):
    with pytest.raises(LayoutError, match="cannot lie side by side"):
        moves.join([spikes.pack_maps(random(3, 3, 4, 5, 5)), spikes.pack_maps(random(*other))])


WAYS = {
    "halves": (lambda made, x: moves.prepare_max_pool(made, x, 2), lambda x: moves.max_pool(x, 2)),
    "overlaps": (lambda made, x: moves.prepare_max_pool(made, x, 3, 2), lambda x: moves.max_pool(x, 3, 2)),
    "padded": (lambda made, x: moves.prepare_max_pool(made, x, 3, 2, 1), lambda x: moves.max_pool(x, 3, 2, 1)),
    "crop": (lambda made, x: moves.prepare_crop(made, x, 2, 3), lambda x: moves.crop(x, 2, 3)),
    "joined": (lambda made, x: moves.prepare_join(made, [x, x]), lambda x: moves.join([x, x])),
    "flatten": (turns.prepare_flatten, turns.flatten),
    "spread": (
        lambda made, x: turns.prepare_spread(made, turns.prepare_flatten(made, x)),
        lambda x: turns.spread(turns.flatten(x)),
    ),
}


def rerun(way, shape):
    """What a program and what fresh calls give, of several inputs."""
    prepare, alone = WAYS[way]
    inputs = [spikes.pack_maps(random(*shape, rate=rate)) for rate in (0.3, 1.0, 0.1)]
    x = spikes.pack_maps(torch.zeros(shape))
    found = runs_each(lambda made: prepare(made, x), lambda one: x.words.copy_(one.words), inputs)
    return found, [alone(one).words for one in [*inputs, inputs[0]]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 8), (3, 2, 5, 9, 7), (1, 1, 70, 3, 3)], ids=str)
def test_a_program_moves_what_its_input_holds_then(way, shape):
    for one, expected in zip(*rerun(way, shape), strict=True):
        assert torch.equal(one, expected)


@pytest.mark.parametrize("way", ["overlaps", "flatten", "crop"])
def test_spikes_of_the_run_before_would_stay_if_nothing_cleared_them(way, monkeypatch):
    for module in (moves, turns):
        monkeypatch.setattr(module, "prepare_clear", lambda program, words: None)
    found, expected = rerun(way, (2, 3, 4, 4, 8))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert not torch.equal(found[2], expected[2])


def test_a_target_that_a_table_cannot_address_is_refused():
    words, table = torch.zeros(1, 1, 1, dtype=torch.int64), torch.zeros(64)
    with pytest.raises(LayoutError, match="33554432 words of spikes are more than one call takes"):
        moves.prepare_route(Program(), words, Room("target", 1 << 25, torch.int64), table, 0, 0)
    moves.prepare_route(Program(), words, Room("target", (1 << 25) - 1, torch.int64), table, 0, 0)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (4, 8), (6, 16), (8, 32), (4, 6), (2, 10)])
def test_a_split_gives_every_other_row_and_column(height, width):
    x = (torch.rand(3, 2, 5, height, width, generator=torch.Generator().manual_seed(width)) < 0.4).float()
    wanted = torch.stack([x[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)], 3).flatten(2, 3)
    program, maps = Program(), spikes.pack_maps(torch.ones_like(x))
    found = moves.prepare_split(program, maps)
    program.run()
    maps.words.copy_(spikes.pack_maps(x).words)
    program.run()
    assert torch.equal(spikes.unpack_maps(found), wanted)
    assert torch.equal(spikes.unpack_maps(moves.split(spikes.pack_maps(x))), wanted)


def test_odd_maps_cannot_be_split():
    with pytest.raises(LayoutError, match="maps of 3 x 4 cannot be split"):
        moves.split(spikes.pack_maps(torch.ones(1, 1, 1, 3, 4)))
