"""Block scatter against the plain twin, bit by bit: whichever blocks live, and however often a program runs."""

import pytest
import torch
import torch.nn.functional as F

from spikeprune import patterns
from spikeprune.errors import LayoutError, NonFinite, QuantizeError
from spikeprune.runtime import block_entries, block_scatter, jit, reference, scatter
from spikeprune.runtime.neurons import Neurons
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import SpikeMaps, pack_maps, unpack_maps

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")

# timesteps, samples, inputs, height, width, outputs, kernel, stride, padding
CASES = [
    (4, 1, 8, 8, 8, 64, 3, 1, 1),
    (2, 5, 7, 5, 6, 40, 3, 1, 0),
    (2, 2, 3, 9, 9, 33, 3, 2, 1),
    (2, 3, 16, 4, 4, 32, 5, 1, 2),
    (3, 3, 5, 6, 7, 70, 1, 1, 0),
    (2, 2, 5, 7, 6, 32, 1, 2, 0),
    (5, 5, 70, 1, 1, 10, 1, 1, 0),
    (3, 3, 4, 7, 7, 8, 2, 2, 0),
    (2, 1, 3, 4, 4, 8, 3, 1, 4),
    (2, 2, 3, 7, 7, 8, 4, 3, 2),
    (2, 3, 2, 13, 13, 4, 3, 1, 1),
    (2, 3, 2, 9, 33, 4, 7, 1, 3),
]


def layer(shape, *, hard=False, integer=True, density=0.5):
    """Weights of which so many blocks live, and neurons of other constants in each channel."""
    generator, outputs = torch.Generator().manual_seed(0), shape[0]
    weight = torch.randint(-128, 128, shape, generator=generator)
    pattern = patterns.Block(1, 32)
    units = pattern.reduce(weight)
    weight *= pattern.expand(torch.rand(units.shape, generator=generator) < density, weight)
    grid = lambda low, high: torch.randint(low, high, (outputs,), generator=generator) / 64  # noqa: E731
    neurons = Neurons(torch.full((outputs,), 0.5), grid(16, 64), grid(-8, 64), grid(-8, 8), hard)
    scale = (torch.rand(outputs, generator=generator) + 1) / (50 * weight[0].numel() ** 0.5) if integer else None
    return weight.to(torch.int8) if integer else weight / 64, neurons, scale, grid(-8, 8)


def random(*shape, rate=0.3, seed=1):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def check(x, parts, **sizes):
    """Hold a run against the twin; return how much fired."""
    expected = reference.conv2d(x, *parts, **sizes)
    found = block_scatter.run(pack_maps(x), block_scatter.pack(*parts, **sizes))
    assert torch.equal(unpack_maps(found), expected)
    assert torch.equal(found.words, pack_maps(expected).words)  # nothing fires behind the last bit
    return float(expected.mean())


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_spikes_are_those_of_the_reference(case, integer, density):
    t, n, c, h, w, o, k, stride, padding = case
    parts = layer((o, c, k, k), integer=integer, hard=t == 2, density=density)
    rate = check(random(t, n, c, h, w), parts, stride=stride, padding=padding)
    assert 0 < rate < 1 or density < 0.5


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_no_spike_and_every_spike(rate):
    check(random(3, 2, 6, 5, 5, rate=rate), layer((33, 6, 3, 3)), padding=1)


@pytest.mark.parametrize("samples", [1, 5, 70, 300])
@pytest.mark.parametrize("integer", [True, False])
def test_a_linear_layer(samples, integer):
    x, parts = random(3, samples, 90), layer((40, 90), integer=integer)
    found = block_scatter.run(pack_maps(x), block_scatter.pack(*parts))
    assert torch.equal(unpack_maps(found).flatten(2), reference.linear(x, *parts))


def largest():
    """Sums of 576 weights of 127 and of -128, all of whose inputs fire, against thresholds that they just reach or just miss."""
    weight = torch.tensor([127, 127, -128, -128], dtype=torch.int8).view(4, 1, 1, 1).expand(4, 64, 3, 3)
    threshold = torch.tensor([576 * 127, 576 * 127 + 1, -576 * 128, -576 * 128 + 1]).float()
    neurons = Neurons(torch.zeros(4), threshold, torch.zeros(4), torch.zeros(4))
    packed = block_scatter.pack(weight, neurons)
    return unpack_maps(block_scatter.run(pack_maps(torch.ones(1, 2, 64, 3, 3)), packed)).flatten(1)


def test_sums_at_the_limits_of_int8_are_exact():
    assert largest().tolist() == [[1, 0, 1, 0] * 2]


def test_a_bound_too_wide_would_overflow(monkeypatch):
    monkeypatch.setattr(scatter, "SHORT", 1 << 20)
    assert largest().tolist() != [[1, 0, 1, 0] * 2]


def test_sums_of_few_blocks_are_moved_only_where_16_bits_may_not_hold_them():
    weight = torch.full((64, 100, 3, 3), 127, dtype=torch.int8)
    weight[32:, :, :, 1:], weight[32:, 50:] = 0, 0  # 900 taps of the first 32 outputs, 150 of the others, and 258 fit
    packed = block_scatter.pack(weight, Neurons.alike(64, decay=0.5, threshold=50000.0, reset=1.0))
    assert packed.flushes.nonzero().flatten().tolist() == [28, 56, 84]
    assert packed.flushes.tolist()[100:] == [0] * 50
    x, parts = random(2, 2, 100, 6, 6, rate=0.9), (weight, Neurons.alike(64, decay=0.5, threshold=50000.0, reset=1.0))
    assert 0 < check(x, parts, padding=1) < 1


def test_other_bounds_of_blocks_move_sums_of_several_numbers_of_taps():
    x, weight = random(2, 2, 300, 5, 5, rate=0.9), layer((64, 300, 3, 3), density=0.6)[0]
    weight = (weight != 0).to(torch.int8) * 127
    neurons = Neurons.alike(64, decay=0.5, threshold=300 * 9 * 127 * 0.6, reset=1000.0)
    packed = block_scatter.pack(weight, neurons, padding=1)
    assert packed.flushes.sum() > 8
    assert 0 < check(x, (weight, neurons), padding=1) < 1


def test_float32_differs_only_where_a_charge_is_within_1e_5_of_the_threshold():
    generator, x = torch.Generator().manual_seed(0), random(1, 2, 30, 8, 8)
    weight = torch.randn(32, 30, 3, 3, generator=generator) / 2
    weight *= (torch.rand(1, 30, 3, 3, generator=generator) < 0.5).float()
    neurons = Neurons.alike(32, decay=0.5, threshold=1.0, reset=1.0)
    found = unpack_maps(block_scatter.run(pack_maps(x), block_scatter.pack(weight, neurons, padding=1)))[0]
    charge = F.conv2d(x[0].double(), weight.double(), padding=1)
    differs = found.bool() != (charge >= 1.0)
    assert ((charge - 1.0).abs()[differs] < 1e-5).all()
    assert 0.1 < found.mean() < 0.9


def test_dead_outputs_have_their_bias():
    weight, neurons, scale, bias = layer((64, 6, 3, 3))
    weight[:32], bias[:2] = 0, 2.0
    x = random(3, 2, 6, 5, 5)
    assert reference.conv2d(x, weight, neurons, scale, bias, padding=1)[:, :, :2].any()
    check(x, (weight, neurons, scale, bias), padding=1)


def test_only_living_blocks_are_kept_and_only_their_channels_read():
    weight = torch.zeros(64, 4, 3, 3)
    weight[40, 1, 0, 2], weight[5, 3, 1, 1], weight[6, 3, 2, 2] = 1.0, 2.0, 3.0
    packed = block_scatter.pack(weight, Neurons.alike(64, decay=1.0, threshold=1.0, reset=1.0))
    assert packed.channels.tolist() == [1, 3]
    assert packed.weights.nonzero().tolist() == [[0, 5], [1, 6], [2, 8]]
    assert packed.taps.tolist() == [4, 8, 2]
    assert packed.lists.tolist() == [1, 0]
    assert block_scatter.living(weight) == 3 / (2 * 4 * 9)
    assert block_scatter.living(torch.zeros(3, 5)) == 0
    assert block_scatter.living(torch.ones(33, 5, 2, 2)) == 1


def test_entries_of_many_taps_are_split_and_sorted():
    alive = torch.zeros(2, 1, 25, dtype=torch.bool)
    alive[0, 0, :20], alive[1, 0, 24] = True, True
    found = block_entries.entries(alive, torch.zeros(25, dtype=torch.int64))
    assert found.counts.tolist() == [2, 9, 9, 1]
    assert found.taps[:, 2].tolist() == [18, 19, *range(18), 24]
    assert found.taps[:, 0].tolist() == [0] * 20 + [1]


@pytest.mark.parametrize("integer", [True, False])
def test_a_program_runs_again_and_again_on_what_x_holds_then(integer):
    parts = layer((40, 6, 3, 3), integer=integer)
    first, second = (random(3, 5, 6, 7, 7, rate=rate, seed=seed) for rate, seed in ((0.9, 1), (0.2, 2)))
    x, program = pack_maps(first), Program()
    found = block_scatter.prepare(program, x, block_scatter.pack(*parts, stride=2, padding=1))
    other = block_scatter.prepare(program, found, block_scatter.pack(*layer((33, 40, 3, 3), integer=integer)))
    for given in (first, second, first * 0, first):
        x.words.copy_(pack_maps(given).words)
        program.run()
        expected = reference.conv2d(given, *parts, stride=2, padding=1)
        assert torch.equal(unpack_maps(found), expected)
        assert torch.equal(unpack_maps(other), reference.conv2d(expected, *layer((33, 40, 3, 3), integer=integer)))
    assert expected.any()


def test_words_behind_the_last_place_are_not_read_as_spikes():
    x, parts = random(2, 3, 6, 5, 5), layer((33, 6, 3, 3))
    wide = SpikeMaps(F.pad(pack_maps(x).words, (0, 2), value=-1), 3, 5, 5)
    wide.words[:, :, 1] |= -1 << 3 * 25 - 64
    found = block_scatter.run(wide, block_scatter.pack(*parts, padding=1))
    assert torch.equal(unpack_maps(found), reference.conv2d(x, *parts, padding=1))


def test_membranes_that_are_kept_go_on_where_the_last_run_ended():
    parts, x = layer((40, 6, 3, 3)), random(6, 2, 6, 5, 5)
    packed, half = block_scatter.pack(*parts, padding=1), pack_maps(x[:3])
    program, membrane = Program(), block_scatter.rest(half, packed)
    found, pieces = block_scatter.prepare(program, half, packed, membrane), []
    for given in (x[:3], x[3:]):
        half.words.copy_(pack_maps(given).words)
        program.run()
        pieces.append(unpack_maps(found))
    expected = reference.conv2d(x, *parts, padding=1)
    assert torch.equal(torch.cat(pieces), expected)
    assert not torch.equal(reference.conv2d(x[3:], *parts, padding=1), expected[3:])


def test_a_layer_without_neurons_gives_currents():
    weight, _, scale, bias = layer((40, 6, 3, 3))
    x = random(2, 3, 6, 5, 5)
    found = block_scatter.run_currents(pack_maps(x), block_scatter.pack(weight, None, scale, bias, padding=1))
    sums = F.conv2d(x.flatten(0, 1).double(), weight.double(), padding=1).float().view(2, 3, 40, 5, 5)
    assert torch.equal(found, sums * scale.view(-1, 1, 1) + bias.view(-1, 1, 1))
    with pytest.raises(LayoutError, match="has no neurons"):
        block_scatter.run(pack_maps(x), block_scatter.pack(weight, None))


@pytest.mark.parametrize("integer", [True, False])
def test_other_processors_give_the_same(integer):
    if jit.llvm.get_host_cpu_features().get("avx2") is not True:
        pytest.skip("this processor has no AVX2 to restrict it to")
    x, parts = random(3, 2, 40, 6, 6), layer((33, 40, 3, 3), integer=integer)
    with jit.compiling_for("x86-64-v3"):  # AVX2, and nothing beyond
        check(x, parts, padding=1)
    assert any(key[0] == "x86-64-v3" and "block scatter" in key[1] for key in jit._functions)


def test_what_does_not_fit_is_refused():
    weight, neurons, scale, bias = layer((4, 6, 3, 3))
    packed = block_scatter.pack(weight, neurons, scale, bias)
    with pytest.raises(LayoutError, match="takes 6 channels, but spikes of 7"):
        block_scatter.run(pack_maps(torch.ones(1, 1, 7, 3, 3)), packed)
    with pytest.raises(LayoutError, match="2 x 5 are too small"):
        block_scatter.run(pack_maps(torch.ones(1, 1, 6, 2, 5)), packed)
    with pytest.raises(LayoutError, match="4 outputs, but neurons of 3"):
        block_scatter.pack(weight, Neurons.alike(3, decay=1.0, threshold=1.0, reset=1.0))
    with pytest.raises(LayoutError, match="no convolution that native code has"):
        block_scatter.pack(torch.zeros(4, 6, 8, 8), neurons)
    with pytest.raises(QuantizeError, match="must be int8 or float32"):
        block_scatter.pack(weight.long(), neurons)
    with pytest.raises(NonFinite, match="the bias has 4 of 4"):
        block_scatter.pack(weight, neurons, scale, bias / 0.0)


def test_more_events_than_32_bits_count_are_refused(monkeypatch):
    packed, x = block_scatter.pack(*layer((4, 6, 3, 3), density=1.0)), pack_maps(torch.ones(1, 2, 6, 3, 3))
    monkeypatch.setattr(block_scatter, "LONG", 6 * 2 * 9)
    with pytest.raises(LayoutError, match="138 events are more than 32 bits count"):
        block_scatter.run(x, packed)
