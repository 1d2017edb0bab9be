"""Constants are told apart by their bytes, which are read once as long as nobody writes on them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import spikeprune as sp
from small_nets import Loop, spikes
from spikeprune.engine import calls, make_plan
from spikeprune.engine.calls import key
from spikeprune.engine.plan import Synapse

T = 6


@pytest.fixture
def read(monkeypatch):
    """The tensors whose bytes were read."""
    found, digest = [], calls._digest
    monkeypatch.setattr(calls, "_digest", lambda value: (found.append(value.data_ptr()), digest(value))[1])
    return found


def test_a_tensor_is_read_again_once_it_was_written_on(read):
    one = torch.ones(3)
    first = key(one)
    assert key(one) == first
    assert len(read) == 1
    one[1] = 2.0
    assert key(one) != first
    assert key(torch.tensor([1.0, 2.0, 1.0])) == key(one)


def test_tensors_of_inference_mode_do_not_tell_and_are_read_each_time(read):
    with torch.inference_mode():
        one = torch.ones(3)
    assert key(one) == key(one) == key(torch.ones(3))
    assert len(read) == 3


def test_nothing_is_kept_of_tensors_that_are_gone():
    before, one = len(calls._digests), torch.rand(3)
    key(one)
    assert len(calls._digests) == before + 1
    del one
    assert len(calls._digests) == before


def test_a_loop_over_timesteps_reads_its_weights_once(read):
    net = Loop()
    make_plan(sp.model_view(net, spikes(T, 3, 6)))
    assert len(read) == len(set(read)) <= len(list(net.parameters()))


class Growing(nn.Module):
    """Multiplies by a weight that it makes, then writes on it, and multiplies again."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        weight = self.first.weight.detach().clone()
        once = F.linear(self.first(x), weight)
        weight *= 2
        return F.linear(once, weight)


def test_a_weight_that_a_forward_makes_and_writes_on_is_kept_as_it_was_at_each_call():
    plan = make_plan(sp.model_view(Growing(), torch.rand(3, 4), spiking=False))
    first, once, twice = (op.weight for op in plan.operations if isinstance(op, Synapse))
    assert torch.equal(first, once)
    assert torch.equal(twice, 2 * once)


def test_a_plan_shares_no_memory_with_the_network():
    net = Loop()
    plan = make_plan(sp.model_view(net, spikes(T, 3, 6)))
    before = [op.weight.clone() for op in plan.operations if isinstance(op, Synapse)]
    with torch.no_grad():
        for param in net.parameters():
            param.zero_()
    assert all(map(torch.equal, before, [op.weight for op in plan.operations if isinstance(op, Synapse)]))
    assert len(before) == 2
