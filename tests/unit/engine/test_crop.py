"""Averages whose windows leave rows or columns over: native all the same, and right at the far border."""

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import lively, noise, spikes
from spikeprune import model_view
from spikeprune.engine import compile, load_engine, make_plan, save_engine
from spikeprune.engine.crop import cropped
from spikeprune.engine.firing import spiking
from spikeprune.engine.kernels import KERNELS
from spikeprune.engine.plan import Crop
from spikeprune.runtime import jit

T = 4


def net(*pool, **options):
    parts = nn.Sequential(
        layer.Conv2d(2, 5, 3, padding=1), neuron.IFNode(v_threshold=0.5, v_reset=None), layer.AvgPool2d(*pool, **options),
        layer.Conv2d(5, 40, 3, padding=1), neuron.IFNode(v_threshold=0.3, v_reset=None),
        layer.Flatten(), layer.Linear(40 * 2 * 3, 3),
    )  # fmt: skip
    functional.set_step_mode(parts, "m")
    return lively(parts)


def crops(plan):
    return [op.shape for op in plan.operations if isinstance(op, Crop)]


@pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")
@pytest.mark.parametrize("kernel", ["scatter", "gather", "event patches", None])
def test_layers_behind_averages_that_leave_a_border_are_native(kernel, tmp_path):
    network, x = net(2), spikes(T, 3, 2, 5, 7)
    x[..., 4, :], x[..., 6] = 1, 1  # what must not be read
    engine = compile(network, x, kernel=kernel)
    assert crops(engine.plan) == [(5, 4, 6)]
    (behind,) = (choice for choice in engine.choices if choice.name == "3")
    assert behind.kernel in (KERNELS if kernel is None else {kernel})
    assert not any(choice.note for choice in engine.choices)
    found = engine.agreement(x)
    assert (found.flipped, found.difference < 1e-5) == (0, True)
    assert network(x).unique().numel() > 10
    save_engine(tmp_path / "net.engine", engine)
    assert torch.equal(load_engine(tmp_path / "net.engine")(x), engine(x))
    engine.reset()
    torch.testing.assert_close(torch.stack([engine.step(one) for one in x]), engine(x))


@pytest.mark.parametrize(
    ("pool", "options"),
    [((2,), {"padding": 1, "ceil_mode": False}), ((3,), {"stride": 2, "padding": 1}), ((2,), {"ceil_mode": True})],
)
def test_other_averages_stay_as_they_are(pool, options):
    windows = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.AvgPool2d(*pool, **options))
    plan = make_plan(model_view(windows, noise(1, 2, 5, 7), spiking=False))
    assert cropped(plan, set(range(len(plan.operations)))) is plan


def test_averages_of_what_is_no_spikes_stay_as_they_are():
    x = spikes(T, 1, 2, 5, 7)
    plan = make_plan(model_view(net(2), x))
    assert crops(cropped(plan, spiking(plan, x))) == [(5, 4, 6)]
    assert cropped(plan, set()) is plan
    whole = make_plan(model_view(net(2, ceil_mode=False), spikes(T, 1, 2, 4, 6)))
    assert cropped(whole, spiking(whole, spikes(T, 1, 2, 4, 6))) is whole  # nothing is left over
