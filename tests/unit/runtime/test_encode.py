import pytest
import torch

from programs import run_again, runs_each
from spikeprune.errors import LayoutError, QuantizeError
from spikeprune.runtime.encode import encode, prepare, rest
from spikeprune.runtime.neurons import Neurons, fire
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import pack_maps, unpack_maps


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


LAYOUTS = {
    "plain": lambda x: x,
    "channels first": lambda x: x.transpose(0, 2).contiguous().transpose(0, 2),
    "samples first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "filled up": lambda x: torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 3))[:, :, :-3],
    "expanded": lambda x: x[:1].expand(len(x), -1, -1, -1, -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 2, 4, 5, 5), (2, 3, 40, 1, 1), (4, 1, 3, 16, 16)], ids=str)
def test_a_program_reads_currents_of_any_layout_that_it_holds_then(layout, shape):
    generator, cells, ones = torch.Generator().manual_seed(1), neurons(shape[2], False), torch.ones(shape[2])
    given = [LAYOUTS[layout](torch.randn(shape, generator=generator)) for _ in range(3)]
    held = LAYOUTS[layout](torch.zeros(shape))
    put = (lambda one: held[0].copy_(one[0])) if layout == "expanded" else held.copy_
    found = runs_each(lambda made: prepare(made, held, cells), put, given)
    for words, one in zip(found, [*given, given[0]], strict=True):
        assert torch.equal(words, pack_maps(fire(one, cells, ones, 0 * ones)).words)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("shape", [(5, 2, 4, 5, 5), (4, 3, 7)], ids=str)
def test_a_timestep_at_a_time_is_all_of_them(shape, hard):
    cells, scale = neurons(shape[2], hard), torch.linspace(0.5, 1, shape[2])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    now, made, all_at_once = torch.zeros_like(x[:1]), Program(), Program()
    membrane, last = rest(now, cells), rest(x, cells)
    found, expected = prepare(made, now, cells, scale, None, membrane), prepare(all_at_once, x, cells, scale, None, last)
    run_again(all_at_once)
    assert torch.equal(unpack_maps(expected).view(shape), fire(x, cells, scale, 0 * scale))
    steps = []
    for one in x:
        now.copy_(one[None])
        run_again(made)
        steps.append(unpack_maps(found))
    assert torch.equal(torch.cat(steps), unpack_maps(expected))
    assert torch.equal(membrane, last)
    assert not torch.equal(membrane, rest(x, cells))


def test_what_does_not_fit_is_refused():
    with pytest.raises(LayoutError, match=r"but torch.float64 \(1, 1, 2\)"):
        encode(torch.zeros(1, 1, 2).double(), neurons(2, False))
    with pytest.raises(LayoutError, match="2 outputs, but neurons of 3"):
        encode(torch.zeros(1, 1, 2), neurons(3, False))
    with pytest.raises(QuantizeError, match="the bias"):
        encode(torch.zeros(1, 1, 2), neurons(2, False), bias=torch.zeros(3))
    with pytest.raises(LayoutError, match="each map of currents must be contiguous"):
        prepare(Program(), torch.zeros(1, 1, 2, 3, 3).transpose(3, 4), neurons(2, False))
    with pytest.raises(LayoutError, match=r"must be float32 \(2, 64\), as `rest` makes them"):
        prepare(Program(), torch.zeros(1, 1, 2), neurons(2, False), membrane=torch.zeros(2, 1))
