"""Blocks of output channels by input channels: their scores, their masks, and every method that takes a pattern."""

import pytest
import torch
from torch import nn

from spikeprune import Masks, Pruner, allocate, hold, methods, model_view, patterns, prune, schedules
from spikeprune.errors import SparsityError
from spikeprune.kernel.allocate import kept
from spikeprune.kernel.patterns import Block, Pattern, living

SHAPES = [(4, 6), (5, 3), (1, 1), (7, 5, 3, 3), (6, 4, 2), (3, 7, 2, 1, 2)]
SIZES = [(1, 32), (1, 2), (2, 3), (3, 1), (4, 4)]


def blocks(shape, pattern):
    """List the weights of each block, one by one, in the order of the units."""
    out, ins, *kernel = shape
    for b in range(0, out, pattern.outputs):
        for c in range(0, ins, pattern.inputs):
            for place in torch.ones(kernel).nonzero().tolist():
                rows, columns = range(b, min(b + pattern.outputs, out)), range(c, min(c + pattern.inputs, ins))
                yield [(row, column, *place) for row in rows for column in columns]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_units_are_those_counted_by_hand(shape, sizes):
    pattern, score = Block(*sizes), torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = [torch.stack([score[place] for place in block]).double().mean() for block in blocks(shape, pattern)]
    found = pattern.reduce(score)
    assert found.dtype == torch.float64
    assert torch.allclose(found, torch.stack(expected), rtol=1e-12, atol=0)
    for keep in {0, 1, len(found) // 2, len(found)}:
        units = pattern.select(found, keep)
        mask = pattern.expand(units, score)
        alive = [bool(alive) for block, alive in zip(blocks(shape, pattern), units, strict=True) for _ in block]
        places = [place for block in blocks(shape, pattern) for place in block]
        assert [bool(mask[place]) for place in places] == alive
        assert len(places) == mask.numel()
        assert int(units.sum()) == keep


def test_a_block_of_a_convolution_is_one_input_at_one_place_of_the_kernel():
    weight = torch.zeros(64, 3, 3, 3)
    weight[32:, 2, 1, 0] = 1.0
    pattern = Block()
    score = pattern.reduce(weight)
    assert score.nonzero().flatten().tolist() == [3 * 9 + 2 * 9 + 3]  # the second block of outputs, input 2, row 1, column 0
    assert torch.equal(pattern.expand(pattern.select(score, 1), weight), weight.bool())


def test_short_blocks_compete_by_their_mean():
    assert Block(1, 2).reduce(torch.tensor([[1.0], [1.0], [1.5]])).tolist() == [1.0, 1.5]  # a sum would say 2 and 1.5


def test_means_are_taken_in_float64():
    assert Block(1, 2).reduce(torch.tensor([[1.0], [2.0**-30]])).item() == (1 + 2.0**-30) / 2  # float32 would say 0.5


def test_ties_go_to_the_lower_index():
    assert Block(1, 2).select(Block(1, 2).reduce(torch.ones(4, 2)), 3).tolist() == [True, True, True, False]


def test_a_block_with_a_dead_weight_is_dead():
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    assert living(Block(1, 2), mask).tolist() == [True, False, False, True]
    assert living(Block(1, 2), None) is None


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 32), (1, 0), (-1, 32), (1, 2.0), (True, 32), (1, "32")])
def test_patterns_that_are_none(inputs, outputs):
    with pytest.raises(SparsityError, match=r"is no pattern: whole numbers of 1 or more are, such as Block\(1, 32\)"):
        Block(inputs, outputs)


def test_it_is_a_pattern_and_a_value():
    assert isinstance(Block(), Pattern)
    assert Block() == Block(1, 32) == patterns.Block(inputs=1, outputs=32)
    mask = Block(1, 1).expand(torch.tensor([True]), torch.zeros(1, 1))
    mask[0] = False
    assert Block(1, 1).expand(torch.tensor([True]), torch.zeros(1, 1)).all()


def viewed(*, groups=1):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=groups), nn.ReLU(), nn.Flatten(), nn.Linear(108, 5)
    )
    return model_view(net, torch.rand(2, 3, 7, 7), spiking=False)


PATTERN = Block(1, 8)
UNITS = {"0": 27, "2": 2 * 8 * 9, "5": 108}  # of 8 outputs, of 8 and 4, of 5

METHODS = [
    methods.Magnitude(pattern=PATTERN),
    methods.Magnitude(allocate.uniform, PATTERN),
    methods.Magnitude(allocate.lamp, PATTERN),
    methods.Random(seed=3, pattern=PATTERN),
    methods.CQP(pattern=PATTERN),
    methods.GradientOnly(pattern=PATTERN),
    methods.SNIP(pattern=PATTERN),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_every_method_that_takes_a_pattern_keeps_whole_blocks_and_exact_counts(method):
    view = viewed()
    batch = (torch.rand(2, 3, 7, 7), torch.tensor([0, 3]))
    options = {"calibration": [batch], "loss_fn": nn.functional.cross_entropy}
    masks = prune(view, method, 0.6, **options)
    alive = {name: living(PATTERN, mask) for name, mask in masks.items()}
    for name, mask in masks.items():
        assert torch.equal(PATTERN.expand(alive[name], mask), mask)
        assert torch.equal(view.net.get_submodule(name).weight != 0, mask)
    counts = {name: int(units.sum()) for name, units in alive.items()}
    if getattr(method, "allocation", None) is allocate.uniform:
        assert counts == {name: kept(units, 0.6) for name, units in UNITS.items()}
    else:
        assert sum(counts.values()) == kept(sum(UNITS.values()), 0.6)
    fewer = prune(view, method, 0.8, masks=masks, **options)
    assert not any(bool((fewer[name] & ~masks[name]).any()) for name in masks)


def test_magnitude_keeps_the_blocks_of_largest_mean():
    view = viewed()
    weight = view.net[2].weight.detach().clone()
    mask = prune(view, methods.Magnitude(pattern=Block(2, 4)), 0.75, layers="2")["2"]
    means = torch.tensor(
        [torch.stack([weight[place].abs() for place in block]).mean() for block in blocks(mask.shape, Block(2, 4))]
    )
    best = means.argsort(descending=True)[: kept(len(means), 0.75)].sort().values
    assert living(Block(2, 4), mask).nonzero().flatten().tolist() == best.tolist()


def test_masks_are_saved_held_and_driven_by_a_schedule(tmp_path):
    view = viewed()
    optimizer = torch.optim.Adam(view.net.parameters())
    pruner = Pruner(view, methods.Magnitude(pattern=PATTERN), schedules.stages([0.3, 0.6], every=2))
    pruner.attach(optimizer)
    for _ in range(6):
        optimizer.zero_grad()
        view(torch.rand(2, 3, 7, 7)).square().sum().backward()
        optimizer.step()
        pruner.step()
    alive = [living(PATTERN, mask) for mask in pruner.masks.values()]
    assert sum(int(units.sum()) for units in alive) == kept(sum(UNITS.values()), 0.6)
    pruner.masks.save(tmp_path / "masks")
    masks = Masks.load(tmp_path / "masks")
    assert masks == pruner.masks
    with hold(optimizer, view, masks):
        view(torch.rand(2, 3, 7, 7)).square().sum().backward()
        optimizer.step()
    assert not any(bool(view.net.get_submodule(name).weight[~mask].any()) for name, mask in masks.items())


def test_blocks_over_several_groups_are_refused():
    with pytest.raises(SparsityError, match=r"'2' has 4 groups of 3 output channels.* or take outputs that divide 3"):
        prune(viewed(groups=4), methods.Magnitude(pattern=Block(1, 32)), 0.5)
    masks = prune(viewed(groups=4), methods.Magnitude(pattern=Block(1, 3)), 0.5)
    assert set(masks) == {"0", "2", "5"}
    assert set(prune(viewed(groups=4), methods.Magnitude(pattern=Block(1, 32)), 0.5, layers=["0", "5"])) == {"0", "5"}


def test_allocations_that_read_the_weights_shape_refuse_blocks():
    with pytest.raises(SparsityError, match="erdos_renyi needs weight-shaped scores"):
        prune(viewed(), methods.Magnitude(allocate.erdos_renyi, PATTERN), 0.5)
