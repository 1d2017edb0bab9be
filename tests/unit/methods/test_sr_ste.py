"""SR-STE: the largest of every block, and the pull on the others."""

import pytest
import torch

from spikeprune.errors import MethodError, SparsityError
from spikeprune.kernel.blocks import blocks, unblocks
from spikeprune.methods import SRSTE


def test_the_largest_of_every_block_live():
    weight = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    learner = SRSTE(2, 4).begin((), 10)
    rows = blocks(weight.abs(), 4)
    wanted = unblocks(torch.zeros_like(rows).scatter(1, rows.topk(2).indices, 1.0).bool(), weight.shape)
    assert torch.equal(learner.draw("a", weight), wanted)
    assert torch.equal(learner.best("a", weight), wanted)


def test_masked_weights_are_pulled_to_zero_and_living_ones_are_not():
    weight = torch.tensor([[4.0, -3.0, 2.0, -1.0]])
    for decay in (0.0, 0.5):
        grad = torch.ones(1, 4)
        SRSTE(2, 4, decay).begin((), 10).learn("a", weight, grad)
        assert grad.tolist() == [[1, 1, 1 + decay * 2, 1 - decay]]


def test_what_fills_a_last_block_is_not_taken():
    mask = SRSTE(2, 4).begin((), 10).best("a", torch.zeros(3, 5))
    assert mask.sum(1).tolist() == [3, 3, 3]


def test_impossible_options_are_refused():
    with pytest.raises(SparsityError, match="NM"):
        SRSTE(3, 2)
    with pytest.raises(MethodError, match="decay is -1"):
        SRSTE(decay=-1)
