"""SCA's masks against the authors' steps in plain Python: sort, threshold, strictly above, regrow; on random scores."""

from types import SimpleNamespace

import torch
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from torch import nn

from spikeprune import Masks
from spikeprune.kernel.patterns import Channel, living
from spikeprune.methods import SCA, Activity
from spikeprune.view.layer import Layer, Layout, Norm

QUICK = settings(max_examples=100, deadline=None, derandomize=True)


def slow_prune(activity, alive, alpha):
    """Keep what is strictly above the score at place int(alpha C) of all, from the largest down; alpha in percent."""
    # A dead channel is given a score below all others: silenced, it can only return by regrowth.
    scores = {name: [a if lives else -1.0 for a, lives in zip(activity[name], alive[name], strict=True)] for name in activity}
    ranked = sorted((a for scores_ in scores.values() for a in scores_), reverse=True)
    place = len(ranked) * alpha // 100
    if place >= sum(map(sum, alive.values())):
        return alive
    return {name: [a > ranked[place] for a in scores_] for name, scores_ in scores.items()}


def slow_regrow(growth, alive, beta):
    """Bring back what is strictly above the gradient at place int(beta C) of those of the dead; beta in percent."""
    dead = {name: [0.0 if lives else g for g, lives in zip(growth[name], alive[name], strict=True)] for name in growth}
    ranked = sorted((g for grads in dead.values() for g in grads), reverse=True)
    threshold = ranked[len(ranked) * beta // 100]
    return {
        name: [lives or g > threshold for lives, g in zip(alive[name], dead[name], strict=True)] for name in alive
    }  # no threshold is below zero, so that a gradient of zero brings nothing back


def drawn(names, widths, draw, *, zeros=0.0):
    """Distinct numbers above zero for every channel, of which a share is then set to zero."""
    places = torch.randperm(sum(widths), generator=draw).double() + 1
    places[torch.rand(len(places), generator=draw) < zeros] = 0
    return {name: part.tolist() for name, part in zip(names, torch.split(places, widths), strict=True)}


def layers_of(widths):
    norms = [Norm(f"{i}.norm", nn.BatchNorm1d(width)) for i, width in enumerate(widths)]
    return [
        Layer(str(i), nn.Linear(1, width, bias=False), Layout.ONCE, family=str(i), norms=(norms[i],), bare=False)
        for i, width in enumerate(widths)
    ]


def stats_of(activity, growth, draw):
    """Statistics whose membrane and rate add up to the activity."""
    stats = {}
    for name, scores in activity.items():
        total = torch.tensor(scores, dtype=torch.double)
        rate = 20 * torch.rand(len(scores), generator=draw, dtype=torch.double)  # enough to change the ranking
        gain = torch.tensor(growth[name], dtype=torch.double)
        stats[name] = SimpleNamespace(channel_membrane=total - rate, channel_rate=rate, gain_gradient=gain)
    return stats


def channels(masks):
    return {name: living(Channel(), mask).tolist() for name, mask in masks.items()}


def total(alive):
    return sum(map(sum, alive.values()))


seeds, widths = st.integers(0, 10**6), st.lists(st.integers(3, 12), min_size=1, max_size=4)


@QUICK
@given(seeds, widths, st.integers(5, 60), st.integers(5, 35), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_update_after_update_it_is_the_authors_algorithm(seed, widths, sparsity, regrow, zeros, soft):
    draw, layers = torch.Generator().manual_seed(seed), layers_of(widths)
    names, units, alpha = [layer.name for layer in layers], sum(widths), 100 - sparsity - regrow
    masks, alive = Masks({}), {name: [True] * width for name, width in zip(names, widths, strict=True)}
    assume(units * alpha // 100 >= len(widths))
    back = 0
    for _ in range(3):
        activity, growth = drawn(names, widths, draw), drawn(names, widths, draw, zeros=zeros)
        every = {name: [True] * len(lives) for name, lives in alive.items()}
        left = slow_prune(activity, every if soft else alive, alpha)
        assume(all(map(any, left.values())))  # the authors may empty a layer
        alive = slow_regrow(growth, left, regrow)
        masks = SCA(regrow=regrow / 100, soft=soft)(layers, stats_of(activity, growth, draw), masks, sparsity / 100)
        back += total(alive) - total(left)
        assert channels(masks) == alive
        assert total(alive) <= units * alpha // 100 + units * regrow // 100
    event(f"some came back: {back > 0}")


@QUICK
@given(seeds, widths, st.integers(0, 90))
def test_where_the_authors_would_empty_a_layer_it_keeps_its_best_and_the_count(seed, widths, sparsity):
    draw, layers = torch.Generator().manual_seed(seed), layers_of(widths)
    names = [layer.name for layer in layers]
    stay = sum(widths) * (100 - sparsity) // 100
    assume(stay >= len(widths))
    activity = drawn(names, widths, draw)
    activity[names[0]] = [a / 1000 for a in activity[names[0]]]  # far below all others
    left = slow_prune(activity, {name: [True] * width for name, width in zip(names, widths, strict=True)}, 100 - sparsity)
    event(f"emptied: {not all(map(any, left.values()))}")
    stats = stats_of(activity, activity, draw)
    kept = channels(SCA(regrow=0)(layers, stats, Masks({}), sparsity / 100))
    assert total(kept) == stay
    for name in names:
        best = activity[name].index(max(activity[name]))
        assert kept[name][best]
        assert not any(k and not was for i, (k, was) in enumerate(zip(kept[name], left[name], strict=True)) if i != best)


@QUICK
@given(seeds, widths, st.integers(1, 100))
def test_without_regrowth_it_is_activity_at_every_whole_count(seed, widths, cut):
    draw, layers = torch.Generator().manual_seed(seed), layers_of(widths)
    names, units = [layer.name for layer in layers], sum(widths)
    removed = cut % (units - len(widths) + 1)
    stats = stats_of(drawn(names, widths, draw), drawn(names, widths, draw), draw)
    assert SCA(regrow=0)(layers, stats, Masks({}), removed / units) == Activity()(layers, stats, Masks({}), removed / units)
