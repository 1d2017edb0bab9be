"""Every network of the zoo as a plan, small."""

import pytest
import torch

from channel_nets import awake
from small_nets import noise, spikes
from spikeprune import model_view, zoo
from spikeprune.engine import Reference, make_plan
from spikeprune.engine.plan import Add, Outside, Pool, Readout, Scale

T = 2
IMAGES = {"vgg9": (3, 16, 16), "vgg11": (3, 32, 32), "vgg16": (3, 32, 32), "vggsnn": (2, 16, 16), "sca_dvs": (2, 32, 32)}


def built(name, **options):
    image = IMAGES.get(name, (3, 8, 8))
    net = awake(zoo.make(name, classes=3, image=image, width=1 / 32, timesteps=T, **options))
    lead = (T, 2) if net.coding == "events" else (2,)
    return net.eval(), noise(*lead, *image)


@pytest.mark.parametrize("name", [name for name in zoo.networks() if name not in ("vgg9", "vgg11")])
def test_networks_of_the_zoo(name):
    net, x = built(name)
    plan = make_plan(model_view(net, x))
    assert set(plan.neurons) == {n for n, m in net.named_modules() if "neuron" in n.split(".")[-1]}
    assert not any(isinstance(op, Outside) for op in plan.operations)
    assert plan.operations[-1].kind == "mean"
    more = noise(*x.shape[:-4], 3, *x.shape[-3:], seed=1)
    run = Reference(plan, torch.double)
    torch.testing.assert_close(run(more.double()), net.double()(more.double()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["vgg9", "vgg11"])
def test_a_network_that_draws_its_input_is_planned_from_the_draw(name):
    net, x = built(name, norm="gain", neuron=zoo.Neuron("if", threshold=0.2))
    plan = make_plan(model_view(net, x))
    assert (plan.input.drawn, plan.input.over_time, plan.input.shape) == (True, True, net.image)
    assert any("by chance" in note for note in plan.notes)
    assert not any(isinstance(op, Scale) for op in plan.operations)
    draws = spikes(T, 5, *net.image)
    net.coding = "events"
    torch.testing.assert_close(Reference(plan)(draws), net(draws), rtol=0, atol=1e-5)


def test_spikes_are_added_currents_too_and_votes_pool():
    spiking, x = built("sew_resnet18")
    operations = make_plan(model_view(spiking, x)).operations
    sums = [op for op in operations if isinstance(op, Add)]
    assert len(sums) == 8
    voting, x = built("six_conv_two_fc")
    operations = make_plan(model_view(voting, x)).operations
    pool, shaped, mean = operations[-3:]
    assert isinstance(pool, Pool)
    assert (pool.kernel, pool.shape, shaped.shape) == ((10,), (1, 3), (3,))
    assert isinstance(mean, Readout)


def test_the_twin_without_spikes_has_no_neurons():
    net = awake(zoo.make("vgg16", image=(3, 32, 32), width=1 / 32, timesteps=1, neuron=zoo.Neuron("relu")))
    plan = make_plan(model_view(net, noise(2, 3, 32, 32), spiking=False))
    assert plan.neurons == {}
    x = noise(3, 3, 32, 32, seed=1)
    torch.testing.assert_close(Reference(plan)(x), net.eval()(x), rtol=1e-4, atol=0)


def test_one_timestep_of_one_grey_image_is_no_batch_over_time():
    torch.manual_seed(0)
    net, x = zoo.make("vgg11", width=1 / 16, timesteps=1, image=(1, 32, 32), coding="direct"), torch.rand(1, 1, 32, 32)
    net.eval()
    plan = make_plan(model_view(net, x))
    assert plan.input.time_axis is None
    assert torch.allclose(Reference(plan)(x), net(x), atol=1e-5)
