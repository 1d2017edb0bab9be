import pytest
import torch

from spikeprune.errors import LayoutError, QuantizeError
from spikeprune.runtime.encode import encode
from spikeprune.runtime.neurons import Neurons, fire
from spikeprune.runtime.spikes import unpack_maps


def neurons(channels, hard):
    generator = torch.Generator().manual_seed(0)
    return Neurons(*(torch.rand(channels, generator=generator) for _ in range(4)), hard)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (3, 2, 4, 5, 5), (4, 1, 3, 16, 16), (2, 70, 3)])
def test_spikes_are_those_of_torch(shape, hard):
    generator, cells = torch.Generator().manual_seed(1), neurons(shape[2], hard)
    x, scale, bias = (
        torch.randn(shape, generator=generator),
        torch.linspace(0.5, 1, shape[2]),
        torch.linspace(-0.5, 0.5, shape[2]),
    )
    maps = encode(x, cells, scale, bias)
    assert torch.equal(unpack_maps(maps).view(shape), fire(x, cells, scale, bias))
    assert maps.words.shape[2] * 64 - maps.lanes < 64


def test_bits_behind_the_last_lane_stay_zero_whatever_the_bias():
    words = encode(torch.zeros(2, 1, 1, 3, 3), neurons(1, False), None, torch.tensor([9.0])).words
    assert words.flatten().tolist() == [511, 511]


def test_currents_may_be_the_same_at_all_timesteps_or_lie_anyhow():
    x, cells, ones = torch.rand(1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), neurons(3, False), torch.ones(3)
    for given in (x.expand(5, -1, -1, -1, -1), x.transpose(3, 4), torch.cat([x, x])[::2]):
        assert torch.equal(unpack_maps(encode(given, cells)), fire(given, cells, ones, 0 * ones))


def test_what_does_not_fit_is_refused():
    with pytest.raises(LayoutError, match=r"but torch.float64 \(1, 1, 2\)"):
        encode(torch.zeros(1, 1, 2).double(), neurons(2, False))
    with pytest.raises(LayoutError, match="2 outputs, but neurons of 3"):
        encode(torch.zeros(1, 1, 2), neurons(3, False))
    with pytest.raises(QuantizeError, match="the bias"):
        encode(torch.zeros(1, 1, 2), neurons(2, False), bias=torch.zeros(3))
