"""What a plan carries over: tensors, masks of single weights and optimizers; JSON and files that hold it."""

import copy
import json

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

import spikeprune as sp
from same_spikes import assert_same_spikes
from small_nets import Loop, SnnGuest, noise, unroll
from spikeprune import methods
from spikeprune.errors import MaskMismatch, ShrinkError, StorageError, UnsupportedOptimizer
from spikeprune.kernel.patterns import Channel

CHANNELS = methods.Random(pattern=Channel())


def guest():
    """A view of a net with a norm, its masks, the plan, and the smaller net."""
    torch.manual_seed(0)
    view = sp.model_view(SnnGuest(), noise(4, 2, 6))
    masks = sp.prune(view, CHANNELS, 0.4)
    return view, masks, sp.plan_shrink(view, masks), sp.shrink(view, masks)


def same_state(one, other):
    assert one.state_dict().keys() == other.state_dict().keys()
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


# What a plan says and cuts


def by_hand():
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    view = sp.model_view(net, noise(2, 2, 2, 2), spiking=False)
    return view, sp.channel_masks(view, {"0": torch.tensor([True, False, True])})


def test_a_plan_by_hand():
    plan = sp.plan_shrink(*by_hand())
    two_of_three = {0: ((0, 2), 3)}
    assert plan.keeps == {
        **dict.fromkeys(["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"], two_of_three),
        "4.weight": {1: ((0, 1, 2, 3, 8, 9, 10, 11), 12)},
    }
    assert plan.sizes == {"0": {"out_channels": 2}, "1": {"num_features": 2}, "4": {"in_features": 8}}
    assert plan.channels == {"0": (2, 3)}


def test_tensors_are_cut_as_the_one_of_that_name():
    plan = sp.plan_shrink(*by_hand())
    columns = torch.arange(12).view(1, 12)
    assert plan.sliced("4.weight", columns).tolist() == [[0, 1, 2, 3, 8, 9, 10, 11]]
    other = torch.arange(3)
    assert torch.equal(plan.sliced("4.bias", other), other)
    assert plan.sliced("4.bias", other) is not other


# Masks


@pytest.mark.parametrize("first", ["weights", "channels"])
def test_single_weights_stay_pruned_in_the_smaller_net(first):
    view = sp.model_view(SnnGuest(), noise(4, 2, 6))
    if first == "weights":
        masks = sp.prune(view, CHANNELS, 0.4, masks=sp.prune(view, methods.Magnitude(), 0.5))
    else:
        masks = sp.prune(view, methods.Magnitude(), 0.6, masks=sp.prune(view, CHANNELS, 0.4))
    plan, small = sp.plan_shrink(view, masks), sp.shrink(view, masks)
    left = plan.masks(masks)
    assert not left.gates
    assert set(left) == {"fc1", "fc2"}
    living = masks.gates["fc1"]["norm.weight"]
    assert torch.equal(left["fc1"], masks["fc1"][living])
    assert torch.equal(left["fc2"], masks["fc2"][:, living])
    assert all(torch.equal(small.get_submodule(name).weight != 0, mask) for name, mask in left.items())

    again = sp.model_view(small, view.example)
    optimizer = torch.optim.Adam(small.parameters(), lr=0.1, weight_decay=0.1)
    with sp.hold(optimizer, again, left):
        again(view.example).sum().backward()
        optimizer.step()
    assert all(torch.equal(small.get_submodule(name).weight != 0, mask) for name, mask in left.items())


def test_masks_of_channels_alone_have_done_their_work():
    _, masks, plan, _ = guest()
    assert plan.masks(masks) == sp.Masks({})


# Optimizers


def stepped(view, optimizer, x):
    view.net.train()
    optimizer.zero_grad()
    (view(x) ** 2).sum().backward()
    optimizer.step()


def bare(seed=0):
    """A view of layers and neurons without norms: the gradient of what lives is that of the smaller net."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 5), neuron.IFNode(), nn.Linear(5, 4), neuron.IFNode(), nn.Linear(4, 3))
    nn.init.uniform_(net[0].weight, -0.2, 0.8), nn.init.uniform_(net[2].weight, 0, 1.5)
    return sp.model_view(net, noise(4, 2, 6), forward=unroll)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.005),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.005, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_one_more_step_is_the_same(make):
    """Three steps of the large net under `hold`, then a fourth of the large and of the small one."""
    view = bare()
    optimizer = make(view.net.parameters())
    masks = sp.prune(view, CHANNELS, 0.5)
    plan = sp.plan_shrink(view, masks)
    with sp.hold(optimizer, view, masks):
        for seed in (1, 2, 3):
            stepped(view, optimizer, noise(4, 3, 6, seed=seed))
        small = sp.shrink(view, masks)
        twin = plan.optimizer(optimizer, view.net, small)
        assert type(twin) is type(optimizer)
        before = copy.deepcopy(optimizer.state_dict())
        less = sp.model_view(small, view.example, forward=unroll)
        stepped(less, twin, noise(4, 3, 6, seed=4))
        assert same(before, optimizer.state_dict())  # the other step was none of this one's
        started = {name: p.detach().clone() for name, p in view.net.named_parameters()}
        stepped(view, optimizer, noise(4, 3, 6, seed=4))
    for name, param in view.net.named_parameters():
        torch.testing.assert_close(small.get_parameter(name), plan.sliced(name, param.detach()), rtol=1e-5, atol=1e-6)
        assert not torch.equal(param, started[name]), name
        for key, value in optimizer.state[param].items():
            if torch.is_tensor(value):
                cut = plan.sliced(name, value) if value.shape == param.shape else value
                torch.testing.assert_close(twin.state[small.get_parameter(name)][key], cut, rtol=1e-5, atol=1e-6)


def same(one, other):
    if torch.is_tensor(one):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one == other


def test_settings_and_groups_are_kept():
    view, _masks, plan, small = guest()
    net = view.net
    groups = [
        {"params": [net.fc1.weight, net.norm.weight], "lr": 0.5, "weight_decay": 0.25, "label": "first"},
        {"params": [net.fc2.weight], "betas": (0.5, 0.75)},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.125, eps=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    twin = plan.optimizer(optimizer, net, small)
    assert [group["lr"] for group in twin.param_groups] == [0.5, 0.125]
    assert [group["weight_decay"] for group in twin.param_groups] == [0.25, 0.01]
    assert [group["betas"] for group in twin.param_groups] == [(0.9, 0.999), (0.5, 0.75)]
    assert [group["initial_lr"] for group in twin.param_groups] == scheduler.base_lrs
    assert [group["eps"] for group in twin.param_groups] == [1e-3, 1e-3]
    assert twin.param_groups[0]["label"] == "first"
    assert twin.defaults == optimizer.defaults
    ids = [[id(p) for p in group["params"]] for group in twin.param_groups]
    assert ids == [[id(small.fc1.weight), id(small.norm.weight)], [id(small.fc2.weight)]]
    assert not twin.state
    assert optimizer.param_groups[0]["params"][0] is net.fc1.weight


def test_an_optimizer_with_names():
    view, _masks, plan, small = guest()
    optimizer = torch.optim.SGD(view.net.named_parameters(), lr=0.1, momentum=0.9)
    stepped(view, optimizer, view.example)
    twin = plan.optimizer(optimizer, view.net, small)
    assert twin.param_groups[0]["param_names"] == [name for name, _ in small.named_parameters()]
    assert twin.state[small.fc1.weight]["momentum_buffer"].shape == (3, 6)


def test_optimizers_that_cannot_be_cut():
    view, _masks, plan, small = guest()
    foreign = torch.optim.SGD([*view.net.parameters(), nn.Parameter(torch.zeros(2))], lr=0.1)
    with pytest.raises(ShrinkError, match="not the model's"):
        plan.optimizer(foreign, view.net, small)
    with pytest.raises(UnsupportedOptimizer, match="LBFGS"):
        plan.optimizer(torch.optim.LBFGS(view.net.parameters()), view.net, small)
    with pytest.raises(UnsupportedOptimizer, match="Adafactor"):
        plan.optimizer(torch.optim.Adafactor(view.net.parameters()), view.net, small)


# JSON


def test_there_and_back():
    view, _masks, plan, small = guest()
    text = plan.to_json()
    assert sp.ShrinkPlan.from_json(text) == plan
    assert sp.ShrinkPlan.from_json(text).to_json() == text
    assert same_state(sp.ShrinkPlan.from_json(text).apply(view.net), small)


def test_the_whole_model_as_a_layer():
    """The name of its weight has no owner before it."""
    net = nn.Linear(2, 3)
    keeps = {"weight": {0: ((0, 2), 3)}, "bias": {0: ((0, 2), 3)}}
    plan = sp.ShrinkPlan(keeps, {"": {"out_features": 2}}, {"": (2, 3)})
    small = sp.ShrinkPlan.from_json(plan.to_json()).apply(net)
    assert torch.equal(small.weight, net.weight[[0, 2]])
    assert small.out_features == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"plan"', "{}", '{"tensors": {}}', '{"tensors": {}, "sizes": {}}', '{"tensors": 1, "sizes": 2, "channels": 3}'],
)  # fmt: skip
def test_texts_that_are_no_plan(text):
    with pytest.raises(StorageError, match="no plan"):
        sp.ShrinkPlan.from_json(text)


def tampered(place, value):
    content = json.loads(guest()[2].to_json())
    *path, last = place
    inner = content
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(content)


FC1 = ("tensors", "fc1.weight", "0")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*FC1, "keep"), [0, 2, 1]),  # falls
        ((*FC1, "keep"), [0, 1, 1]),  # stands still
        ((*FC1, "keep"), [0, 1, 5]),  # beyond the last
        ((*FC1, "keep"), [-1, 1, 2]),
        ((*FC1, "keep"), []),
        ((*FC1, "keep"), "012"),
        ((*FC1, "keep"), {"0": 1}),
        ((*FC1, "keep"), [0.5, 1, 2]),
        ((*FC1, "keep"), [False, True, 2]),
        ((*FC1, "keep"), [0, 1, float("inf")]),
        ((*FC1, "keep"), 3),
        ((*FC1, "of"), 2),  # fewer than are kept
        ((*FC1, "of"), "5"),
        ((*FC1, "of"), -5),
        ((*FC1, "of"), None),
        (("tensors", "fc1.weight"), {"-1": {"keep": [0], "of": 6}}),
        (("tensors", "fc1.weight"), {"2": {"keep": [0], "of": 6}}),
        (("tensors", "fc1.weight"), {"rows": {"keep": [0], "of": 6}}),
        (("tensors", "fc1.weight"), []),
        (("sizes", "fc1"), {"training": 3}),  # no size
        (("sizes", "fc1"), {"__class__": 3}),
        (("sizes", "fc1", "out_features"), 4),  # other than what is kept
        (("sizes", "fc1", "out_features"), "3"),
        (("sizes", "fc1", "out_features"), 0),
        (("sizes", "lif1"), {"out_features": 3}),  # of which nothing is cut
        (("channels", "fc1"), [3]),
        (("channels", "fc1"), [0, 5]),
        (("channels", "fc1"), 3),
        (("channels",), None),
        (("sizes",), None),
        (("tensors",), None),
    ],
)
def test_a_plan_that_was_tampered_with(place, value):
    sp.ShrinkPlan.from_json(guest()[2].to_json())  # whole, it is read
    with pytest.raises(StorageError):
        sp.ShrinkPlan.from_json(tampered(place, value))


# Files


def test_a_smaller_model_in_a_file(tmp_path):
    view, _masks, plan, small = guest()
    single = sp.prune(sp.model_view(small, view.example), methods.Magnitude(), 0.5)
    path = tmp_path / "small.safetensors"
    sp.save(path, small, single, plan=plan)
    assert b"pickle" not in (content := path.read_bytes())
    assert content[8:9] == b"{"  # safetensors' header, no archive

    torch.manual_seed(5)
    large = SnnGuest()
    before = copy.deepcopy(large)
    loaded, found = sp.load(path, large)
    assert same_state(loaded, small)
    assert found == single
    assert (loaded.fc1.out_features, loaded.norm.num_features) == (3, 3)
    assert loaded is not large
    assert same_state(large, before)
    torch.testing.assert_close(loaded.eval()(view.example), small.eval()(view.example), rtol=0, atol=0)


def test_it_goes_on_from_a_file_as_any_model(tmp_path):
    net = Loop()
    nn.init.constant_(net.fc1.bias, 0.5), nn.init.constant_(net.fc2.bias, 0.5)
    view = sp.model_view(net, noise(4, 2, 6))
    masks = sp.prune(view, CHANNELS, 0.4)
    sp.save(tmp_path / "net", sp.shrink(view, masks), plan=sp.plan_shrink(view, masks))
    loaded, _ = sp.load(tmp_path / "net", Loop())
    fired = assert_same_spikes(view.net, loaded, view.example, ["lif1", "lif2"])
    assert min(fired.values()) > 0
    again = sp.model_view(loaded, view.example)
    assert sp.shrink(again, sp.prune(again, CHANNELS, 0.4)).fc1.out_features < loaded.fc1.out_features == 3


@pytest.mark.parametrize(
    "other",
    [
        Loop,  # no norm
        lambda: nn.Linear(6, 5),
        lambda: guest()[3],  # small already
        lambda: wider(SnnGuest()),
    ],
    ids=["no norm", "a layer", "small", "wider"],
)
def test_a_file_for_a_model_of_another_form(tmp_path, other):
    _view, _masks, plan, small = guest()
    sp.save(tmp_path / "net", small, plan=plan)
    net = other()
    before = copy.deepcopy(net)
    with pytest.raises(MaskMismatch):
        sp.load(tmp_path / "net", net)
    assert same_state(net, before)


def wider(net):
    """What is cut is the same; what is not is another."""
    net.fc2 = nn.Linear(5, 4)
    return net


def test_a_plan_saved_with_the_wrong_model(tmp_path):
    view, _masks, plan, _small = guest()
    with pytest.raises(MaskMismatch, match="the plan leaves"):
        sp.save(tmp_path / "net", view.net, plan=plan)
    with pytest.raises(MaskMismatch, match="the plan leaves"):
        sp.save(tmp_path / "net", nn.Linear(6, 3), plan=plan)
    assert not list(tmp_path.iterdir())


def test_masks_of_the_large_model_do_not_go_with_the_small_one(tmp_path):
    _view, masks, plan, small = guest()
    with pytest.raises(MaskMismatch, match="cannot save: there is a mask"):
        sp.save(tmp_path / "net", small, masks, plan=plan)


def test_a_file_whose_plan_was_tampered_with(tmp_path):
    _view, _masks, plan, small = guest()
    path = tmp_path / "net"
    sp.save(path, small, plan=plan)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"num_features", b"training_now"))
    assert path.read_bytes() != whole
    with pytest.raises(StorageError, match="no size of a layer or norm"):
        sp.load(path, SnnGuest())


def test_without_a_plan_a_file_is_as_before(tmp_path):
    _view, _masks, plan, small = guest()
    sp.save(tmp_path / "net", small)
    with pytest.raises(MaskMismatch, match="belongs to another model"):
        sp.load(tmp_path / "net", SnnGuest())
    assert same_state(sp.load(tmp_path / "net", plan.apply(SnnGuest()))[0], small)
