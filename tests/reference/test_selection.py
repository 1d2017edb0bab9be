"""The selection of survivors against twins too slow and too plain to be wrong, on random small inputs full of ties."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spikeprune.errors import SparsityError
from spikeprune.kernel.allocate import erdos_renyi, global_top_k, kept, lamp, reachable, uniform
from spikeprune.kernel.patterns import top_k

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
DEAD = -math.inf
# Few distinct values, so that ties, zeros and dead units are common; and any float32 of a reasonable size.
values = st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.5, DEAD]) | st.floats(0, 1e6, width=32)
alive = st.sampled_from([0.0, 1.0, 2.0, 0.5]) | st.floats(0, 1e6, width=32)
fractions = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999])


def layers(value=values, size=9):
    return st.lists(st.lists(value, min_size=1, max_size=size), min_size=1, max_size=4).map(
        lambda lists: {f"layer{i}": torch.tensor(scores) for i, scores in enumerate(lists)}
    )


def shapes():
    return st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=4), min_size=1, max_size=4)


def slow_kept(units, sparsity):
    """Round the exact product to nearest, half up."""
    removed = 0
    while removed + Fraction(1, 2) <= Fraction(sparsity) * units:
        removed += 1
    return units - removed


def slow_top_k(score, keep):
    ranked = sorted(range(len(score)), key=lambda i: (-score[i], i))
    return [i in ranked[:keep] for i in range(len(score))]


def slow_global(scores, sparsity, floor):
    """Fill the floors, then walk down one list of all units. None stands for a refusal."""
    budget = kept(sum(len(score) for score in scores.values()), sparsity)
    floors = {name: min(floor, sum(s > DEAD for s in score)) for name, score in scores.items()}
    if budget < sum(floors.values()) or budget > sum(s > DEAD for score in scores.values() for s in score):
        return None
    units = sorted((-s, place, i, name) for place, (name, score) in enumerate(scores.items()) for i, s in enumerate(score))
    keep = {name: 0 for name in scores}
    taken = set()
    for unit in units:
        name = unit[3]
        if keep[name] < floors[name]:
            keep[name] += 1
            taken.add(unit)
    for unit in units:
        if unit not in taken and sum(keep.values()) < budget:
            keep[unit[3]] += 1
    return keep


def slow_lamp(score):
    """Equation 2 by double loop: of two equal weights the earlier is the larger."""
    out = []
    for i, own in enumerate(score):
        if own == DEAD:
            out.append(DEAD)
            continue
        not_smaller = [s * s for j, s in enumerate(score) if s != DEAD and (s > own or (s == own and j <= i))]
        out.append(own * own / math.fsum(not_smaller) if own else 0.0)
    return out


def slow_densities(sizes, weights, budget):
    """Raise one common factor in small steps until the layers, none above its size, hold the budget."""
    low, high = Fraction(0), Fraction(10**9)
    for _ in range(120):
        middle = (low + high) / 2
        if sum(min(Fraction(size), middle * weight) for size, weight in zip(sizes, weights, strict=True)) < budget:
            low = middle
        else:
            high = middle
    return [float(min(Fraction(size), high * weight)) for size, weight in zip(sizes, weights, strict=True)]


@QUICK
@given(st.integers(1, 200), fractions)
def test_kept_rounds_to_nearest(units, sparsity):
    product = Fraction(sparsity) * units
    assume(abs(product - math.floor(product) - Fraction(1, 2)) > Fraction(1, 10**9))  # half of what, floats cannot say
    assert kept(units, sparsity) == slow_kept(units, sparsity)


@QUICK
@given(st.integers(1, 10**9), st.integers(1, 10**4))
def test_reachable_is_reached(units, needed):
    assume(needed < units)
    assert kept(units, reachable(units, needed)) == needed


@QUICK
@given(st.lists(values, min_size=1, max_size=20), st.integers(0, 20))
def test_top_k(score, keep):
    assume(keep <= len(score))
    assert top_k(torch.tensor(score), keep).tolist() == slow_top_k(score, keep)


@QUICK
@given(layers(), fractions, st.integers(0, 3))
def test_global_top_k(scores, sparsity, floor):
    expected = slow_global({name: score.tolist() for name, score in scores.items()}, sparsity, floor)
    if expected is None:
        with pytest.raises(SparsityError):
            global_top_k(scores, sparsity, floor=floor)
    else:
        assert global_top_k(scores, sparsity, floor=floor) == expected


@QUICK
@given(st.lists(values, min_size=1, max_size=12))
def test_lamp(score):
    assert lamp(torch.tensor(score)).tolist() == pytest.approx(slow_lamp(torch.tensor(score).tolist()), rel=1e-12, abs=0)


@QUICK
@given(shapes(), fractions, st.booleans())
def test_erdos_renyi(shapes, sparsity, kernel):
    sizes = [math.prod(shape) for shape in shapes]
    budget = kept(sum(sizes), sparsity)
    assume(budget >= len(shapes))
    axes = [shape if kernel else shape[:2] for shape in shapes]
    weights = [Fraction(size * sum(a), math.prod(a)) for size, a in zip(sizes, axes, strict=True)]
    keep = erdos_renyi({str(i): torch.ones(shape) for i, shape in enumerate(shapes)}, sparsity, kernel=kernel, floor=0)
    assert sum(keep.values()) == budget
    for count, density in zip(keep.values(), slow_densities(sizes, weights, budget), strict=True):
        assert abs(count - density) < 1 + 1e-9
    floored = erdos_renyi({str(i): torch.ones(shape) for i, shape in enumerate(shapes)}, sparsity, kernel=kernel)
    assert sum(floored.values()) == budget
    assert all(1 <= count <= size for count, size in zip(floored.values(), sizes, strict=True))


@QUICK
@given(st.lists(values, min_size=1, max_size=20), st.integers(0, 20))
def test_every_kept_score_is_at_least_every_dropped_one(score, keep):
    assume(keep <= len(score))
    score = torch.tensor(score)
    mask = top_k(score, keep)
    assert int(mask.sum()) == keep
    if 0 < keep < len(score):
        assert score[mask].min() >= score[~mask].max()


@QUICK
@given(layers(alive), fractions, st.integers(-60, 60), st.sampled_from([uniform, global_top_k, lamp]))
def test_scaling_all_scores_changes_nothing(scores, sparsity, exponent, allocation):
    assume(kept(sum(score.numel() for score in scores.values()), sparsity) >= len(scores))
    scaled = {name: score.double() * 2.0**exponent for name, score in scores.items()}
    assert allocation(scaled, sparsity) == allocation(scores, sparsity)


@QUICK
@given(layers(alive), fractions, st.lists(st.integers(-60, 60), min_size=4, max_size=4))
def test_lamp_does_not_see_the_scale_of_a_layer(scores, sparsity, exponents):
    assume(kept(sum(score.numel() for score in scores.values()), sparsity) >= len(scores))
    scaled = {n: score.double() * 2.0**e for (n, score), e in zip(scores.items(), exponents, strict=False)}
    assert lamp(scaled, sparsity) == lamp(scores, sparsity)


@pytest.mark.parametrize("allocation", [uniform, global_top_k, erdos_renyi, lamp])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_no_layer_is_emptied_at_extreme_sparsity(allocation, scale):
    draw = torch.Generator().manual_seed(0)
    scores = {"large": torch.rand(50, 100, generator=draw), "small": torch.rand(3, 4, generator=draw) * scale}
    keep = allocation(scores, 0.999)
    assert keep["small"] >= 1
    assert keep["large"] >= 1
    assert allocation is uniform or sum(keep.values()) == kept(5012, 0.999) == 5


@QUICK
@given(
    layers(alive, size=20),
    st.lists(fractions, min_size=2, max_size=5).map(sorted),
    st.sampled_from([uniform, global_top_k, lamp]),
)
def test_masks_nest_along_a_rising_schedule(scores, targets, allocation):
    assume(kept(sum(score.numel() for score in scores.values()), targets[-1]) >= len(scores))
    before = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    for target in targets:
        held = {name: score.masked_fill(~before[name], DEAD) for name, score in scores.items()}
        keep = allocation(held, target)
        masks = {name: top_k(score, keep[name]) for name, score in held.items()}
        assert all(not bool((masks[name] & ~before[name]).any()) for name in masks)
        before = masks


@QUICK
@given(shapes(), st.lists(fractions, min_size=2, max_size=5).map(sorted))
def test_erdos_renyi_never_asks_for_more_than_is_alive(shapes, targets):
    assume(kept(sum(math.prod(shape) for shape in shapes), targets[-1]) >= len(shapes))
    scores = {str(i): torch.rand(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)}
    for target in targets:
        keep = erdos_renyi(scores, target)
        for name, score in scores.items():
            assert keep[name] <= int((score > DEAD).sum())
            scores[name] = score.masked_fill(~top_k(score, keep[name]), DEAD)
