"""Sums of spikes turned into spikes side by side: the same answers, and no sum left that a layer reads."""

import pytest
import torch

from spikeprune.engine import make_plan
from spikeprune.engine import plan as p
from spikeprune.engine.firing import spiking
from spikeprune.engine.reference import Reference, given
from spikeprune.engine.sums import side_by_side
from spikeprune.view.model_view import model_view
from spikeprune.zoo import make

T, N = 3, 2


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def value(what, inputs, shape, **more):
    return what(inputs=inputs, shape=shape, over_time=True, **more)


def synapse(inputs, before, outputs, *, groups=1, seed=0):
    if len(before) == 1:
        weight = random(outputs, before[0], seed=seed)
        return value(p.Synapse, inputs, (outputs,), name="fc", weight=weight, bias=random(outputs, seed=9))
    weight, ones = random(outputs, before[0] // groups, 3, 3, seed=seed), (1, 1)
    shape = (outputs, *before[1:])
    parts = {"name": "conv", "weight": weight, "bias": None, "stride": ones, "padding": ones, "dilation": ones, "groups": groups}
    return value(p.Synapse, inputs, shape, **parts)


def network(*operations, outputs=None):
    first = value(p.Input, (), operations[0].shape, time_axis=0)
    return p.Plan((first, *operations), outputs=outputs or (len(operations),), timesteps=T)


def moved(shape, number=0):
    """The input in other places, which is spikes as well."""
    pool = {"kind": "max", "kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    return value(p.Pool, (number,), shape, **pool)


MAPS = (4, 6, 6)


def alike(plan):
    """Rewrite a plan, compare its answers, and give it."""
    x = (random(T, N, *plan.input.shape) > 0.5).double()
    found = side_by_side(plan, spiking(plan, x))
    assert all(max(op.inputs, default=-1) < i for i, op in enumerate(found.operations))
    one, other = Reference(plan, torch.double)(x), Reference(found, torch.double)(x)
    for a, b in zip(*(y if isinstance(y, tuple) else (y,) for y in (one, other)), strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() > 0.1
    return found


def kinds(plan):
    return [type(op).__name__ for op in plan.operations]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_of_a_sum(groups):
    plan = network(moved(MAPS), value(p.Add, (0, 1), MAPS), synapse((2,), MAPS, 6, groups=groups))
    found = alike(plan)
    assert kinds(found) == ["Input", "Pool", "Concatenate", "Synapse"]
    assert found.operations[3].weight.shape == (6, 8, 3, 3)


def test_averages_and_reshapes_between_are_gone_through():
    mean = value(p.Pool, (2,), (4, 3, 3), kind="average", kernel=(2, 2), stride=(2, 2), padding=(0, 0))
    flat = value(p.Reshape, (3,), (36,))
    found = alike(network(moved(MAPS), value(p.Add, (0, 1), MAPS), mean, flat, synapse((4,), (36,), 5)))
    assert kinds(found) == ["Input", "Pool", "Concatenate", "Pool", "Reshape", "Synapse"]
    assert [op.shape for op in found.operations[2:]] == [(8, 6, 6), (8, 3, 3), (72,), (5,)]


def test_sums_of_sums_and_what_is_in_them_twice():
    plan = network(
        moved(MAPS), value(p.Add, (0, 1), MAPS), moved(MAPS, 1), value(p.Add, (2, 3), MAPS), value(p.Add, (4, 0), MAPS),
        synapse((5,), MAPS, 6), synapse((5,), MAPS, 2, seed=3), outputs=(6, 7),
    )  # fmt: skip
    found = alike(plan)
    assert kinds(found) == ["Input", "Pool", "Pool", "Concatenate", "Synapse", "Synapse"]
    assert found.operations[3].inputs == (0, 1, 2)
    assert torch.equal(found.operations[4].weight[:, :4], 2 * found.operations[4].weight[:, 4:8])


def test_a_sum_of_one_value_with_itself():
    found = alike(network(value(p.Add, (0, 0), MAPS), synapse((1,), MAPS, 6)))
    assert kinds(found) == ["Input", "Synapse"]


def test_a_sum_that_something_else_reads_stays_for_it():
    plan = network(moved(MAPS), value(p.Add, (0, 1), MAPS), synapse((2,), MAPS, 6), outputs=(3, 2))
    assert kinds(alike(plan)) == ["Input", "Pool", "Add", "Concatenate", "Synapse"]


def test_two_layers_of_one_sum_share_what_lies_before_them():
    mean = [value(p.Pool, (2,), (4, 3, 3), kind="average", kernel=(2, 2), stride=(2, 2), padding=(0, 0)) for _ in range(2)]
    plan = network(
        moved(MAPS), value(p.Add, (0, 1), MAPS), mean[0], mean[1], synapse((3,), (4, 3, 3), 6), synapse((4,), (4, 3, 3), 6, seed=2),
        outputs=(5, 6),
    )  # fmt: skip
    assert kinds(alike(plan)).count("Concatenate") == 1


@pytest.mark.parametrize(
    "middle",
    [
        value(p.Pool, (2,), MAPS, kind="max", kernel=(3, 3), stride=(1, 1), padding=(1, 1)),
        value(p.Scale, (2,), MAPS, gain=torch.tensor(2.0).double(), shift=torch.tensor(1.0).double()),
        value(p.ReLU, (2,), MAPS),
    ],
    ids=["max", "scale", "relu"],
)
def test_what_a_sum_cannot_be_taken_through_stays(middle):
    plan = network(moved(MAPS), value(p.Add, (0, 1), MAPS), middle, synapse((3,), MAPS, 6))
    assert alike(plan) is plan


def test_a_sum_of_what_is_no_spikes_stays():
    plan = network(value(p.ReLU, (0,), MAPS), value(p.Add, (0, 1), MAPS), synapse((2,), MAPS, 6))
    assert alike(plan) is plan


def test_residual_spikes_of_the_zoo():
    torch.manual_seed(0)
    net = make("sew_resnet18", width=1 / 16, timesteps=2, image=(3, 16, 16))
    x = torch.rand(2, 3, 16, 16)
    plan = make_plan(model_view(net, x))
    value = given(plan, x)
    found = side_by_side(plan, spiking(plan, value))
    one, other = (Reference(one, torch.double)(x.double()) for one in (plan, found))
    torch.testing.assert_close(one, other)
    reads = {i for op in found.operations if isinstance(op, p.Synapse) for i in op.inputs}
    assert not any(isinstance(found.operations[i], p.Add) for i in reads)
    assert any(isinstance(plan.operations[i], p.Add) for op in plan.operations if isinstance(op, p.Synapse) for i in op.inputs)
