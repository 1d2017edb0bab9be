"""Integer layers: every form of layer bit by bit, what they refuse, and thresholds in steps."""

import copy

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from channel_nets import Leaky, Residual, awake, bare, jelly
from same_spikes import doubled, heard
from small_nets import noise, spikes
from spikeprune import model_view
from spikeprune.errors import ModelError, NonFinite, QuantizeError
from spikeprune.quantize import IntegerLayer, fold_norms, grid, integer_twin, quantize_

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (4, 6)),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), (4, 6)),
    "linear in time": (lambda: nn.Linear(6, 5), (3, 4, 6)),
    "1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 3)), (2, 4, 9, 8)),
    "3d": (lambda: nn.Conv3d(2, 3, (2, 3, 2), stride=(1, 2, 1), padding=1, dilation=(2, 1, 1)), (2, 2, 5, 6, 4)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), (2, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), (2, 4, 6, 6)),
    "1x1": (lambda: nn.Conv2d(4, 3, 1, stride=2), (2, 4, 5, 5)),
    "same": (lambda: nn.Conv2d(2, 3, (3, 4), padding="same", dilation=(1, 2)), (2, 2, 6, 7)),
    "valid": (lambda: nn.Conv1d(2, 3, 3, padding="valid"), (2, 2, 6)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 5, 5)),
    "reflect": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (2, 2, 5, 5)),
    "replicate": (lambda: nn.Conv1d(2, 3, 5, padding=2, padding_mode="replicate"), (2, 2, 5)),
    "step mode m": (lambda: layer.Conv2d(2, 3, 3, step_mode="m"), (3, 2, 2, 5, 5)),
}
INPUTS = {
    "spikes": lambda shape: spikes(*shape),
    "pooled": lambda shape: (noise(*shape) * 4).floor() / 4,
    "counts": lambda shape: (noise(*shape) * 9 - 4).floor(),
    "images": lambda shape: grid(noise(*shape) * 4 - 2),
    "fine": lambda shape: grid(noise(*shape, seed=1), bits=16),
    "nothing": lambda shape: torch.zeros(shape),
}


def twins(make, shape, bits, **options):
    torch.manual_seed(0)
    view = model_view(make(), torch.rand(shape), spiking=False)
    quantization = quantize_(view, bits, **options)
    return integer_twin(view, quantization), copy.deepcopy(view.net).double()


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_are_those_of_float64_bit_by_bit(name, given):
    make, shape = LAYERS[name]
    x = INPUTS[given](shape)
    for bits, per_channel in ((8, False), (4, True), (1, False)):
        if name == "step mode m":
            net, wide, whole = make(), None, None
            torch.manual_seed(0)
            view = model_view(nn.Sequential(net, neuron.IFNode(step_mode="m")), torch.rand(shape))
            quantization = quantize_(view, bits, per_channel=per_channel)
            whole, wide = integer_twin(view, quantization)[0], copy.deepcopy(net).double()
        else:
            whole, wide = twins(make, shape, bits, per_channel=per_channel)
        with torch.no_grad():
            found, wanted = whole(x), wide(x.double())
        assert isinstance(whole, IntegerLayer)
        assert found.dtype == torch.double
        assert torch.equal(found, wanted)


def test_twin_an_integer_that_is_off_by_one_is_seen():
    whole, wide = twins(*LAYERS["2d"], 4)
    whole.integers[2, 1, 0, 0] += 1
    x = spikes(2, 4, 9, 8)
    with torch.no_grad():
        assert not torch.equal(whole(x), wide(x.double()))


def test_twin_float32_is_not_exact():
    torch.manual_seed(0)
    view = model_view(nn.Linear(500, 5), torch.rand(4, 500), spiking=False)
    twin = integer_twin(view, quantize_(view, 8))
    x = grid(noise(4, 500))
    with torch.no_grad():
        assert not torch.equal(twin(x), view.net(x).double())


# What layers are given


@pytest.mark.parametrize("bad", [torch.rand(4, 6) / 3, torch.full((4, 6), 2.0**-17), torch.full((4, 6), 1 / 9)])
def test_inputs_on_no_grid_are_refused(bad):
    whole, _ = twins(*LAYERS["linear"], 4)
    with pytest.raises(QuantizeError, match=r"layer '' was given values that are no multiples of 2\^-16.*grid\(x\)"):
        whole(bad)
    whole(grid(bad, bits=16))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_inputs_that_are_no_numbers_are_refused(bad):
    whole, _ = twins(*LAYERS["linear"], 4)
    with pytest.raises(NonFinite, match="layer '' was given NaN or infinity"):
        whole(torch.full((4, 6), bad))


def test_sums_that_could_overflow_are_refused():
    net = nn.Linear(2, 1, bias=False)
    net.weight.data.copy_(torch.tensor([[1.0, -1.0]]))
    view = model_view(net, torch.rand(1, 2), spiking=False)
    twin, top = integer_twin(view, quantize_(view, 2)), 2.0**30
    assert twin(torch.tensor([[top - 1, 1 - top]], dtype=torch.double)).item() == 2 * (top - 1)
    for x in ([top, 0], [0.5, top], [(top + 1) / 2**10, 2.0**-10]):
        with pytest.raises(QuantizeError, match=r"a sum in layer '' could leave int32.*integers add up to 2"):
            twin(torch.tensor([x], dtype=torch.double))


def test_a_bias_that_could_overflow_is_refused():
    net = nn.Linear(2, 1)
    net.weight.data.copy_(torch.tensor([[1.0, -1.0]]))
    net.bias.data.fill_(2.0**31)
    view = model_view(net, torch.rand(1, 2), spiking=False)
    with pytest.raises(QuantizeError, match="could leave int32"):
        integer_twin(view, quantize_(view, 2))(torch.zeros(1, 2))


@pytest.mark.parametrize("bits", [-1, 17, 4.0, True])
def test_impossible_grids_are_refused(bits):
    with pytest.raises(QuantizeError, match="the bits of a grid are"):
        grid(torch.rand(2), bits)


def test_a_grid_moves_by_half_a_place_at_most():
    x = noise(1000) * 8 - 4
    for bits in (0, 3, 12):
        near = grid(x, bits)
        assert float((near - x).abs().max()) <= 2.0 ** -(bits + 1)
        assert torch.equal(near * 2**bits, (near * 2**bits).round())


# Whole networks


IMAGES = spikes(3, 4, 2, 4, 4)
NETS = {
    "normed": (jelly, IMAGES),
    "bare": (bare, IMAGES),
    "residual": (Residual, IMAGES),
    "leaky": (Leaky, spikes(3, 4, 7)),
    "real": (bare, grid(noise(3, 4, 2, 4, 4))),
}


def made(name, bits=4, **options):
    make, x = NETS[name]
    view = model_view(make(), x)
    return view, quantize_(view, bits, **options), x


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_spikes_are_those_of_float64(name, per_channel):
    view, quantization, x = made(name, per_channel=per_channel)
    twin = integer_twin(view, quantization)
    wanted, out = heard(doubled(view.net), x.double(), view.neurons)
    found, other = heard(twin, x.double(), view.neurons)
    assert torch.equal(out, other)
    assert all(torch.equal(wanted[name], found[name]) for name in view.neurons)
    assert all(fired.any() for fired in found.values())
    assert not twin.training
    assert sum(isinstance(m, IntegerLayer) for m in twin.modules()) == len(view.layers)


def test_layers_without_integers_stay():
    view, _, x = made("bare", layers="0")
    quantization = quantize_(view, 3, layers=["2"])
    twin = integer_twin(view, quantization)
    assert [type(part) for part in (twin[0], twin[2])] == [layer.Conv2d, IntegerLayer]
    _, out = heard(doubled(view.net), x.double(), view.neurons)
    assert torch.equal(out, heard(twin, x.double(), view.neurons)[1])


def test_the_model_is_left_as_it_is():
    view, quantization, _ = made("normed")
    before, attributes = copy.deepcopy(view.net.state_dict()), [sorted(vars(m)) for m in view.net.modules()]
    integer_twin(view, quantization)
    assert all(torch.equal(value, before[name]) for name, value in view.net.state_dict().items())
    assert [sorted(vars(m)) for m in view.net.modules()] == attributes
    assert view.net.training


def test_weights_and_biases_that_were_changed_since_are_refused():
    view, quantization, _ = made("bare")
    view.net[2].weight.data[0, 0, 0, 0] += 1e-6
    with pytest.raises(QuantizeError, match=r"weight of layer '2' is not step \* integers"):
        integer_twin(view, quantization)
    quantization.apply_(view.net)
    integer_twin(view, quantization)
    view.net[2].bias.data[0] = 1 / 3
    with pytest.raises(QuantizeError, match="bias of layer '2' is finer than the last place of its step"):
        integer_twin(view, quantization)


def test_integers_of_another_model_are_refused():
    _, quantization, _ = made("bare")
    with pytest.raises(QuantizeError, match="for '0', which is no layer"):
        integer_twin(model_view(Leaky(), NETS["leaky"][1]), quantization)
    with pytest.raises(ModelError, match="a view is needed"):
        integer_twin(bare(), quantization)


# Thresholds in steps


def two_layers(bias=False, **options):
    net = nn.Sequential(
        layer.Conv2d(2, 6, 3, padding=1, bias=bias), neuron.IFNode(**options), layer.Conv2d(6, 5, 3, bias=bias), neuron.IFNode(**options),
        layer.Flatten(), layer.Linear(20, 3),
    )  # fmt: skip
    functional.set_step_mode(net, "m")
    return awake(net)


def leaky(**options):
    return Leaky(**options)


STEPPED = {
    "if": (two_layers, IMAGES),
    "if with bias": (lambda: two_layers(bias=True), IMAGES),
    "if, soft": (lambda: two_layers(v_reset=None, v_threshold=0.7), IMAGES),
    "if, reset above zero": (lambda: two_layers(v_reset=0.25), IMAGES),
    "if, reset below zero": (lambda: two_layers(v_reset=-0.5), IMAGES),
    "lif and if": (bare, IMAGES),
    "leaky, subtract": (leaky, spikes(3, 4, 7)),
    "leaky, zero": (lambda: leaky(reset_mechanism="zero", threshold=0.6), spikes(3, 4, 7)),
}


@pytest.mark.parametrize("name", STEPPED)
def test_thresholds_in_steps_give_the_same_spikes(name):
    make, x = STEPPED[name]
    view = model_view(fold_norms(model_view(make(), x)), x)
    for bits in (8, 5, 3):
        quantization = quantize_(view, bits)
        stepped = integer_twin(view, quantization, rescale=True)
        for seed in range(5):
            x = spikes(*x.shape, seed=seed).double()
            wanted, out = heard(doubled(view.net), x, view.neurons)
            found, other = heard(copy.deepcopy(stepped), x, view.neurons)  # from rest
            assert all(torch.equal(wanted[neuron], found[neuron]) for neuron in view.neurons)
            assert torch.equal(out, other)  # the readout keeps its units
        assert all(fired.any() for fired in found.values())


def test_layers_give_accumulators_and_thresholds_are_divided():
    view = model_view(two_layers(v_reset=-0.5), IMAGES)
    quantization = quantize_(view, 4)
    stepped, plain = integer_twin(view, quantization, rescale=True), integer_twin(view, quantization)
    x = spikes(4, 2, 4, 4)
    found = stepped[0](x)
    assert torch.equal(found, found.round())
    assert torch.equal(found * quantization["0"].step.double(), plain[0](x))
    assert stepped[1].v_threshold == 1 / float(quantization["0"].step)
    assert stepped[1].v_reset == stepped[1].v == -0.5 / float(quantization["0"].step)
    assert (plain[1].v_threshold, view.net[1].v_threshold, view.net[1].v_reset) == (1.0, 1.0, -0.5)


def test_snntorch_thresholds_are_divided():
    x = spikes(3, 4, 7)
    view = model_view(fold_norms(model_view(Leaky(), x)), x)
    quantization = quantize_(view, 4)
    stepped = integer_twin(view, quantization, rescale=True)
    assert float(stepped.lif2.threshold) == 1 / float(quantization["fc2"].step)
    assert float(view.net.lif2.threshold) == 1


@pytest.mark.parametrize("kind", [nn.Parameter, lambda level: level], ids=["learned", "tensor"])
def test_thresholds_that_are_tensors_are_divided_in_float64(kind):
    net = two_layers()
    del net[1].v_threshold
    net[1].v_threshold = kind(torch.tensor(0.7))
    view = model_view(net, IMAGES)
    quantization = quantize_(view, 4)
    level = integer_twin(view, quantization, rescale=True)[1].v_threshold
    assert level.dtype == torch.double
    assert level.item() == torch.tensor(0.7).double().item() / float(quantization["0"].step)
    assert net[1].v_threshold.item() == pytest.approx(0.7)


class Charged(neuron.IFNode):
    """An IF neuron of a user's own, whose charge does not scale."""

    def single_step_functional_forward(self, inputs, states, **kwargs):
        return super().single_step_functional_forward((inputs[0] ** 2,), states, **kwargs)


def quantizing(mem):
    return mem.round()


UNSCALABLE = {
    "norms": (jelly, {}, "neuron '2' cannot be divided by a step: it is driven by something else.*Fold norms first"),
    "sums": (lambda: fold_norms(model_view(Residual(), IMAGES)), {}, None),
    "steps a channel": (two_layers, {"per_channel": True}, "layer '0' has one a channel"),
    "own": (lambda: nn.Sequential(layer.Linear(4, 3), Charged()), {}, "charge of a Charged|Charged neuron is not known"),
    "membranes": (
        lambda: nn.Sequential(nn.Linear(4, 3), snntorch.Leaky(0.9, init_hidden=True, state_quant=quantizing)),
        {},
        "state_quant",
    ),
}


@pytest.mark.parametrize("name", UNSCALABLE)
def test_neurons_that_cannot_be_rescaled_are_refused(name):
    make, options, told = UNSCALABLE[name]
    view = model_view(
        make(), IMAGES, forward=lambda net, x: torch.stack([net(step) for step in x]) if name in ("own", "membranes") else net(x)
    )
    quantization = quantize_(view, 4, **options)
    if told is None:  # spikes are added behind neurons, which is no harm
        integer_twin(view, quantization, rescale=True)
        return
    with pytest.raises(QuantizeError, match=told):
        integer_twin(view, quantization, rescale=True)
    integer_twin(view, quantization)


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.lif = layer.Linear(4, 3), layer.Linear(4, 3), neuron.IFNode(step_mode="m")

    def forward(self, x):
        return self.lif(self.one(x) + self.two(x))


def test_a_neuron_of_two_layers_is_refused():
    view = model_view(Sum(), spikes(3, 2, 4))
    with pytest.raises(QuantizeError, match="neuron 'lif' cannot be divided by a step: it is driven by something else"):
        integer_twin(view, quantize_(view, 4), rescale=True)


def test_a_neuron_whose_layer_is_in_floating_point_keeps_its_threshold():
    view = model_view(two_layers(), IMAGES)
    stepped = integer_twin(view, quantize_(view, 4, layers="2"), rescale=True)
    assert stepped[1].v_threshold == 1
    assert stepped[3].v_threshold > 1
