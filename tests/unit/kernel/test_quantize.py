"""Steps and integers against slow ones written out by hand, and the exactness that integer networks stand on."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikeprune.errors import QuantizeError
from spikeprune.kernel.quantize import check_bits, exact_bias, exact_step, from_integers, largest, step_of, to_integers

ALL_BITS = range(1, 9)


def drawn(*shape, seed=0, dead=0.0):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=draw)
    return weight * (torch.rand(shape, generator=draw) >= dead)


@pytest.mark.parametrize("bits", [0, 9, -1, 4.0, True, False, "4", None, torch.tensor(4)])
def test_impossible_bits_are_refused(bits):
    with pytest.raises(QuantizeError, match=r"bits is .*, but must be a whole number from 1 to 8\."):
        check_bits(bits)
    with pytest.raises(QuantizeError, match="bits is"):
        step_of(drawn(2, 3), bits)


def test_integers_are_symmetric():
    assert [largest(bits) for bits in ALL_BITS] == [1, 1, 3, 7, 15, 31, 63, 127]
    weight = (torch.arange(-200, 201) / 200).view(1, -1)
    for bits in ALL_BITS:
        integers = to_integers(weight, step_of(weight, bits), bits)
        assert integers.dtype == torch.int8
        assert (int(integers.min()), int(integers.max())) == (-largest(bits), largest(bits))
        assert torch.equal(integers, -integers.flip(1))


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_widest_step_reaches_the_largest_weight_and_rounds_to_the_nearest(bits):
    weight = drawn(5, 7)
    step = step_of(weight, bits)
    assert step.shape == ()
    assert float(step) == pytest.approx(float(weight.abs().max()) / largest(bits), rel=2**-17)
    integers = to_integers(weight, step, bits)
    for w, q in zip(weight.flatten().tolist(), integers.flatten().tolist(), strict=True):
        errors = {k: abs(w - k * float(step)) for k in range(-largest(bits), largest(bits) + 1)}
        assert errors[q] == min(errors.values())


def test_one_bit_is_sign_times_the_mean_of_what_is_not_zero():
    weight = torch.tensor([[0.5, -1.5, 0.0], [0.0, 0.0, 4.0]])
    assert step_of(weight, 1) == 2
    assert step_of(weight, 1, per_channel=True).tolist() == [1, 4]
    assert to_integers(weight, torch.tensor(2.0), 1).tolist() == [[1, -1, 0], [0, 0, 1]]


def squared_error(weight, step, bits):
    return float((weight.double() - from_integers(to_integers(weight, step, bits), step, torch.double)).square().sum())


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_clip_mse_finds_the_best_of_the_grid(bits):
    weight = drawn(6, 50, dead=0.3)
    shares = [0.1 + 0.9 * i / 99 for i in range(100)]
    tried = [squared_error(weight, torch.tensor(float(weight.abs().max()) / largest(bits) * share), bits) for share in shares]
    found = squared_error(weight, step_of(weight, bits, clip="mse"), bits)
    assert found == pytest.approx(min(tried), rel=1e-3)
    assert found < 0.8 * squared_error(weight, step_of(weight, bits), bits)


@pytest.mark.parametrize("clip", ["max", "mse"])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_zeros_do_not_count_and_stay(bits, clip):
    weight = drawn(4, 30, dead=0.5)
    padded = torch.cat([weight, torch.zeros(4, 1000)], 1)
    assert torch.equal(step_of(weight, bits, clip=clip), step_of(padded, bits, clip=clip))
    assert not to_integers(padded, step_of(padded, bits, clip=clip), bits)[padded == 0].any()


@pytest.mark.parametrize("clip", ["max", "mse"])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_step_a_channel_is_that_of_the_channel_alone(bits, clip):
    weight = drawn(5, 3, 3, 3) * torch.tensor([0.0, 0.01, 1, 3, 100]).view(5, 1, 1, 1)
    steps = step_of(weight, bits, clip=clip, per_channel=True)
    assert torch.equal(steps, torch.stack([step_of(row, bits, clip=clip) for row in weight]))
    assert steps[0] == 1  # nothing to step over
    whole = from_integers(to_integers(weight, steps, bits), steps, torch.float32)
    alone = [from_integers(to_integers(w, s, bits), s, torch.float32) for w, s in zip(weight, steps, strict=True)]
    assert torch.equal(whole, torch.stack(alone))


@pytest.mark.parametrize("bits", ALL_BITS)
def test_weights_of_zeros_have_step_one(bits):
    weight = torch.zeros(2, 3)
    assert step_of(weight, bits) == 1
    assert not to_integers(weight, torch.tensor(1.0), bits).any()


def test_an_unknown_clip_is_refused():
    with pytest.raises(QuantizeError, match=r"no clip 'median'; choose one of max, mse"):
        step_of(drawn(2, 2), 4, clip="median")


def places_of(value):
    """The significant bits of a number."""
    mantissa, _ = math.frexp(value)
    whole = int(mantissa * 2**53)
    return 53 - (whole & -whole).bit_length() + 1 if whole else 0


@given(st.floats(1e-20, 1e20))
def test_steps_are_near_and_short(value):
    step = exact_step(torch.tensor(value, dtype=torch.double))
    assert step.dtype == torch.float32
    assert places_of(float(step)) <= 17
    assert float(step) == pytest.approx(value, rel=2**-17)
    assert torch.equal(exact_step(step), step)


def test_twin_the_counter_of_places_sees_long_numbers():
    assert places_of(0.75) == 2
    assert places_of(1 + 2.0**-17) == 18


def test_a_step_is_never_zero():
    assert exact_step(torch.tensor(0.0)) == 2.0**-80
    assert step_of(torch.full((1, 2), 1e-44), 8) == 2.0**-80


@given(st.floats(1e-10, 1e10), st.integers(-127, 127))
def test_step_times_integer_is_exact_in_float32(value, q):
    step = exact_step(torch.tensor(value))
    product = from_integers(torch.tensor([q], dtype=torch.int8), step, torch.float32)
    assert product.double().item() == float(step) * q


def test_quantizing_twice_changes_nothing():
    for bits in ALL_BITS:
        weight = drawn(6, 20)
        step = step_of(weight, bits)
        once = from_integers(to_integers(weight, step, bits), step, torch.float32)
        again = step_of(once, bits)
        assert torch.equal(from_integers(to_integers(once, again, bits), again, torch.float32), once)


@pytest.mark.parametrize("per_channel", [False, True])
def test_sums_of_products_are_exact_in_float64_in_any_order(per_channel):
    weight = drawn(3, 2000)
    step = step_of(weight, 8, per_channel=per_channel)
    integers = to_integers(weight, step, 8)
    x = (torch.rand(2000, generator=torch.Generator().manual_seed(1)) * 2**12).round() / 2**12
    bias = exact_bias(drawn(3, seed=2) * 1e-3, step)
    whole = (integers.long() @ (x * 2**12).long()).double() * (step.double() * 2.0**-12) + bias.double()
    wide = from_integers(integers, step, torch.double)
    for seed in range(5):
        order = torch.randperm(2000, generator=torch.Generator().manual_seed(seed))
        total = bias.double().clone()  # the worst order: the bias first
        for i in order.tolist():
            total += wide[:, i] * x[i].double()
        assert torch.equal(total, whole)


def test_twin_long_steps_are_not_exact():
    weight = drawn(3, 2000)
    step = (weight.double().abs().max() / 127).double()
    integers = to_integers(weight, step, 8)
    x = torch.rand(2000, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    wide = integers.double() * step
    forward = sum(wide[:, i] * x[i] for i in range(2000))
    backward = sum(wide[:, i] * x[i] for i in reversed(range(2000)))
    assert not torch.equal(forward, backward)


@given(st.floats(-10, 10, width=32), st.floats(1e-6, 1e3))
def test_biases_move_by_less_than_half_the_last_place(value, size):
    step = exact_step(torch.tensor(size))
    bias = exact_bias(torch.tensor([value]), step)
    last = 2.0 ** (math.frexp(float(step))[1] - 17)
    assert abs(float(bias) - value) <= last / 2
    assert float(bias) / last == round(float(bias) / last)
    assert torch.equal(exact_bias(bias, step), bias)
