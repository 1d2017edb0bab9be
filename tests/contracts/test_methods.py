"""What every method promises on every kind of model. A new method adds one row to METHODS; a new kind of model, one to MODELS."""

from functools import partial

import pytest
import snntorch
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import ByHand, Loop, assert_same, lively, noise, photograph, spikes, unroll
from spikeprune import Masks, hold, measure, model_view, prune
from spikeprune.kernel.allocate import erdos_renyi, global_top_k, kept, lamp, reachable, uniform
from spikeprune.kernel.patterns import Channel, Unstructured
from spikeprune.kernel.scores import by_rank, per_input, per_output
from spikeprune.methods import CQP, GradientOnly, Magnitude, Random


def total(units, sparsity, found):
    assert sum(found.values()) == kept(sum(units.values()), sparsity)


def each(units, sparsity, found):
    assert found == {name: max(1, kept(count, sparsity)) for name, count in units.items()}


COLUMNS = Channel(dim=1)
# Allocation, pattern, and what the allocation promises: the total of all layers, or each layer by itself.
GRID = [
    (global_top_k, Unstructured(), total),
    (lamp, Unstructured(), total),
    (erdos_renyi, Unstructured(), total),
    (uniform, Unstructured(), each),
    (global_top_k, COLUMNS, total),
    (lamp, COLUMNS, total),
    (uniform, COLUMNS, each),
]
METHODS = {
    "Magnitude": [(Magnitude(allocation=allocation, pattern=pattern), promise) for allocation, pattern, promise in GRID],
    "Random": [(Random(seed=5, allocation=allocation, pattern=pattern), promise) for allocation, pattern, promise in GRID],
    "CQP": [
        (CQP(), total),
        (CQP(alpha=1), total),
        (CQP(pattern=COLUMNS), total),
        (CQP(criticality=per_input, normalize=by_rank), total),
        (CQP(criticality=per_output, joint=True), total),
    ],
    "GradientOnly": [(GradientOnly(), total), (GradientOnly(COLUMNS), total)],
}
CASES = [
    pytest.param(method, promise, id=f"{name}-{i}")
    for name, cases in METHODS.items()
    for i, (method, promise) in enumerate(cases)
]


def snn_conv():
    neurons = partial(snntorch.Leaky, beta=0.9, init_hidden=True)
    return lively(nn.Sequential(nn.Conv2d(2, 3, 3), neurons(), nn.Flatten(), nn.Linear(12, 3), neurons()))


def jelly_conv():
    net = nn.Sequential(layer.Conv2d(2, 3, 3), neuron.LIFNode(), layer.Flatten(), layer.Linear(12, 3), neuron.LIFNode())
    functional.set_step_mode(net, "m")
    return lively(net)


def single():
    return lively(nn.Sequential(nn.Linear(6, 3), snntorch.Leaky(beta=0.9, init_hidden=True)))


MODELS = {  # how it is made, an input, its forward
    "snntorch-loop": (Loop, spikes(3, 4, 6), None),
    "snntorch-by-hand": (ByHand, noise(3, 4, 6), None),
    "snntorch-conv": (snn_conv, spikes(3, 4, 2, 4, 4), unroll),
    "spikingjelly-conv": (jelly_conv, spikes(3, 4, 2, 4, 4), None),
    "single-layer": (single, spikes(3, 4, 6), unroll),
    "one-timestep": (Loop, spikes(1, 4, 6), None),
    "one-sample": (Loop, spikes(3, 1, 6), None),
}


def loss_fn(out, y):
    return F.cross_entropy(out.sum(0), y)


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def lent(request):
    """A view of a model in use: trained a step, its neurons charged; and calibration data."""
    make, x, forward = request.param
    view = model_view(make(), x, forward=forward)
    y = torch.arange(x.shape[1]) % 3
    loss_fn(view(x), y).backward()
    return view, {"calibration": [(x, y)], "loss_fn": loss_fn}


def living(masks, method):
    """How many units each layer keeps; each must be wholly alive or wholly dead."""
    units = {name: method.pattern.reduce(mask.double()) == 1 for name, mask in masks.items()}
    assert all(torch.equal(method.pattern.expand(units[name], mask), mask) for name, mask in masks.items())
    return {name: int(alive.sum()) for name, alive in units.items()}


def sizes(view, method):
    return {x.name: method.pattern.reduce(x.weight.detach()).numel() for x in view.layers}


@pytest.mark.parametrize(("method", "promise"), CASES)
def test_sparsity_is_exact_and_masks_nest(method, promise, lent):
    view, data = lent
    units, masks = sizes(view, method), None
    for sparsity in (0.0, 0.25, 0.5, 0.5, 0.6):
        before, masks = masks, prune(view, method, sparsity, masks=masks, **data)
        found = living(masks, method)
        promise(units, sparsity, found)
        assert all(not bool(((x.weight != 0) & ~masks[x.name]).any()) for x in view.layers)
        assert before is None or not any(bool((masks[name] & ~before[name]).any()) for name in masks)


@pytest.mark.parametrize(("method", "promise"), CASES)
def test_the_same_model_and_data_give_the_same_masks(method, promise, lent):
    view, data = lent
    first, second = view.clone(), view.clone()
    masks = prune(first, method, 0.5, **data)
    torch.rand(3)  # whatever the process draws meanwhile
    assert prune(second, method, 0.5, **data) == masks


@pytest.mark.parametrize(("method", "promise"), CASES)
def test_the_model_is_left_as_found(method, promise, lent):
    view, data = lent
    before = photograph(view.net)
    stats = measure(view, data["calibration"], method.needs, loss_fn=loss_fn)
    masks = method(view.layers, stats, Masks({}), 0.5)
    assert_same(before, photograph(view.net))
    masks.apply_(view.layers)
    after = photograph(view.net)
    for x in view.layers:
        changed = before.pop((f"{x.name}.weight", "value")) != after.pop((f"{x.name}.weight", "value"))
        assert not bool((changed & masks[x.name]).any())
    assert_same(before, after)


@pytest.mark.parametrize(("method", "promise"), CASES)
def test_no_layer_is_emptied_at_the_highest_sparsity(method, promise, lent):
    view, data = lent
    units = sizes(view, method)
    highest = reachable(sum(units.values()), len(units))
    found = living(prune(view, method, highest, **data), method)
    promise(units, highest, found)
    assert min(found.values()) == 1


@pytest.mark.parametrize(("method", "promise"), CASES)
def test_the_masks_can_be_held(method, promise, lent):
    view, data = lent
    optimizer = torch.optim.SGD(view.net.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    masks = prune(view, method, 0.5, **data)
    (x, y), *_ = data["calibration"]
    with hold(optimizer, view, masks):
        for _ in range(2):
            optimizer.zero_grad()
            loss_fn(view(x), y).backward()
            optimizer.step()
    assert not any(bool(layer.weight[~masks[layer.name]].any()) for layer in view.layers)


@pytest.mark.parametrize("pattern", [Unstructured(), COLUMNS])
def test_cqp_at_alpha_zero_is_global_magnitude(pattern, lent):
    view, data = lent
    for sparsity in (0.25, 0.5, 0.6):
        masks = prune(view.clone(), CQP(alpha=0, pattern=pattern), sparsity, **data)
        assert masks == prune(view.clone(), Magnitude(pattern=pattern), sparsity)
