"""Where sparse training puts its numbers, how long that is kept, and what it is estimated to be worth."""

import itertools

import torch

from spikeprune.runtime import sparse_layers
from spikeprune.runtime.sparse_cost import advantage
from spikeprune.runtime.sparse_layers import SparseWeight
from spikeprune.runtime.sparse_lists import Convolution, Living, Packing


def masked(*shape, density=0.3):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < density


def reaches(run, plane):
    """Give the bounds of what a pass reads and of what it writes, in numbers."""
    tile, (down, across), lists = run.tile, run.tiles, run.lists
    reach = (down * tile.rows - 1) * run.row + ((across * tile.columns - 1) * tile.step * tile.vectors + tile.vectors) * 16
    last = (down * tile.rows - 1) * run.target[0] + (across * tile.columns - 1) * run.target[1] + tile.vectors * 16
    read = int(lists.offsets.min()), int(lists.offsets.max()) + reach
    return read, (run.start, run.start + (lists.sums - 1) * plane + last)


GEOMETRIES = itertools.product(
    [(1, 1), (4, 7), (9, 5), (17, 3)], [(1, 1), (3, 2), (5, 7)], [(1, 1), (2, 3)], [(0, 0), (2, 1), (3, 3)], [1, 40]
)


def test_nothing_is_read_or_written_beyond_the_lanes():
    tried = 0
    for size, kernel, stride, padding, samples in GEOMETRIES:
        if any(n + 2 * p < k for n, k, p in zip(size, kernel, padding, strict=True)):
            continue
        sizes = Convolution(3, 2, size, kernel, stride, padding)
        lists = Packing(Living.of(masked(2, 3, *kernel, density=2)), sizes, sizes.vectors(samples))
        runs = [(lists.forward, lists.x, lists.y), *((run, lists.dy, lists.dx) for run in lists.backward if len(run.lists.index))]
        for run, source, target in runs:
            for (low, high), grid in zip(reaches(run, target.plane), (source, target), strict=True):
                assert 0 <= low < high <= grid.numel
        whole = lists.tiles[0] * lists.tile.rows + lists.margin[0], lists.tiles[1] * lists.tile.columns + lists.margin[1]
        assert whole[0] <= lists.dy.rows
        assert whole[1] <= lists.dy.columns
        tried += 1
    assert tried > 50


def test_lists_are_kept_for_a_few_sizes():
    weight = SparseWeight(masked(4, 4, 3, 3))
    first = weight.packed(torch.zeros(2, 4, 8, 8))
    assert weight.packed(torch.ones(9, 4, 8, 8)) is first
    assert weight.packed(torch.ones(9, 4, 8, 8), padding=(1, 1)) is not first
    for side in range(9, 9 + sparse_layers.SIZES):
        weight.packed(torch.zeros(2, 4, side, 8))
    assert weight.packed(torch.zeros(2, 4, 8, 8)) is not first


def packed(shape, density, size=(8, 8)):
    sizes = Convolution(shape[1], shape[0], size, shape[2:], padding=(shape[2] // 2, shape[3] // 2))
    return Packing(Living.of(masked(*shape, density=density)), sizes, sizes.vectors(64))


def test_the_estimate_rises_with_sparsity_and_samples():
    shape = 128, 128, 3, 3
    by_sparsity = [advantage(packed(shape, density), 64) for density in (0.5, 0.2, 0.1, 0.05)]
    by_samples = [advantage(packed(shape, 0.1), samples) for samples in (1, 4, 16)]
    assert by_sparsity == sorted(by_sparsity)
    assert by_samples == sorted(by_samples)
    assert by_sparsity[2] > 2
    assert by_samples[0] < 1
    assert advantage(packed(shape, 0.1), 17) < advantage(packed(shape, 0.1), 16)  # lanes without a sample cost as much
