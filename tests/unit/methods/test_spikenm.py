"""SpikeNM: draws, what logits learn from the loss and from credits, schedules, resuming."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from spikeprune.errors import MethodError, NonFinite, SparsityError
from spikeprune.kernel.blocks import blocks, columns, fullest, uncolumns
from spikeprune.kernel.sampler import top
from spikeprune.methods import SpikeNM
from spikeprune.methods.spikenm import FURTHEST, NEAR, _parts, targets
from spikeprune.stats import LayerStats, Need
from spikeprune.view.layer import Layer, Layout

WARM = (1.0, 0.1)
ALONE = SpikeNM(2, 4, distill=0, temperature=WARM)


def layer(shape=(6, 8), name="a", seed=0):
    torch.manual_seed(seed)
    module = (
        nn.Linear(shape[1], shape[0], bias=False) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2:], bias=False)
    )
    return Layer(name, module, Layout.ONCE)


def begun(method=ALONE, steps=100, shape=(6, 8)):
    one = layer(shape)
    return method.begin([one], steps), one.weight.detach()


def measured(values):
    return LayerStats("a", {Need.ELIGIBILITY: values.double()}, binary=True)


@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 4), (4, 8), (2, 16), (4, 4), (1, 1)])
@pytest.mark.parametrize("shape", [(6, 16), (4, 16, 3, 3), (4, 18, 1, 3)])
def test_draws_have_n_of_every_m_along_the_inputs(n, m, shape):
    learner, weight = begun(SpikeNM(n, m, distill=0), shape=shape)
    for _ in range(3):
        for mask in (learner.draw("a", weight), learner.best("a", weight)):
            assert mask.shape == weight.shape
            assert fullest(mask, m) == n
            counts = blocks(mask.float(), m).sum(1)
            assert float(counts.max()) == n
            rows = shape[1] // m * n + min(n, shape[1] % m)
            assert bool((torch.movedim(mask, 1, -1).reshape(-1, shape[1]).sum(1) == rows).all())
        learner.advance()


def test_a_draw_is_the_same_until_the_next_step():
    learner, weight = begun()
    first = learner.draw("a", weight)
    assert torch.equal(first, learner.draw("a", weight))
    learner.advance()
    assert not torch.equal(first, learner.draw("a", weight))


def test_layers_seeds_and_steps_draw_apart():
    two = [layer(name="a"), layer(name="b")]
    learner = ALONE.begin(two, 10)
    weight = two[0].weight
    masks = [learner.draw("a", weight), learner.draw("b", weight), learner.again(1).draw("a", weight)]
    learner.advance()
    masks.append(learner.draw("a", weight))
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 4


def test_equal_logits_keep_the_larger_weights_at_first():
    learner, weight = begun()
    order = blocks(weight.abs(), 4).argsort(1, descending=True)[:, :2]
    assert torch.equal(blocks(learner.best("a", weight).float(), 4), torch.zeros(12, 4).scatter(1, order, 1.0))


def test_draws_follow_the_logits_ever_more_surely():
    learner, weight = begun(SpikeNM(1, 8, distill=0, temperature=WARM), steps=10, shape=(4000, 8))
    learner.logits["a"][3] = 1.0
    shares = []
    for _ in range(11):
        shares.append(float(learner.draw("a", weight)[:, 3].float().mean()))
        learner.advance()
    assert shares[0] == pytest.approx(float(torch.tensor([1.0] + [0.0] * 7).softmax(0)[0]), abs=0.03)
    assert shares[5] == pytest.approx(float((torch.tensor([1.0] + [0.0] * 7) / 0.1**0.5).softmax(0)[0]), abs=0.03)
    assert shares[10] > 0.99
    assert learner.temperature == pytest.approx(0.1)


def test_logits_rise_where_a_living_weight_lowers_the_loss():
    learner, weight = begun(SpikeNM(1, 4, distill=0, temperature=WARM), shape=(200, 4))
    grad = torch.zeros_like(weight)
    grad[:, 2] = -weight[:, 2].sign()  # more of |w| is better: the loss falls with the mask of input 2
    for _ in range(20):
        learner.learn("a", weight, grad.clone())
        learner.advance()
    assert bool((learner.logits["a"].argmax(0) == 2).all())


def test_the_slope_is_that_of_the_relaxed_draws():
    learner, weight = begun()
    grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    noisy = torch.cat([noisy for _, noisy in learner._noisy("a")], 1)
    assert not torch.equal(noisy, learner.logits["a"])

    def value(z):
        first = z.softmax(0)
        second = (z + (1 - first).log()).softmax(0)
        return ((1 - (1 - first) * (1 - second)) * columns(grad * weight, 4)).sum()

    leaf = noisy.clone().double().requires_grad_()
    (wanted,) = torch.autograd.grad(value(leaf), leaf)
    assert torch.allclose(learner.slope("a", weight, grad).double(), wanted, atol=1e-5)
    assert float(wanted.abs().max()) > 0.01


def test_cold_draws_leave_the_slope_alive():
    method = SpikeNM(1, 4, distill=0, temperature=(0.01, 0.01))
    learner, weight = begun(method, shape=(50, 4))
    learner.logits["a"][0] = 1.0  # 100 temperatures ahead: drawn for sure
    grad = torch.zeros_like(weight)
    grad[:, 0], grad[:, 2] = weight[:, 0].sign(), -weight[:, 2].sign()  # the loss falls without input 0 and with input 2
    assert bool(learner.draw("a", weight)[:, 0].all())
    for _ in range(20):
        learner.learn("a", weight, grad.clone())
        learner.advance()
    assert float(learner.draw("a", weight)[:, 2].float().mean()) > 0.8  # but where it is near 0


def test_parts_of_a_layer_draw_apart_and_make_up_the_whole(monkeypatch):
    learner, weight = begun(SpikeNM(2, 4), shape=(40, 16, 3, 3))
    learner.note("a", weight, measured(torch.rand(weight.shape, generator=torch.Generator().manual_seed(0))))
    learner.step = 20
    grad = torch.randn_like(weight)
    whole = learner.direction("a", weight, torch.zeros_like(grad))
    monkeypatch.setattr("spikeprune.methods.spikenm.NEAR", 256)
    parts = [noisy for _, noisy in learner._noisy("a")]
    assert len(parts) == 23
    assert not torch.equal(parts[0], parts[1])
    assert torch.equal(uncolumns(top(torch.cat(parts, 1), 2), weight.shape), learner.draw("a", weight))
    assert torch.allclose(
        learner.direction("a", weight, torch.zeros_like(grad)), whole, atol=1e-7
    )  # the distillation draws nothing


def test_a_gpu_gets_a_layer_whole():
    shape = (4, NEAR)
    assert len(list(_parts(torch.empty(shape)))) == 4
    assert list(_parts(torch.empty(shape, device="meta"))) == [slice(0, NEAR)]


def test_a_step_does_not_hang_on_the_size_of_the_gradient():
    moved = []
    for factor in (1.0, 1e-6, 1e4):
        learner, weight = begun()
        grad = factor * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        learner.learn("a", weight, grad)
        moved.append(learner.logits["a"].clone())
    assert torch.allclose(moved[0], moved[1], atol=1e-5)
    assert torch.allclose(moved[0], moved[2], atol=1e-5)


def test_gradients_too_small_to_square_hardly_move_anything():
    learner, weight = begun()
    learner.learn("a", weight, 1e-25 * torch.randn_like(weight))
    assert float(learner.logits["a"].abs().max()) < 0.01


def test_no_gradient_moves_nothing():
    learner, weight = begun()
    learner.learn("a", weight, torch.zeros_like(weight))
    assert not bool(learner.logits["a"].any())


def test_logits_stay_within_bounds_and_do_not_drift():
    learner, weight = begun(replace(ALONE, rate=1000.0))
    learner.learn("a", weight, torch.randn_like(weight))
    logits = learner.logits["a"]
    assert float(logits.abs().max()) <= FURTHEST
    learner, weight = begun()
    learner.learn("a", weight, torch.randn_like(weight))
    assert torch.allclose(learner.logits["a"].mean(0), torch.zeros(12), atol=1e-6)


def test_masked_weights_rest_by_the_mask_that_was_drawn():
    learner, weight = begun(shape=(6, 10))
    for dense in (False, True):
        learner._method = replace(ALONE, dense=dense)
        grad = torch.randn_like(weight)
        given, mask = grad.clone(), learner.draw("a", weight)
        learner.learn("a", weight, grad)
        assert torch.equal(grad, given if dense else given * mask)
        learner.advance()


def test_half_logits_take_half_the_memory_and_learn_the_same_to_their_precision():
    learners = []
    for half in (False, True):
        learner, weight = begun(SpikeNM(2, 4, temperature=WARM, half=half), steps=20, shape=(6, 10))
        generator = torch.Generator().manual_seed(3)
        for _ in range(5):
            learner.note("a", weight, measured(torch.rand(weight.shape, generator=generator)))
            learner.learn("a", weight, torch.randn(weight.shape, generator=generator))
            learner.advance()
        learners.append(learner)
    whole, half = learners
    assert (whole.logits["a"].dtype, half.logits["a"].dtype) == (torch.float32, torch.float16)
    kept = whole.logits["a"].isfinite()
    assert torch.equal(half.logits["a"].isfinite(), kept)
    assert torch.allclose(half.logits["a"][kept].float(), whole.logits["a"][kept], atol=0.01)
    assert float(whole.logits["a"][kept].abs().max()) > 0.1
    assert half.chances("a").dtype == torch.float32
    again = SpikeNM(2, 4, temperature=WARM, half=True).begin([layer((6, 10))], 20)
    again.load_state_dict(half.state_dict())
    assert torch.equal(again.draw("a", weight), half.draw("a", weight))


def test_one_dominant_credit_drives_that_logit_up():
    learner, weight = begun(SpikeNM(2, 4, distill=1.0), steps=40)
    credit = torch.ones_like(weight) / weight.abs()
    credit[:, 5] *= 1000
    for _ in range(20):
        learner.note("a", weight, measured(credit))
        learner.learn("a", weight, torch.zeros_like(weight))
        learner.advance()
    logits = learner.logits["a"].view(4, 6, 2)  # place, row, block
    assert bool((logits[:, :, 1].argmax(0) == 1).all())
    assert float(logits[1, :, 1].min()) > 0.1
    assert float(logits[:, :, 0].abs().max()) < 0.01  # equal credits move nothing


def test_targets_are_shares_of_credit():
    credit = torch.tensor([[6.0, 0.0], [3.0, 0.0], [1.0, 0.0]])
    assert torch.allclose(targets(credit), torch.tensor([[0.6, 1 / 3], [0.3, 1 / 3], [0.1, 1 / 3]]), atol=1e-4)
    assert torch.allclose(targets(credit, 0.5)[:, 0], torch.tensor([36.0, 9.0, 1.0]) / 46, atol=1e-4)


def test_the_gradient_of_the_distillation_is_that_of_the_divergence():
    learner, weight = begun(SpikeNM(2, 4, distill=3.0), steps=10)
    learner.step = 5
    learner.logits["a"].copy_(torch.randn(4, 12, generator=torch.Generator().manual_seed(0)))
    learner.note("a", weight, measured(torch.rand(weight.shape, generator=torch.Generator().manual_seed(1))))
    q = targets(learner.credits["a"].float())
    leaf = learner.logits["a"].clone().requires_grad_()
    nn.functional.kl_div(leaf.log_softmax(0), q, reduction="sum").backward()
    assert learner.distill == pytest.approx(1.5)
    assert torch.allclose(learner.direction("a", weight, torch.zeros_like(weight)), 1.5 * leaf.grad, atol=1e-5)


def test_credits_are_a_moving_average_of_weight_times_eligibility():
    learner, weight = begun(SpikeNM(2, 4))
    first, second = torch.rand_like(weight), torch.rand_like(weight)
    learner.note("a", weight, measured(first))
    learner.note("a", weight, measured(second))
    wanted = columns(weight.abs() * (0.9 * first + 0.1 * second), 4)
    assert torch.allclose(learner.credits["a"].float(), wanted, rtol=0.02)  # kept in bfloat16


def test_the_weight_of_the_distillation_rises_and_falls():
    learner, _ = begun(SpikeNM(2, 4, distill=2.0), steps=100)
    found = {}
    for i in range(101):
        found[i] = learner.distill
        learner.advance()
    assert found[0] == 0
    assert found[5] == pytest.approx(2 * 0.5 * 0.95)
    assert found[10] == pytest.approx(2 * 0.9)
    assert found[60] == pytest.approx(2 * 0.4)
    assert found[100] == 0


def test_without_distillation_nothing_is_measured():
    assert ALONE.needs == frozenset()
    assert begun()[0].every == 0
    assert SpikeNM(2, 4).needs == {Need.ELIGIBILITY}
    assert begun(SpikeNM(2, 4, every=5))[0].every == 5


def test_entropy_is_one_at_first_and_falls():
    learner, _ = begun()
    assert learner.entropy() == pytest.approx(1)
    learner.logits["a"][1] = 9.0
    assert learner.entropy() < 0.01
    assert begun(SpikeNM(1, 1, distill=0))[0].entropy() == 0


def test_what_fills_a_last_block_is_never_drawn_nor_moved():
    learner, weight = begun(shape=(6, 10))
    for _ in range(5):
        learner.learn("a", weight, torch.randn_like(weight))
        learner.advance()
    logits = learner.logits["a"]
    filled = torch.isinf(columns(torch.zeros(6, 10), 4, fill=-torch.inf))
    assert torch.equal(torch.isinf(logits), filled)
    assert not bool(logits.isnan().any())
    assert int(filled.sum()) == 12


def test_resuming_takes_all_that_was_learned():
    method = SpikeNM(2, 4)
    learner, weight = begun(method)
    learner.note("a", weight, measured(torch.rand_like(weight)))
    for _ in range(3):
        learner.learn("a", weight, torch.randn_like(weight))
        learner.advance()
    other, _ = begun(method)
    other.load_state_dict(learner.state_dict())
    assert other.temperature == learner.temperature
    assert torch.equal(other.draw("a", weight), learner.draw("a", weight))
    grad = torch.randn_like(weight)
    assert torch.equal(other.direction("a", weight, grad), learner.direction("a", weight, grad))
    state = learner.state_dict()
    state["logits"]["a"][0, 0] = torch.nan
    with pytest.raises(NonFinite, match="1 of 48 logits of layer 'a'"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"n": 5}, SparsityError, r"NM\(5, 4\) is no pattern"),
        ({"n": 0}, SparsityError, r"NM\(0, 4\) is no pattern"),
        ({"m": 64}, SparsityError, "m <= 32"),
        ({"rate": 0.0}, MethodError, "rate is 0.0"),
        ({"sharpness": -1.0}, MethodError, "sharpness is -1.0"),
        ({"temperature": (0.1, 1.0)}, MethodError, "the second not above the first"),
        ({"temperature": (1.0, 0.0)}, MethodError, "two numbers above 0"),
        ({"distill": -0.5}, MethodError, "distill is -0.5"),
        ({"distill": float("nan")}, MethodError, "distill is nan"),
        ({"every": 0}, MethodError, "every is 0"),
    ],
)
def test_impossible_options_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        SpikeNM(**options)
