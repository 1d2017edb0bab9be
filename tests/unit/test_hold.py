"""Every optimizer that torch offers, with and without `hold`: the twins without it must show the zombies."""

import copy
import inspect

import pytest
import torch
from torch import nn

from spikeprune import Masks, hold, model_view
from spikeprune.errors import MaskMismatch, NonFinite, UnsupportedOptimizer

DEAD = 9  # entries that the masks below remove
REFUSED = {"LBFGS", "Adafactor", "SparseAdam"}
ALL = {
    name: kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
}
WISHES = {
    "plain": {},
    "decay": {"momentum": 0.9, "weight_decay": 0.1},
    "flags": {"momentum": 0.9, "amsgrad": True, "centered": True, "nesterov": True},
    "foreach": {"momentum": 0.9, "foreach": True},
    "fused": {"momentum": 0.9, "fused": True},
}
FORGETFUL = {  # optimizers that revive dead weights though their gradients are zero
    "SGD": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: torch.optim.Adam(params, lr=0.1),
    "AdamW": lambda params: torch.optim.AdamW(params, lr=0.1, weight_decay=0.1),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.1, momentum=0.9),
}


def cases():
    """Each optimizer with each wish it knows: momentum, decay and the like are filled in where they exist."""
    found = []
    for name in sorted(ALL.keys() - REFUSED):
        known = inspect.signature(ALL[name]).parameters
        for wish, options in WISHES.items():
            options = {option: value for option, value in options.items() if option in known}
            if list(options) != ["momentum"] and (options or wish == "plain"):  # momentum is in "decay" already
                found.append(pytest.param(ALL[name], options, id=f"{name}-{wish}"))
    return found


def make_net():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 2, bias=False))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=draw) - 0.5)
    return net


def make_masks():
    return Masks({"0": torch.arange(12).reshape(3, 4) % 2 == 0, "2": torch.arange(6).reshape(2, 3) % 2 == 0})


def viewed(net):
    return model_view(net, torch.zeros(1, 4), spiking=False)


def loss_of(net, seed=1):
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(seed))
    return (net(x) - 1).square().sum()


def train(net, optimizer, steps=3):
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(net, step).backward()
        optimizer.step()


def train_with_masked_gradients(net, optimizer, masks, steps=3):
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(net, step).backward()
        for name, mask in masks.items():
            net.get_parameter(f"{name}.weight").grad.masked_fill_(~mask, 0)
        optimizer.step()


def zombies(net, masks):
    """How many dead weights are not zero."""
    return sum(int((net.get_parameter(f"{name}.weight")[~mask] != 0).sum()) for name, mask in masks.items())


def memories(net, optimizer, masks):
    """Every parameter-shaped memory of the dead, and their gradients, as one tensor."""
    found = [torch.zeros(1)]
    for name, mask in masks.items():
        parameter = net.get_parameter(f"{name}.weight")
        tensors = [s for s in optimizer.state[parameter].values() if torch.is_tensor(s) and s.shape == mask.shape]
        found += [tensor[~mask] for tensor in tensors]
        found += [] if parameter.grad is None else [parameter.grad[~mask]]
    return torch.cat([tensor.flatten() for tensor in found])


def hook_counts(optimizer):
    return [len(v) for k, v in sorted(vars(optimizer).items()) if k.endswith("_hooks")]


def live(net, masks):
    return torch.cat([net.get_parameter(f"{name}.weight").detach()[mask] for name, mask in masks.items()])


def test_torch_still_offers_what_is_tried_here():
    assert REFUSED | FORGETFUL.keys() <= ALL.keys()


@pytest.mark.parametrize(("kind", "options"), cases())
def test_the_dead_stay_dead(kind, options):
    net, masks = make_net(), make_masks()
    optimizer = kind(net.parameters(), **options)
    train(net, optimizer)  # the optimizer now remembers what is about to die
    before = live(net, masks)
    with hold(optimizer, viewed(net), masks):
        assert zombies(net, masks) == 0
        for _ in range(5):
            train(net, optimizer, steps=1)
            assert zombies(net, masks) == 0
            assert not bool(memories(net, optimizer, masks).any())
    assert bool((live(net, masks) != before).all())


@pytest.mark.parametrize("make", FORGETFUL.values(), ids=FORGETFUL)
def test_twin_masked_gradients_alone_raise_zombies(make):
    net, masks = make_net(), make_masks()
    optimizer = make(net.parameters())
    train(net, optimizer)
    masks.apply_(net)
    assert zombies(net, masks) == 0
    train_with_masked_gradients(net, optimizer, masks)
    assert zombies(net, masks) == DEAD
    assert bool(memories(net, optimizer, masks).any())


@pytest.mark.parametrize("make", FORGETFUL.values(), ids=FORGETFUL)
def test_twin_masked_weights_alone_raise_zombies(make):
    net, masks = make_net(), make_masks()
    optimizer = make(net.parameters())
    masks.apply_(net)
    train(net, optimizer)
    assert zombies(net, masks) == DEAD


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_optimizers_with_other_memories_are_refused_by_name(name):
    net = make_net()
    optimizer = ALL[name](net.parameters())
    before = copy.deepcopy(net.state_dict())
    with (
        pytest.raises(UnsupportedOptimizer, match=rf"^{name} cannot be held: .*such as SGD, Adam"),
        hold(optimizer, viewed(net), make_masks()),
    ):
        pass
    assert not optimizer.state
    assert sum(hook_counts(optimizer)) == 0
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_what_is_no_optimizer_is_refused():
    net = make_net()
    with (
        pytest.raises(UnsupportedOptimizer, match=r"needs a torch\.optim\.Optimizer, but was given list"),
        hold([], viewed(net), make_masks()),
    ):
        pass


def test_the_optimizer_of_another_model_is_refused():
    net = make_net()
    optimizer = torch.optim.SGD(copy.deepcopy(net).parameters())
    with (
        pytest.raises(UnsupportedOptimizer, match=r"SGD updates no parameter of the Sequential.*not of a copy"),
        hold(optimizer, viewed(net), make_masks()),
    ):
        pass


def test_an_optimizer_of_some_layers_is_fine():
    net, masks = make_net(), make_masks()
    optimizer = torch.optim.Adam([{"params": []}, {"params": [net[2].weight]}])
    with hold(optimizer, viewed(net), masks):
        train(net, optimizer)
    assert zombies(net, masks) == 0


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        (Masks({"9": torch.ones(3, 4, dtype=torch.bool)}), "mask for '9', but the model's layers are 0, 2"),
        (Masks({"0": torch.ones(1, 4, dtype=torch.bool)}), r"shape \(1, 4\), its weight \(3, 4\)"),
    ],
)
def test_masks_of_another_model_are_refused(masks, told):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters())
    before = net[0].weight.detach().clone()
    with pytest.raises(MaskMismatch, match=told), hold(optimizer, viewed(net), masks):
        pass
    assert torch.equal(net[0].weight, before)
    assert sum(hook_counts(optimizer)) == 0


def test_hooks_leave_with_the_block():
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters())
    before = hook_counts(optimizer)
    with hold(optimizer, viewed(net), make_masks()) as held:
        assert held == make_masks()
        assert sum(hook_counts(optimizer)) == sum(before) + 3
    assert hook_counts(optimizer) == before


def test_hooks_leave_on_an_exception():
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters())
    with pytest.raises(ZeroDivisionError), hold(optimizer, viewed(net), make_masks()):
        1 / 0  # noqa: B018
    assert sum(hook_counts(optimizer)) == 0
    train(net, optimizer)
    assert zombies(net, make_masks()) == DEAD


def test_the_model_stays_plain():
    net = make_net()
    attributes, keys = [sorted(vars(m)) for m in net.modules()], list(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters())
    with hold(optimizer, viewed(net), make_masks()):
        train(net, optimizer)
        assert [sorted(vars(m)) for m in net.modules()] == attributes
        assert list(net.state_dict()) == keys
        assert type(net[0].weight) is nn.Parameter
        copy.deepcopy(optimizer.state_dict())


def dense_state(make):
    net = make_net()
    optimizer = make(net.parameters())
    train(net, optimizer)
    return optimizer.state_dict()


@pytest.mark.parametrize("make", FORGETFUL.values(), ids=FORGETFUL)
def test_a_dense_state_loaded_meanwhile_is_forgotten_at_once(make):
    net, masks = make_net(), make_masks()
    optimizer = make(net.parameters())
    with hold(optimizer, viewed(net), masks):
        optimizer.load_state_dict(dense_state(make))
        assert not bool(memories(net, optimizer, masks).any())
        train(net, optimizer, steps=1)
        assert zombies(net, masks) == 0


@pytest.mark.parametrize("make", FORGETFUL.values(), ids=FORGETFUL)
def test_twin_a_dense_state_loaded_without_hold_raises_zombies(make):
    net, masks = make_net(), make_masks()
    optimizer = make(net.parameters())
    masks.apply_(net)
    optimizer.load_state_dict(dense_state(make))
    assert bool(memories(net, optimizer, masks).any())
    train_with_masked_gradients(net, optimizer, masks, steps=1)
    assert zombies(net, masks) == DEAD


def test_replaced_masks_are_held_from_the_next_step_on():
    net, masks = make_net(), make_masks()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    swapped = Masks({name: ~mask for name, mask in masks.items()})
    with hold(optimizer, viewed(net), masks):
        train(net, optimizer)
        masks.replace_(swapped)
        train(net, optimizer, steps=1)
        assert zombies(net, swapped) == 0
        assert not bool(memories(net, optimizer, swapped).any())
        assert bool((live(net, swapped) != 0).all())  # what was dead may live again


def test_replaced_masks_of_another_shape_are_refused_though_they_would_broadcast():
    net, masks = make_net(), make_masks()
    optimizer = torch.optim.Adam(net.parameters())
    with hold(optimizer, viewed(net), masks):
        masks.replace_(Masks({"0": torch.tensor([[True, False, True, True]])}))
        with pytest.raises(MaskMismatch, match=r"shape \(1, 4\); the model.s has \(3, 4\)"):
            train(net, optimizer, steps=1)


def test_two_optimizers_may_be_held_at_once():
    net, masks = make_net(), make_masks()
    first, second = torch.optim.Adam([net[0].weight]), torch.optim.SGD([net[2].weight], lr=0.1, momentum=0.9)
    train(net, first)
    train(net, second)
    with hold(first, viewed(net), masks), hold(second, viewed(net), masks):
        train(net, first)
        train(net, second)
    assert zombies(net, masks) == 0


def test_a_nan_gradient_is_refused_before_the_step():
    net, masks = make_net(), make_masks()
    optimizer = torch.optim.Adam(net.parameters())
    with hold(optimizer, viewed(net), masks):
        train(net, optimizer)
        weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
        net[2].weight.grad[0, 0] = torch.nan
        with pytest.raises(NonFinite, match=r"gradient of .2.weight. holds NaN or infinity; the step was not taken.*unharmed"):
            optimizer.step()
        assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())
        assert all(torch.equal(v, state[i][k]) for i, s in optimizer.state_dict()["state"].items() for k, v in s.items())
        train(net, optimizer)  # and training goes on
    assert bool(torch.isfinite(live(net, masks)).all())


@pytest.mark.parametrize("values", [(torch.inf, -torch.inf), (torch.inf, torch.inf), (-torch.inf, 1.0)])
def test_infinities_do_not_cancel(values):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters())
    with hold(optimizer, viewed(net), make_masks()):
        loss_of(net).backward()
        net[0].weight.grad[0, 0], net[0].weight.grad[0, 2] = values
        with pytest.raises(NonFinite, match=r"'0\.weight'"):
            optimizer.step()


def test_large_gradients_whose_sum_overflows_are_fine():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-38)
    with hold(optimizer, viewed(net), make_masks()):
        net[0].weight.grad = torch.full((3, 4), 3e38)
        net[2].weight.grad = torch.zeros(2, 3)
        optimizer.step()
    assert bool(torch.isfinite(net[0].weight).all())


def test_a_nan_gradient_of_the_dead_is_fine():
    net, masks = make_net(), make_masks()
    optimizer = torch.optim.Adam(net.parameters())
    with hold(optimizer, viewed(net), masks):
        loss_of(net).backward()
        net[0].weight.grad[~masks["0"]] = torch.nan
        optimizer.step()
    assert zombies(net, masks) == 0
    assert bool(torch.isfinite(live(net, masks)).all())


def closure_of(net, optimizer, factor=1.0):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(net) * factor
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("call", [lambda o, c: o.step(c), lambda o, c: o.step(closure=c)], ids=["position", "keyword"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Muon])
def test_gradients_made_in_a_closure_are_masked_too(call, kind):
    net, masks = make_net(), make_masks()
    optimizer = kind(net.parameters(), lr=0.1)
    with hold(optimizer, viewed(net), masks):
        for _ in range(3):
            assert call(optimizer, closure_of(net, optimizer)).item() > 0
            assert zombies(net, masks) == 0
            assert not bool(memories(net, optimizer, masks).any())


def test_a_nan_gradient_made_in_a_closure_is_refused_before_the_step():
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters())
    with hold(optimizer, viewed(net), make_masks()):
        before = copy.deepcopy(net.state_dict())
        with pytest.raises(NonFinite, match=r"'0\.weight'"):
            optimizer.step(closure_of(net, optimizer, torch.nan))
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def scaled_step(net, optimizer, scaler, factor=1.0):
    optimizer.zero_grad()
    scaler.scale(loss_of(net) * factor).backward()
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_grad_scaler_steps_and_skipped_steps(kind, fused):
    net, masks = make_net(), make_masks()
    optimizer, scaler = kind(net.parameters(), lr=0.01, fused=fused), torch.amp.GradScaler("cpu", init_scale=1024.0)
    train(net, optimizer)
    with hold(optimizer, viewed(net), masks):
        before = live(net, masks)
        scaled_step(net, optimizer, scaler)
        after = live(net, masks)
        assert bool((after != before).all())
        scaled_step(net, optimizer, scaler, factor=torch.inf)
        assert torch.equal(live(net, masks), after)  # skipped
        assert scaler.get_scale() == 512.0
        assert zombies(net, masks) == 0
        scaled_step(net, optimizer, scaler)
        assert bool((live(net, masks) != after).all())
        assert zombies(net, masks) == 0
        assert not bool(memories(net, optimizer, masks).any())


def test_gradients_unscaled_and_clipped_are_fine():
    net, masks = make_net(), make_masks()
    optimizer, scaler = torch.optim.Adam(net.parameters()), torch.amp.GradScaler("cpu", init_scale=1024.0)
    with hold(optimizer, viewed(net), masks):
        scaler.scale(loss_of(net)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert zombies(net, masks) == 0


class Remembers(torch.optim.Optimizer):
    """A custom optimizer with momenta in a list and a dict; `needed` keeps a trial one from being built."""

    def __init__(self, params, needed=None, shape=None):
        super().__init__(params, {})
        self.shape = shape

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state["momenta"], state["named"] = [torch.zeros_like(parameter)], {"slow": torch.zeros_like(parameter)}
                if self.shape:
                    state["factor"] = torch.zeros(self.shape)
            state["momenta"][0].mul_(0.9).add_(parameter.grad)
            state["named"]["slow"].add_(parameter.grad)
            parameter.sub_(0.1 * state["momenta"][0] + 0.01 * state["named"]["slow"])


def test_memories_in_lists_and_dicts_are_reached():
    net, masks = make_net(), make_masks()
    optimizer = Remembers(net.parameters())
    train(net, optimizer)
    with hold(optimizer, viewed(net), masks):
        for name, mask in masks.items():
            state = optimizer.state[net.get_parameter(f"{name}.weight")]
            assert not bool(state["momenta"][0][~mask].any())
            assert not bool(state["named"]["slow"][~mask].any())
        train(net, optimizer)
    assert zombies(net, masks) == 0


class Needy(Remembers):
    def __init__(self, params, shape):  # no default: cannot be built for a trial
        super().__init__(params, shape=shape)


def test_an_optimizer_that_cannot_be_tried_is_held():
    net, masks = make_net(), make_masks()
    optimizer = Needy(net.parameters(), None)
    with hold(optimizer, viewed(net), masks):
        train(net, optimizer)
    assert zombies(net, masks) == 0


def test_an_optimizer_that_cannot_be_tried_is_refused_at_its_first_step():
    net = make_net()
    optimizer = Needy(net.parameters(), (5,))
    with (
        hold(optimizer, viewed(net), make_masks()),
        pytest.raises(UnsupportedOptimizer, match=r"'factor' for .0.weight. has shape \(5,\)"),
    ):
        train(net, optimizer)


class Broken(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        raise KeyError("no")


def test_an_optimizer_that_fails_its_trial_is_refused():
    net = make_net()
    with (
        pytest.raises(UnsupportedOptimizer, match="Broken cannot be held: it cannot step"),
        hold(Broken(net.parameters()), viewed(net), make_masks()),
    ):
        pass


def test_the_memory_of_a_layer_of_one_weight_is_reached():
    net = nn.Linear(1, 1, bias=False)
    view, optimizer = model_view(net, torch.ones(1, 1), spiking=False), torch.optim.Adam(net.parameters())
    net(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    with hold(optimizer, view, Masks({"": torch.tensor([[False]])})):
        assert optimizer.state[net.weight]["exp_avg"].item() == 0
        assert net.weight.item() == 0


def test_a_plain_dict_of_masks_is_refused():
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with (
        pytest.raises(MaskMismatch, match=r"masks is dict, but must be Masks.* Masks\(\{"),
        hold(optimizer, viewed(net), dict(make_masks())),
    ):
        pass
