"""Masks of output channels: what silences a dead one, how it is kept, held and given back, and which layers decide together."""

import copy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from channel_nets import HalfBare, Joined, Leaky, N, Residual, T, bare, jelly, labels, loss_fn
from small_nets import noise
from spikeprune import Masks, Pruner, hold, load, model_view, prune, save
from spikeprune.decide import choose, decide, gates_of
from spikeprune.errors import MaskMismatch, ModelError, NoPrunableLayers, SparsityError
from spikeprune.files import read_tensors, write_tensors
from spikeprune.hold import Silenced
from spikeprune.kernel.allocate import global_top_k, uniform
from spikeprune.kernel.patterns import Channel, living, rows
from spikeprune.kernel.schedules import every, stages
from spikeprune.masks import packed, unpacked
from spikeprune.methods import CQP, Magnitude, Random
from spikeprune.recipes.rundir import RunDir
from spikeprune.stats import Need
from spikeprune.view.layer import Layer, Layout, Norm

YES, NO = True, False
X, Y = noise(T, N, 2, 4, 4), labels()
NETS = {
    "normed": (jelly, X),
    "added": (Residual, X),
    "half bare": (HalfBare, X),
    "joined and flattened": (Joined, X),
    "bare": (bare, X),
    "snntorch": (Leaky, noise(T, N, 7)),
}


def bools(*values):
    return torch.tensor(values)


def numbered(view, dead):
    """Masks that remove, of every layer, the channels of these numbers."""
    layers = view.channel_layers()
    scores = {x.family: torch.ones(x.weight.shape[0]).index_fill(0, torch.tensor(dead), 0) for x in layers}
    return decide(layers, scores, {name: int(score.sum()) for name, score in scores.items()}, Channel())


@pytest.fixture(params=NETS.values(), ids=NETS)
def lent(request):
    make, x = request.param
    return model_view(make(), x), x


# The value


MASK = bools([YES, YES], [NO, NO], [YES, YES])
GATES = {"norm.weight": bools(YES, NO, YES), "norm.bias": bools(YES, NO, YES)}


def test_a_layer_is_held_by_its_gates_or_else_by_its_weight():
    masks = Masks({"a": MASK, "b.c": MASK, "": MASK}, {"a": GATES})
    assert {name: alive.tolist() for name, alive in masks.held.items()} == {
        "norm.weight": [YES, NO, YES],
        "norm.bias": [YES, NO, YES],
        "b.c.weight": MASK.tolist(),
        "weight": MASK.tolist(),
    }
    assert masks.kept == {"a": 4, "b.c": 4, "": 4}


def test_gates_that_layers_share_live_where_all_of_them_say_so():
    one, other = bools(YES, NO, YES, YES), bools(YES, YES, YES, NO)
    masks = Masks({"a": MASK, "b": MASK}, {"a": {"norm.weight": one}, "b": {"norm.weight": other}})
    assert masks.held["norm.weight"].tolist() == [YES, NO, YES, NO]
    assert one.tolist() == [YES, NO, YES, YES]


def test_gates_are_bool_and_go_with_a_mask():
    with pytest.raises(MaskMismatch, match=r"gates for layer 'b', but no mask; give both"):
        Masks({"a": MASK}, {"b": GATES})
    with pytest.raises(MaskMismatch, match=r"'norm\.weight' is torch\.float32; masks are bool"):
        Masks({"a": MASK}, {"a": {"norm.weight": torch.ones(3)}})


def test_masks_compare_by_what_they_hold_too():
    masks = Masks({"a": MASK}, {"a": GATES})
    assert masks == Masks({"a": MASK.clone()}, {"a": {name: alive.clone() for name, alive in GATES.items()}})
    assert masks != Masks({"a": MASK})
    assert masks != Masks({"a": MASK}, {"a": {**GATES, "a.bias": bools(YES, NO, YES)}})
    assert masks != Masks({"a": MASK}, {"a": {**GATES, "norm.bias": bools(YES, YES, YES)}})


def test_the_gates_given_may_change_later():
    gates = {"a": dict(GATES)}
    masks = Masks({"a": MASK}, gates)
    gates["a"].clear()
    assert masks.held.keys() == GATES.keys()


def test_replaced_masks_hold_the_new_gates_at_once():
    masks, cpu = Masks({"a": MASK}), torch.device("cpu")
    tensor = torch.ones(3, 2)
    masks.zero_("a.weight", tensor)
    assert masks.dead("a.weight", cpu).tolist() == (~MASK).tolist()
    masks.replace_(Masks({"a": MASK}, {"a": GATES}))
    assert masks.held.keys() == GATES.keys()
    assert masks.dead("norm.bias", cpu).tolist() == [NO, YES, NO]
    gain = torch.full((3,), 7.0)
    masks.zero_("norm.weight", gain)
    assert gain.tolist() == [7.0, 0.0, 7.0]
    masks.replace_(Masks({"a": MASK}, {"a": {"norm.weight": bools(NO, YES, YES)}}))
    masks.zero_("norm.weight", gain)
    assert gain.tolist() == [0.0, 0.0, 7.0]


def test_a_held_parameter_that_the_model_lacks_is_named():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with pytest.raises(MaskMismatch, match=r"the masks hold '9\.weight', which the model does not have"):
        Masks({"0": MASK}, {"0": {"9.weight": bools(YES, NO, YES)}}).apply_(net)
    with pytest.raises(MaskMismatch, match=r"hold '1\.bias' with shape \(1,\); the model's has \(3,\)"):
        Masks({"0": MASK}, {"0": {"1.bias": bools(NO)}}).apply_(net)
    nn.utils.parametrizations.weight_norm(net[0])
    with pytest.raises(ModelError, match=r"'0\.weight' is no longer a plain parameter"):
        Masks({"0": MASK}).apply_(net)


# Gates of layers


def test_gates_are_the_channels_place_in_every_norm_and_the_weight_of_what_is_bare():
    flat, other = nn.BatchNorm1d(8), nn.BatchNorm2d(3)
    module = nn.Linear(4, 3)
    norms = (Norm("flat", flat, 1, 2), Norm("other", other))
    gates = gates_of(Layer("fc", module, Layout.ONCE, norms=norms, bare=False), bools(NO, YES, NO))
    place = [YES, NO, NO, YES, YES, NO, NO, YES]
    assert {name: alive.tolist() for name, alive in gates.items()} == {
        "flat.weight": place, "flat.bias": place, "other.weight": [NO, YES, NO], "other.bias": [NO, YES, NO],
    }  # fmt: skip
    naked = gates_of(Layer("a.fc", module, Layout.ONCE, norms=norms[1:], bare=True), bools(NO, YES, NO))
    assert naked.keys() == {"other.weight", "other.bias", "a.fc.weight", "a.fc.bias"}
    assert naked["a.fc.weight"].tolist() == [[NO] * 4, [YES] * 4, [NO] * 4]
    assert naked["a.fc.bias"].tolist() == [NO, YES, NO]
    whole = gates_of(Layer("", nn.Linear(4, 3, bias=False), Layout.ONCE), bools(NO, YES, NO))
    assert whole.keys() == {"weight"}


HELD = {
    "normed": {"1.weight", "1.bias", "4.weight", "4.bias"},
    "added": {f"norm{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")},
    "half bare": {"norm1.weight", "norm1.bias", "conv2.weight", "conv2.bias"},
    "joined and flattened": {"norm.weight", "norm.bias"},
    "bare": {"0.weight", "0.bias", "2.weight", "2.bias"},
    "snntorch": {"norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"},
}


@pytest.mark.parametrize("name", NETS)
def test_what_is_held(name):
    make, x = NETS[name]
    assert numbered(model_view(make(), x), [0]).held.keys() == HELD[name]


def test_in_a_norm_of_joined_channels_each_layer_has_its_own_place():
    masks = numbered(model_view(Joined(), X), [1])
    assert masks.held["norm.weight"].int().tolist() == [1] * 4 + [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


# Silence


def spikes_of(view, x):
    """What every neuron fires, by name, and the output."""
    fired, handles = {}, []
    for name, module in view.neurons.items():
        fired[name] = []
        handles.append(module.register_forward_hook(lambda _, __, out, into=fired[name]: into.append(out.detach())))
    out = view(x)
    for handle in handles:
        handle.remove()
    return {name: torch.stack(parts) for name, parts in fired.items()}, out


def cut_by_hand(view, dead):
    """Zero what every reader makes of the dead channels, in a copy: that removes them, whatever they emit."""
    twin = view.clone()
    for family in twin.graph.families:
        for use in family.readers if family.why is None else ():
            weight = twin.net.get_parameter(f"{use.module}.weight")
            for channel in dead:
                first = use.offset + channel * use.repeat
                weight.data[:, first : first + use.repeat] = 0
    return twin


@pytest.mark.parametrize("training", [False, True])
def test_a_dead_channel_fires_nothing_and_the_rest_is_as_if_it_were_gone(lent, training):
    view, x = lent
    view.net.train(training)
    expected = cut_by_hand(view, [1])(x).detach()
    assert not torch.equal(view(x), expected), "the channel matters"
    numbered(view, [1]).apply_(view.net)
    fired, out = spikes_of(view, x)
    for family in view.graph.families:
        for use in family.neurons if family.why is None else ():
            axis = fired[use.module].dim() - 1 - use.trailing
            mine = fired[use.module].narrow(axis, use.offset + use.repeat, use.repeat)
            assert not mine.any(), use.module
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_twin_zero_weights_alone_leave_the_shift_firing():
    view = model_view(jelly(), X)
    view.net[1].bias.data[1] = 2.0  # above the threshold
    for x in view.channel_layers():
        x.weight.data[1] = 0
    view.net[1].running_mean[1] = 0
    assert spikes_of(view, X)[0]["2"][:, :, :, 1].all()


@pytest.mark.parametrize("name", ["normed", "added", "snntorch"])
def test_behind_a_norm_weights_are_kept(name):
    make, x = NETS[name]
    view = model_view(make(), x)
    before = {layer.name: layer.weight.detach().clone() for layer in view.layers}
    numbered(view, [0, 2]).apply_(view.net)
    assert all(torch.equal(layer.weight, before[layer.name]) for layer in view.layers)
    for held in HELD[name]:
        assert (view.net.get_parameter(held) == 0).tolist() == [i in (0, 2) for i in range(len(view.net.get_parameter(held)))]


# Hold


OPTIMIZERS = {
    "Adam": lambda params: torch.optim.Adam(params, lr=0.05),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.05, weight_decay=0.1),
    "SGD": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.01),
}
TRAINED = [
    pytest.param(*NETS[name], make, id=f"{name}-{kind}")
    for name in ("normed", "half bare", "snntorch")
    for kind, make in OPTIMIZERS.items()
]


def train(view, optimizer, x, steps=2):
    view.net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(view(x), Y).backward()
        optimizer.step()


def stirring(view, masks):
    """The largest value that a held parameter has where it should be dead."""
    return max(float(param.detach()[~masks.held[name]].abs().max()) for name, param in masks.parameters(view.net))


@pytest.mark.parametrize(("build", "x", "make"), TRAINED)
def test_dead_channels_stay_silent_through_training(build, x, make):
    view = model_view(build(), x)
    optimizer = make(view.net.parameters())
    train(view, optimizer, x, 2)  # the optimizer now remembers what is about to die
    masks = numbered(view, [1])
    with hold(optimizer, view, masks):
        for _ in range(3):
            train(view, optimizer, x, 1)
            assert stirring(view, masks) == 0
            for name, param in masks.parameters(view.net):
                states = [s for s in optimizer.state[param].values() if torch.is_tensor(s) and s.shape == param.shape]
                assert all(not s[~masks.held[name]].any() for s in [*states, param.grad]), name
    view.net.eval()
    torch.testing.assert_close(view(x), cut_by_hand(view, [1])(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("build", "x", "make"), TRAINED)
def test_twin_without_hold_they_stir(build, x, make):
    view = model_view(build(), x)
    optimizer = make(view.net.parameters())
    train(view, optimizer, x, 2)
    masks = numbered(view, [1])
    masks.apply_(view.net)
    train(view, optimizer, x, 1)
    assert stirring(view, masks) > 1e-4


# One mask over another


def test_channels_over_single_weights_keep_both():
    fine = Masks({"a": bools([YES, NO], [NO, YES], [YES, YES])})
    both = Masks({"a": MASK}, {"a": GATES}).over(fine)
    assert both["a"].tolist() == [[YES, NO], [NO, NO], [YES, YES]]
    assert both.held["a.weight"].tolist() == fine["a"].tolist()  # a dead channel's weights stay, but for those dead before
    assert both.held["norm.weight"].tolist() == [YES, NO, YES]
    assert fine.held.keys() == {"a.weight"}


def test_single_weights_over_channels_keep_both():
    channels, fine = Masks({"a": MASK}, {"a": GATES}), Masks({"a": bools([YES, NO], [NO, NO], [YES, YES])})
    both = fine.over(channels)
    assert both["a"].tolist() == fine["a"].tolist()
    assert both.held["a.weight"].tolist() == fine["a"].tolist()
    assert both.held["norm.bias"].tolist() == [YES, NO, YES]


def test_channels_over_both_give_back_a_row_but_not_a_weight():
    fine = Masks({"a": bools([YES, NO], [NO, NO], [YES, YES])}).over(Masks({"a": MASK}, {"a": GATES}))
    back = {"norm.weight": bools(YES, YES, NO), "norm.bias": bools(YES, YES, NO)}
    both = Masks({"a": rows(bools(YES, YES, NO), MASK)}, {"a": back}).over(fine)
    assert both["a"].tolist() == [[YES, NO], [YES, YES], [NO, NO]]
    assert both.held["a.weight"].tolist() == [[YES, NO], [YES, YES], [YES, YES]]
    assert both.held["norm.weight"].tolist() == [YES, YES, NO]


def test_channels_over_channels_are_the_new_ones():
    back = {"norm.weight": bools(NO, YES, YES), "norm.bias": bools(NO, YES, YES)}
    new = Masks({"a": rows(bools(NO, YES, YES), MASK)}, {"a": back})
    assert new.over(Masks({"a": MASK}, {"a": GATES})) == new
    bared = {"a.weight": MASK, "a.bias": bools(YES, NO, YES)}
    later = {"a.weight": rows(bools(NO, YES, YES), MASK), "a.bias": bools(NO, YES, YES)}
    new = Masks({"a": later["a.weight"]}, {"a": later})
    assert new.over(Masks({"a": MASK}, {"a": bared})) == new


def test_of_a_bare_layer_too_single_weights_stay_dead():
    bared = {"a.weight": MASK, "a.bias": bools(YES, NO, YES)}
    fine = Masks({"a": bools([NO, YES], [NO, NO], [YES, YES])})
    for both in (Masks({"a": MASK}, {"a": bared}).over(fine), fine.over(Masks({"a": MASK}, {"a": bared}))):
        assert both["a"].tolist() == fine["a"].tolist()
        assert both.held["a.weight"].tolist() == fine["a"].tolist()
        assert both.held["a.bias"].tolist() == [YES, NO, YES]


def test_layers_not_decided_anew_keep_what_they_had():
    earlier = Masks({"a": MASK, "b": MASK}, {"a": GATES})
    later = Masks({"c": MASK}, {"c": {"other.weight": bools(NO, YES, YES)}})
    both = later.over(earlier)
    assert both.keys() == {"a", "b", "c"}
    assert both.held.keys() == {*GATES, "b.weight", "other.weight"}
    assert later.over(Masks({})) == later
    assert Masks({}).over(earlier) == earlier


FINE, COARSE = Magnitude(), Magnitude(pattern=Channel())


@pytest.mark.parametrize("steps", [[(FINE, 0.4), (COARSE, 0.3)], [(COARSE, 0.3), (FINE, 0.4)]], ids=["weights first", "last"])
def test_pruned_both_ways_all_that_is_dead_is_held(steps, lent):
    view, x = lent
    masks, dead = None, {}
    for method, sparsity in steps:
        masks = prune(view, method, sparsity, masks=masks)
        for name, mask in masks.items():
            assert not (mask & dead.get(name, torch.zeros_like(mask))).any()
            dead[name] = ~mask
    assert {name.rpartition(".")[0] for name in masks.held} >= set(masks)  # weights and norms alike
    again = prune(view, COARSE, 0.5, masks=masks)
    assert not any((again[name] & ~mask).any() for name, mask in masks.items())
    optimizer = torch.optim.AdamW(view.net.parameters(), lr=0.05, weight_decay=0.1)
    with hold(optimizer, view, again):
        train(view, optimizer, x, 2)
    assert stirring(view, again) == 0


# Files


def test_masks_with_gates_round_trip(tmp_path, lent):
    view, x = lent
    masks = numbered(view, [1])
    masks.apply_(view.net)
    assert unpacked(packed(masks)) == masks
    masks.save(tmp_path / "masks.safetensors")
    assert Masks.load(tmp_path / "masks.safetensors") == masks
    save(tmp_path / "net.safetensors", view.net, masks)
    other = view.clone()
    with torch.no_grad():
        for parameter in other.net.parameters():
            parameter.fill_(7)
    _, found = load(tmp_path / "net.safetensors", other.net)
    assert found == masks
    assert found.gates.keys() == masks.gates.keys()
    assert torch.equal(other(x), view(x))
    with hold(torch.optim.Adam(other.net.parameters()), other, found) as held:
        assert held is found


def test_gates_of_another_model_are_neither_saved_nor_read(tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    foreign = Masks({"0": MASK}, {"0": {"norm.weight": bools(YES, NO, YES)}})
    with pytest.raises(MaskMismatch, match=r"for 'norm\.weight', where the model has nothing"):
        save(tmp_path / "x", net, foreign)
    save(tmp_path / "x", net, Masks({"0": MASK}, {"0": {"1.weight": bools(YES, NO, YES)}}))
    tensors, metadata = read_tensors(tmp_path / "x")
    write_tensors(tmp_path / "x", {**tensors, "mask.gate|0|1.weight": bools(YES, NO)}, metadata)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(MaskMismatch, match=r"shape \(2,\) for '1\.weight', where the model has \(3,\)"):
        load(tmp_path / "x", net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# What comes back


def gained(*values):
    """A layer and its norm, with these gains."""
    net = nn.Sequential(nn.Linear(2, len(values), bias=False), nn.BatchNorm1d(len(values)))
    net[1].weight.data.copy_(torch.tensor(values))
    return net


def alive(*values):
    return Masks({"0": rows(bools(*values), torch.empty(len(values), 2))}, {"0": {"1.weight": bools(*values)}})


def test_what_is_silenced_is_noted_and_given_back():
    net, silenced, all_ = gained(1.0, 2.0, 3.0), Silenced(), alive(YES, YES, YES)
    silenced.exchange(net, Masks({}), alive(NO, YES, NO))
    alive(NO, YES, NO).apply_(net)
    assert net[1].weight.tolist() == [0.0, 2.0, 0.0]
    net[1].weight.data[1] = 5.0  # training
    silenced.exchange(net, alive(NO, YES, NO), alive(YES, NO, NO))
    alive(YES, NO, NO).apply_(net)
    assert net[1].weight.tolist() == [1.0, 0.0, 0.0]
    net[1].weight.data[0] = 9.0
    silenced.exchange(net, alive(YES, NO, NO), all_)
    assert net[1].weight.tolist() == [9.0, 5.0, 3.0]
    silenced.exchange(net, all_, alive(NO, YES, YES))
    assert silenced.values["1.weight"][0] == 9.0  # as it was when it was silenced last


def test_what_was_noted_is_the_pruners_own():
    net, values = gained(1.0, 2.0), {"1.weight": torch.tensor([4.0, 0.0])}
    silenced = Silenced(values)
    values["1.weight"].fill_(7)
    silenced.exchange(net, alive(NO, YES), alive(YES, YES))
    assert net[1].weight.tolist() == [4.0, 2.0]


def test_single_weights_are_not_given_back():
    net, silenced = gained(1.0, 2.0), Silenced()
    silenced.exchange(net, Masks({}), Masks({"0": MASK[:2]}))
    assert not silenced.values


@dataclass(frozen=True)
class Turning:
    """Removes, of every layer, the channel whose number is how often it was asked before."""

    step: int = 0
    soft: bool = False
    pattern: ClassVar[Channel] = Channel()
    needs: ClassVar[frozenset[Need]] = frozenset()

    def at(self, step):
        return replace(self, step=step)

    def __call__(self, layers, stats, masks, sparsity):
        scores = {x.family: (torch.arange(x.weight.shape[0]) != self.step % 3).double() for x in layers}
        return decide(layers, scores, {name: int(score.sum()) for name, score in scores.items()}, self.pattern)


def turning(view, x, seed_steps=2, method=None):
    optimizer = torch.optim.Adam(view.net.parameters(), lr=0.02)
    train(view, optimizer, x, seed_steps)
    return optimizer, Pruner(view, method or Turning(), every(0.2, 1)).attach(optimizer)


def values(view, masks):
    return {name: param.detach().clone() for name, param in masks.parameters(view.net)}


def test_a_channel_that_returns_gets_back_what_silenced_it_exactly(lent):
    view, x = lent
    optimizer, pruner = turning(view, x)
    before = {name: param.detach().clone() for name, param in view.net.named_parameters()}
    pruner.step()
    dead = {name: ~held for name, held in pruner.masks.held.items()}
    train(view, optimizer, x)
    pruner.step()
    for name, param in pruner.masks.parameters(view.net):
        returned = dead[name] & pruner.masks.held[name]
        assert returned.any()
        assert torch.equal(param[returned], before[name][returned]), name
        assert before[name][returned].any()
        moments = [s for s in optimizer.state[param].values() if s.shape == param.shape]
        assert len(moments) == 2
        assert not any(moment[returned].any() for moment in moments)
    train(view, optimizer, x, 1)
    assert all((param != before[name])[dead[name]].any() for name, param in pruner.masks.parameters(view.net))


def test_through_a_checkpoint_on_disk_it_gets_the_same_back(tmp_path, lent):
    view, x = lent
    optimizer, pruner = turning(view, x)
    pruner.step()
    train(view, optimizer, x)
    pruner.step()
    twin = view.clone()
    folder = RunDir(tmp_path)
    folder.checkpoint(view.net, optimizer, pruner.state_dict(), {"label": "a"})
    train(view, optimizer, x)
    pruner.step()

    with torch.no_grad():
        for parameter in twin.net.parameters():
            parameter.fill_(7)
    resumed_optimizer = torch.optim.Adam(twin.net.parameters(), lr=0.02)
    resumed = Pruner(twin, Turning(), every(0.2, 1)).attach(resumed_optimizer)
    state, _ = folder.resume("a", twin.net, resumed_optimizer)
    resumed.load_state_dict(state)
    assert resumed.steps == 2
    train(twin, resumed_optimizer, x)
    resumed.step()
    assert resumed.masks == pruner.masks
    assert all(torch.equal(v, twin.net.state_dict()[name]) for name, v in view.net.state_dict().items())
    assert all(param[pruner.masks.held[name]].any() for name, param in pruner.masks.parameters(twin.net))


def test_twin_a_state_that_forgot_what_was_silenced_gives_back_zero():
    view = model_view(jelly(), X)
    _, pruner = turning(view, X)
    pruner.step()
    state = {name: value for name, value in pruner.state_dict().items() if name != "silenced"}
    pruner.load_state_dict(state)
    pruner.step()
    assert view.net[1].weight[0].item() == 0.0


def test_a_state_does_not_change_when_training_goes_on():
    view = model_view(jelly(), X)
    optimizer, pruner = turning(view, X)
    pruner.step()
    state = pruner.state_dict()
    kept = copy.deepcopy(state)
    train(view, optimizer, X)
    pruner.step()
    assert all(torch.equal(value, kept["silenced"][name]) for name, value in state["silenced"].items())
    assert unpacked(state["masks"]) == unpacked(kept["masks"])
    assert unpacked(state["masks"]) != pruner.masks


def test_a_state_of_another_model_is_refused_before_anything_changes():
    view, other = model_view(jelly(), X), model_view(Residual(), X)
    _, pruner = turning(view, X)
    pruner.step()
    masks = Masks(pruner.masks, pruner.masks.gates)
    stranger = Pruner(other, Turning(), every(0.2, 1))
    stranger.step()
    with pytest.raises(MaskMismatch, match="mask for 'conv1'"):
        pruner.load_state_dict(stranger.state_dict())
    wrong = {"steps": 1, "masks": packed(Masks({"0": masks["0"]}, {"0": {"8.weight": bools(YES)}}))}
    with pytest.raises(MaskMismatch, match=r"hold '8\.weight', which the model does not have"):
        pruner.load_state_dict(wrong)
    assert pruner.masks == masks


def test_in_one_shot_what_comes_back_starts_silent():
    view = model_view(jelly(), X)
    first = prune(view, Turning(0), 0.2)
    second = prune(view, Turning(1), 0.2, masks=first)
    assert second.held["1.weight"].tolist() == [YES, NO, YES, YES, YES]
    assert (view.net[1].weight == 0).tolist() == [YES, YES, NO, NO, NO]


def test_a_soft_method_is_applied_once_and_never_held(lent):
    view, x = lent
    optimizer, pruner = turning(view, x, method=Turning(soft=True))
    before = values(view, numbered(view, [0]))
    pruner.step()
    assert stirring(view, pruner.masks) == 0
    train(view, optimizer, x)
    assert stirring(view, pruner.masks) > 1e-4
    first, trained = Masks(pruner.masks, pruner.masks.gates), values(view, pruner.masks)
    pruner.step()
    for name, param in pruner.masks.parameters(view.net):
        returned = pruner.masks.held[name] & ~first.held[name]
        assert torch.equal(param[returned], trained[name][returned])  # what training made of it, not what it was
        assert not torch.equal(param[returned], before[name][returned])
    assert stirring(view, pruner.masks) == 0


# Who decides together


def normed(name, weights, family=None):
    """A layer whose rows have these weights, with a norm of its own."""
    module = nn.Linear(1, len(weights), bias=False)
    module.weight.data.copy_(torch.tensor(weights).view(-1, 1))
    return Layer(
        name, module, Layout.ONCE, family=family or name, norms=(Norm(f"{name}.norm", nn.BatchNorm1d(len(weights))),), bare=False
    )


def test_added_layers_keep_the_channels_that_are_best_on_average():
    layers = [normed("a", [1.0, 5.0, 3.0], "a"), normed("b", [9.0, 4.0, 3.0], "a"), normed("c", [4.2, 4.1])]
    scores = {x.name: x.weight.detach().flatten() for x in layers}  # of the family: 5, 4.5, 3
    masks = choose(layers, scores, 0.4, global_top_k, Channel())  # of five channels, not eight, three stay
    assert {name: mask.flatten().tolist() for name, mask in masks.items()} == {
        "a": [YES, YES, NO], "b": [YES, YES, NO], "c": [YES, NO],
    }  # fmt: skip
    assert masks.held["a.norm.weight"].tolist() == masks.held["b.norm.bias"].tolist() == [YES, YES, NO]


def test_a_channel_of_added_layers_is_dead_when_it_is_in_all_of_them():
    layers = [normed("a", [9.0, 1.0, 2.0], "a"), normed("b", [9.0, 1.0, 2.0], "a")]
    row = bools([NO], [YES], [YES])  # single weights were pruned, a whole row of one layer
    for dead in ({"a": row}, {"b": row}):
        masks = COARSE(layers, None, Masks(dead), 1 / 3)
        assert masks.held["a.norm.weight"].tolist() == [YES, NO, YES]
    masks = COARSE(layers, None, Masks({"a": row, "b": row}), 1 / 3)
    assert masks.held["a.norm.weight"].tolist() == [NO, YES, YES]


def test_chance_treats_added_layers_like_any_other():
    layers = [normed(name, [1.0] * 400, family) for name, family in (("a", "a"), ("b", "a"), ("c", "a"), ("d", "d"))]
    kept = Random(seed=1, pattern=Channel())(layers, None, Masks({}), 0.9).kept
    assert kept["a"] == kept["b"] == kept["c"] == 80 - kept["d"]
    assert abs(kept["a"] - kept["d"]) < 25  # the mean of three draws is near the middle, and hardly ever among the best


def test_a_channel_that_one_of_added_layers_protects_is_never_removed():
    layers = [normed("a", [1.0] * 4, "a"), normed("b", [1.0] * 4, "a"), normed("c", [1.0] * 4)]
    critical = {"a": [1.0, 0.9, 0.1, 0.1], "b": [0.1, 0.1, 0.1, 1.0], "c": [1.0, 0.1, 0.1, 0.1]}
    stats = {name: SimpleNamespace(weight_gradient=torch.tensor(values).view(4, 1)) for name, values in critical.items()}
    method = CQP(alpha=1, protect=0.8, pattern=Channel())
    masks = method(layers, stats, Masks({}), 0.5)
    assert living(Channel(), masks["a"]).tolist() == [YES, YES, NO, YES]
    assert masks.kept == {"a": 3, "b": 3, "c": 1}
    with pytest.raises(SparsityError, match=r"protects 4 of 8 units, but sparsity 0\.6 keeps only 3"):
        method(layers, stats, Masks({}), 0.6)


def test_of_added_layers_each_is_counted_once():
    layers = [normed("a", [1.0] * 10, "a"), normed("b", [2.0] * 10, "a"), normed("c", [3.0] * 10)]
    scores = {x.name: x.weight.detach().flatten() for x in layers}
    masks = choose(layers, scores, 0.5, uniform, Channel())
    assert masks.kept == {"a": 5, "b": 5, "c": 5}
    assert choose(layers, scores, 0.5, global_top_k, Channel()).kept == {"a": 1, "b": 1, "c": 9}
    with pytest.raises(SparsityError, match=r"keeps 1 of 20 units, but the layers must keep 2"):
        choose(layers, scores, 0.95, global_top_k, Channel())


def test_added_layers_live_and_die_together_on_a_network():
    view = model_view(Residual(), X)
    for sparsity in (0.0, 0.3, 0.6, 7 / 9):
        masks = prune(view.clone(), Random(3, pattern=Channel()), sparsity)
        channels = {name: living(Channel(), mask).tolist() for name, mask in masks.items()}
        assert channels["conv1"] == channels["conv2"]
        assert masks.held["norm1.weight"].tolist() == masks.held["norm2.bias"].tolist() == channels["conv1"]
        assert sum(channels["conv1"]) + sum(channels["conv3"]) == 9 - round(9 * sparsity)


def test_what_is_dead_stays_dead_as_sparsity_rises():
    view, masks = model_view(Residual(), X), None
    for sparsity in (0.2, 0.4, 0.6):
        earlier, masks = masks, prune(view, COARSE, sparsity, masks=masks)
        assert earlier is None or not any((mask & ~earlier[name]).any() for name, mask in masks.items())
    with pytest.raises(SparsityError, match=r"keeps 7 of 9 units, but earlier masks left only 4 alive"):
        prune(view, COARSE, 0.2, masks=masks)


# Which layers


def test_channel_layers_carry_their_family_and_norms():
    view = model_view(Residual(), X)
    found = view.channel_layers()
    assert [(x.name, x.family, [norm.name for norm in x.norms], x.bare) for x in found] == [
        ("conv1", "conv1", ["norm1", "norm2"], False),
        ("conv2", "conv1", ["norm1", "norm2"], False),
        ("conv3", "conv3", ["norm3"], False),
    ]
    assert all(x.family is None and not x.norms for x in view.layers)
    assert [x.name for x in view.channel_layers("conv3")] == ["conv3"]
    assert [x.name for x in view.channel_layers(["conv[12]"])] == ["conv1", "conv2"]
    assert [x.name for x in view.channel_layers("*")] == ["conv1", "conv2", "conv3"]  # fc is passed over
    assert [x.bare for x in model_view(HalfBare(), X).channel_layers()] == [False, True]


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ("conv1", r"output channels of layer 'conv1' can only be removed together with those of conv2; name them too"),
        (["conv2", "conv3"], r"layer 'conv2' can only be removed together with those of conv1; name them too"),
        ("fc", r"output channels of layer 'fc' must stay, because the network returns them"),
        (["conv3", "fc"], r"layer 'fc' must stay, because the network returns them"),
        ("f?", r"no layer can lose output channels \(fc: the network returns them\)\. See view\.explain"),
        ([], r"no layer can lose output channels|layers is empty"),
        ("conv9", r"fits 'conv9'\. Did you mean 'conv"),
    ],
)
def test_layers_whose_channels_cannot_go_are_refused(layers, told):
    view = model_view(Residual(), X)
    for call in (
        lambda: prune(view, COARSE, 0.5, layers=layers),
        lambda: Pruner(view, COARSE, stages([0.5], every=1), layers=layers),
    ):
        with pytest.raises(NoPrunableLayers, match=told):
            call()
    prune(view, FINE, 0.5, layers="fc")  # weight by weight all can


def test_only_the_chosen_channels_die_and_earlier_masks_are_carried_along():
    view = model_view(Residual(), X)
    first = prune(view, COARSE, 0.5, layers="conv3")
    assert first.keys() == {"conv3"}
    assert first.held.keys() == {"norm3.weight", "norm3.bias"}
    both = prune(view, COARSE, 0.4, layers=["conv1", "conv2"], masks=first)
    assert both["conv3"].tolist() == first["conv3"].tolist()
    assert both.held.keys() == HELD["added"]
