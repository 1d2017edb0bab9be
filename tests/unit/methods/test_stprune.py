"""STPrune: widths are the dimensions of the averaged potential, and every width leads to a network that runs."""

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from channel_nets import Leaky, Residual, T, bare, jelly
from small_nets import noise, unroll
from spikeprune import Masks, Pruner, channel_masks, measure, model_view, prune, schedules, shrink
from spikeprune.errors import MeasureError, MethodError, SparsityError
from spikeprune.kernel.pca import leading, significant
from spikeprune.methods import Magnitude, STPrune, contraction

DATA = [noise(T, 24, 2, 4, 4, seed=1), noise(T, 8, 2, 4, 4, seed=2)]


def of_rank(rank, channels=12, inputs=20):
    """A layer whose output has so many dimensions, and a readout."""
    draw = torch.Generator().manual_seed(rank)
    net = nn.Sequential(nn.Linear(inputs, channels), snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(channels, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.randn(channels, rank, generator=draw) @ torch.randn(rank, inputs, generator=draw))
    return model_view(net, noise(T, 2, inputs), forward=unroll)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_a_layer_of_rank_r_becomes_r_wide(rank):
    view = of_rank(rank)
    masks = prune(view, STPrune(1 - 1e-6), calibration=[noise(T, 200, 20)])
    assert int(masks["0"].any(1).sum()) == rank
    small = shrink(view, masks, reinit=True)
    assert small[0].weight.shape == (rank, 20)
    assert small[2].weight.shape == (2, rank)


@pytest.mark.parametrize("reading", ["current", "charge"])
def test_widths_are_the_significant_dimensions_of_the_reading(reading):
    view, method = model_view(jelly(), noise(T, 2, 2, 4, 4)), STPrune(0.95, reading)
    stats = measure(view, DATA, method.needs)
    masks = method(view.channel_layers(), stats, Masks({}))
    for name in ("0", "3"):
        scatter = stats[name].current_scatter if reading == "current" else stats[name].charge_scatter
        alive = masks[name].flatten(1).any(1)
        assert int(alive.sum()) == significant(scatter, 0.95)
        assert set(alive.nonzero().flatten().tolist()) == set(leading(scatter)[: int(alive.sum())].tolist())
    assert masks == prune(view, method, calibration=DATA)


def test_the_readings_can_differ():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    stats = measure(view, DATA, STPrune().needs | STPrune(reading="charge").needs)
    layers, shares = view.channel_layers(), [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]
    found = {reading: [STPrune(share, reading).widths(layers, stats) for share in shares] for reading in ("current", "charge")}
    assert found["current"] != found["charge"]


def test_more_variance_never_takes_fewer_channels():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    stats = measure(view, DATA, STPrune().needs)
    widths = [STPrune(share).widths(view.channel_layers(), stats) for share in (0.3, 0.6, 0.9, 0.99, 1.0)]
    for name in ("0", "3"):
        found = [each[name] for each in widths]
        assert found == sorted(found)
        assert found[0] < found[-1]


def test_a_first_layer_is_bounded_by_what_it_reads():
    net = nn.Sequential(layer.Conv2d(1, 30, 2), neuron.IFNode(), layer.Flatten(), layer.Linear(30 * 9, 2))
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].bias.fill_(1000.0)  # sums are rounded, which is noise of every dimension
    view = model_view(net, noise(T, 2, 1, 4, 4))
    data = [noise(T, 40, 1, 4, 4)]
    assert significant(measure(view, data, STPrune().needs)["0"].current_scatter, 1.0) > 4
    assert int(prune(view, STPrune(1.0), calibration=data)["0"].flatten(1).any(1).sum()) == 4


@pytest.mark.parametrize("bend", ["resets", "a pool of maxima"])
def test_what_bends_the_path_adds_dimensions_and_is_not_bounded(bend):
    parts = [nn.Linear(2, 16), neuron.IFNode(v_reset=None), nn.Linear(16, 2)]
    if bend == "a pool of maxima":
        parts = [nn.Conv2d(1, 32, 3), nn.MaxPool2d(2), neuron.IFNode(), nn.Flatten(), nn.Linear(32 * 9, 2)]
    torch.manual_seed(0)
    shape, reading = ((2,), "charge") if bend == "resets" else ((1, 8, 8), "current")
    view = model_view(nn.Sequential(*parts), noise(T, 2, *shape), forward=unroll)
    method = STPrune(0.9999, reading)
    data = [noise(T, 300, *shape)]
    inputs = view.layers[0].weight[0].numel()
    assert method.widths(view.channel_layers(), measure(view, data, method.needs))["0"] > inputs


def test_a_residual_family_shares_its_width():
    view = model_view(Residual(), noise(T, 2, 2, 4, 4))
    method = STPrune(0.8)
    masks = prune(view, method, calibration=DATA)
    assert torch.equal(masks["conv1"].flatten(1).any(1), masks["conv2"].flatten(1).any(1))
    assert set(method.widths(view.channel_layers(), measure(view, DATA, method.needs))) == {"conv1", "conv3"}
    shrink(view, masks, calibration=DATA)  # passes its certificate


@pytest.mark.parametrize("make", [jelly, bare, Leaky])
def test_leading_channels_give_a_network_that_runs(make):
    shape = (7,) if make is Leaky else (2, 4, 4)
    data = [noise(T, 40, *shape)]
    view = model_view(make(), noise(T, 2, *shape))
    small = shrink(view, prune(view, STPrune(0.7), calibration=data), calibration=data)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in view.net.parameters())


def test_what_is_dead_stays_dead():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    dead = channel_masks(view, {"3": torch.tensor([True, False, False, False, True, False])})
    masks = prune(view, STPrune(1.0), calibration=DATA, masks=dead)
    assert not bool(masks["3"][[1, 2, 3, 5]].any())
    assert 1 <= int(masks["3"].flatten(1).any(1).sum()) <= 2


def test_a_dead_channel_is_no_dimension():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    with torch.no_grad():
        for norm in (view.net[4].weight, view.net[4].bias):
            norm[2] = 0.0
    masks = prune(view, STPrune(1.0), calibration=DATA)
    assert masks["3"].flatten(1).any(1).tolist() == [True, True, False, True, True, True]


def test_a_dead_layer_is_refused_by_name():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    with torch.no_grad():
        view.net[4].weight.zero_()
    with pytest.raises(MeasureError, match="layer '3': none of the 6 channels varies"):
        prune(view, STPrune(), calibration=DATA)


def test_too_few_places_are_refused_with_a_number():
    view = of_rank(3)
    with pytest.raises(MeasureError, match=r"12 channels, but .* only 12 places .* Give it 100 times"):
        prune(view, STPrune(), calibration=[noise(T, 12, 20)])
    prune(view, STPrune(), calibration=[noise(T, 13, 20)])


@pytest.mark.parametrize("variance", [0, -0.1, 1.01, True, "0.9", float("nan")])
def test_a_variance_that_is_no_share_is_refused(variance):
    with pytest.raises(MethodError, match="variance"):
        STPrune(variance)


def test_an_unknown_reading_is_refused():
    with pytest.raises(MethodError, match="current, charge"):
        STPrune(reading="spikes")


def test_a_sparsity_means_nothing_to_it():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    with pytest.raises(SparsityError, match="STPrune takes from the data"):
        prune(view, STPrune(), 0.5, calibration=DATA)
    with pytest.raises(MethodError, match=r"STPrune takes from the data.* prune"):
        Pruner(view, STPrune(), schedules.staircase({1000: 0.5}), calibration=DATA)
    with pytest.raises(SparsityError, match="set variance"):
        STPrune()(view.channel_layers(), measure(view, DATA, STPrune().needs), Masks({}), 0.5)


def test_others_need_one():
    with pytest.raises(SparsityError, match="Magnitude needs a sparsity"):
        prune(model_view(jelly(), noise(T, 2, 2, 4, 4)), Magnitude())


def test_where_dimensions_begin_to_fall():
    assert contraction({"a": 3, "b": 3, "c": 2, "d": 1}) == "c"
    assert contraction({"a": 3, "b": 4}) is None
    assert contraction({"a": 3}) is None
