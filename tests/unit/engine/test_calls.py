"""Constants are told apart by their bytes, which are read once as long as nobody writes on them."""

import pytest
import torch

import spikeprune as sp
from small_nets import Loop, spikes
from spikeprune.engine import calls, make_plan
from spikeprune.engine.calls import key

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
