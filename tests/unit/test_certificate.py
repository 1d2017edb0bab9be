"""The certificate: what it counts by hand, how each of its parts can fail, and what it leaves alone."""

import copy

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn

from small_nets import Loop, SnnGuest, assert_same, noise, photograph, unroll
from spikeprune import channel_masks, model_view, plan_shrink, shrink
from spikeprune.certificate import Certificate, certify, silenced
from spikeprune.errors import ShrinkError

HOLDS = Certificate(spikes=9, differing=0, leaked=0, gap=0.0, rounded=0, rounded_gap=0.0)


def alive(*bits):
    return torch.tensor(bits, dtype=torch.bool)


def by_hand():
    """2-3-1 with IF neurons of threshold 1 and hard reset; a batch of one sample and two timesteps."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), neuron.IFNode(), nn.Linear(3, 1, bias=False), neuron.IFNode())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.5, 0.0], [1.0, 1.0]]))
        net[2].weight.copy_(torch.tensor([[0.5, 1.0, 2.0]]))
    x = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
    return model_view(net, x, forward=unroll)


def pair(view, name, *bits):
    """Give the silenced view, the smaller network and the vector by family."""
    masks = channel_masks(view, {name: alive(*bits)})
    quiet = silenced(view, masks)
    return quiet, plan_shrink(view, masks).apply(quiet.net), {name: alive(*bits)}


def ordinary(act=lambda net, x: net.two(torch.relu(net.one(x)))):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.shift = nn.Linear(3, 4), nn.Linear(4, 2), 0.0

        def forward(self, x):
            return act(self, x)

    torch.manual_seed(0)
    return model_view(Net(), noise(5, 3), spiking=False)


# By hand


def test_counted_by_hand():
    """Without the last channel: the first fires at both timesteps, the second at the second; the output at the second."""
    quiet, small, living = pair(by_hand(), "0", 1, 1, 0)
    assert certify(quiet, small, living) == Certificate(
        spikes=2 + 1 + 1, differing=0, leaked=0, gap=0.0, rounded=0, rounded_gap=0.0
    )
    batches = [quiet.example, (quiet.example, None), 0 * quiet.example]
    assert certify(quiet, small, living, batches).spikes == 3 * 4 + 0


def test_differing_counted_by_hand():
    quiet, small, living = pair(by_hand(), "0", 1, 1, 0)
    with torch.no_grad():
        small[0].weight[0, 0] = 0.5  # fires at the second timestep alone, and so does the output
    found = certify(quiet, small, living)
    assert (found.differing, found.rounded, found.leaked) == (1, 1, 0)
    with torch.no_grad():
        small[0].weight[:] = 0  # nothing fires
    assert certify(quiet, small, living).differing == 4


def test_leaked_counted_by_hand():
    """A channel that was not silenced, though it is to be cut."""
    view = by_hand()
    _, small, living = pair(view, "0", 1, 1, 0)
    found = certify(view.clone(), small, living)
    assert found.leaked == 2  # the last channel fires at both timesteps
    assert found.differing == 1  # so that the output does, too
    view.net[2].weight.data[0, 2] = 0  # nobody hears it in this batch, and still it speaks
    found = certify(view.clone(), small, living)
    assert (found.leaked, found.differing, found.gap, found.rounded_gap) == (2, 0, 0.0, 0.0)
    with pytest.raises(ShrinkError, match="2 times a layer read something from a channel that was cut"):
        found.check()


def test_a_gap_by_hand():
    quiet, small, living = pair(ordinary(), "one", 1, 0, 1, 1)
    largest = max(1.0, float(quiet.net(quiet.example).detach().abs().max()))
    with torch.no_grad():
        small.two.bias[1] += 0.25
    found = certify(quiet, small, living)
    assert found.gap == pytest.approx(0.25 / largest, abs=1e-6)
    assert found.rounded_gap == pytest.approx(0.25 / largest, abs=1e-6)
    assert (found.spikes, found.differing, found.leaked) == (0, 0, 0)


def test_a_gap_is_relative_to_large_outputs():
    quiet, small, living = pair(ordinary(), "one", 1, 0, 1, 1)
    for net in (quiet.net, small):
        net.two.bias.data[0] = 1e6
    small.two.bias.data[1] += 1
    assert certify(quiet, small, living).gap == pytest.approx(1e-6, rel=1e-3)


# What holds, and what does not


def test_it_holds():
    assert HOLDS.holds
    assert HOLDS.check() is HOLDS
    rounded = Certificate(spikes=9, differing=0, leaked=0, gap=1e-5, rounded=3, rounded_gap=1e-5)
    assert rounded.check() is rounded


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"differing": 1}, "1 of 9 spikes differ in float64"),
        ({"leaked": 4}, "4 times a layer read"),
        ({"gap": 1.1e-5}, "outputs differ by 1.1e-05"),
        ({"rounded_gap": 2e-5}, r"\(float32: 2e-05\)"),
        ({"gap": float("inf")}, "outputs differ by inf"),
    ],
)
def test_each_part_can_fail(wrong, told):
    found = Certificate(**{**vars(HOLDS), **wrong})
    assert not found.holds
    with pytest.raises(ShrinkError, match=told):
        found.check()


def test_a_tampered_weight():
    view = model_view(Loop(), noise(4, 2, 6))
    quiet, small, living = pair(view, "fc1", 1, 0, 1, 1, 0)
    assert certify(quiet, small, living).check().spikes > 0
    with torch.no_grad():
        small.fc1.weight.neg_()
    found = certify(quiet, small, living)
    assert found.differing > 0
    with pytest.raises(ShrinkError, match=f"{found.differing} of {found.spikes} spikes differ"):
        found.check()


def test_not_a_number():
    quiet, small, living = pair(ordinary(), "one", 1, 0, 1, 1)
    small.two.bias.data[0] = float("nan")
    found = certify(quiet, small, living)
    assert (found.gap, found.rounded_gap) == (float("inf"), float("inf"))
    assert not found.holds


def test_what_differs_in_single_precision_alone():
    """An output that does must be close; a spike that does is counted, and its batch's outputs are not compared."""

    def act(net, x):
        out = net.two(torch.relu(net.one(x)))
        return out + net.shift if x.dtype == torch.float32 else out

    view = ordinary(act)
    quiet, small, living = pair(view, "one", 1, 0, 1, 1)
    small.shift = 0.5
    found = certify(quiet, small, living)
    assert found.gap < 1e-12
    assert found.rounded_gap > 0.1
    assert not found.holds

    class Spiking(Loop):
        shift = 0.0

        def forward(self, x):
            return super().forward(x + self.shift if x.dtype == torch.float32 else x)

    view = model_view(Spiking(), noise(4, 2, 6))
    quiet, small, living = pair(view, "fc1", 1, 0, 1, 1, 0)
    small.shift = 5.0
    found = certify(quiet, small, living)
    assert found.rounded > 0
    assert found.rounded_gap == 0
    assert found.holds


def test_what_the_example_hides_and_a_batch_shows():
    """The forward adds something to channels that is zero in the example."""
    view = ordinary(lambda net, x: net.two(torch.relu(net.one(x) + float(x.max()))))
    view.example.zero_()
    masks = channel_masks(view, {"one": alive(1, 0, 1, 1)})
    assert shrink(view, masks).one.out_features == 3
    with pytest.raises(ShrinkError, match="Does the forward add something to channels"):
        shrink(view, masks, calibration=[noise(5, 3)])


def test_norms_whose_shift_is_left():
    """Zero weights alone do not silence a channel behind a norm: its shift goes on firing."""
    view = model_view(SnnGuest(), noise(4, 2, 6))
    nn.init.constant_(view.net.norm.bias, 2.0)
    masks = channel_masks(view, {"fc1": alive(1, 0, 1, 1, 0)})
    quiet = silenced(view, masks)
    small = plan_shrink(view, masks).apply(quiet.net)
    assert certify(quiet, small, {"fc1": alive(1, 0, 1, 1, 0)}).holds
    weights = view.clone()
    with torch.no_grad():
        weights.net.fc1.weight[[1, 4]] = 0
    found = certify(weights, small, {"fc1": alive(1, 0, 1, 1, 0)})
    assert found.leaked > 0
    assert not found.holds


def test_a_norm_behind_a_neuron():
    """The neuron of a dead channel may fire: what the reader is given is silent."""
    net = nn.Sequential(nn.Linear(6, 5), neuron.IFNode(), nn.BatchNorm1d(5), nn.Linear(5, 3), neuron.IFNode())
    with torch.no_grad():
        net[0].bias.fill_(2.0)
    view = model_view(net, noise(4, 2, 6), forward=unroll)
    quiet, small, living = pair(view, "0", 1, 0, 1, 1, 0)
    assert certify(quiet, small, living).check().spikes >= 5 * 4 * 2
    with torch.no_grad():
        quiet.net[2].bias[1] = 1e-3
    assert certify(quiet, small, living).leaked == 4 * 2


def test_where_dead_channels_lie_after_a_concatenation():
    """Channels 4 to 7 of the reader's input are those of the second layer; each takes four entries."""

    def act(net, x):
        return net.three(torch.cat([net.one(x), net.two(x)], 1).flatten(1))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 3, 1), nn.Linear(28, 2)

        def forward(self, x):
            return act(self, x)

    view = model_view(Net(), 1 + noise(1, 2, 2, 2), spiking=False)
    quiet, small, living = pair(view, "two", 1, 0, 1)
    assert small.three.in_features == 24
    assert certify(quiet, small, living).check().leaked == 0
    assert certify(view.clone(), small, living).leaked == 4


# Networks that do not belong together


def test_networks_of_other_sizes():
    view = model_view(Loop(), noise(4, 2, 6))
    quiet, small, living = pair(view, "fc1", 1, 0, 1, 1, 0)
    with pytest.raises(ShrinkError, match=r"neuron 'lif1' gives \(4, 2, 3\) spikes of living channels, but \(4, 2, 5\)"):
        certify(quiet, quiet.net, living)
    small.lif1 = nn.Identity()
    with pytest.raises(ShrinkError):
        certify(quiet, small, living)
    other = copy.deepcopy(quiet.net)
    other.fc2, other.lif2 = nn.Linear(5, 4), nn.Identity()
    with pytest.raises(ShrinkError):
        certify(quiet, other, {})


def test_outputs_of_another_shape():
    quiet, small, living = pair(ordinary(), "one", 1, 0, 1, 1)
    small.two = nn.Linear(3, 5)
    with pytest.raises(ShrinkError, match=r"returns \(5, 5\), the silenced one \(5, 2\)"):
        certify(quiet, small, living)


# What is left alone


@pytest.mark.parametrize("fails", [False, True])
def test_both_networks_are_left_as_they_were(fails):
    view = model_view(Loop(), noise(4, 2, 6))
    view.net.train()
    quiet, small, living = pair(view, "fc1", 1, 0, 1, 1, 0)
    small.eval()
    if fails:
        small.fc2 = nn.Linear(4, 3)
    before = photograph(quiet.net), photograph(small)
    if fails:
        with pytest.raises(ShrinkError):
            certify(quiet, small, living)
    else:
        certify(quiet, small, living)
    assert_same(before[0], photograph(quiet.net))
    assert_same(before[1], photograph(small))
    assert torch.get_default_dtype() is torch.float32


def test_both_run_from_rest():
    view = by_hand()
    quiet, small, living = pair(view, "0", 1, 1, 0)
    first = certify(quiet, small, living)
    unroll(quiet.net, quiet.example[:1])  # leaves membranes behind, in one of the two
    assert quiet.net[1].v.any()
    assert certify(quiet, small, living) == first


def test_a_silenced_copy():
    view = model_view(SnnGuest(), noise(4, 2, 6))
    nn.init.ones_(view.net.norm.bias)
    masks = channel_masks(view, {"fc1": alive(1, 0, 1, 1, 0)})
    before = photograph(view.net)
    quiet = silenced(view, masks)
    assert_same(before, photograph(view.net))
    assert quiet.net.norm.weight.tolist() == quiet.net.norm.bias.tolist() == [1, 0, 1, 1, 0]
    assert torch.equal(quiet.net.fc1.weight, view.net.fc1.weight)  # kept, behind the norm


def test_neurons_that_take_all_timesteps():
    net = nn.Sequential(nn.Linear(2, 3, bias=False), neuron.IFNode(), nn.Linear(3, 1, bias=False), neuron.IFNode())
    net.load_state_dict(by_hand().net.state_dict())
    functional.set_step_mode(net, "m")
    quiet, small, living = pair(model_view(net, by_hand().example), "0", 1, 1, 0)
    assert certify(quiet, small, living).spikes == 4
