"""One question for every network: does its plan do what it does, sample by sample and step by step?"""

import copy

import pytest
import torch

from same_spikes import doubled, heard
from spikeprune import model_view
from spikeprune.engine import Engine, Reference, make_plan
from spikeprune.runtime import jit


def together(*values):
    return [value for given in values for value in (given if isinstance(given, tuple | list) else (given,))]


@pytest.fixture
def planned():
    """Give the plan of a network after it was compared with the network on its example and on other batches."""

    def check(net, x, *others, forward=None, spikes=True):
        plan = make_plan(model_view(net, x, forward=forward))
        for batch in (x, *others):
            with torch.no_grad():
                eager = copy.deepcopy(net).eval()
                wanted = eager(batch) if forward is None else forward(eager, batch)
            for ours, theirs in zip(together(Reference(plan)(batch)), together(wanted), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
            if spikes:
                fired = assert_same_spikes(plan, net, batch, forward)
                assert batch is not x or all(fired.values()), f"neurons that never fire compare nothing: {fired}"
        if jit.available():
            assert_native(plan, x, *others)
        return plan

    return check


def assert_native(plan, *batches):
    """The engine's kernels, all at once and timestep by timestep, give what torch gives in float64."""
    engine = Engine.tuned(plan, batches[0])
    for batch in batches:
        agreement = engine.agreement(batch)
        assert agreement.flipped == 0, engine.explain()
        assert agreement.difference < 1e-5, engine.explain()
    if plan.timesteps > 1:
        assert_streams(engine, batches[0], atol=1e-5)


def assert_same_spikes(plan, net, batch, forward):
    """In float64, so that no rounding decides a spike."""
    run = Reference(plan, torch.double)
    values = run.values(batch.double())
    theirs, out = heard(doubled(net), batch.double(), plan.neurons, forward)
    for name, number in plan.neurons.items():
        assert torch.equal(values[number], theirs[name].double()), name
    for ours, wanted in zip(together(run(batch.double())), together(out), strict=True):
        torch.testing.assert_close(ours, wanted.double(), rtol=0, atol=1e-6)
    if plan.timesteps > 1:
        assert_streams(run, batch.double())
    return {name: int(theirs[name].sum()) for name in plan.neurons}


def assert_streams(run, batch, atol=1e-12):
    """The sum of the steps is the whole; of an output over time, the steps in a row are."""
    axis, plan = run.plan.input.time_axis, run.plan
    frames = [batch] * plan.timesteps if axis is None else batch.unbind(axis)
    whole = together(run(batch))
    run.reset()
    steps = zip(*(together(run.step(frame)) for frame in frames), strict=True)
    for number, want, found in zip(plan.outputs, whole, steps, strict=True):
        ours = torch.stack(found) if plan.operations[number].over_time else sum(found)
        torch.testing.assert_close(ours, want, rtol=0, atol=atol)
