import math
from types import SimpleNamespace

import pytest
import snntorch
import torch
from torch import nn

from small_nets import lively, spikes
from spikeprune import Masks, Need, Pruner, measure, model_view, prune
from spikeprune.errors import MeasureError, MethodError, NonFinite, SparsityError
from spikeprune.kernel.patterns import Channel, Unstructured
from spikeprune.kernel.schedules import stages
from spikeprune.kernel.scores import by_mean, by_rank, per_input, per_output, per_weight, unit
from spikeprune.methods import CQP, GradientOnly, Magnitude
from spikeprune.view.layer import Layer, Layout

YES, NO = True, False


def layer(name, rows):
    module = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return Layer(name, module, Layout.ONCE)


def measured(**gradients):
    return {name: SimpleNamespace(weight_gradient=torch.tensor(rows, dtype=torch.double)) for name, rows in gradients.items()}


def decide(method, layers, stats, sparsity, masks=None):
    masks = method(layers, stats, masks or Masks({}), sparsity)
    return {name: mask.tolist() for name, mask in masks.items()}


WEIGHT = [[4.0, 3.0, -2.0, 1.0]]
GRADIENT = [[0.01, 0.16, 0.09, 0.04]]  # criticality 1/16, 1, 9/16, 1/4; its roots 1/4, 1, 3/4, 1/2


@pytest.mark.parametrize(
    ("alpha", "kept"),
    [(0.0, [YES, YES, NO, NO]), (0.5, [NO, YES, YES, NO]), (1.0, [NO, YES, YES, NO]), (20.0, [NO, YES, YES, NO])],
)
def test_the_score_by_hand(alpha, kept):
    # alpha 0.5: 4/4, 3, 2 * 3/4, 1/2
    assert decide(CQP(alpha), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.5) == {"a": [kept]}


def test_a_column_takes_the_mean_of_both():
    # mean magnitudes 2, 3, 1; criticality of columns (1 + 3)/2, (1 + 0)/2, (4 + 4)/2 over 4: 1/2, 1/8, 1
    weight, gradient = [[1.0, -3.0, 1.0], [3.0, 3.0, -1.0]], [[1.0, 1.0, 4.0], [3.0, 0.0, 4.0]]
    columns = {alpha: CQP(alpha, pattern=Channel(dim=1)) for alpha in (0, 1, 2)}
    for alpha, kept in {0: [NO, YES, NO], 1: [YES, NO, NO], 2: [NO, NO, YES]}.items():  # scores at 2: 0.5, 0.05, 1
        assert decide(columns[alpha], [layer("a", weight)], measured(a=gradient), 0.6) == {"a": [kept, kept]}


def test_criticality_is_relative_to_the_layer():
    two = [layer("a", [[1.0, 1.0]]), layer("b", [[1.0, 1.0]])]
    assert decide(CQP(), two, measured(a=[[1e-6, 4e-7]], b=[[5.0, 1.0]]), 0.25) == {"a": [[YES, YES]], "b": [[YES, NO]]}


@pytest.mark.parametrize("pattern", [Unstructured(), Channel(dim=1)])
def test_alpha_zero_is_magnitude_bit_for_bit(pattern):
    draw = torch.Generator().manual_seed(0)
    two = [layer(name, torch.randn(9, 7, generator=draw).tolist()) for name in "ab"]
    stats = measured(a=torch.rand(9, 7, generator=draw).tolist(), b=torch.eye(9)[:, :7].tolist())
    for sparsity in (0.0, 0.5, 0.8):
        masks = CQP(0.0, pattern=pattern)(two, stats, Masks({}), sparsity)
        assert masks == Magnitude(pattern=pattern)(two, {}, Masks({}), sparsity)


def test_the_protected_survive():
    assert decide(CQP(protect=0.25), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.25) == {"a": [[NO, YES, YES, YES]]}
    assert decide(CQP(protect=0.26), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.25) == {"a": [[YES, YES, YES, NO]]}


def test_too_much_protection_names_the_reachable_sparsity():
    with pytest.raises(
        SparsityError, match=r"protect=0\.25 protects 3 of 4 units, but sparsity 0\.5 keeps only 2\. .* at most 0\.2, or raise"
    ):
        CQP(protect=0.25)([layer("a", WEIGHT)], measured(a=GRADIENT), Masks({}), 0.5)
    assert CQP(protect=0.25)([layer("a", WEIGHT)], measured(a=GRADIENT), Masks({}), 0.2).kept == {"a": 3}


def test_protection_counts_the_unit_that_another_layer_must_keep():
    two = [layer("a", WEIGHT), layer("b", [[1.0, 1.0]])]
    stats = measured(a=GRADIENT, b=[[1.0, 0.1]])
    force = Masks({"b": torch.tensor([[NO, YES]])})  # the critical weight of b is dead, the other one is its last
    with pytest.raises(SparsityError, match=r"protects 3 of 6 units, but sparsity 0\.5 keeps only 3\..* at most 0\.3,"):
        CQP(protect=0.25)(two, stats, force, 0.5)
    assert decide(CQP(protect=0.25), two, stats, 0.3, force) == {"a": [[NO, YES, YES, YES]], "b": [[NO, YES]]}


@pytest.mark.parametrize("pattern", [Unstructured(), Channel(dim=1)])
def test_the_dead_stay_dead_though_critical_and_protected(pattern):
    force = Masks({"a": torch.tensor([[YES, NO, YES, YES]])})
    masks = decide(CQP(protect=0.9, pattern=pattern), [layer("a", WEIGHT)], measured(a=GRADIENT), 0.5, force)
    assert masks == {"a": [[YES, NO, YES, NO]]}  # scores 1, dead, 3/2, 1/2


def test_a_column_with_one_dead_weight_is_dead():
    force = Masks({"a": torch.tensor([[YES, YES], [NO, YES]])})
    masks = decide(CQP(pattern=Channel(dim=1)), [layer("a", [[9.0, 1.0], [9.0, 1.0]])], measured(a=[[1.0, 1.0]] * 2), 0.5, force)
    assert masks == {"a": [[NO, YES], [NO, YES]]}


def test_a_layer_without_gradient_is_refused():
    with pytest.raises(
        MeasureError, match=r"no gradient reaches the weights of layer 'a': the criticality of all 4 units is zero"
    ):
        CQP()([layer("a", WEIGHT)], measured(a=[[0.0] * 4]), Masks({}), 0.5)


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_a_bad_alpha_is_refused(alpha):
    with pytest.raises(SparsityError, match=r"alpha is .* must be a number of 0 or more"):
        CQP(alpha)


@pytest.mark.parametrize("protect", [0, -0.5, 1.1, math.nan])
def test_a_bad_protection_is_refused(protect):
    with pytest.raises(SparsityError, match=r"protect is .* criticality lies in \(0, 1\]"):
        CQP(protect=protect)


def test_it_needs_gradients_and_is_a_value():
    assert CQP.needs == {Need.WEIGHT_GRADIENT}
    assert CQP(0.5) == CQP()


@pytest.mark.parametrize("pattern", ["column", Channel, None])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(MethodError, match=r"but must be a pattern, such as patterns\.Channel\(\)"):
        CQP(pattern=pattern)


ROWS, GRADIENTS = [[1.0, 1.0], [1.0, 1.0]], [[8.0, 1.0], [0.0, 5.0]]  # means of columns 4, 3; of rows 4.5, 2.5


@pytest.mark.parametrize(
    ("criticality", "kept"),
    [(per_weight, [[YES, NO], [NO, YES]]), (per_input, [[YES, NO], [YES, NO]]), (per_output, [[YES, YES], [NO, NO]])],
)
def test_a_weight_is_judged_by_its_own_gradient_or_by_that_of_a_neuron(criticality, kept):
    found = decide(CQP(criticality=criticality), [layer("a", ROWS)], measured(a=GRADIENTS), 0.5)
    assert found == {"a": kept}


def test_rank_forgets_how_far_apart_gradients_are():
    weight, gradient = [[3.0, 4.0, 1.0]], [[0.01, 0.02, 100.0]]  # by the largest: 3e-4, 8e-4, 1; by rank: 1, 8/3, 1
    assert decide(CQP(1.0), [layer("a", weight)], measured(a=gradient), 0.6) == {"a": [[NO, NO, YES]]}
    assert decide(CQP(1.0, normalize=by_rank), [layer("a", weight)], measured(a=gradient), 0.6) == {"a": [[NO, YES, NO]]}


def test_jointly_a_layer_of_small_gradients_loses():
    two = [layer("a", [[1.0, 1.0, 1.0]]), layer("b", [[1.0, 1.0, 1.0]])]
    stats = measured(a=[[1e-3, 1e-4, 1e-5]], b=[[1.0, 0.5, 0.1]])
    assert decide(CQP(), two, stats, 0.5) == {"a": [[YES, NO, NO]], "b": [[YES, YES, NO]]}
    assert decide(CQP(), two, stats, 0.34) == {"a": [[YES, YES, NO]], "b": [[YES, YES, NO]]}
    assert decide(CQP(joint=True), two, stats, 0.34) == {"a": [[YES, NO, NO]], "b": [[YES, YES, YES]]}


@pytest.mark.parametrize("normalize", [unit, by_mean])
def test_in_one_layer_the_largest_and_the_mean_rank_alike(normalize):
    draw = torch.Generator().manual_seed(1)
    one = [layer("a", torch.randn(9, 7, generator=draw).tolist())]
    stats = measured(a=torch.rand(9, 7, generator=draw).tolist())
    assert CQP(normalize=normalize)(one, stats, Masks({}), 0.5) == CQP(joint=True)(one, stats, Masks({}), 0.5)


def test_switches_that_contradict_each_other_are_refused():
    with pytest.raises(MethodError, match="by_mean has no upper bound"):
        CQP(protect=0.5, normalize=by_mean)
    with pytest.raises(MethodError, match="the same for every input column"):
        CQP(pattern=Channel(dim=1), criticality=per_output)
    with pytest.raises(MethodError, match=r"criticality is 'input', but must be a function of a tensor"):
        CQP(criticality="input")


@pytest.mark.parametrize("pattern", [Unstructured(), Channel(dim=1)])
def test_gradient_only_is_the_limit_of_a_large_alpha(pattern):
    draw = torch.Generator().manual_seed(2)
    one = [layer("a", (torch.rand(9, 7, generator=draw) + 0.5).tolist())]
    stats = measured(a=torch.rand(9, 7, generator=draw).tolist())
    alone = GradientOnly(pattern)(one, stats, Masks({}), 0.5)
    assert alone == CQP(200.0, pattern=pattern)(one, stats, Masks({}), 0.5)
    assert alone != CQP(0.0, pattern=pattern)(one, stats, Masks({}), 0.5)


def test_gradient_only_refuses_what_cqp_refuses():
    with pytest.raises(MeasureError, match="no gradient reaches"):
        GradientOnly()([layer("a", WEIGHT)], measured(a=[[0.0] * 4]), Masks({}), 0.5)
    with pytest.raises(MethodError, match="must be a pattern"):
        GradientOnly("column")


class Dropped(nn.Module):
    """A spiking layer behind dropout, so that training and evaluation differ."""

    def __init__(self, share):
        super().__init__()
        self.drop, self.fc, self.lif = nn.Dropout(share), nn.Linear(5, 3), snntorch.Leaky(beta=0.9, init_hidden=True)
        lively(self)

    def forward(self, x):
        self.lif.reset_mem()
        return sum(self.lif(self.fc(self.drop(step))) for step in x)


def test_criticality_is_the_same_with_dropout_and_in_batches_of_any_evenness():
    x, y = spikes(4, 6, 5), torch.arange(6) % 3
    whole, loss = [(x, y)], nn.functional.cross_entropy
    found = {}
    for share in (0.0, 0.5):
        view = model_view(Dropped(share).train(), x)
        found[share] = measure(view, whole, CQP.needs, loss_fn=loss)["fc"].weight_gradient
        one = [measure(view, [(x[:, i : i + 1], y[i : i + 1])], CQP.needs, loss_fn=loss)["fc"].weight_gradient for i in range(6)]
        singly = measure(view, [(x[:, i : i + 1], y[i : i + 1]) for i in range(6)], CQP.needs, loss_fn=loss)["fc"].weight_gradient
        torch.testing.assert_close(singly, torch.stack(one).mean(0))
        uneven = measure(view, [(x[:, :5], y[:5]), (x[:, 5:], y[5:])], CQP.needs, loss_fn=loss)["fc"].weight_gradient
        parts = [
            measure(view, [part], CQP.needs, loss_fn=loss)["fc"].weight_gradient
            for part in [(x[:, :5], y[:5]), (x[:, 5:], y[5:])]
        ]
        torch.testing.assert_close(uneven, (5 * parts[0] + parts[1]) / 6)
        assert bool((singly >= found[share] - 1e-12).all())  # gradients of opposite sign cancel within a batch only
    assert torch.equal(found[0.0], found[0.5])


def test_criticality_is_measured_anew_at_every_stage():
    x, y = spikes(4, 6, 5), torch.arange(6) % 3
    view = model_view(Dropped(0.0), x)
    seen = []

    class Spy(CQP):
        def critical(self, layers, stats):
            seen.append(super().critical(layers, stats)[0])
            return seen[-1:]

    pruner = Pruner(view, Spy(), stages([0.3, 0.6], every=1), calibration=[(x, y)], loss_fn=nn.functional.cross_entropy)
    pruner.step()
    view.net.fc.weight.data.mul_(1.5)
    pruner.step()
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])


def test_a_threshold_that_protects_everything_leaves_nothing_to_remove():
    even = measured(a=[[0.3] * 4])  # all equally critical, so all of criticality 1
    with pytest.raises(SparsityError, match=r"protects 4 of 4 units, but sparsity 0\.25 keeps only 3\. Ask for at most 0\.0,"):
        CQP(protect=1.0)([layer("a", WEIGHT)], even, Masks({}), 0.25)
    assert CQP(protect=1.0)([layer("a", WEIGHT)], even, Masks({}), 0.0).kept == {"a": 4}


def test_a_threshold_above_all_but_the_largest_changes_no_mask_that_keeps_it():
    one, stats = [layer("a", WEIGHT)], measured(a=GRADIENT)
    for sparsity in (0.25, 0.5, 0.75):
        assert CQP(protect=1.0)(one, stats, Masks({}), sparsity) == CQP()(one, stats, Masks({}), sparsity)


def test_criticality_of_a_silent_network_is_an_error_and_so_is_one_that_is_not_a_number():
    x, y = spikes(4, 6, 5), torch.arange(6) % 3
    net = Dropped(0.0)
    view, loss = model_view(net, x), nn.functional.cross_entropy
    with pytest.raises(NonFinite, match=r"the loss of calibration batch 0 is nan"):
        prune(view, CQP(), 0.5, calibration=[(x, y)], loss_fn=lambda out, y: loss(out * torch.nan, y))
    with torch.no_grad():
        net.fc.weight.zero_()
    silent = lambda out, y: loss(out, y) + 0 * net.fc.weight.sum()  # noqa: E731
    net.lif.spike_grad = lambda u: (u > 1e9).float() + 0 * u  # never near the threshold: no surrogate gradient
    with pytest.raises(MeasureError, match="no gradient reaches the weights of layer 'fc'"):
        prune(view, CQP(), 0.5, calibration=[(x, y)], loss_fn=silent)
