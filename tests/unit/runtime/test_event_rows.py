import pytest
import torch
import torch.nn.functional as F

from programs import run_again, runs_each
from spikeprune.errors import LayoutError, NonFinite, QuantizeError
from spikeprune.runtime import event_rows, reference
from spikeprune.runtime.neurons import Neurons
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import pack_rows, unpack_rows

# outputs, inputs, samples, hard, int8
CASES = [
    (1, 1, 1, False, True),
    (10, 70, 5, True, True),
    (33, 64, 1, False, True),
    (33, 64, 5, False, False),
    (260, 100, 5, False, True),
    (545, 784, 1, False, True),
    (10, 70, 1, True, False),
]


def layer(outputs, inputs, *, hard=False, seed=0, integer=True):
    """Weights, neurons, scale and bias in which about a fifth of the neurons fires; all float32 ones on a grid of 1/64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-128, 128, (outputs, inputs), generator=generator)
    grid = lambda low, high: torch.randint(low, high, (outputs,), generator=generator) / 64  # noqa: E731
    neurons = Neurons(torch.full((outputs,), 0.5), grid(16, 64), grid(-8, 64), grid(-8, 8), hard)
    scale = torch.rand(outputs, generator=generator) / (100 * inputs**0.5) if integer else None
    return weight.to(torch.int8) if integer else weight / 64, neurons, scale, grid(-8, 8)


def random(t, n, features, rate=0.3):
    return (torch.rand(t, n, features, generator=torch.Generator().manual_seed(1)) < rate).float()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_spikes_are_those_of_the_reference(case):
    outputs, inputs, samples, hard, integer = case
    weight, neurons, scale, bias = layer(outputs, inputs, hard=hard, integer=integer)
    x = random(4, samples, inputs)
    expected = reference.linear(x, weight, neurons, scale, bias)
    found = event_rows.spikes(pack_rows(x), event_rows.pack(weight, neurons, scale, bias))
    assert torch.equal(unpack_rows(found), expected)
    assert found.words.count_nonzero() == pack_rows(expected).words.count_nonzero()  # and nothing behind the last bit
    assert outputs == 1 or 0.01 < expected.mean() < 0.9


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_no_spike_and_every_spike(rate):
    weight, neurons, scale, bias = layer(40, 130)
    x = random(3, 2, 130, rate)
    found = event_rows.spikes(pack_rows(x), event_rows.pack(weight, neurons, scale, bias))
    assert torch.equal(unpack_rows(found), reference.linear(x, weight, neurons, scale, bias))


@pytest.mark.parametrize("value", [-128, 127])
def test_sums_at_the_limits_of_int8_are_exact(value):
    weight = torch.full((3, 1000), value, dtype=torch.int8)
    found = event_rows.currents(pack_rows(torch.ones(1, 1, 1000)), event_rows.pack(weight, None))
    assert found.tolist() == [[[value * 1000.0] * 3]]


def test_a_bound_too_wide_would_overflow(monkeypatch):
    monkeypatch.setattr(event_rows, "SHORT", 1 << 20)
    found = event_rows.currents(
        pack_rows(torch.ones(1, 1, 1000)), event_rows.pack(torch.full((3, 1000), 127).to(torch.int8), None)
    )
    assert (found != 127000).all()


def test_the_bound_counts_each_sign_by_itself_and_the_largest_first():
    weight = torch.zeros(2, 1000, dtype=torch.long)
    weight[0, 500:] = 127
    weight[1, :500] = -128
    assert event_rows.held(weight) == 258 - 2  # 256 * -128 is the least that 16 bits hold
    assert event_rows.held(weight[:1]) == 258
    assert event_rows.held(weight[:, ::2] // 2) == 500


def test_currents_of_float32_to_1e_5():
    weight, x = torch.randn(70, 300, generator=torch.Generator().manual_seed(0)) / 8, random(3, 2, 300)
    scale, bias = torch.linspace(0.5, 2, 70), torch.linspace(-1, 1, 70)
    found = event_rows.currents(pack_rows(x), event_rows.pack(weight, None, scale, bias))
    assert (found.double() - (F.linear(x.double(), weight.double()) * scale + bias)).abs().max() < 1e-5


def test_pruned_inputs_are_passed_over_and_pruned_outputs_have_their_bias():
    weight, neurons, scale, bias = layer(40, 130)
    weight[:, ::3] = 0
    weight[7] = 0
    packed, x = event_rows.pack(weight, neurons, scale, bias), random(4, 2, 130)
    assert sum(bin(int(word) % 2**64).count("1") for word in packed.living) == 130 - 44
    packed.rows[::3] = 99  # what is passed over is not even read
    assert torch.equal(unpack_rows(event_rows.spikes(pack_rows(x), packed)), reference.linear(x, weight, neurons, scale, bias))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_program_reads_what_its_input_holds_then(case):
    outputs, inputs, samples, hard, integer = case
    parts = layer(outputs, inputs, hard=hard, integer=integer)
    packed, x = event_rows.pack(*parts), pack_rows(torch.zeros(4, samples, inputs))
    given = [random(4, samples, inputs, rate) for rate in (0.3, 1.0, 0.1)]
    found = runs_each(lambda made: event_rows.prepare(made, x, packed), lambda one: x.words.copy_(pack_rows(one).words), given)
    for words, one in zip(found, [*given, given[0]], strict=True):
        assert torch.equal(words, event_rows.spikes(pack_rows(one), packed).words)
        expected = pack_rows(reference.linear(one, *parts)).words
        assert torch.equal(words[..., : expected.shape[2]], expected)


@pytest.mark.parametrize("integer", [True, False])
def test_a_program_gives_currents_of_what_its_input_holds_then(integer):
    weight, _, scale, bias = layer(45, 130, integer=integer)
    packed, x = event_rows.pack(weight, None, scale, bias), pack_rows(torch.zeros(3, 2, 130))
    given = [random(3, 2, 130, rate) for rate in (0.3, 1.0, 0.1)]
    prepare = lambda made: event_rows.prepare_currents(made, x, packed)  # noqa: E731
    for found, one in zip(
        runs_each(prepare, lambda one: x.words.copy_(pack_rows(one).words), given), [*given, given[0]], strict=True
    ):
        expected = F.linear(one.double(), weight.double()).float() * (1.0 if scale is None else scale) + bias
        assert found.shape == (2, 3, 64)
        assert torch.equal(found[..., :45], expected.transpose(0, 1))


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_a_timestep_at_a_time_is_all_of_them(integer, hard):
    parts, x = layer(45, 130, integer=integer, hard=hard), random(6, 3, 130)
    packed, whole, now = event_rows.pack(*parts), pack_rows(x), pack_rows(x[:1] * 0)
    membrane, last, made, all_at_once = event_rows.rest(now, packed), event_rows.rest(whole, packed), Program(), Program()
    found, expected = event_rows.prepare(made, now, packed, membrane), event_rows.prepare(all_at_once, whole, packed, last)
    run_again(all_at_once)
    assert torch.equal(unpack_rows(expected), reference.linear(x, *parts))
    steps = []
    for one in x:
        now.words.copy_(pack_rows(one[None]).words)
        run_again(made)
        steps.append(unpack_rows(found))
    assert torch.equal(torch.cat(steps), unpack_rows(expected))
    assert torch.equal(membrane, last)
    assert not torch.equal(membrane, event_rows.rest(now, packed))


def test_what_does_not_fit_is_refused():
    weight, neurons, scale, bias = layer(4, 6)
    packed = event_rows.pack(weight, neurons, scale, bias)
    with pytest.raises(LayoutError, match="takes 6 features, but spikes of 7"):
        event_rows.spikes(pack_rows(torch.ones(1, 1, 7)), packed)
    with pytest.raises(LayoutError, match="4 outputs, but neurons of 3"):
        event_rows.pack(weight, Neurons.alike(3, decay=1.0, threshold=1.0, reset=1.0))
    with pytest.raises(LayoutError, match="has neurons"):
        event_rows.currents(pack_rows(torch.ones(1, 1, 6)), packed)
    with pytest.raises(LayoutError, match="has no neurons"):
        event_rows.spikes(pack_rows(torch.ones(1, 1, 6)), event_rows.pack(weight, None))
    with pytest.raises(LayoutError, match="has no neurons"):
        event_rows.rest(pack_rows(torch.ones(1, 1, 6)), event_rows.pack(weight, None))
    with pytest.raises(LayoutError, match=r"must be float32 \(2, 32\), as `rest` makes them"):
        event_rows.prepare(Program(), pack_rows(torch.ones(1, 2, 6)), packed, torch.zeros(1, 32))
    with pytest.raises(QuantizeError, match="must be int8 or float32 of 2 axes"):
        event_rows.pack(weight.double(), neurons)
    with pytest.raises(QuantizeError, match=r"the scale is torch.float32 \(1,\)"):
        event_rows.pack(weight, neurons, torch.ones(1))
    with pytest.raises(NonFinite, match="the weight has 1 of 4"):
        event_rows.pack(torch.tensor([[1.0, 2.0], [float("nan"), 0.0]]), None)
    with pytest.raises(NonFinite, match="threshold has 1 of 4"):
        Neurons(torch.ones(4), torch.tensor([1.0, 1.0, float("nan"), 1.0]), torch.ones(4), torch.ones(4))
