"""Blocks along the input channels, and at most n alive in each."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeprune.errors import SparsityError
from spikeprune.kernel.blocks import NM, blocks, columns, fullest, unblocks, uncolumns
from spikeprune.kernel.patterns import Pattern

SHAPES = st.sampled_from([(3, 4), (2, 7), (1, 32), (3, 8, 3, 3), (2, 5, 2), (2, 6, 1, 2, 3)])


@given(SHAPES, st.integers(1, 4))
def test_blocks_and_back(shape, m):
    weight = torch.rand(shape)
    assert torch.equal(unblocks(blocks(weight, m), weight.shape), weight)


@given(SHAPES, st.integers(1, 4))
def test_columns_and_back(shape, m):
    weight = torch.rand(shape)
    assert torch.equal(uncolumns(columns(weight, m), weight.shape), weight)
    mask = weight > 0.5
    assert torch.equal(uncolumns(columns(mask, m, fill=False), weight.shape), mask)


@given(SHAPES, st.integers(1, 4))
def test_columns_are_the_same_blocks_in_another_order(shape, m):
    weight = torch.rand(shape)
    columned, blocked = columns(weight, m, fill=-1.0), blocks(weight, m, fill=-1.0)
    assert sorted(columned.t().tolist()) == sorted(blocked.tolist())
    assert columned.is_contiguous()


def test_fewer_inputs_than_a_block_are_refused():
    for cut in (blocks, columns):
        with pytest.raises(SparsityError, match="3 inputs in a row, fewer than the 4 of a block"):
            cut(torch.ones(8, 3, 3, 3), 4)


def test_blocks_run_along_input_channels_at_each_kernel_position():
    weight = torch.arange(16.0).view(1, 4, 2, 2)  # channel c at position p is 4 c + p
    assert blocks(weight, 2).tolist() == [[0, 4], [8, 12], [1, 5], [9, 13], [2, 6], [10, 14], [3, 7], [11, 15]]


def test_no_block_spans_two_rows():
    found = blocks(torch.ones(2, 5), 4)
    assert found.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]] * 2


@given(SHAPES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=80)
def test_every_block_keeps_its_n_best(shape, n, m, seed):
    if n > m:
        n, m = m, n
    score = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    pattern = NM(n, m)
    mask = pattern.select(score, pattern.count(score))
    assert fullest(mask, m) <= n
    for values, alive in zip(blocks(score, m, fill=-torch.inf), blocks(mask, m, fill=False), strict=True):
        real = int((values != -torch.inf).sum())
        assert int(alive.sum()) == min(n, real)
        if 0 < int(alive.sum()) < real:
            assert values[alive].min() >= values[~alive].max()


def test_ties_go_to_the_lower_index():
    assert NM(2, 4).select(torch.ones(1, 4), 2).tolist() == [[True, True, False, False]]


def test_what_is_dead_is_never_kept():
    score = torch.tensor([[1.0, -torch.inf, -torch.inf, -torch.inf, 2.0, 1.0, 0.0, 3.0]])
    pattern = NM(2, 4)
    assert pattern.count(score) == 3
    assert pattern.select(score, 3).tolist() == [[True, False, False, False, True, False, False, True]]


def test_another_count_is_refused():
    with pytest.raises(SparsityError, match="2:4 leaves 2 of 4 weights here, not 3"):
        NM(2, 4).select(torch.rand(1, 4), 3)


@pytest.mark.parametrize(("n", "m"), [(0, 4), (5, 4), (-1, 4), (2, 33), (1.0, 4), (True, 4), (2, "4")])
def test_patterns_that_are_none(n, m):
    with pytest.raises(SparsityError, match="is no pattern"):
        NM(n, m)


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (8, 1, 3, 3)])
def test_a_layer_with_fewer_inputs_is_refused(shape):
    with pytest.raises(SparsityError, match=f"{shape[1]} inputs in a row, fewer than the 4"):
        blocks(torch.rand(shape), 4)


def test_it_is_a_pattern():
    assert isinstance(NM(2, 4), Pattern)
