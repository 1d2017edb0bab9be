import pytest
import torch

from programs import runs_each
from spikeprune.errors import LayoutError
from spikeprune.runtime import add
from spikeprune.runtime.program import Program


def values(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4, 3), (1, 1, 1, 1, 1), (3, 2, 70), (1, 1, 1)], ids=str)
def test_sums_are_those_of_torch(shape, turned):
    x = values(*shape)
    whole = (
        torch.zeros(shape[1], shape[0], shape[2] + 3, *shape[3:]) if turned else torch.zeros(*shape[:2], shape[2] + 3, *shape[3:])
    )
    y = (whole.transpose(0, 1) if turned else whole)[:, :, : shape[2]]
    inputs = [values(*shape, seed=seed) for seed in (1, 2)]
    found = runs_each(lambda program: add.prepare(program, x, y), y.copy_, inputs)
    for one, given in zip(found, [*inputs, inputs[0]], strict=True):
        assert torch.equal(one, x + given)


def test_values_that_cannot_be_added_are_refused():
    with pytest.raises(LayoutError, match=r"\(1, 1, 2\) and \(1, 1, 3\) cannot be added"):
        add.prepare(Program(), torch.ones(1, 1, 2), torch.ones(1, 1, 3))
    for odd in (
        torch.ones(2, 2),
        torch.ones(1, 1, 2).double(),
        torch.ones(1, 1, 1, 4, 2).transpose(3, 4),
        torch.ones(1, 2, 2).transpose(1, 2),
    ):
        with pytest.raises(LayoutError, match="each map contiguous"):
            add.prepare(Program(), odd, odd)
