"""SCA: its counts, whom it keeps and brings back, and what becomes of dead channels in training, held or soft."""

import copy
from types import SimpleNamespace

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from channel_nets import HalfBare, Leaky, Residual, T, awake, bare, jelly, labels, loss_fn
from small_nets import noise
from spikeprune import Masks, Need, Pruner, hold, measure, model_view, prune
from spikeprune.errors import MethodError, NonFinite, NoPrunableLayers, NotMeasured, SparsityError
from spikeprune.kernel.patterns import Channel, living, rows
from spikeprune.kernel.schedules import cubic, every, stages
from spikeprune.methods import SCA, Activity
from spikeprune.methods.sca import activity, whole
from spikeprune.recipes.rundir import RunDir
from spikeprune.view.layer import Layer, Layout, Norm

N = 8
X, Y = noise(T, N, 2, 4, 4), labels(N)
DATA = {"calibration": [(X, Y)], "loss_fn": loss_fn}
VGG16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
YES, NO = True, False


def wide(name, channels, family=None):
    """A layer of so many output channels, each of two weights, with a norm of its own."""
    norm = Norm(f"{name}.norm", nn.BatchNorm2d(channels))
    return Layer(name, nn.Conv2d(2, channels, 1, bias=False), Layout.ONCE, family=family or name, norms=(norm,), bare=False)


def found(membrane, rate=None, gain=None):
    """Statistics of a layer's channels."""
    like = torch.as_tensor(membrane, dtype=torch.double)
    rate, gain = (torch.zeros_like(like) if x is None else torch.as_tensor(x, dtype=torch.double) for x in (rate, gain))
    return SimpleNamespace(channel_membrane=like, channel_rate=rate, gain_gradient=gain)


def drawn(layers, seed=0):
    """Statistics without ties; no gradient is zero."""
    draw = torch.Generator().manual_seed(seed)
    return {
        x.name: found(*(torch.rand(x.weight.shape[0], generator=draw, dtype=torch.double) + 1e-9 for _ in range(3)))
        for x in layers
    }


def channels(masks):
    """Which channels of each layer live."""
    return {name: living(Channel(), mask).tolist() for name, mask in masks.items()}


def alive(masks):
    return {name: sum(mask) for name, mask in channels(masks).items()}


def without(**dead):
    """Masks of layers of four channels, without the channels named."""
    units = {name: torch.ones(4, dtype=torch.bool).index_fill(0, torch.tensor(gone), NO) for name, gone in dead.items()}
    masks = {name: rows(kept, torch.empty(4, 2, 1, 1)) for name, kept in units.items()}
    return Masks(masks, {name: {f"{name}.norm.weight": kept} for name, kept in units.items()})


# Counts


def test_of_the_4224_channels_of_vgg16_the_papers_shares_keep_3801():
    layers = [wide(f"conv{i}", width) for i, width in enumerate(VGG16)]
    method, seen = SCA(regrow=0.1), []
    for soft in (False, True):
        masks = Masks({})
        for seed in range(3):
            masks = SCA(regrow=0.1, soft=soft)(layers, drawn(layers, seed), masks, 0.1)
            seen.append(sum(alive(masks).values()))
    assert seen == [3801] * 6
    assert sum(VGG16) == 4224
    assert (whole(4224, 0.8), whole(4224, method.regrow)) == (3379, 422)


@pytest.mark.parametrize(
    ("sparsity", "regrow", "kept"), [(0.7, 0.2, 422 + 844), (0.1, 0.1, 3801), (0.5, 0.0, 2112), (0.0, 0.3, 4223)]
)
def test_counts_are_rounded_down_each_by_itself(sparsity, regrow, kept):
    layers = [wide(f"conv{i}", width) for i, width in enumerate(VGG16)]
    assert sum(alive(SCA(regrow=regrow)(layers, drawn(layers), Masks({}), sparsity)).values()) == kept


@pytest.mark.parametrize(
    ("units", "share", "count"), [(100, 0.29, 29), (10, 0.3, 3), (10, 1 - 0.6 - 0.1, 3), (7, 0.5, 3), (9, 0.0, 0), (9, 1.0, 9)]
)
def test_a_share_of_units_is_whole_for_all_that_floats_say(units, share, count):
    assert whole(units, share) == count


@pytest.mark.parametrize("soft", [False, True])
def test_the_masks_never_exceed_the_share_that_is_kept(soft):
    layers = [wide("a", 17), wide("b", 5), wide("c", 31)]
    for seed in range(40):
        sparsity, regrow = 0.02 * seed, 0.01 * (seed % 10)
        masks = Masks({})
        for again in range(4):
            masks = SCA(regrow=regrow, soft=soft)(layers, drawn(layers, 100 * seed + again), masks, sparsity)
            kept = sum(alive(masks).values())
            assert kept <= 53 * (1 - sparsity) + 1e-6
            assert kept == whole(53, 1 - sparsity - regrow) + whole(53, regrow)


# Whom it keeps


A, B = wide("a", 4), wide("b", 4)


MIXED = {"a": found([0.5, 0.1, 0.2, 0.3], [0.4, 0.1, 0.0, 0.9]), "b": found([0.9, 0.8, 0.4, 0.1], [0.0, 0.2, 0.6, 0.0])}


def test_the_most_active_stay_by_one_threshold_for_all_layers():
    masks = SCA(regrow=0)([A, B], MIXED, Masks({}), 0.5)  # activity: .9 .2 .2 1.2 and .9 1. 1. .1
    assert channels(masks) == {"a": [YES, NO, NO, YES], "b": [NO, YES, YES, NO]}


def test_without_spikes_the_choice_is_another():
    masks = SCA(regrow=0, spikes=False)([A, B], MIXED, Masks({}), 0.5)
    assert channels(masks) == {"a": [YES, NO, NO, NO], "b": [YES, YES, YES, NO]}


def test_a_channel_far_below_the_threshold_counts_as_active():
    """The score takes the membrane's size, so that one that never fires may score highest; that is the authors' code."""
    stats = {"a": found([5.0, 0.1, 0.2, 0.3], [0.0, 0.9, 0.9, 0.9])}
    assert channels(SCA(regrow=0)([A], stats, Masks({}), 0.5)) == {"a": [YES, NO, NO, YES]}


def test_ties_go_to_the_earlier_layer_and_the_lower_index():
    stats = {"a": found([1.0] * 4, gain=[1.0] * 4), "b": found([1.0] * 4, gain=[1.0] * 4)}
    masks = SCA(regrow=0.125)([A, B], stats, Masks({}), 0.375)
    assert channels(masks) == {"a": [YES] * 4, "b": [YES, NO, NO, NO]}  # four, of which the first of each; then one


# Whom it brings back


def test_of_the_dead_those_come_back_whose_gain_wants_back_most():
    # Of eight channels four stay, those of activity 4 and more; two come back.
    stats = {
        "a": found([6.0, 5.0, 1.0, 2.0], gain=[9.0, 9.0, 0.3, 0.1]),
        "b": found([7.0, 4.0, 3.0, 0.0], gain=[9.0, 9.0, 0.2, 0.4]),
    }
    masks = SCA(regrow=0.25)([A, B], stats, Masks({}), 0.25)
    assert channels(masks) == {"a": [YES, YES, YES, NO], "b": [YES, YES, NO, YES]}


def test_none_comes_back_whose_gradient_is_zero():
    stats = {
        "a": found([6.0, 5.0, 1.0, 2.0], gain=[9.0, 9.0, 0.0, 0.0]),
        "b": found([7.0, 4.0, 3.0, 0.0], gain=[9.0, 9.0, 0.0, 0.4]),
    }
    assert channels(SCA(regrow=0.25)([A, B], stats, Masks({}), 0.25)) == {"a": [YES, YES, NO, NO], "b": [YES, YES, NO, YES]}


def test_a_dead_channel_can_only_be_brought_back_whatever_its_activity():
    dead = without(a=[0], b=[0])
    stats = {
        "a": found([9.0, 3.0, 2.0, 1.0], gain=[0.0, 1.0, 1.0, 1.0]),
        "b": found([9.0, 3.0, 2.0, 1.0], gain=[0.1, 0.0, 0.0, 0.0]),
    }
    # Four stay of those alive: 3 and 2 of each. Of the dead two come back: b's first, and a's last, which was just cut.
    masks = SCA(regrow=0.25)([A, B], stats, dead, 0.25)
    assert channels(masks) == {"a": [NO, YES, YES, YES], "b": [YES, YES, YES, NO]}
    # Soft, the dead compete like any other.
    masks = SCA(regrow=0.25, soft=True)([A, B], stats, dead, 0.25)
    assert channels(masks) == {"a": [YES, YES, YES, YES], "b": [YES, YES, NO, NO]}


@pytest.mark.parametrize("soft", [False, True])
def test_those_that_come_back_were_cut(soft):
    layers = [wide("a", 17), wide("b", 5), wide("c", 31)]
    masks = Masks({})
    for seed in range(12):
        stats, earlier = drawn(layers, seed), masks
        stayed = SCA(regrow=0, soft=soft)(layers, stats, earlier, 0.5 + 0.2 + 1e-9)  # what is left before any comes back
        masks = SCA(regrow=0.2, soft=soft)(layers, stats, earlier, 0.5)
        growth = {x.name: stats[x.name].gain_gradient for x in layers}
        back, out = [], []
        for name, mask in channels(masks).items():
            before = torch.tensor(channels(stayed)[name])
            assert not (before & ~torch.tensor(mask)).any()  # who stayed, stays
            back.append(growth[name][~before & torch.tensor(mask)])
            out.append(growth[name][~before & ~torch.tensor(mask)])
        assert sum(map(len, back)) == whole(53, 0.2)
        assert torch.cat(back).min() > torch.cat(out).max()


def test_from_the_stop_on_none_comes_back():
    layers = [wide("a", 17), wide("b", 13)]
    method = SCA(regrow=0.2, stop=10)
    assert [method.at(step).share for step in (0, 9, 10, 11)] == [0.2, 0.2, 0.0, 0.0]
    assert SCA(regrow=0.2).at(10**9).share == 0.2
    for soft in (False, True):
        masks = SCA(regrow=0.2, stop=10, soft=soft)(layers, drawn(layers), Masks({}), 0.4)
        for step, seed in ((5, 1), (9, 2)):
            earlier, masks = masks, SCA(regrow=0.2, stop=10, soft=soft).at(step)(layers, drawn(layers, seed), masks, 0.4)
            assert masks != earlier
        for step, seed in ((10, 3), (20, 4)):
            earlier, masks = masks, SCA(regrow=0.2, stop=10, soft=soft).at(step)(layers, drawn(layers, seed), masks, 0.4)
            assert masks == earlier
        rising = SCA(regrow=0.2, stop=10, soft=soft).at(30)(layers, drawn(layers, 5), masks, 0.6)
        assert sum(alive(rising).values()) == 12
        assert not any((mask & ~masks[name]).any() for name, mask in rising.items())


def test_with_rising_sparsity_masks_nest_but_for_those_that_come_back():
    layers = [wide("a", 40), wide("b", 24), wide("c", 16)]
    schedule, masks, counts = cubic(0.8, start=0, stop=100, every=20, initial=0.2), Masks({}), []
    for step in range(0, 101, 20):
        stats, earlier, sparsity = drawn(layers, step), masks, schedule(step)
        masks = SCA(regrow=0.05)(layers, stats, earlier, sparsity)
        new = sum(int((mask & ~earlier.get(name, mask)).any((1, 2, 3)).sum()) for name, mask in masks.items())
        assert new <= 4
        plain = SCA(regrow=0)(layers, stats, earlier, sparsity)
        assert not any((mask & ~earlier.get(name, mask)).any() for name, mask in plain.items())
        counts.append(sum(alive(masks).values()))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 16


# Limits


def test_without_regrowth_it_is_activity_alone():
    layers = [wide("a", 17), wide("b", 3), wide("c", 30)]
    for seed in range(5):
        masks, plain, stats = Masks({}), Masks({}), drawn(layers, seed)
        for sparsity in (0.0, 0.3, 0.6, 0.94):
            masks, plain = SCA(regrow=0)(layers, stats, masks, sparsity), Activity()(layers, stats, plain, sparsity)
            assert masks == plain


def test_every_layer_keeps_its_best_at_the_highest_sparsity():
    layers = [wide("a", 5), wide("b", 4), wide("c", 11)]
    stats = {"a": found([9.0] * 5), "b": found([1e-9, 3e-9, 2e-9, 0.0]), "c": found([0.0] * 11)}
    masks = SCA(regrow=0)(layers, stats, Masks({}), 0.85)
    assert alive(masks) == {"a": 1, "b": 1, "c": 1}
    assert channels(masks)["b"] == [NO, YES, NO, NO]
    assert alive(SCA(regrow=0)(layers, stats, Masks({}), 0.5)) == {"a": 5, "b": 4, "c": 1}  # ten places, the best first


def test_of_a_layer_that_was_cut_down_the_best_of_the_living_stays():
    stats = {"a": found([9.0] * 4), "b": found([5.0, 1.0, 2.0, 3.0])}
    masks = SCA(regrow=0)([A, B], stats, without(b=[0, 3]), 0.625)
    assert channels(masks) == {"a": [YES, YES, NO, NO], "b": [NO, NO, YES, NO]}


@pytest.mark.parametrize(
    ("sparsity", "regrow", "told"),
    [
        (0.9, 0.0, r"sparsity 0\.9 lets 2 of 20 channels stay besides those regrown, fewer than one for each of 3 layers"),
        (0.8, 0.1, r"sparsity 0\.8 lets 2 of 20 channels stay"),
        (0.9, 0.3, r"sparsity 0\.9 lets 0 of 20 channels stay besides those regrown.* lower sparsity, or regrow less"),
    ],
)
def test_more_than_leaves_every_layer_one_is_refused_with_the_numbers(sparsity, regrow, told):
    layers = [wide("a", 5), wide("b", 4), wide("c", 11)]
    with pytest.raises(SparsityError, match=told):
        SCA(regrow=regrow)(layers, drawn(layers), Masks({}), sparsity)


@pytest.mark.parametrize("regrow", [-0.1, 1.0, 1.5, float("nan"), True])
def test_a_share_that_is_none_is_refused(regrow):
    with pytest.raises(SparsityError, match=r"regrow is .*, but must lie in \[0, 1\)"):
        SCA(regrow=regrow)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", ["channel_membrane", "channel_rate"])
def test_activity_that_is_no_number_is_refused(which, value):
    stats = drawn([A, B])
    getattr(stats["b"], which)[2] = value
    for method in (SCA(), Activity()):
        with pytest.raises(NonFinite, match=r"activity of layer 'b' is NaN or infinite\. Check the calibration batches"):
            method([A, B], stats, Masks({}), 0.3)
    if which == "channel_rate":
        assert activity(stats, B, spikes=False).isfinite().all()


def test_a_growth_that_is_no_number_is_refused():
    stats = drawn([A, B])
    stats["b"].gain_gradient[:] = torch.nan
    with pytest.raises(NonFinite):
        SCA(regrow=0.3)([A, B], stats, Masks({}), 0.3)


# Families


def test_added_channels_are_judged_by_their_means_and_decided_together():
    layers = [wide("a", 4, "a"), wide("b", 4, "a"), wide("c", 3)]
    stats = {
        "a": found([8.0, 1.0, 3.0, 0.0], gain=[1.0, 0.0, 4.0, 1.0]),
        "b": found([0.0, 9.0, 3.0, 1.0], gain=[1.0, 0.0, 0.0, 4.0]),
        "c": found([4.5, 0.1, 0.2], gain=[0.0, 2.2, 0.0]),
    }
    # Of seven channels, not eleven, three stay: 5, 4.5, 4. Two come back: growth 2.5 and 2.2, before 2.
    masks = SCA(regrow=2 / 7)(layers, stats, Masks({}), 2 / 7)
    assert channels(masks) == {"a": [YES, YES, NO, YES], "b": [YES, YES, NO, YES], "c": [YES, YES, NO]}
    assert masks.held["a.norm.weight"].tolist() == masks.held["b.norm.bias"].tolist() == [YES, YES, NO, YES]


def test_a_channel_of_added_layers_is_dead_when_it_is_in_all_of_them():
    layers = [wide("a", 4, "a"), wide("b", 4, "a")]
    for one in ("a", "b"):
        row = Masks({one: rows(torch.tensor([NO, YES, YES, YES]), A.weight)})  # single weights were pruned, a whole row
        masks = SCA(regrow=0)(layers, {"a": found([9.0, 1.0, 2.0, 3.0]), "b": found([9.0, 1.0, 2.0, 3.0])}, row, 0.5)
        assert channels(masks) == {"a": [YES, NO, NO, YES], "b": [YES, NO, NO, YES]}


def test_on_a_network_added_layers_get_the_same_channels():
    view = model_view(Residual(), X)
    stats = measure(view, [(X, Y)], SCA().needs, loss_fn=loss_fn)
    masks = prune(view, SCA(regrow=0.12), 0.4, **DATA)
    assert channels(masks)["conv1"] == channels(masks)["conv2"]
    assert sum(alive(masks).values()) - alive(masks)["conv2"] == 4 + 1  # of 9: int(4.32) and int(1.08)
    assert torch.equal(stats["conv1"].channel_membrane, stats["conv2"].channel_membrane)
    assert masks.held["norm1.bias"].tolist() == masks.held["norm2.weight"].tolist() == channels(masks)["conv1"]


# Needs and refusals


def test_what_it_needs():
    assert SCA().needs == {Need.CHANNEL_MEMBRANE, Need.CHANNEL_RATE, Need.GAIN_GRADIENT}
    assert SCA(spikes=False).needs == {Need.CHANNEL_MEMBRANE, Need.GAIN_GRADIENT}
    assert SCA(regrow=0).needs == Activity().needs == {Need.CHANNEL_MEMBRANE, Need.CHANNEL_RATE}
    assert SCA(stop=5).at(5).needs == SCA(regrow=0).needs
    assert Activity(spikes=False).needs == {Need.CHANNEL_MEMBRANE}
    assert SCA(0.2, stop=3).at(7) == SCA(0.2, stop=3, step=7)
    with pytest.raises(MethodError, match="allocation is 'global'"):
        Activity(allocation="global")


def test_a_layer_without_a_norm_is_named():
    view = model_view(bare(), X)
    with pytest.raises(MethodError, match=r"layer '0' has none\. Leave it out"):
        prune(view, SCA(), 0.3, **DATA)
    assert alive(prune(view, Activity(), 0.5, calibration=[X])) != {}
    part = nn.Sequential(*jelly()[:6], *bare()[2:])  # a normed convolution of 6, then one without
    part[6] = type(part[6])(6, 3, 1, step_mode="m")
    view = model_view(awake(part), X)
    with pytest.raises(MethodError, match=r"layer '6' has none"):
        prune(view, SCA(), 0.3, **DATA)
    assert prune(view, SCA(), 0.3, layers=["0", "3"], **DATA).keys() == {"0", "3"}


def test_half_a_family_is_refused():
    view = model_view(Residual(), X)
    with pytest.raises(NoPrunableLayers, match=r"'conv1' can only be removed together with those of conv2; name them too"):
        Pruner(view, SCA(), every(0.3, 1), layers=["conv1", "conv3"], **DATA)
    assert prune(view, SCA(), 0.3, layers=["conv[12]"], **DATA).keys() == {"conv1", "conv2"}


def test_frozen_gains_cannot_say_who_wants_back():
    view = model_view(jelly(), X)
    view.net[1].weight.requires_grad_(False)
    with pytest.raises(NotMeasured, match=r"gain_gradient of layer '0' was not gathered.*no norm whose gain takes gradients"):
        prune(view, SCA(), 0.3, **DATA)
    assert sum(alive(prune(view, SCA(regrow=0), 0.5, calibration=[X])).values()) == 5  # of 11, and no loss is asked for


def test_activity_without_neurons_is_refused():
    view = model_view(
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(2, 4), spiking=False
    )
    for method in (SCA(regrow=0), Activity()):
        with pytest.raises(NotMeasured, match=r"layer '0' was not gathered.*pass no neuron"):
            prune(view, method, 0.3, calibration=[torch.rand(2, 4)])


def test_the_spikes_matter_on_a_network():
    view = model_view(jelly(), X)
    with_, without_ = (prune(view.clone(), Activity(spikes=spikes), 0.5, calibration=[X]) for spikes in (True, False))
    assert sum(alive(with_).values()) == sum(alive(without_).values())
    assert with_ != without_


# In training, held


OPTIMIZERS = {
    "SGD": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.02),
}


def train(view, optimizer, pruner=None, steps=1):
    view.net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(view(X), Y).backward()
        optimizer.step()
        if pruner is not None:
            pruner.step()


def started(make=jelly, method=None, optimizer="SGD", every_=3):
    """A network in training, pruned at its third step, with the optimizer's memory of what is dead now."""
    view = model_view(make(), X)
    optimizer = OPTIMIZERS[optimizer](view.net.parameters())
    pruner = Pruner(view, method or SCA(regrow=0.1), every(0.4, every_, start=2), **DATA).attach(optimizer)
    train(view, optimizer, pruner, 3)
    return view, optimizer, pruner


def cut_by_hand(view, masks):
    """A copy whose readers see nothing of the dead channels: these are removed, whatever they emit."""
    twin = view.clone()
    for family in twin.graph.families:
        for use in family.readers if family.why is None else ():
            gone = ~living(Channel(), masks[family.name]).repeat_interleave(use.repeat)
            weight = twin.net.get_parameter(f"{use.module}.weight")
            weight.data[:, use.offset : use.offset + len(gone)][:, gone] = 0
    return twin


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make", [jelly, Residual, HalfBare])
def test_dead_channels_stay_silent_between_updates(make, optimizer):
    view, optimizer, pruner = started(make, optimizer=optimizer, every_=100)
    dead = {name: ~held for name, held in pruner.masks.held.items()}
    assert all(gone.any() for gone in dead.values())
    for _ in range(4):
        train(view, optimizer, pruner)
        assert not any(param[dead[name]].any() for name, param in pruner.masks.parameters(view.net))
    view.net.eval()
    torch.testing.assert_close(view(X), cut_by_hand(view, pruner.masks)(X), rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_dead_channels_weights_get_no_gradient_and_move_by_momentum_alone(optimizer):
    view, optimizer, pruner = started(optimizer=optimizer, every_=100)
    gone = ~living(Channel(), pruner.masks["3"])
    before = view.net[3].weight.detach().clone()
    train(view, optimizer, pruner)
    assert not view.net[3].weight.grad[gone].any()
    assert (view.net[3].weight != before)[gone].any()  # what the optimizer remembers moves them
    optimizer.state.clear()
    before = view.net[3].weight.detach().clone()
    train(view, optimizer, pruner, 3)
    assert torch.equal(view.net[3].weight[gone], before[gone])
    assert (view.net[3].weight != before)[~gone].any()


@pytest.mark.parametrize("make", [jelly, Residual, HalfBare])
def test_a_dead_channel_can_be_told_by_its_gain(make):
    """What regrowth lives on: gain and shift at zero, and the loss still feels the gain."""
    view, optimizer, pruner = started(make, every_=100)
    train(view, optimizer, pruner, 3)
    stats = measure(view, [(X, Y)], {Need.GAIN_GRADIENT}, loss_fn=loss_fn)
    for name, mask in pruner.masks.items():
        if name in view.graph.of(name).layers:
            assert (stats[name].gain_gradient[~living(Channel(), mask)] > 0).all()


def silence(view, pruner, *, weights):
    """Dead channels as they are at an update: gains and shifts zero, and with them the weights, or not."""
    for name, mask in pruner.masks.items():
        if weights:
            view.net.get_parameter(f"{name}.weight").data.masked_fill_(~mask, 0)
    view.net.train()
    view.net.zero_grad()
    loss_fn(view(X), Y).backward()
    norm = {"0": "1", "3": "4"}
    return {
        name: view.net.get_parameter(f"{norm[name]}.weight").grad[~living(Channel(), mask)] for name, mask in pruner.masks.items()
    }


@pytest.mark.parametrize("weights", [False, True])
def test_twin_with_weights_at_zero_too_no_gain_is_felt(weights):
    """The negative twin: weights, gain and shift at zero leave the shift alone a gradient, in training mode."""
    view, _, pruner = started()
    view.net[3].bias = None  # as in the paper's networks
    gradients = silence(view, pruner, weights=weights)
    shift = view.net[4].bias.grad[~living(Channel(), pruner.masks["3"])]
    assert all(len(gradient) for gradient in gradients.values())
    assert (shift != 0).any()
    assert all(bool((gradient != 0).any()) != weights for gradient in gradients.values())


def test_twin_without_momentum_such_a_channel_never_moves():
    view = model_view(jelly(), X)
    view.net[3].bias = None
    optimizer = torch.optim.SGD(view.net.parameters(), lr=0.5)
    soft = Pruner(view, SCA(regrow=0, soft=True), every(0.4, 100, start=0), calibration=[(X, Y)])
    soft.step()
    gone = ~living(Channel(), soft.masks["3"])
    train(view, optimizer, None, 3)
    for param in (view.net[3].weight, view.net[4].weight):
        assert param.grad is not None
    # The shift moves, and with it alone the channel may fire; weights wait for the gain, and the gain for weights.
    assert view.net[4].bias[gone].any()
    assert not view.net[3].weight[gone].any()
    assert not view.net[4].weight[gone].any()


def test_the_just_cut_keep_gain_and_shift_if_they_come_back_at_once():
    view = model_view(jelly(), X)
    before = {name: param.detach().clone() for name, param in view.net.named_parameters()}
    pruner = Pruner(view, SCA(regrow=0.35), every(0.0, 1), **DATA)
    pruner.step()
    assert sum(alive(pruner.masks).values()) == 7 + 3
    for name, param in pruner.masks.parameters(view.net):
        assert torch.equal(param[pruner.masks.held[name]], before[name][pruner.masks.held[name]])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_comes_back_is_what_it_was(optimizer):
    view, optimizer, pruner = started(optimizer=optimizer, every_=4, method=SCA(regrow=0.2))
    when_cut = {}  # by parameter and entry, its value when it was cut last
    back = 0
    for _ in range(24):
        before = {name: param.detach().clone() for name, param in view.net.named_parameters()}
        earlier = dict(pruner.masks.held)
        view.net.train()
        optimizer.zero_grad()
        loss_fn(view(X), Y).backward()
        optimizer.step()
        before = {name: param.detach().clone() for name, param in view.net.named_parameters()}
        if not pruner.step():
            continue
        for name, held in pruner.masks.held.items():
            now = view.net.get_parameter(name)
            for i in (earlier[name] & ~held).nonzero().flatten().tolist():
                when_cut[name, i] = before[name][i].item()
            for i in (~earlier[name] & held).nonzero().flatten().tolist():
                back += 1
                if (name, i) in when_cut:
                    assert now[i].item() == when_cut[name, i] != 0
                    assert not any(
                        s[i].item() for s in optimizer.state[now].values() if torch.is_tensor(s) and s.shape == now.shape
                    )
                else:
                    assert now[i].item() != 0  # cut at the first update
    assert back > 0


def test_a_run_that_goes_on_from_disk_is_the_unbroken_one(tmp_path):
    view, optimizer, pruner = started(every_=3, method=SCA(regrow=0.2, stop=14))
    train(view, optimizer, pruner, 5)
    twin, folder = view.clone(), RunDir(tmp_path)
    folder.checkpoint(view.net, optimizer, pruner.state_dict(), {"label": "a"})
    train(view, optimizer, pruner, 12)

    other = OPTIMIZERS["SGD"](twin.net.parameters())
    resumed = Pruner(twin, SCA(regrow=0.2, stop=14), every(0.4, 3, start=2), **DATA).attach(other)
    state, _ = folder.resume("a", twin.net, other)
    resumed.load_state_dict(state)
    train(twin, other, resumed, 12)
    assert resumed.masks == pruner.masks
    assert all(torch.equal(value, twin.net.state_dict()[name]) for name, value in view.net.state_dict().items())


def test_updates_keep_the_count_and_exchange_channels():
    view, optimizer, pruner = started(every_=2, method=SCA(regrow=0.2))
    seen, counts = set(), set()
    for _ in range(8):
        train(view, optimizer, pruner, 2)
        seen.add(str(channels(pruner.masks)))
        counts.add(sum(alive(pruner.masks).values()))
        assert min(alive(pruner.masks).values()) >= 1
    assert counts == {4 + 2}  # of 11: int(4.4) and int(2.2)
    assert len(seen) > 1


def test_on_snntorch():
    x = 2 * noise(T, N, 7)
    view = model_view(Leaky(), x)
    optimizer = torch.optim.Adam(view.net.parameters(), lr=0.02)
    pruner = Pruner(view, SCA(regrow=0.2), stages([0.2, 0.5], every=1), calibration=[(x, Y)], loss_fn=loss_fn).attach(optimizer)
    for _ in range(3):
        view.net.train()
        optimizer.zero_grad()
        loss_fn(view(x), Y).backward()
        optimizer.step()
        pruner.step()
    assert sum(alive(pruner.masks).values()) == 3 + 2  # of 11: int(3.3) and int(2.2)
    view.net.eval()
    torch.testing.assert_close(view(x), cut_by_hand(view, pruner.masks)(x), rtol=0, atol=1e-6)


# In training, soft


def test_soft_sets_weights_gain_and_shift_to_zero_once_and_lets_them_train_on():
    view = model_view(jelly(), X)
    optimizer = OPTIMIZERS["SGD"](view.net.parameters())
    pruner = Pruner(view, SCA(soft=True), every(0.4, 100, start=2), **DATA).attach(optimizer)
    train(view, optimizer, pruner, 3)
    assert pruner.masks.held.keys() == {"0.weight", "1.weight", "1.bias", "3.weight", "4.weight", "4.bias"}
    dead = {name: ~held for name, held in pruner.masks.held.items()}
    assert not any(param[dead[name]].any() for name, param in pruner.masks.parameters(view.net))
    for name, units in channels(pruner.masks).items():
        assert pruner.masks.held[f"{name}.weight"].flatten(1).all(1).tolist() == units
    train(view, optimizer, pruner, 2)
    assert all(param[gone].any() for (_, param), gone in zip(pruner.masks.parameters(view.net), dead.values(), strict=True))


def test_soft_what_comes_back_keeps_what_training_made_of_it():
    view = model_view(jelly(), X)
    optimizer = OPTIMIZERS["SGD"](view.net.parameters())
    pruner = Pruner(view, SCA(regrow=0.3, soft=True), every(0.4, 3, start=2), **DATA).attach(optimizer)
    train(view, optimizer, pruner, 3)
    back = 0
    for _ in range(6):
        train(view, optimizer, pruner, 2)
        optimizer.zero_grad()
        loss_fn(view(X), Y).backward()
        optimizer.step()
        before, earlier = copy.deepcopy(view.net.state_dict()), dict(pruner.masks.held)
        pruner.step()
        for name, param in pruner.masks.parameters(view.net):
            held = pruner.masks.held[name]
            assert torch.equal(param[held], before[name][held])
            assert not param[~held].any()
            back += int((held & ~earlier[name]).sum())
    assert back > 0


def test_soft_the_masks_applied_again_remove_what_has_trained_on():
    view = model_view(jelly(), X)
    optimizer = OPTIMIZERS["Adam"](view.net.parameters())
    pruner = Pruner(view, SCA(soft=True), every(0.4, 100, start=2), **DATA)
    train(view, optimizer, pruner, 4)
    view.net[4].bias.data[~living(Channel(), pruner.masks["3"])] = 2.0  # so much that it fires
    view.net.eval()
    cut = cut_by_hand(view, pruner.masks)(X)
    assert not torch.allclose(view(X), cut, atol=1e-3)
    pruner.masks.apply_(view.net)
    torch.testing.assert_close(view(X), cut, rtol=0, atol=1e-6)


def test_soft_a_run_that_goes_on_from_disk_is_the_unbroken_one(tmp_path):
    view, optimizer, pruner = started(every_=4, method=SCA(regrow=0.2, soft=True))
    train(view, optimizer, pruner, 2)  # what is dead has trained on
    twin, folder = view.clone(), RunDir(tmp_path)
    folder.checkpoint(view.net, optimizer, pruner.state_dict(), {"label": "a"})
    train(view, optimizer, pruner, 4)

    other = OPTIMIZERS["SGD"](twin.net.parameters())
    resumed = Pruner(twin, SCA(regrow=0.2, soft=True), every(0.4, 4, start=2), **DATA).attach(other)
    state, _ = folder.resume("a", twin.net, other)
    resumed.load_state_dict(state)
    train(twin, other, resumed, 4)
    assert resumed.masks == pruner.masks
    assert all(torch.equal(value, twin.net.state_dict()[name]) for name, value in view.net.state_dict().items())


def test_dead_neurons_of_a_reset_below_zero_do_not_stay_for_it():
    """A silent neuron rests at its reset value, |-5| of which would beat any activity; a dead channel is not asked."""
    make = lambda: jelly(first=lambda: neuron.IFNode(v_reset=-5.0), second=neuron.LIFNode)  # noqa: E731
    view = model_view(make(), X)
    pruner = Pruner(view, SCA(regrow=0), every(0.4, 1), calibration=[(X, Y)])
    pruner.step()
    first = Masks(pruner.masks, pruner.masks.gates)
    pruner.step()
    assert pruner.masks == first


def test_held_by_hand_from_a_one_shot_decision():
    view = model_view(jelly(), X)
    optimizer = OPTIMIZERS["Adam"](view.net.parameters())
    masks = prune(view, SCA(), 0.4, **DATA)
    with hold(optimizer, view, masks):
        train(view, optimizer, None, 2)
    assert not any(param[~masks.held[name]].any() for name, param in masks.parameters(view.net))
