"""Whole numbers are found in weights that are multiples of a step, row by row, whatever their size; others are told apart."""

import pytest
import torch

from spikeprune.engine.grid import on_grid
from spikeprune.runtime.integers import SOME, extremes, some_rows


def drawn(rows, terms, most, alive, seed):
    """Whole numbers of which each row has its largest, and a step for each row."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(-most, most + 1, (rows, terms), generator=generator)
    numbers *= torch.rand(rows, terms, generator=generator) < alive
    numbers[:, 0], numbers[:, 1] = most, 1
    return numbers, torch.rand(rows, generator=generator, dtype=torch.double) + 0.01


@pytest.mark.parametrize("alive", [0.05, 1.0])
@pytest.mark.parametrize("most", [1, 2, 7, 64, 127])
@pytest.mark.parametrize(("rows", "terms"), [(1, 2), (5, 9), (40, 70), (37, 4608)])
def test_weights_are_found_again_as_the_numbers_that_made_them(rows, terms, most, alive):
    numbers, steps = drawn(rows, terms, most, alive, seed=terms)
    found, step = on_grid((numbers * steps[:, None]).float().double())
    assert torch.equal(found.long(), numbers)
    assert torch.allclose(step, steps, rtol=1e-6)


@pytest.mark.parametrize("row", [0, 20, 36])
def test_one_weight_off_the_grid_is_enough_in_whichever_row(row):
    numbers, steps = drawn(37, 4608, 100, 1.0, seed=0)
    weight = numbers * steps[:, None]
    weight[row, 4000] += 0.01 * steps[row]
    assert on_grid(weight) is None


def test_a_row_whose_large_weights_fit_many_steps_has_the_step_of_its_small_ones():
    weight = torch.ones(1, 200, dtype=torch.double)
    weight[0, 150] = 0.25
    numbers, step = on_grid(weight)
    assert numbers[0, [0, 150]].tolist() == [4, 1]
    assert step.tolist() == [0.25]


def test_extremes_are_those_of_all_rows_and_little_is_looked_at_together():
    weight = torch.randint(-128, 128, (50, 3000), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    least, most = extremes(weight)
    assert torch.equal(least, weight.long().clamp(max=0).sum(1))
    assert torch.equal(most, weight.long().clamp(min=0).sum(1))
    assert max(part.numel() for part in some_rows(weight)) <= SOME < weight.numel()
    assert len(some_rows(torch.zeros(3, 2 * SOME))) == 3  # one row at least
