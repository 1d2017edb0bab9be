import pytest
import torch

from programs import runs_each
from spikeprune.errors import LayoutError
from spikeprune.runtime import event_rows, readout
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import pack_rows

SIZES = [(1, 1, 1), (4, 3, 70), (3, 2, 64), (5, 1, 200)]  # timesteps, samples, features


def random(*shape, rate=0.3):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(int(10 * rate))) < rate).float()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_spikes_are_summed_with_the_weight_of_their_timestep(size):
    inputs, weights = [random(*size, rate=rate) for rate in (0.3, 1.0, 0.0)], torch.linspace(-1, 2, size[0])
    x = pack_rows(torch.zeros(size))
    prepare = lambda made: readout.prepare(made, x, weights.tolist())  # noqa: E731
    found = runs_each(prepare, lambda one: x.words.copy_(pack_rows(one).words), inputs)
    for one, given in zip(found, [*inputs, inputs[0]], strict=True):
        assert one.shape == size[1:]
        assert (one - (given * weights[:, None, None]).sum(0)).abs().max() <= 1e-6
    assert found[1].any()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_currents_are_summed_with_the_weight_of_their_timestep(size, turned):
    generator, weights = torch.Generator().manual_seed(0), torch.linspace(-1, 2, size[0])
    whole = torch.zeros(size[1], size[0], size[2] + 3) if turned else torch.zeros(size[0], size[1], size[2] + 3)
    x = (whole.transpose(0, 1) if turned else whole)[..., : size[2]]
    inputs = [torch.rand(size, generator=generator) for _ in range(2)]
    prepare = lambda made: readout.prepare_currents(made, x, weights.tolist())  # noqa: E731
    for one, given in zip(runs_each(prepare, x.copy_, inputs), [*inputs, inputs[0]], strict=True):
        assert one.shape == size[1:]
        assert (one - (given * weights[:, None, None]).sum(0)).abs().max() <= 1e-6


def test_currents_of_a_layer_go_straight_in():
    made, x = Program(), pack_rows(torch.ones(2, 1, 3))
    layer = event_rows.pack(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.5, 0.0]]), None)
    currents = event_rows.prepare_currents(made, x, layer)[..., : layer.outputs].transpose(0, 1)
    found = readout.prepare_currents(made, currents, [1.0, 0.5])
    made.run()
    assert found.tolist() == [[10.5, 0.75]]


def test_what_does_not_fit_is_refused():
    for wrong in ([1.0], [1.0, float("nan")]):
        with pytest.raises(LayoutError, match="2 timesteps takes as many finite weights"):
            readout.prepare(Program(), pack_rows(torch.ones(2, 1, 3)), wrong)
    for odd in (torch.zeros(2, 3), torch.zeros(2, 1, 3).double(), torch.zeros(2, 3, 2).transpose(1, 2)):
        with pytest.raises(LayoutError, match=r"float32 \(T, N, F\), features in a row"):
            readout.prepare_currents(Program(), odd, [1.0, 1.0])
