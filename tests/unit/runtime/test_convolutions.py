"""Scatter, gather and patches, which compute the same and share their tests."""

import pytest
import torch
import torch.nn.functional as F

from programs import run_again, runs_each
from spikeprune.errors import LayoutError, NonFinite, QuantizeError
from spikeprune.runtime import event_rows, gather, jit, patches, reference, scatter
from spikeprune.runtime.gather_code import Tiling
from spikeprune.runtime.integers import affine
from spikeprune.runtime.neurons import Neurons
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import SpikeMaps, pack_maps, unpack_maps

WAYS = pytest.mark.parametrize("way", [scatter, gather], ids=["scatter", "gather"])
ALL = pytest.mark.parametrize(
    "way", [scatter, gather, patches], ids=["scatter", "gather", "patches"]
)  # of which the last has no currents

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


@ALL
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


@ALL
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


@ALL
def test_sums_at_the_limits_of_int8_are_exact(way):
    assert largest(way).tolist() == [[1, 0, 1, 0] * 2]


@ALL
def test_a_bound_too_wide_would_overflow(way, monkeypatch):
    monkeypatch.setattr(event_rows if way is patches else way, "SHORT", 1 << 20)
    assert largest(way).tolist() != [[1, 0, 1, 0] * 2]


@ALL
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


@ALL
def test_float32_differs_only_where_a_charge_is_within_1e_5_of_the_threshold(way):
    generator, x = torch.Generator().manual_seed(0), random(1, 2, 30, 8, 8)
    weight = torch.randn(32, 30, 3, 3, generator=generator) / 4
    neurons = Neurons.alike(32, decay=0.5, threshold=1.0, reset=1.0)
    found = unpack_maps(way.run(pack_maps(x), way.pack(weight, neurons, padding=1)))[0]
    charge = F.conv2d(x[0].double(), weight.double(), padding=1)
    differs = found.bool() != (charge >= 1.0)
    assert ((charge - 1.0).abs()[differs] < 1e-5).all()
    assert 0.1 < found.mean() < 0.9


@ALL
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


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("padding", [0, 1], ids=["other places", "same places"])
@pytest.mark.parametrize("timesteps", [1, 3, 4, 20, 70])
@pytest.mark.parametrize(("side", "samples"), [(2, 1), (3, 1), (4, 1), (2, 7), (5, 2), (8, 1), (9, 2), (16, 1)])
def test_tiles_of_gather_of_every_width(side, samples, timesteps, padding, integer):
    x, shape = random(timesteps, samples, 3, side, side), (5, 3, 2 + padding, 2 + padding)
    parts = layer(shape, integer=integer)
    packed, maps = gather.pack(*parts, padding=padding), pack_maps(x)
    expected = reference.conv2d(x, *parts, padding=padding)
    assert torch.equal(gather.run(maps, packed).words, pack_maps(expected).words)
    weight, _, scale, bias = parts
    currents = gather.run_currents(maps, gather.pack(weight, None, scale, bias, padding=padding))
    assert torch.equal(currents, expected_currents(x, weight, scale, bias, {"padding": padding}))


@pytest.mark.parametrize("lanes", [1, 4, 5, 64, 65, 256, 257, 1000])
@pytest.mark.parametrize("timesteps", [1, 2, 4, 5, 16, 100])
@pytest.mark.parametrize("alone", [False, True])
def test_a_tiling_holds_every_lane_and_timestep_once(lanes, timesteps, alone):
    to = Tiling.of(lanes, timesteps, alone=alone)
    assert to.field <= to.lanes <= 256
    assert to.lanes % to.field == 0
    assert to.lanes >= 16
    assert to.groups * to.field >= lanes > (to.groups - 1) * to.field
    assert to.tiles * to.each >= timesteps > (to.tiles - 1) * to.each
    assert not alone or to.tiles in (1, timesteps)


def test_more_weights_of_an_output_than_16_bits_number_are_refused():
    most = torch.ones(1, gather.TERMS, dtype=torch.int8)
    one = Neurons.alike(1, decay=1.0, threshold=float(gather.TERMS), reset=0.0)
    x = torch.ones(1, 1, gather.TERMS)
    assert unpack_maps(gather.run(pack_maps(x), gather.pack(most, one))).item() == 1
    x[..., -1] = 0
    assert unpack_maps(gather.run(pack_maps(x), gather.pack(most, one))).item() == 0
    with pytest.raises(LayoutError, match="an output has 65,537 whole numbers as weights, but 65,536 are the most"):
        gather.pack(torch.ones(1, gather.TERMS + 1, dtype=torch.int8), one)


def test_rows_of_gather_are_cut_where_sums_could_leave_16_bits():
    assert gather.bounds(torch.tensor([127, -128] * 400, dtype=torch.int8)) == [513, 800]
    assert gather.bounds(torch.tensor([], dtype=torch.int8)) == [0]


def inputs_of(case):
    """Three inputs of a case, and maps that a program reads them from."""
    t, n, c, h, w = case[:5]
    return [random(t, n, c, h, w, rate=rate) for rate in (0.3, 1.0, 0.1)], pack_maps(torch.zeros(t, n, c, h, w))


@ALL
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_program_reads_what_its_input_holds_then(way, case, integer):
    _, shape, sizes = given(case)
    parts = layer(shape, integer=integer, hard=case[0] == 2, density=0.5)
    (inputs, x), packed = inputs_of(case), way.pack(*parts, **sizes)
    found = runs_each(lambda made: way.prepare(made, x, packed), lambda one: x.words.copy_(pack_maps(one).words), inputs)
    for words, one in zip(found, [*inputs, inputs[0]], strict=True):
        assert torch.equal(words, pack_maps(reference.conv2d(one, *parts, **sizes)).words)


def test_bits_of_the_run_before_would_stay_if_nothing_cleared_them(monkeypatch):
    monkeypatch.setattr(gather, "prepare_clear", lambda program, words: None)
    x, parts = random(2, 2, 3, 9, 9), layer((33, 3, 3, 3))
    made = Program()
    found = gather.prepare(made, pack_maps(x), gather.pack(*parts, stride=2, padding=1))
    run_again(made)
    assert not torch.equal(unpack_maps(found), reference.conv2d(x, *parts, stride=2, padding=1))


@pytest.mark.parametrize("ways", [(scatter, gather), (gather, scatter), (scatter, scatter), (gather, gather), (patches, patches)])
def test_layers_of_one_program_share_its_rooms(ways):
    x, one, two = pack_maps(random(3, 2, 5, 9, 9)), layer((40, 5, 3, 3)), layer((7, 40, 3, 3), integer=False)
    made = Program()
    between = ways[0].prepare(made, x, ways[0].pack(*one, padding=1))
    found = ways[1].prepare(made, between, ways[1].pack(*two, stride=2))
    for y in (random(3, 2, 5, 9, 9, rate=0.7), random(3, 2, 5, 9, 9, rate=0.2)):
        x.words.copy_(pack_maps(y).words)
        run_again(made)
        assert torch.equal(unpack_maps(found), reference.conv2d(reference.conv2d(y, *one, padding=1), *two, stride=2))


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[5], CASES[10]], ids=str)
def test_the_list_of_events_holds_as_many_as_there_can_be(case):
    x, shape, sizes = given(case)
    made = Program()
    scatter.prepare(made, pack_maps(torch.ones_like(x)), scatter.pack(*layer(shape), **sizes))
    made.run()
    # A stride wider than the kernel passes over some rows and columns.
    down, across = (sum(y % case[7] < case[6] for y in range(case[8], side + case[8])) for side in case[3:5])
    room, firsts = (made._rooms[f"scatter {name}"].view(torch.int32) for name in ("events", "firsts"))
    assert firsts[-1] == case[0] * case[1] * case[2] * down * across
    assert len(room) == x.numel() + 1


def expected_currents(x, weight, scale, bias, sizes):
    sums = F.conv2d(x.flatten(0, 1).double(), weight.double(), **sizes).unflatten(0, x.shape[:2])
    factor, shift = (one.view(-1, 1, 1) for one in affine(weight, scale, bias))
    return sums.float() * factor + shift


@WAYS
@pytest.mark.parametrize("case", CASES, ids=str)
def test_currents_are_sums_scaled_and_with_bias(way, case):
    x, shape, sizes = given(case)
    weight, _, scale, bias = layer(shape, density=0.5)
    found = way.run_currents(pack_maps(x), way.pack(weight, None, scale, bias, **sizes))
    assert torch.equal(found, expected_currents(x, weight, scale, bias, sizes))
    real, scale = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / 8, torch.linspace(0.5, 2, shape[0])
    found = way.run_currents(pack_maps(x), way.pack(real, None, scale, bias, **sizes))
    assert (found - expected_currents(x, real, scale, bias, sizes)).abs().max() < 1e-5


@WAYS
def test_currents_at_the_limits_of_int8_are_exact(way):
    weight = torch.tensor([127, -128], dtype=torch.int8).view(2, 1, 1, 1).expand(2, 64, 3, 3)
    found = way.run_currents(pack_maps(torch.ones(1, 2, 64, 3, 3)), way.pack(weight, None))
    assert found.flatten(1).tolist() == [[576 * 127.0, -576 * 128.0] * 2]


@WAYS
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[2], CASES[11]], ids=str)
def test_a_program_gives_currents_of_what_its_input_holds_then(way, case):
    _, shape, sizes = given(case)
    weight, _, scale, bias = layer(shape, density=0.5)
    (inputs, x), packed = inputs_of(case), way.pack(weight, None, scale, bias, **sizes)
    prepare = lambda made: way.prepare_currents(made, x, packed)  # noqa: E731
    found = runs_each(prepare, lambda one: x.words.copy_(pack_maps(one).words), inputs)
    for one, y in zip(found, [*inputs, inputs[0]], strict=True):
        assert torch.equal(one, expected_currents(y, weight, scale, bias, sizes))


@ALL
@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[4], CASES[6], CASES[11]], ids=str)
def test_a_timestep_at_a_time_is_all_of_them(way, case, integer):
    x, shape, sizes = given(case)
    x = torch.cat([x, x.flip(0), x])
    parts = layer(shape, integer=integer, hard=case[0] == 2, density=0.5)
    packed, whole, now = way.pack(*parts, **sizes), pack_maps(x), pack_maps(x[:1] * 0)
    membrane, last, made, all_at_once = way.rest(now, packed), way.rest(whole, packed), Program(), Program()
    found = way.prepare(made, now, packed, membrane)
    expected = way.prepare(all_at_once, whole, packed, last)
    run_again(all_at_once)
    assert torch.equal(unpack_maps(expected), reference.conv2d(x, *parts, **sizes))
    steps = []
    for one in x:
        now.words.copy_(pack_maps(one[None]).words)
        run_again(made)
        steps.append(unpack_maps(found))
    assert torch.equal(torch.cat(steps), unpack_maps(expected))
    assert torch.equal(membrane, last)
    assert not torch.equal(membrane, way.rest(now, packed))


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
    x, bare = pack_maps(torch.ones(1, 1, 6, 3, 3)), way.pack(weight, None, scale, bias)
    with pytest.raises(LayoutError, match="has neurons"):
        way.run_currents(x, packed)
    for spikes in (way.run, way.rest):
        with pytest.raises(LayoutError, match="has no neurons"):
            spikes(x, bare)
    for wrong in (way.rest(x, packed)[:0], way.rest(x, packed).double()):
        with pytest.raises(LayoutError, match="as `rest` makes them"):
            way.prepare(Program(), x, packed, wrong)
    with pytest.raises(QuantizeError, match="must be int8 or float32"):
        way.pack(weight.long(), neurons)
    with pytest.raises(NonFinite, match="the bias has 4 of 4"):
        way.pack(weight, neurons, scale, bias / 0.0)


def test_what_does_not_fit_patches_is_refused():
    weight, neurons, scale, bias = layer((4, 6, 3, 3))
    packed = patches.pack(weight, neurons, scale, bias)
    with pytest.raises(LayoutError, match="takes 6 channels, but spikes of 7"):
        patches.run(pack_maps(torch.ones(1, 1, 7, 3, 3)), packed)
    with pytest.raises(LayoutError, match="2 x 5 are too small"):
        patches.run(pack_maps(torch.ones(1, 1, 6, 2, 5)), packed)
    with pytest.raises(LayoutError, match="4 outputs, but neurons of 3"):
        patches.pack(weight, Neurons.alike(3, decay=1.0, threshold=1.0, reset=1.0))
    with pytest.raises(LayoutError, match="has no neurons"):
        patches.pack(weight, None)
    with pytest.raises(LayoutError, match="no convolution that native code has"):
        patches.pack(torch.zeros(4, 6, 8, 8), neurons)
    with pytest.raises(LayoutError, match="has 8,388,608 weights, but 8,388,607 are the most"):
        patches.pack(torch.zeros(1, dtype=torch.int8).expand(4, 1 << 23), neurons)
    x = pack_maps(torch.ones(1, 1, 6, 3, 3))
    for wrong in (patches.rest(x, packed)[:0], patches.rest(x, packed).double()):
        with pytest.raises(LayoutError, match="as `rest` makes them"):
            patches.prepare(Program(), x, packed, wrong)
    with pytest.raises(NonFinite, match="the bias has 4 of 4"):
        patches.pack(weight, neurons, scale, bias / 0.0)


@pytest.mark.parametrize("outputs", [32, 256, 257, 520])
def test_tiles_of_patches_of_every_width(outputs):
    x, parts = random(3, 2, 20, 4, 4), layer((outputs, 20, 3, 3))
    packed = patches.pack(*parts, padding=1)
    assert packed.weights.shape[3] <= 256
    assert torch.equal(unpack_maps(patches.run(pack_maps(x), packed)), reference.conv2d(x, *parts, padding=1))


def test_more_events_than_32_bits_count_are_refused():
    packed = scatter.pack(*layer((1, 1 << 10, 1, 1)))
    with pytest.raises(LayoutError, match="2147483649 events are more than 32 bits count; give fewer samples"):
        scatter.prepare(Program(), SpikeMaps(torch.empty(1 << 10, 1 << 5, 1 << 10, dtype=torch.int64), 1 << 16, 1, 1), packed)
