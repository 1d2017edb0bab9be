"""Each framework is recognized, reset and read as it really behaves."""

import pytest
import snntorch
import torch
from snntorch import utils
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from small_nets import ByHand, Loop, jelly, lively, nested, noise, spikes, unroll
from spikeprune.errors import LayoutError, MeasureError, ModelError
from spikeprune.measure import Need, measure
from spikeprune.view.adapters import loaded
from spikeprune.view.adapters import snntorch as snn_adapter
from spikeprune.view.adapters import spikingjelly as jelly_adapter
from spikeprune.view.layer import Layout
from spikeprune.view.model_view import detached_copy, model_view

T, N = 4, 2

SNN_NEURONS = {
    "Leaky": lambda: snntorch.Leaky(beta=0.9, init_hidden=True),
    "Leaky, reset to zero": lambda: snntorch.Leaky(beta=0.9, init_hidden=True, reset_mechanism="zero"),
    "Synaptic": lambda: snntorch.Synaptic(alpha=0.8, beta=0.9, init_hidden=True),
    "Lapicque": lambda: snntorch.Lapicque(beta=0.9, init_hidden=True),
    "Alpha": lambda: snntorch.Alpha(alpha=0.9, beta=0.8, init_hidden=True),
    "RLeaky": lambda: snntorch.RLeaky(beta=0.9, V=0.5, all_to_all=False, init_hidden=True),
}
JELLY_NEURONS = {
    "IF": lambda: neuron.IFNode(),
    "IF, soft reset": lambda: neuron.IFNode(v_reset=None),
    "LIF": lambda: neuron.LIFNode(tau=2.0),
    "ParametricLIF": lambda: neuron.ParametricLIFNode(),
    "KLIF": lambda: neuron.KLIFNode(),
}


def layouts(view):
    return {layer.name: layer.layout for layer in view.layers}


def test_both_frameworks_are_loaded():
    assert [name for name, _ in loaded()] == ["snntorch", "spikingjelly"]


@pytest.mark.parametrize("make", [Loop, ByHand])
def test_snntorch_loop_in_the_forward(make):
    view = model_view(make(), noise(T, N, 6))
    assert view.timesteps == T
    assert layouts(view) == {"fc1": Layout.STEP, "fc2": Layout.STEP}
    assert list(view.neurons) == ["lif1", "lif2"]
    assert view.uncounted == ()


@pytest.mark.parametrize("make", SNN_NEURONS.values(), ids=SNN_NEURONS)
def test_snntorch_neurons_are_reset_between_passes(make):
    net = lively(nn.Sequential(nn.Linear(6, 5), make(), nn.Linear(5, 3), make()))
    view = model_view(net, noise(T, N, 6), forward=unroll)
    assert layouts(view) == {"0": Layout.STEP, "2": Layout.STEP}
    x = noise(T, N, 6, seed=1)
    first, membrane = view(x), net[1].mem.clone()
    assert membrane.abs().sum() > 0
    assert torch.equal(view(x), first)
    assert torch.equal(net[1].mem, membrane)
    unroll(net, x)
    assert not torch.equal(net[1].mem, membrane), "without a reset the state of the last pass must show"


def test_snntorch_state_returned_by_the_last_neuron():
    net = lively(nn.Sequential(nn.Linear(6, 3), snntorch.Leaky(beta=0.9, init_hidden=True, output=True)))
    view = model_view(net, noise(T, N, 6), forward=lambda net, x: torch.stack([net(step)[1] for step in x]))
    rates = measure(view, [noise(T, N, 6)], {Need.SPIKE_RATE}).rates["1"]
    fired = (view(noise(T, N, 6)) > 1).double()  # the membrane is given back, before the delayed reset
    assert torch.equal(rates, fired.mean((1, 2)))


def test_snntorch_recurrent_weights_are_a_layer_of_their_own():
    lif = snntorch.RLeaky(beta=0.9, linear_features=3, init_hidden=True)
    view = model_view(lively(nn.Sequential(nn.Linear(6, 3), lif)), noise(T, N, 6), forward=unroll)
    assert layouts(view) == {"0": Layout.STEP, "1.recurrent": Layout.STEP}
    x = noise(T, N, 6, seed=1)
    assert torch.equal(view(x), view(x))


def test_snntorch_nested_neurons_are_reset():
    net = nested()
    view = model_view(net, noise(T, N, 6), forward=unroll)
    view(noise(T, N, 6))
    assert net[0].lif.mem.abs().sum() > 0
    view.reset()
    assert net[0].lif.mem.abs().sum() == 0
    assert net[1].lif.mem.abs().sum() == 0


def test_snntorch_own_reset_misses_nested_neurons():
    net = nested()
    unroll(net, noise(T, N, 6))
    utils.reset(net)
    assert net[0].lif.mem.abs().sum() > 0, "snnTorch resets them now: our own reset could go"


def test_snntorch_sequence_neuron_takes_all_timesteps():
    lif = snntorch.StateLeaky(beta=0.9, channels=5)
    net = lively(nn.ModuleDict({"fc1": nn.Linear(6, 5), "lif": lif, "fc2": nn.Linear(5, 3)}))
    view = model_view(net, noise(T, N, 6), forward=lambda net, x: net["fc2"](net["lif"](net["fc1"](x))[0]))
    assert view.timesteps == T
    assert layouts(view) == {"fc1": Layout.SEQUENCE, "fc2": Layout.SEQUENCE}
    assert measure(view, [noise(T, N, 6)], {Need.SPIKE_RATE}).rates["lif"].shape == (T,)


@pytest.mark.parametrize("make", JELLY_NEURONS.values(), ids=JELLY_NEURONS)
def test_spikingjelly_steps_and_sequences_agree(make):
    x = noise(T, N, 6)
    sequence = model_view(jelly("m", make), x)
    step = model_view(jelly("s", make), x, forward=unroll)
    assert sequence.timesteps == step.timesteps == T
    assert layouts(sequence) == {"0": Layout.SEQUENCE, "2": Layout.SEQUENCE}
    assert layouts(step) == {"0": Layout.STEP, "2": Layout.STEP}
    first = sequence(x)
    assert torch.equal(first, step(x))
    assert torch.equal(sequence(x), first)
    needs = {Need.INPUT_COUNT, Need.SPIKE_RATE}
    one, other = measure(sequence, [x], needs), measure(step, [x], needs)
    assert torch.equal(one["2"].input_count, other["2"].input_count)
    assert torch.equal(one.rates["1"], other.rates["1"])


def test_spikingjelly_time_folded_into_the_batch():
    net = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 2, 3, padding=1)), neuron.IFNode(), nn.Flatten(2), nn.Linear(18, 3), neuron.IFNode()
    )
    functional.set_step_mode(lively(net), "m")
    view = model_view(net, noise(T, N, 1, 3, 3))
    assert layouts(view) == {"0.0": Layout.FOLDED, "3": Layout.SEQUENCE}


def test_spikingjelly_container_that_steps():
    net = nn.Sequential(layer.MultiStepContainer(lively(nn.Linear(6, 5))), neuron.IFNode(step_mode="m"))
    view = model_view(net, noise(T, N, 6))
    assert layouts(view) == {"0.0": Layout.STEP}


class Static(nn.Module):
    """A first convolution computed once, repeated over time; a classifier on the mean over time."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.lif = neuron.IFNode(step_mode="m")
        self.head = nn.Linear(18, 3)
        lively(self)

    def forward(self, x):
        current = self.conv(x).unsqueeze(0).repeat(T, 1, 1, 1, 1)
        return self.head(self.lif(current).mean(0).flatten(1))


def test_spikingjelly_layers_called_once_for_all_timesteps():
    view = model_view(Static(), noise(N, 1, 5, 5))
    assert view.timesteps == T
    assert layouts(view) == {"conv": Layout.ONCE, "head": Layout.ONCE}


def test_spikingjelly_dropout_state_is_reset():
    net = nn.Sequential(layer.Linear(6, 50), neuron.IFNode(), layer.Dropout(0.5))
    functional.set_step_mode(lively(net), "m")
    view = model_view(net, noise(T, N, 6))
    view(noise(T, N, 6))
    kept = net[2].mask
    assert kept is not None
    view.reset()
    assert net[2].mask is None
    assert list(view.neurons) == ["1"], "dropout keeps state but is no neuron"


def test_spikingjelly_neuron_replaced_after_a_forward():
    net, x = jelly(), noise(T, N, 6)
    view = model_view(net, x)
    functional.reset_net(net)
    old, net[1] = net[1], neuron.IFNode(step_mode="m")
    first = view(x)
    assert old.v == 0.0
    assert torch.equal(view(x), first)
    functional.reset_net(net)
    assert torch.is_tensor(net[1].v), "SpikingJelly resets the new neuron now: the view could call it"


def test_a_neuron_replaced_since_is_not_measured_silently():
    net, x = jelly(), noise(T, N, 6)
    view = model_view(net, x)
    net[1] = neuron.IFNode(step_mode="m")
    with pytest.raises(LayoutError, match=r"'1' saw 0 timesteps in batch 0, but 4 when .* View it again"):
        measure(view, [x], {Need.SPIKE_RATE})


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("samples", [1, 3])
def test_one_timestep_one_sample(mode, samples):
    forward = unroll if mode == "s" else None
    view = model_view(jelly(mode), noise(1, 1, 6), forward=forward)
    assert view.timesteps == 1
    x = spikes(1, samples, 6)
    stats = measure(view, [x], {Need.INPUT_COUNT, Need.SPIKE_RATE})
    assert stats.samples == samples
    assert torch.equal(stats["0"].input_count, x.double().mean(1))


def test_spikes_that_cannot_be_told():
    with pytest.raises(ModelError, match=r"Leaky returned str; its spikes cannot be told"):
        snn_adapter.spikes(snntorch.Leaky(beta=0.9), "spikes")
    with pytest.raises(ModelError, match=r"IFNode returned tuple; its spikes cannot be told"):
        jelly_adapter.spikes(neuron.IFNode(), (torch.zeros(1),))


def test_neurons_of_a_users_own_class():
    class Mine(neuron.LIFNode):
        pass

    assert jelly_adapter.is_neuron(Mine())
    assert not jelly_adapter.is_neuron(layer.Dropout())
    assert not snn_adapter.is_neuron(nn.ReLU())


# Leak and charge


def leaky(**options):
    return snntorch.Leaky(**{"beta": 0.9, "init_hidden": True, **options})


LEAKS = {
    "IF": (jelly_adapter, lambda: neuron.IFNode(), 1.0),
    "IF, soft reset": (jelly_adapter, lambda: neuron.IFNode(v_reset=None), 1.0),
    "LIF": (jelly_adapter, lambda: neuron.LIFNode(tau=4.0), 0.75),
    "LIF, whole input": (jelly_adapter, lambda: neuron.LIFNode(tau=4.0, decay_input=False), 0.75),
    "PLIF": (jelly_adapter, lambda: neuron.ParametricLIFNode(init_tau=4.0), 0.75),
    "Leaky": (snn_adapter, lambda: leaky(beta=0.75), 0.75),
    "Leaky, learned": (snn_adapter, lambda: leaky(beta=0.75, learn_beta=True), 0.75),
    "Leaky, one each": (snn_adapter, lambda: leaky(beta=torch.tensor([0.25, 0.75])), 0.5),
    "Leaky, out of bounds": (snn_adapter, lambda: leaky(beta=torch.tensor([-1.0, 0.5, 7.0])), 0.5),
}


@pytest.mark.parametrize(("adapter", "make", "expected"), LEAKS.values(), ids=LEAKS)
def test_leak(adapter, make, expected):
    leak = adapter.leak(make())
    assert isinstance(leak, float)
    assert leak == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("adapter", "make", "expected"), [v for k, v in LEAKS.items() if "each" not in k and "out" not in k])
def test_the_leak_is_what_a_resting_membrane_does(adapter, make, expected):
    node = make()
    with torch.no_grad():
        node(torch.full((1, 1), 0.2))
        first = float(node.v if adapter is jelly_adapter else node.mem)
        node(torch.zeros(1, 1))
        second = float(node.v if adapter is jelly_adapter else node.mem)
    assert second / first == pytest.approx(adapter.leak(node), abs=1e-6)


class Same(neuron.LIFNode):
    """Of a user's own class, but charges as the class it is made from."""


class Other(neuron.LIFNode):
    def single_step_functional_forward(self, inputs, states, **_):
        return (inputs[0],), states


def test_of_a_class_made_from_a_known_one_they_are_known_unless_it_charges_in_its_own_way():
    assert jelly_adapter.leak(Same(tau=4.0)) == 0.75
    assert jelly_adapter.charge(Same(tau=4.0), torch.ones(1, 1))[0].item() == 0.25
    for kind in (Other, neuron.ILIFNode, neuron.KLIFNode):
        with pytest.raises(MeasureError, match=rf"the leak of a {kind.__name__} neuron is not known here"):
            jelly_adapter.leak(kind())
        with pytest.raises(MeasureError, match=rf"the charge of a {kind.__name__} neuron is not known here"):
            jelly_adapter.charge(kind(), torch.ones(1, 1))


@pytest.mark.parametrize("make", [lambda: snntorch.Synaptic(alpha=0.8, beta=0.9), lambda: snntorch.Alpha(alpha=0.9, beta=0.8)])
def test_of_snntorch_only_leaky_is_known(make):
    with pytest.raises(MeasureError, match=r"the leak of a \w+ neuron is not known here; of snnTorch it is of Leaky"):
        snn_adapter.leak(make())
    with pytest.raises(MeasureError, match=r"the charge of a \w+ neuron is not known here"):
        snn_adapter.charge(make(), torch.ones(1, 1))


def test_a_leaky_that_resets_at_once_keeps_no_charge():
    with pytest.raises(MeasureError, match="reset_delay=True"):
        snn_adapter.charge(leaky(reset_delay=False), torch.ones(1, 1))


@pytest.mark.parametrize(("reset", "after"), [(0.0, 0.0), (-0.5, -0.5), (None, 0.25)])
@pytest.mark.parametrize("mode", ["s", "m"])
def test_charge_is_before_the_reset_and_from_the_present_state(mode, reset, after):
    node = neuron.IFNode(v_threshold=1.5, v_reset=reset, step_mode=mode)
    one = torch.ones(1, 1)
    node(one.unsqueeze(0) if mode == "m" else one)  # charged to 1, or from -0.5 to 0.5
    start = 1.0 if reset != -0.5 else 0.5
    steps = torch.tensor([[[1.75 - start]], [[0.25]]])
    charge, threshold = jelly_adapter.charge(node, steps if mode == "m" else steps[0])
    assert threshold == 1.5
    assert charge.flatten().tolist() == ([1.75, after + 0.25] if mode == "m" else [1.75])


def test_charge_of_leaky_is_before_the_reset():
    node = leaky(beta=0.5, threshold=1.5)
    node(torch.tensor([[2.0]]))
    charge, threshold = snn_adapter.charge(node, torch.tensor([[2.25]]))
    assert float(threshold) == 1.5
    assert charge.tolist() == [[1.75]]  # 0.5 * 2 + 2.25 - 1.5: it fires, and is reset a timestep later


# Membrane


@pytest.mark.parametrize(("reset", "left"), [(0.0, 0.0), (-0.5, -0.5), (None, 0.25)])
@pytest.mark.parametrize("mode", ["s", "m"])
def test_membrane_is_after_the_reset_and_from_the_present_state(mode, reset, left):
    node = neuron.IFNode(v_threshold=1.5, v_reset=reset, step_mode=mode)
    one = torch.ones(1, 1)
    node(one.unsqueeze(0) if mode == "m" else one)  # charged to 1, or from -0.5 to 0.5
    start = 1.0 if reset != -0.5 else 0.5
    steps = torch.tensor([[[1.75 - start]], [[0.25]]])
    membrane = jelly_adapter.membrane(node, steps if mode == "m" else steps[0])
    assert membrane.flatten().tolist() == ([left, left + 0.25] if mode == "m" else [left])


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: neuron.IFNode(**options),
        lambda **options: neuron.IFNode(v_reset=None, **options),
        lambda **options: neuron.LIFNode(tau=3.0, v_threshold=0.4, **options),
        lambda **options: neuron.LIFNode(tau=3.0, decay_input=False, v_reset=None, **options),
        lambda **options: neuron.ParametricLIFNode(init_tau=3.0, v_threshold=0.4, **options),
    ],
)
def test_membrane_is_what_spikingjelly_itself_leaves(make):
    x = 2 * noise(T, N, 5)
    node = make(step_mode="m", store_v_seq=True)
    with torch.no_grad():
        fired = node(x)
        assert 0 < fired.mean() < 1
        assert torch.equal(jelly_adapter.membrane(make(step_mode="m"), x), node.v_seq)
        step = make()
        for now in x:
            left = jelly_adapter.membrane(detached_copy(step), now)
            step(now)
            torch.testing.assert_close(left, step.v, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "left"), [("subtract", 0.25), ("zero", 0.0), ("none", 1.75)])
def test_membrane_of_leaky_is_reset_within_the_timestep(kind, left):
    node = leaky(beta=0.5, threshold=1.5, reset_mechanism=kind)
    assert snn_adapter.membrane(node, torch.tensor([[1.75, 1.0, 1.5]])).tolist() == [[left, 1.0, 1.5]]  # above it, not at it
    # The reset that snnTorch owes from the timestep before comes first: 0.5 * 1.75 + 2 - 1.5, or 0 + 2, or 0.5 * 1.75 + 2.
    charge = {"subtract": 1.375, "zero": 2.0, "none": 2.875}[kind]
    after = {"subtract": 1.375, "zero": 0.0, "none": 2.875}[kind]
    assert snn_adapter.charge(detached_copy(node), torch.tensor([[2.0, 0.0, 0.0]]))[0][0, 0].item() == charge
    assert snn_adapter.membrane(node, torch.tensor([[2.0, 0.0, 0.0]]))[0, 0].item() == after


@pytest.mark.parametrize("kind", ["subtract", "zero", "none"])
def test_membrane_of_leaky_from_rest_is_that_of_one_without_delay(kind):
    x = 2 * noise(N, 5)
    at_once = leaky(beta=0.5, reset_mechanism=kind, reset_delay=False)
    at_once(x)
    assert torch.equal(snn_adapter.membrane(leaky(beta=0.5, reset_mechanism=kind), x), at_once.mem)


def test_membranes_that_are_not_known_are_refused():
    for kind in (Other, neuron.ILIFNode, neuron.KLIFNode):
        with pytest.raises(MeasureError, match=rf"the membrane of a {kind.__name__} neuron is not known here"):
            jelly_adapter.membrane(kind(), torch.ones(1, 1))
    assert jelly_adapter.membrane(Same(tau=4.0), torch.ones(1, 1)).item() == 0.25
    for unknown in (snntorch.Synaptic(alpha=0.8, beta=0.9), leaky(reset_delay=False)):
        with pytest.raises(MeasureError, match=r"neuron is not known here; of snnTorch it is of Leaky with reset_delay=True"):
            snn_adapter.membrane(unknown, torch.ones(1, 1))
