"""SLAMP's masks against equation (6) by double loops, on random small layers."""

from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeprune import Masks
from spikeprune.errors import SparsityError
from spikeprune.kernel.allocate import kept
from spikeprune.methods.slamp import SLAMP, by_gradient, by_nearness, evenly
from spikeprune.view.layer import Layer, Layout

QUICK = settings(max_examples=150, deadline=None, derandomize=True)
STEPS = {by_gradient: "step_weight", by_nearness: "near_threshold", evenly: None}


def slow_gain(stats, which):
    """Power of the trace over that of the input, a timestep and a channel at a time."""
    share = [1.0] * len(stats.input_power) if which is None else getattr(stats, which).tolist()
    over = under = 0.0
    for weight, trace, given_ in zip(share, stats.trace_power.tolist(), stats.input_power.tolist(), strict=True):
        for a, s in zip(trace, given_, strict=True):
            over += weight / sum(share) * a
            under += weight / sum(share) * s
    return over / under


def slow_scores(sizes, gain, exponent):
    """Score each weight alive: its square over those of all that are not smaller, scaled by the gain."""
    scores = {}
    for place, size in sizes.items():
        rest = sum(other * other for other in sizes.values() if other >= size)
        score = size * size / rest
        scores[place] = score ** (1 / gain**0.5) if exponent else gain * score
    return scores


def slow_slamp(layers, stats, masks, sparsity, which, exponent):
    """Rank all weights in one list, count how many of each layer stay, and keep the largest; None if it cannot be met."""
    sizes, scores = {}, {}
    for layer in layers:
        flat = layer.weight.detach().double().abs().flatten().tolist()
        alive = masks[layer.name].flatten().tolist() if layer.name in masks else [True] * len(flat)
        sizes[layer.name] = {i: size for i, size in enumerate(flat) if alive[i]}
        scores[layer.name] = slow_scores(sizes[layer.name], slow_gain(stats[layer.name], which), exponent)
    budget = kept(sum(layer.weight.numel() for layer in layers), sparsity)
    if not len(layers) <= budget <= sum(len(size) for size in sizes.values()):
        return None
    keep = dict.fromkeys(sizes, 1)
    best = {name: max(score, key=score.__getitem__) for name, score in scores.items()}
    ranked = sorted(((-v, name, i) for name, score in scores.items() for i, v in score.items() if i != best[name]))
    for _, name, _ in ranked[: budget - len(layers)]:
        keep[name] += 1
    chosen = {name: sorted(size, key=size.__getitem__, reverse=True)[: keep[name]] for name, size in sizes.items()}
    return {x.name: [i in chosen[x.name] for i in range(x.weight.numel())] for x in layers}


def problem(seed, shapes, timesteps, share):
    draw = torch.Generator().manual_seed(seed)

    def positive(*shape):
        return torch.rand(shape, generator=draw, dtype=torch.double) + 0.01

    layers, stats, masks = [], {}, {}
    for i, (c_out, c_in) in enumerate(shapes):
        module, name = nn.Linear(c_in, c_out, bias=False), f"layer{i}"
        module.weight.data.copy_(torch.randn(c_out, c_in, generator=draw))
        layers.append(Layer(name, module, Layout.ONCE, "lif"))
        power = positive(timesteps, c_in)
        stats[name] = SimpleNamespace(
            input_power=power, trace_power=power * (1 + 5 * positive(timesteps, 1) * positive(1, 1)),
            step_weight=positive(timesteps) ** 3, near_threshold=positive(timesteps),
        )  # fmt: skip
        alive = positive(c_out, c_in) > share
        alive[0, 0] = True
        masks[name] = alive
    return layers, stats, Masks(masks)


@QUICK
@given(
    seed=st.integers(0, 10**6),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    timesteps=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.2, 0.5]),
    sparsity=st.floats(0, 0.99),
    steps=st.sampled_from(list(STEPS)),
    exponent=st.booleans(),
)
def test_equation_six(seed, shapes, timesteps, share, sparsity, steps, exponent):
    layers, stats, masks = problem(seed, shapes, timesteps, share)
    expected = slow_slamp(layers, stats, masks, sparsity, STEPS[steps], exponent)
    try:
        found = SLAMP(steps=steps, exponent=exponent)(layers, stats, masks, sparsity)
    except SparsityError:
        assert expected is None
        return
    assert {name: mask.flatten().tolist() for name, mask in found.items()} == expected


@QUICK
@given(
    seed=st.integers(0, 10**6),
    shapes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=4),
    targets=st.lists(st.floats(0, 0.8), min_size=2, max_size=4).map(sorted),
    exponent=st.booleans(),
)
def test_masks_nest_in_rounds_and_meet_every_count(seed, shapes, targets, exponent):
    layers, stats, _ = problem(seed, shapes, 3, 0.0)
    total, masks = sum(x.weight.numel() for x in layers), Masks({})
    for target in targets:
        if kept(total, target) < len(layers):
            return
        before, masks = masks, SLAMP(exponent=exponent)(layers, stats, masks, target)
        assert sum(masks.kept.values()) == kept(total, target)
        assert min(masks.kept.values()) >= 1
        assert all(not bool((mask & ~before[name]).any()) for name, mask in masks.items() if name in before)
