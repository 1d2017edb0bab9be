"""Bit-sliced layers against the reference, bit by bit."""

import pytest
import torch

from programs import run_again, runs_each
from spikeprune.errors import LayoutError, NonFinite, QuantizeError
from spikeprune.runtime import jit, reference, sliced
from spikeprune.runtime.neurons import Neurons
from spikeprune.runtime.program import Program
from spikeprune.runtime.sliced_code import filled, tiling
from spikeprune.runtime.spikes import pack_maps, unpack_maps

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")

# timesteps, samples, inputs, height, width, outputs, kernel, stride, padding, bits, density
CASES = [
    (4, 1, 8, 8, 8, 32, 3, 1, 1, 8, 0.5),
    (4, 4, 6, 8, 8, 9, 3, 1, 1, 4, 0.3),  # shifts for several groups at once
    (2, 5, 7, 5, 6, 40, 3, 1, 0, 5, 1.0),
    (2, 2, 3, 9, 9, 33, 3, 2, 1, 3, 0.7),
    (9, 3, 16, 4, 4, 32, 5, 1, 2, 2, 0.2),  # a group of several tiles
    (3, 3, 5, 6, 7, 31, 1, 1, 0, 8, 1.0),
    (2, 2, 5, 7, 6, 32, 1, 2, 0, 6, 0.9),
    (5, 5, 70, 1, 1, 10, 1, 1, 0, 7, 0.1),
    (1, 1, 3, 1, 1, 1, 3, 1, 1, 8, 1.0),
    (3, 7, 4, 7, 7, 8, 2, 2, 0, 4, 0.5),
    (2, 1, 3, 4, 4, 8, 3, 1, 4, 8, 0.6),
    (20, 2, 3, 7, 7, 8, 4, 3, 2, 1, 0.8),
    (2, 3, 2, 13, 13, 4, 5, 1, 2, 8, 0.4),
    (3, 2, 40, 6, 6, 5, 3, 1, 1, 8, 0.95),
]


def random(*shape, rate=0.3):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(1)) < rate).float()


def layer(shape, *, bits=8, density=1.0, hard=False):
    """Weights of so many bits, sign and magnitude, and -128 among those of 8; one bit is -1, 0 or 1."""
    generator, outputs = torch.Generator().manual_seed(0), shape[0]
    largest = max((1 << (bits - 1)) - 1, 1)
    weight = torch.randint(-largest - (bits == 8), largest + 1, shape, generator=generator)
    weight *= torch.rand(shape, generator=generator) < density
    grid = lambda low, high: torch.randint(low, high, (outputs,), generator=generator) / 64  # noqa: E731
    neurons = Neurons(torch.full((outputs,), 0.5), grid(16, 64), grid(-8, 64), grid(-8, 8), hard)
    scale = (torch.rand(outputs, generator=generator) + 1) / (0.4 * largest * (density * weight[0].numel()) ** 0.5)
    return weight.to(torch.int8), neurons, scale, grid(-8, 8)


def given(case):
    t, n, c, h, w, o, k, stride, padding, bits, density = case
    parts = layer((o, c, k, k), bits=bits, density=density, hard=t == 2)
    return random(t, n, c, h, w), parts, {"stride": stride, "padding": padding}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_spikes_are_those_of_the_reference(case):
    x, parts, sizes = given(case)
    expected = reference.conv2d(x, *parts, **sizes)
    found = sliced.run(pack_maps(x), sliced.pack(*parts, **sizes))
    assert torch.equal(unpack_maps(found), expected)
    assert torch.equal(found.words, pack_maps(expected).words)  # and none behind the last
    assert 0 < expected.mean() < 1 or expected.numel() < 2


@pytest.mark.parametrize("seed", range(9))
def test_any_shape_gives_the_spikes_of_the_reference(seed):
    generator = torch.Generator().manual_seed(seed)
    pick = lambda low, high: int(torch.randint(low, high, (), generator=generator))  # noqa: E731
    t, n, c, o, k, stride = pick(1, 7), pick(1, 6), pick(1, 20), pick(1, 40), (1, 3, 5)[pick(0, 3)], pick(1, 3)
    h, w = pick(k, 12), pick(k, 12)
    parts = layer((o, c, k, k), bits=pick(1, 9), density=pick(1, 11) / 10, hard=bool(pick(0, 2)))
    x, sizes = random(t, n, c, h, w, rate=pick(1, 10) / 10), {"stride": stride, "padding": pick(0, k)}
    found = sliced.run(pack_maps(x), sliced.pack(*parts, **sizes))
    assert torch.equal(found.words, pack_maps(reference.conv2d(x, *parts, **sizes)).words)


@pytest.mark.parametrize("samples", [1, 5, 70, 300])
def test_a_linear_layer(samples):
    parts, x = layer((17, 90), bits=4, density=0.3), random(3, samples, 90)
    found = unpack_maps(sliced.run(pack_maps(x), sliced.pack(*parts)))
    assert torch.equal(found.flatten(2), reference.linear(x, *parts))


@pytest.mark.parametrize("features", [5000, 9000])
def test_rows_far_away_are_found(features):
    """Rows begin beyond 2^15 words of a tile, and beyond 2^16."""
    parts, x = layer((3, features), density=0.1), random(1, 300, features, rate=0.1)
    found = unpack_maps(sliced.run(pack_maps(x), sliced.pack(*parts)))
    assert torch.equal(found.flatten(2), reference.linear(x, *parts))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_no_spike_and_every_spike(rate):
    x, parts = random(3, 2, 6, 5, 5, rate=rate), layer((33, 6, 3, 3))
    found = unpack_maps(sliced.run(pack_maps(x), sliced.pack(*parts, padding=1)))
    assert torch.equal(found, reference.conv2d(x, *parts, padding=1))


def test_pruned_outputs_have_their_bias_and_pruned_inputs_nothing():
    x, (weight, neurons, scale, bias) = random(3, 2, 6, 5, 5), layer((33, 6, 3, 3))
    weight[4:9], weight[:, 2] = 0, 0
    bias[4:6] = 2.0
    expected = reference.conv2d(x, weight, neurons, scale, bias, padding=1)
    assert expected[:, :, 4:6].any()
    found = sliced.run(pack_maps(x), sliced.pack(weight, neurons, scale, bias, padding=1))
    assert torch.equal(found.words, pack_maps(expected).words)
    parts = (torch.zeros_like(weight), neurons, scale, bias)
    nothing = sliced.run(pack_maps(x), sliced.pack(*parts, padding=1))
    assert torch.equal(unpack_maps(nothing), reference.conv2d(x, *parts, padding=1))


def largest(terms):
    """Sums of so many weights of 127 and of -128, all of whose inputs fire, against thresholds that they just reach or just miss."""
    weight = torch.tensor([127, 127, -128, -128], dtype=torch.int8).view(4, 1).expand(4, terms)
    threshold = torch.tensor([terms * 127, terms * 127 + 1, -terms * 128, -terms * 128 + 1]).float()
    neurons = Neurons(torch.zeros(4), threshold, torch.zeros(4), torch.zeros(4))
    layer = sliced.pack(weight, neurons)
    return layer.shape, unpack_maps(sliced.run(pack_maps(torch.ones(1, 2, terms)), layer)).flatten(1).tolist()


@pytest.mark.parametrize(("terms", "sums"), [(1, "i16"), (256, "i16"), (257, "i32"), (2304, "i32"), (16384, "i32")])
def test_sums_at_the_limits_of_int8_are_exact(terms, sums):
    shape, fired = largest(terms)
    assert shape.sums == sums
    assert fired == [[1, 0, 1, 0] * 2]


@pytest.mark.parametrize(("name", "terms", "bits"), [("_planes", 257, 16), ("_counters", 40, 6)])
def test_a_bound_too_narrow_would_overflow(monkeypatch, name, terms, bits):
    assert getattr(largest(terms)[0], name[1:]) > bits
    monkeypatch.setattr(sliced, name, lambda given: bits)
    assert largest(terms)[1] != [[1, 0, 1, 0] * 2]


def test_signed_digits_are_the_weights_and_no_two_neighbours_live():
    weight = torch.arange(-128, 128).to(torch.int8)
    plus, minus = sliced._signed(weight)
    assert torch.equal(plus - minus, weight.int())
    living = plus | minus
    assert (living < 256).all()
    assert not (plus & minus).any()
    assert not (living & living << 1).any()
    assert sliced.digits(weight) == sum(bin(3 * abs(w) ^ abs(w)).count("1") for w in range(-128, 128))
    assert [sliced.digits(torch.tensor([w], dtype=torch.int8)) for w in (0, 1, 3, 5, 7, 11, 85, -86)] == [0, 1, 2, 2, 2, 3, 4, 4]


def test_groups_are_filled_up_with_the_term_that_never_fires():
    packed = sliced.pack(torch.tensor([[5, -4, 0], [0, 0, 0], [0, 4, 1]], dtype=torch.int8), layer((3, 3))[1])
    assert packed.places == 3
    assert packed.ends.diff().tolist() == [1, 0, 0, 0, 1, 1] + [0] * 6 + [1, 0, 0, 0, 1, 0]
    assert packed.terms.view(-1, 8).tolist() == [[k, *[3] * 7] for k in (0, 0, 1, 2, 1)]


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_groups_of_any_size_give_the_same(monkeypatch, levels):
    x, parts = random(2, 3, 30, 6, 6), layer((9, 30, 3, 3), density=0.7)
    monkeypatch.setattr(sliced, "LEVELS", (levels,))
    packed = sliced.pack(*parts, padding=1)
    assert packed.shape.levels == levels
    assert torch.equal(unpack_maps(sliced.run(pack_maps(x), packed)), reference.conv2d(x, *parts, padding=1))


def test_long_rows_have_large_groups_and_short_ones_small():
    levels = [sliced.pack(*layer((4, terms), bits=1, density=1.0)).shape.levels for terms in (6, 40, 3000)]
    assert levels[0] == 3
    assert levels == sorted(levels)
    assert levels[-1] == 5


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5, 16, 49])
@pytest.mark.parametrize("timesteps", [1, 2, 3, 4, 10])
def test_tiles_hold_all_lanes_and_no_other_way_takes_fewer(words, timesteps):
    one = tiling(words, timesteps)
    assert one.groups * one.step >= words
    assert one.tiles * (one.words // one.step) >= timesteps
    assert one.words == 4 or words * timesteps > 4
    for step in (1, 2, 4, 8)[: one.words.bit_length()]:
        assert one.groups * one.tiles <= -(-words // step) * -(-timesteps * step // one.words)
    assert one.near in (1, 2, 4, 8)
    assert one.near * one.step <= one.words
    for spare in (0, 1 << 16, 1 << 30):
        assert one.at_once(100, spare) % one.near == 0
        assert one.near <= one.at_once(100, spare) <= filled(one.groups, one.near)


@pytest.mark.parametrize("spare", [0, 30_000])
def test_tiles_laid_out_part_by_part_are_all_of_them(monkeypatch, spare):
    x, parts, counts = random(4, 29, 6, 8, 8), layer((9, 6, 3, 3), bits=4), []
    expected = pack_maps(reference.conv2d(x, *parts, padding=1)).words
    for one in (1 << 30, spare):
        monkeypatch.setattr(sliced, "SPARE", one)
        made = Program()
        found = sliced.prepare(made, pack_maps(x), sliced.pack(*parts, padding=1))
        run_again(made) if counts else made.run()
        counts.append(len(made))
        assert torch.equal(found.words, expected)
    assert counts[0] == 2 < counts[1]


def test_other_processors_give_the_same():
    if jit.llvm.get_host_cpu_features().get("avx2") is not True:
        pytest.skip("this processor has no AVX2 to restrict it to")
    x, parts = random(3, 2, 40, 6, 6), layer((33, 40, 3, 3))
    with jit.compiling_for("x86-64-v3"):  # AVX2, and nothing beyond
        found = unpack_maps(sliced.run(pack_maps(x), sliced.pack(*parts, padding=1)))
    assert any(processor == "x86-64-v3" and key[0] == "sliced" for processor, key in jit._functions)
    assert torch.equal(found, reference.conv2d(x, *parts, padding=1))


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3], CASES[4], CASES[9]], ids=str)
def test_a_program_reads_what_its_input_holds_then(case):
    _, parts, sizes = given(case)
    t, n, c, h, w = case[:5]
    inputs, x = [random(t, n, c, h, w, rate=rate) for rate in (0.3, 1.0, 0.1)], pack_maps(torch.zeros(t, n, c, h, w))
    packed = sliced.pack(*parts, **sizes)
    found = runs_each(lambda made: sliced.prepare(made, x, packed), lambda one: x.words.copy_(pack_maps(one).words), inputs)
    for words, one in zip(found, [*inputs, inputs[0]], strict=True):
        assert torch.equal(words, pack_maps(reference.conv2d(one, *parts, **sizes)).words)


def test_layers_of_one_program_share_its_rooms():
    x, one, two = pack_maps(random(3, 2, 5, 9, 9)), layer((40, 5, 3, 3)), layer((7, 40, 3, 3), bits=3, density=0.2)
    made = Program()
    between = sliced.prepare(made, x, sliced.pack(*one, padding=1))
    found = sliced.prepare(made, between, sliced.pack(*two, stride=2))
    for y in (random(3, 2, 5, 9, 9, rate=0.7), random(3, 2, 5, 9, 9, rate=0.2)):
        x.words.copy_(pack_maps(y).words)
        run_again(made)
        assert torch.equal(unpack_maps(found), reference.conv2d(reference.conv2d(y, *one, padding=1), *two, stride=2))
    assert set(made._rooms) == {f"sliced {name}" for name in ("tiles", "row", "planes", "sums", "membrane")}


@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[5]], ids=str)
def test_a_timestep_at_a_time_is_all_of_them(case):
    x, parts, sizes = given(case)
    x = torch.cat([x, x.flip(0), x])
    packed, now = sliced.pack(*parts, **sizes), pack_maps(x[:1] * 0)
    membrane, made = sliced.rest(now, packed), Program()
    found, steps = sliced.prepare(made, now, packed, membrane), []
    for one in x:
        now.words.copy_(pack_maps(one[None]).words)
        run_again(made)
        steps.append(unpack_maps(found))
    assert torch.equal(torch.cat(steps), reference.conv2d(x, *parts, **sizes))
    assert not torch.equal(membrane, sliced.rest(now, packed))


def test_spikes_may_lie_in_more_words_than_they_need():
    x, parts = random(2, 1, 4, 5, 5), layer((5, 4, 3, 3))
    wide = pack_maps(x)
    words = torch.cat([wide.words, torch.zeros(4, 2, 3, dtype=torch.int64)], 2).contiguous()
    found = sliced.run(type(wide)(words, 1, 5, 5), sliced.pack(*parts, padding=1))
    assert torch.equal(unpack_maps(found), reference.conv2d(x, *parts, padding=1))


def test_what_does_not_fit_is_refused():
    weight, neurons, scale, bias = layer((4, 6, 3, 3))
    packed = sliced.pack(weight, neurons, scale, bias)
    with pytest.raises(LayoutError, match="takes 6 channels, but spikes of 7"):
        sliced.run(pack_maps(torch.ones(1, 1, 7, 3, 3)), packed)
    with pytest.raises(LayoutError, match="2 x 5 are too small"):
        sliced.run(pack_maps(torch.ones(1, 1, 6, 2, 5)), packed)
    with pytest.raises(LayoutError, match="4 outputs, but neurons of 3"):
        sliced.pack(weight, Neurons.alike(3, decay=1.0, threshold=1.0, reset=1.0))
    with pytest.raises(LayoutError, match="no convolution that native code has"):
        sliced.pack(torch.zeros(4, 6, 8, 8, dtype=torch.int8), neurons)
    with pytest.raises(LayoutError, match="as `rest` makes them"):
        sliced.prepare(Program(), pack_maps(torch.ones(1, 1, 6, 3, 3)), packed, torch.zeros(4, 1))
    with pytest.raises(QuantizeError, match="must be int8 or float32"):
        sliced.pack(weight.long(), neurons)
    with pytest.raises(QuantizeError, match=r"has int8 weights, but torch\.float32"):
        sliced.pack(weight.float(), neurons)
    with pytest.raises(QuantizeError, match="more than 32 bits hold"):
        sliced.pack(torch.zeros(1, dtype=torch.int8).expand(1, 1 << 24), layer((1, 1))[1])
    with pytest.raises(NonFinite, match="the bias has 4 of 4"):
        sliced.pack(weight, neurons, scale, bias / 0.0)


def test_more_spikes_than_a_table_addresses_are_refused(monkeypatch):
    monkeypatch.setattr(sliced, "WORD", 1 << 26)
    with pytest.raises(LayoutError, match="give fewer samples"):
        sliced.run(pack_maps(torch.ones(1, 1, 6, 5, 5)), sliced.pack(*layer((4, 6, 3, 3)), stride=2))
