"""Scatter and gather, which compute the same and share their tests."""

import pytest
import torch
import torch.nn.functional as F

from spikeprune.errors import LayoutError, NonFinite, QuantizeError
from spikeprune.runtime import gather, jit, reference, scatter
from spikeprune.runtime.neurons import Neurons
from spikeprune.runtime.spikes import pack_maps, unpack_maps

WAYS = pytest.mark.parametrize("way", [scatter, gather], ids=["scatter", "gather"])

# timesteps, samples, inputs, height, width, outputs, kernel, stride, padding
CASES = [
    (4, 1, 8, 8, 8, 32, 3, 1, 1),
    (2, 5, 7, 5, 6, 40, 3, 1, 0),
    (2, 2, 3, 9, 9, 33, 3, 2, 1),
    (2, 3, 16, 4, 4, 32, 5, 1, 2),
    (3, 3, 5, 6, 7, 31, 1, 1, 0),
    (2, 2, 5, 7, 6, 32, 1, 2, 0),
    (5, 5, 70, 1, 1, 10, 1, 1, 0),
    (1, 1, 3, 1, 1, 1, 3, 1, 1),
    (3, 3, 4, 7, 7, 8, 2, 2, 0),
    (2, 1, 3, 4, 4, 8, 3, 1, 4),
    (2, 2, 3, 7, 7, 8, 4, 3, 2),
    (2, 3, 2, 13, 13, 4, 3, 1, 1),
]


def layer(shape, *, hard=False, integer=True, density=1.0):
    generator, outputs = torch.Generator().manual_seed(0), shape[0]
    weight = torch.randint(-128, 128, shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
    grid = lambda low, high: torch.randint(low, high, (outputs,), generator=generator) / 64  # noqa: E731
    neurons = Neurons(torch.full((outputs,), 0.5), grid(16, 64), grid(-8, 64), grid(-8, 8), hard)
    scale = (torch.rand(outputs, generator=generator) + 1) / (50 * weight[0].numel() ** 0.5) if integer else None
    return weight.to(torch.int8) if integer else weight / 64, neurons, scale, grid(-8, 8)


def random(*shape, rate=0.3):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(1)) < rate).float()


def given(case):
    t, n, c, h, w, o, k, stride, padding = case
    return random(t, n, c, h, w), (o, c, k, k), {"stride": stride, "padding": padding}


@WAYS
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_spikes_are_those_of_the_reference(way, case, integer):
    x, shape, sizes = given(case)
    parts = layer(shape, integer=integer, hard=case[0] == 2, density=0.5)
    expected = reference.conv2d(x, *parts, **sizes)
    found = way.run(pack_maps(x), way.pack(*parts, **sizes))
    assert torch.equal(unpack_maps(found), expected)
    assert torch.equal(found.words, pack_maps(expected).words)
    assert 0 < expected.mean() < 1 or expected.numel() < 2


@WAYS
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_no_spike_and_every_spike(way, rate):
    x, parts = random(3, 2, 6, 5, 5, rate=rate), layer((33, 6, 3, 3))
    found = unpack_maps(way.run(pack_maps(x), way.pack(*parts, padding=1)))
    assert torch.equal(found, reference.conv2d(x, *parts, padding=1))


def largest(way):
    """Sums of 576 weights of 127 and of -128, all of whose inputs fire, against thresholds that they just reach or just miss."""
    weight = torch.tensor([127, 127, -128, -128], dtype=torch.int8).view(4, 1, 1, 1).expand(4, 64, 3, 3)
    threshold = torch.tensor([576 * 127, 576 * 127 + 1, -576 * 128, -576 * 128 + 1]).float()
    neurons = Neurons(torch.zeros(4), threshold, torch.zeros(4), torch.zeros(4))
    return unpack_maps(way.run(pack_maps(torch.ones(1, 2, 64, 3, 3)), way.pack(weight, neurons))).flatten(1)


@WAYS
def test_sums_at_the_limits_of_int8_are_exact(way):
    assert largest(way).tolist() == [[1, 0, 1, 0] * 2]


@WAYS
def test_a_bound_too_wide_would_overflow(way, monkeypatch):
    monkeypatch.setattr(way, "SHORT", 1 << 20)
    assert largest(way).tolist() != [[1, 0, 1, 0] * 2]


@WAYS
def test_pruned_outputs_have_their_bias_and_pruned_inputs_nothing(way):
    x, (weight, neurons, scale, bias) = random(3, 2, 6, 5, 5), layer((33, 6, 3, 3))
    weight[4:9], weight[:, 2] = 0, 0
    bias[4:6] = 2.0
    parts = (weight, neurons, scale, bias)
    found = way.run(pack_maps(x), way.pack(*parts, padding=1))
    expected = reference.conv2d(x, *parts, padding=1)
    assert expected[:, :, 4:6].any()
    assert torch.equal(unpack_maps(found), expected)
    assert torch.equal(found.words, pack_maps(expected).words)  # no bias fires behind the last bit
    nothing = way.run(pack_maps(x), way.pack(torch.zeros_like(weight), neurons, scale, bias))
    assert torch.equal(unpack_maps(nothing), reference.conv2d(x, torch.zeros_like(weight), neurons, scale, bias))


@WAYS
def test_float32_differs_only_where_a_charge_is_within_1e_5_of_the_threshold(way):
    generator, x = torch.Generator().manual_seed(0), random(1, 2, 30, 8, 8)
    weight = torch.randn(32, 30, 3, 3, generator=generator) / 4
    neurons = Neurons.alike(32, decay=0.5, threshold=1.0, reset=1.0)
    found = unpack_maps(way.run(pack_maps(x), way.pack(weight, neurons, padding=1)))[0]
    charge = F.conv2d(x[0].double(), weight.double(), padding=1)
    differs = found.bool() != (charge >= 1.0)
    assert ((charge - 1.0).abs()[differs] < 1e-5).all()
    assert 0.1 < found.mean() < 0.9


@WAYS
@pytest.mark.parametrize("integer", [True, False])
def test_other_processors_give_the_same(way, integer):
    if jit.llvm.get_host_cpu_features().get("avx2") is not True:
        pytest.skip("this processor has no AVX2 to restrict it to")
    x, parts = random(3, 2, 40, 6, 6), layer((33, 40, 3, 3), integer=integer)
    with jit.compiling_for("haswell"):  # AVX2, and nothing beyond
        found = unpack_maps(way.run(pack_maps(x), way.pack(*parts, padding=1)))
    assert any(processor == "haswell" for processor, _ in jit._functions)
    assert torch.equal(found, reference.conv2d(x, *parts, padding=1))


@pytest.mark.parametrize("samples", [1, 5, 70, 300])
@pytest.mark.parametrize("integer", [True, False])
def test_gather_of_a_linear_layer(samples, integer):
    parts, x = layer((17, 90), integer=integer, density=0.1), random(3, samples, 90)
    found = unpack_maps(gather.run(pack_maps(x), gather.pack(*parts)))
    assert torch.equal(found.flatten(2), reference.linear(x, *parts))


def test_rows_of_gather_are_cut_where_sums_could_leave_16_bits():
    assert gather.bounds(torch.tensor([127, -128] * 400, dtype=torch.int8)) == [513, 800]
    assert gather.bounds(torch.tensor([], dtype=torch.int8)) == [0]


@WAYS
def test_what_does_not_fit_is_refused(way):
    weight, neurons, scale, bias = layer((4, 6, 3, 3))
    packed = way.pack(weight, neurons, scale, bias)
    with pytest.raises(LayoutError, match="takes 6 channels, but spikes of 7"):
        way.run(pack_maps(torch.ones(1, 1, 7, 3, 3)), packed)
    with pytest.raises(LayoutError, match="2 x 5 are too small"):
        way.run(pack_maps(torch.ones(1, 1, 6, 2, 5)), packed)
    with pytest.raises(LayoutError, match="4 outputs, but neurons of 3"):
        way.pack(weight, Neurons.alike(3, decay=1.0, threshold=1.0, reset=1.0))
    with pytest.raises(LayoutError, match="no convolution that native code has"):
        way.pack(torch.zeros(4, 6, 8, 8), neurons)
    with pytest.raises(QuantizeError, match="must be int8 or float32"):
        way.pack(weight.long(), neurons)
    with pytest.raises(NonFinite, match="the bias has 4 of 4"):
        way.pack(weight, neurons, scale, bias / 0.0)
