"""The differentiable draw: frequencies, hard and soft, gradients, and what is refused."""

import pytest
import torch

from spikeprune.errors import NonFinite, SparsityError
from spikeprune.kernel.sampler import draws, gumbel, sample, slopes, top

LOGITS = torch.tensor([0.0, 1.0, 2.0, -1.0])


def many(n, temperature, times=40_000, seed=0):
    logits = LOGITS[:, None].expand(4, times)
    noise = gumbel(logits.shape, torch.Generator().manual_seed(seed), logits.device)
    return sample(logits, n, temperature, noise)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 4.0])
def test_one_draw_is_as_frequent_as_the_softmax_says(temperature):
    assert torch.allclose(many(1, temperature).mean(1), LOGITS.softmax(0), atol=0.01)


@pytest.mark.parametrize("temperature", [0.01, 4.0])
def test_two_draws_are_without_replacement(temperature):
    p = LOGITS.softmax(0)
    inclusion = p + sum(p[j] * p / (1 - p[j]) * (torch.arange(4) != j) for j in range(4))
    found = many(2, temperature)
    assert bool((found.sum(0) == 2).all())
    assert torch.allclose(found.mean(1), inclusion, atol=0.01)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_soft_becomes_hard_as_the_temperature_falls(n):
    logits = torch.rand(4, 50, generator=torch.Generator().manual_seed(0)).argsort(0).float()  # a whole number apart
    soft = 1 - torch.stack([1 - y for y in draws(logits, n, 0.001)]).prod(0)
    assert torch.allclose(soft.float(), sample(logits, n, 0.001), atol=1e-3)
    assert torch.equal(sample(logits, n, 0.001).bool(), torch.zeros(4, 50).scatter(0, logits.topk(n, dim=0).indices, 1).bool())


def test_relaxed_draws_hold_at_most_n():
    torch.manual_seed(1)
    parts = draws(torch.randn(6, 100), 3, 1.0)
    assert all(torch.allclose(y.sum(0), torch.ones(100).double()) for y in parts)
    soft = 1 - torch.stack([1 - y for y in parts]).prod(0)
    assert float(soft.sum(0).max()) <= 3 + 1e-5
    assert 0 <= float(soft.min()) <= float(soft.max()) <= 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_gradients_are_those_of_the_relaxed_draws_by_finite_differences(n):
    torch.manual_seed(2)
    logits, weigh = torch.randn(4, 3), torch.randn(4, 3)
    leaf = logits.clone().requires_grad_()
    (sample(leaf, n, 1.0) * weigh).sum().backward()

    def value(x):
        return float(((1 - torch.stack([1 - y for y in draws(x, n, 1.0)]).prod(0)).double() * weigh).sum())

    for i in range(4):
        for j in range(3):
            step = torch.zeros(4, 3)
            step[i, j] = 1e-2
            slope = (value(logits + step) - value(logits - step)) / 2e-2
            assert float(leaf.grad[i, j]) == pytest.approx(slope, abs=2e-3)
    assert float(leaf.grad.abs().max()) > 0.01


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (2, 4), (4, 4), (4, 8), (2, 16), (5, 32)])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_slopes_without_a_graph_are_the_gradient_of_the_sample(n, m, spread):
    generator = torch.Generator().manual_seed(n * m)
    noisy = (torch.randn(m, 500, generator=generator) * spread).clamp(-10, 10)
    felt = torch.randn(m, 500, generator=generator)
    noisy[-1, :50] = -torch.inf if n < m else noisy[-1, :50]
    leaf = noisy.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(sample(leaf, n, 1.0), leaf, felt)
    found = slopes(noisy, n, felt)
    assert found.dtype == torch.float32
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(found.sum(0), torch.zeros(500), atol=1e-5)
    assert m == 1 or float(found.abs().max()) > 0.01


@pytest.mark.parametrize("n", [1, 2, 3])
def test_slopes_of_sure_draws_are_finite_and_bounded(n):
    noisy = torch.tensor([[120.0], [60.0], [0.0], [-60.0], [-torch.inf]])
    found = slopes(noisy, n, torch.tensor([[1.0], [-2.0], [3.0], [-1.0], [1.0]]))
    assert float(found.abs().max()) < 1e-3


def test_of_a_block_whose_first_draw_is_sure_the_second_learns():
    noisy = torch.tensor([[20.0], [0.0], [0.5], [-1.0]])
    found = slopes(noisy, 2, torch.tensor([[0.0], [1.0], [0.0], [0.0]]))[:, 0]
    second = torch.tensor([0.0, 0.5, -1.0]).softmax(0)
    wanted = second * (torch.tensor([1.0, 0.0, 0.0]) - second[0])
    assert torch.allclose(found[1:], wanted / 2, atol=1e-5)  # relaxed, the second draw is the first again half of the time


def test_the_mask_is_zero_or_one_and_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mask = sample(LOGITS[:, None].expand(4, 5).bfloat16().requires_grad_(), 2, 0.5)
    assert mask.dtype == torch.float32
    assert set(mask.flatten().tolist()) == {0.0, 1.0}
    assert set(many(2, 0.7).flatten().tolist()) == {0.0, 1.0}  # to the last digit


def test_a_draw_far_ahead_is_not_drawn_twice():
    logits = torch.tensor([[30.0], [1.0], [0.0], [-30.0]])
    for temperature in (1.0, 0.01):
        assert sample(logits, 2, temperature).flatten().tolist() == [1, 1, 0, 0]


def test_a_very_low_temperature_stays_finite():
    leaf = (30 * LOGITS[:, None].expand(4, 2)).clone().requires_grad_()
    sample(leaf, 3, 1e-3).sum().backward()
    assert bool(torch.isfinite(leaf.grad).all())


def test_what_cannot_be_drawn_never_is():
    logits = torch.tensor([0.0, -torch.inf, 0.0, -torch.inf])[:, None].expand(4, 1000)
    noise = gumbel(logits.shape, torch.Generator().manual_seed(0), logits.device)
    assert not bool(sample(logits, 2, 0.1, noise)[[1, 3]].any())


def test_noise_is_from_its_generator_alone():
    noise = [gumbel(torch.Size([3, 4]), torch.Generator().manual_seed(5), torch.device("cpu")) for _ in range(2)]
    assert torch.equal(*noise)
    many_ = gumbel(torch.Size([200_000]), torch.Generator().manual_seed(0), torch.device("cpu"))
    assert float(many_.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(many_.var()) == pytest.approx(torch.pi**2 / 6, abs=0.03)


@pytest.mark.parametrize(
    ("n", "temperature", "error"),
    [(0, 1.0, "cannot draw 0"), (5, 1.0, "cannot draw 5"), (2, 0.0, "temperature is 0"), (2, -1.0, "above 0")],
)
def test_impossible_draws_are_refused(n, temperature, error):
    with pytest.raises(SparsityError, match=error):
        sample(torch.zeros(4, 1), n, temperature)


def test_logits_gone_nan_are_refused():
    with pytest.raises(NonFinite, match="1 of 4 logits are NaN"):
        sample(torch.tensor([[0.0], [torch.nan], [0.0], [0.0]]), 2, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_of_every_column_whatever_ties(seed):
    values = torch.randint(0, 4, (8, 500), generator=torch.Generator().manual_seed(seed)).float()
    values[values == 0] = -torch.inf
    for n in range(1, 9):
        found = top(values, n)
        order = values.argsort(dim=0, descending=True, stable=True)[:n]
        wanted = torch.zeros(8, 500, dtype=torch.bool).scatter(0, order, True) & (values > -torch.inf)
        assert torch.equal(found, wanted)
        assert int(found.sum(0).max()) <= n


def test_nothing_is_taken_of_a_column_of_minus_infinity():
    for m in (1, 3):
        assert not bool(top(torch.full((m, 2), -torch.inf), m).any())
