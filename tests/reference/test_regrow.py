"""Dropping and growing against a twin too slow and too plain to be wrong, and one whole RigL update by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from spikeprune import Masks
from spikeprune.errors import SparsityError
from spikeprune.kernel.allocate import kept, uniform_plus
from spikeprune.kernel.regrow import revive, survivors
from spikeprune.methods import SET, RigL
from spikeprune.view.layer import Layer, Layout

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
few = st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(0, 1e6, width=32)
units = st.lists(st.tuples(few, few, st.booleans()), min_size=1, max_size=16)
fractions = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.99])


def slow_drop(scores, alive, keep):
    """Strike out the worst living unit, the last of equals, until `keep` are left."""
    alive = set(alive)
    while len(alive) > keep:
        alive.remove(min(alive, key=lambda i: (scores[i], -i)))
    return alive


def slow_grow(growth, alive, grow):
    """Bring back the best dead unit, the first of equals, one by one."""
    alive = set(alive)
    for _ in range(grow):
        alive.add(max(set(range(len(growth))) - alive, key=lambda i: (growth[i], -i)))
    return alive


def living(mask):
    return {i for i, alive in enumerate(mask.flatten().tolist()) if alive}


def layer(weight):
    module = nn.Linear(len(weight), 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([weight]))
    return Layer("a", module, Layout.ONCE)


def gradient(values):
    return {"a": SimpleNamespace(weight_gradient=torch.tensor([values], dtype=torch.double))}


def columns(units):
    return tuple(torch.tensor(column) for column in zip(*units, strict=True))


@QUICK
@given(units, st.integers(0, 16), st.integers(0, 16))
def test_survivors_and_revive(units, keep, grow):
    score, growth, alive = columns(units)
    assume(keep <= int(alive.sum()))
    left = survivors(score, alive, keep)
    assert living(left) == slow_drop(score.tolist(), living(alive), keep)
    assume(grow <= len(units) - keep)
    back = revive(left, growth, grow)
    assert living(back) == slow_grow(growth.tolist(), living(left), grow)
    assert int(back.sum()) == keep + grow


@QUICK
@given(units, fractions)
def test_an_update_of_rigl_at_constant_sparsity(units, share):
    weight, growth, alive = columns(units)
    count = int(alive.sum())
    sparsity = 1 - count / len(units)
    assume(count > 0 and kept(len(units), sparsity) == count and bool((growth > 0).any()))
    masks = RigL(share)([layer(weight.tolist())], gradient(growth.tolist()), Masks({"a": alive.view(1, -1)}), sparsity)
    able = sum(g > 0 for g, lives in zip(growth.tolist(), alive.tolist(), strict=True) if not lives)
    left = slow_drop(weight.tolist(), living(alive), max(kept(count, share), count - able))
    assert living(masks["a"]) == slow_grow(growth.tolist(), left, count - len(left))


def test_one_update_of_rigl_by_hand():
    weight = [0.9, -0.1, 0.4, 0.0, -0.2, 0.0, 0.0, 0.0]  # the first, second, third and fifth live
    alive = Masks({"a": torch.tensor([[True, True, True, False, True, False, False, False]])})
    dense = gradient([9.0, 0.1, 0.0, 0.5, 0.3, 0.2, 0.0, 0.7])
    # half of four: -0.1 and -0.2 fall; of all that did not stay, the last (0.7) and the fourth (0.5) grow
    half = RigL(0.5)([layer(weight)], dense, alive, 0.5)
    assert half["a"].tolist() == [[True, False, True, True, False, False, False, True]]
    # three of four fall; 0.7, 0.5 and 0.3 grow: the fifth comes back at once
    most = RigL(0.75)([layer(weight)], dense, alive, 0.5)
    assert most["a"].tolist() == [[True, False, False, True, True, False, False, True]]
    # halfway to the stop, half the fraction: one falls, one grows
    later = RigL(0.5, stop=200).at(100)([layer(weight)], dense, alive, 0.5)
    assert later["a"].tolist() == [[True, False, True, False, True, False, False, True]]


@QUICK
@given(units, fractions, st.integers(0, 5))
def test_set_keeps_the_count_and_the_strongest(units, share, step):
    weight, _, alive = columns(units)
    count = int(alive.sum())
    sparsity = 1 - count / len(units)
    assume(count > 0 and kept(len(units), sparsity) == count)
    masks = SET(share).at(step)([layer(weight.tolist())], {}, Masks({"a": alive.view(1, -1)}), sparsity)
    assert int(masks["a"].sum()) == count
    assert slow_drop(weight.tolist(), living(alive), kept(count, share)) <= living(masks["a"])


shapes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)) | st.tuples(*[st.integers(1, 3)] * 4), min_size=1, max_size=5)


def slow_uniform_plus(shapes, budget):
    """Raise the density of all layers in small steps until the budget is spent; None if the exceptions alone exceed it."""
    sizes = [math.prod(shape) for shape in shapes]
    dense = len(shapes[0]) > 2
    least = [1.0] * len(shapes)
    least[-1] = float(max(1, kept(sizes[-1], 0.8)))
    least[0] = float(sizes[0]) if dense else least[0]
    if budget < sum(least):
        return None
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        quota = [max(floor, middle * size) for floor, size in zip(least, sizes, strict=True)]
        low, high = (middle, high) if sum(quota) < budget else (low, middle)
    return [max(floor, high * size) for floor, size in zip(least, sizes, strict=True)]


@QUICK
@given(shapes, fractions)
def test_uniform_plus(shapes, sparsity):
    scores = {str(i): torch.ones(shape) for i, shape in enumerate(shapes)}
    budget = kept(sum(math.prod(shape) for shape in shapes), sparsity)
    expected = slow_uniform_plus(shapes, budget)
    if expected is None:
        with pytest.raises(SparsityError):
            uniform_plus(scores, sparsity)
        return
    keep = list(uniform_plus(scores, sparsity).values())
    assert sum(keep) == budget
    assert all(1 <= count <= math.prod(shape) for count, shape in zip(keep, shapes, strict=True))
    assert keep[-1] >= kept(math.prod(shapes[-1]), 0.8)
    assert len(shapes[0]) == 2 or keep[0] == math.prod(shapes[0])
    # floors of one take from the others what rounding cannot give back, at most one a layer
    assert all(abs(count - quota) < 1 + len(shapes) for count, quota in zip(keep, expected, strict=True))


@QUICK
@given(shapes, st.lists(fractions, min_size=2, max_size=5).map(sorted))
def test_uniform_plus_never_asks_for_more_than_is_alive(shapes, targets):
    scores = {str(i): torch.rand(shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)}
    for target in targets:
        try:
            keep = uniform_plus(scores, target)
        except SparsityError:
            assume(False)
        for name, score in scores.items():
            assert keep[name] <= int((score > -math.inf).sum())
            worst = score.flatten().argsort()[: score.numel() - keep[name]]
            scores[name] = score.flatten().index_fill(0, worst, -math.inf).view_as(score)
