"""The course against networks that really run fewer timesteps, sample by sample; and costs against `profile`."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from nets_over_time import NETS, T, batch, summed, viewed
from small_nets import lively, spikes
from spikeprune.measure import measure
from spikeprune.metrics import HOROWITZ_45NM, costs, fan_out, synops
from spikeprune.report import profile
from spikeprune.stats import Need
from spikeprune.temporal import course, truncate
from spikeprune.view.layer import Layer, Layout

MEAN = ["mean"]


def prune_some(view, seed=7):
    """Remove about half of the inhibiting weights, so that neurons go on firing."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in view.layers:
            layer.weight.mul_((layer.weight > 0) | (torch.rand(layer.weight.shape, generator=draw) > 0.5))


def labelled(name):
    return [(batch(name, samples=n, seed=n), torch.arange(n) % 3) for n in (4, 1, 3)]


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def running(name, view, sample):
    """The outputs added up to each timestep, in the model's scale, from one truncated network a timestep."""
    share = [t / T if name in MEAN else 1 for t in range(1, T + 1)]
    outputs = [summed(truncate(view, t)(sample).detach())[0] for t in range(1, T + 1)]
    return [(out.double() * s).tolist() for out, s in zip(outputs, share, strict=True)]


def cost(view, sample, steps, mac):
    """SynOps and energy of one sample in the network truncated to `steps`; `mac` are the layers that multiply."""
    short = truncate(view, steps)
    rows = costs(short, measure(short, [sample], {Need.INPUT_COUNT}))
    synops = sum(row.synops_effective for row in rows)
    energy = sum(row.synops_effective * (HOROWITZ_45NM.mac if row.name in mac else HOROWITZ_45NM.ac) for row in rows)
    return synops, energy


def samples(name, batches):
    for x, y in batches:
        for n in range(len(y)):
            yield x[:, n : n + 1] if NETS[name][1] else x[n : n + 1], int(y[n])


def multiplying(view, batches):
    rows = costs(view, measure(view, batches, {Need.INPUT_COUNT}))
    return {row.name for row in rows if not row.binary_input}


@pytest.mark.parametrize("name", ["loop", "mean", "mlp", "jelly m", "told s", "membrane", "folded"])
def test_course_by_truncated_networks_sample_by_sample(name):
    view, batches, levels = viewed(name), labelled(name), (0.4, 0.6, 0.8)
    prune_some(view)
    found = course(view, batches, confidences=levels)
    mac, count = multiplying(view, batches), 8
    right, change = [0] * T, [0.0] * (T - 1)
    exits = {level: [0, 0, 0.0, 0.0] for level in levels}
    for sample, label in samples(name, batches):
        outputs = running(name, view, sample)
        chances = [softmax(out) for out in outputs]
        answers = [out.index(max(out)) for out in outputs]
        for t in range(T):
            right[t] += answers[t] == label
            if t:
                change[t - 1] += sum(p * math.log(p / q) for p, q in zip(chances[t - 1], chances[t], strict=True))
        for level in levels:
            stop = next((t for t in range(T) if max(chances[t]) >= level), T - 1)
            synops, energy = cost(view, sample, stop + 1, mac)
            for i, value in enumerate((answers[stop] == label, stop + 1, synops, energy)):
                exits[level][i] += value
    assert found.accuracy == pytest.approx([r / count for r in right])
    assert found.per_sample == pytest.approx([c / count for c in change], rel=1e-5, abs=1e-9)
    for row in found.exits:
        got = (row.accuracy, row.steps, row.synops, row.energy_pj)
        assert got == pytest.approx([value / count for value in exits[row.confidence]])
    assert sum(change) > 0
    assert exits[0.4][1] < T * count  # somebody stops early


@pytest.mark.parametrize("name", NETS)
def test_costs_at_each_timestep_are_those_of_the_truncated_network(name):
    view, batches = viewed(name), labelled(name)
    prune_some(view)
    found = course(view, batches)
    for t in range(1, T + 1):
        report = profile(truncate(view, t), batches)
        assert found.synops[t - 1] == pytest.approx(report.synops_effective, rel=1e-12)
        assert found.energy_pj[t - 1] == pytest.approx(report.energy_pj, rel=1e-12)
    assert found.synops[0] < found.synops[-1]


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1}, {"stride": 2, "groups": 2}, {"padding": 1, "padding_mode": "circular"}], ids=str
)
def test_fan_out_is_synops_apart_for_every_timestep_and_sample(options):
    conv = lively(nn.Conv2d(2, 4, 3, **options))
    found, x = Layer("conv", conv, Layout.SEQUENCE), spikes(T, 3, 2, 5, 6).double()
    alive = (conv.weight.detach() > 0.2).double()
    apart = fan_out(found, x, alive)
    assert apart.shape == (T, 3)
    assert apart.tolist() == [[synops(found, x[t, n : n + 1], alive) for n in range(3)] for t in range(T)]
    assert apart.min() > 0


@pytest.mark.parametrize("name", ["loop", "mlp", "jelly s"])
def test_batch_mean_by_loops(name):
    view, batches = viewed(name), labelled(name)
    means = [[0.0] * 3 for _ in range(T)]
    for sample, _ in samples(name, batches):
        before = [0.0] * 3
        for t, out in enumerate(running(name, view, sample)):
            for c in range(3):
                means[t][c] += (out[c] - before[c]) / 8
            before = out
    shares = [[(m + 1e-6) / sum(v + 1e-6 for v in row) for m in row] for row in means]
    terms = [sum(p * math.log(p / q) for p, q in zip(a, b, strict=True)) for a, b in pairwise(shares)]
    assert course(view, batches).batch_mean == pytest.approx(terms, rel=1e-6)
    assert sum(terms) > 0
