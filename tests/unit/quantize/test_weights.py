"""Quantizing a model in place: what changes, what stays, and what is refused."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from channel_nets import Leaky, bare, jelly
from small_nets import noise, spikes
from spikeprune import Masks, model_view
from spikeprune.errors import EmptyCalibration, MeasureError, ModelError, NonFinite, NoPrunableLayers, QuantizeError
from spikeprune.kernel.quantize import exact_bias, from_integers, step_of, to_integers
from spikeprune.quantize import bit_sweep, quantize_

X = spikes(3, 4, 2, 4, 4)


def viewed(net=None, example=X):
    return model_view(jelly() if net is None else net, example)


def plain(*sizes, bias=True):
    torch.manual_seed(0)
    pairs = pairwise(sizes)
    parts = [part for n_in, n_out in pairs for part in (nn.Linear(n_in, n_out, bias=bias), nn.ReLU())]
    return model_view(nn.Sequential(*parts[:-1]), noise(5, sizes[0]), spiking=False)


@pytest.mark.parametrize("clip", ["max", "mse"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_weights_become_steps_times_integers(bits, per_channel, clip):
    view = viewed()
    before = copy.deepcopy(view.net.state_dict())
    found = quantize_(view, bits, per_channel=per_channel, clip=clip)
    assert list(found) == ["0", "3", "7"]
    for name, value in view.net.state_dict().items():
        layer, _, kind = name.partition(".")
        if kind == "weight" and layer in found:
            step = step_of(before[name], bits, clip=clip, per_channel=per_channel)
            integers = to_integers(before[name], step, bits)
            assert torch.equal(found[layer].integers, integers)
            assert torch.equal(found[layer].step, step)
            assert torch.equal(value, from_integers(integers, step, torch.float32))
            assert not torch.equal(value, before[name])
        elif kind == "bias" and layer in found:
            assert torch.equal(value, exact_bias(before[name], found[layer].step))
            torch.testing.assert_close(value, before[name], rtol=0, atol=float(found[layer].step.max()) * 2**-17)
        else:
            assert torch.equal(value, before[name])  # norms


def test_the_model_stays_plain():
    view = viewed()
    attributes, keys = [sorted(vars(m)) for m in view.net.modules()], list(view.net.state_dict())
    parameter = view.layers[0].weight
    quantize_(view, 4)
    assert [sorted(vars(m)) for m in view.net.modules()] == attributes
    assert list(view.net.state_dict()) == keys
    assert view.layers[0].module.weight is parameter
    assert type(parameter) is nn.Parameter
    assert parameter.requires_grad


@pytest.mark.parametrize("clip", ["max", "mse"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_the_dead_stay_zero(bits, clip):
    view = viewed(bare())
    draw = torch.Generator().manual_seed(1)
    masks = Masks({x.name: torch.rand(x.weight.shape, generator=draw) < 0.4 for x in view.layers})
    masks.apply_(view.net)
    quantize_(view, bits, clip=clip)
    assert all(not view.net.get_parameter(f"{name}.weight")[~mask].any() for name, mask in masks.items())
    assert any(bool(view.net.get_parameter(f"{name}.weight")[mask].any()) for name, mask in masks.items())


def test_more_bits_are_nearer():
    errors = []
    for bits in (1, 2, 3, 4, 6, 8):
        view = viewed()
        before = view.layers[1].weight.detach().clone()
        found = quantize_(view, bits)
        errors.append(float((view.layers[1].weight - before).detach().norm()))
        signal = before.norm() / (view.layers[1].weight.detach() - before).norm()
        assert found["3"].snr == pytest.approx(20 * float(signal.log10()), rel=1e-4)
    assert errors[1:] == sorted(errors[1:], reverse=True)


def test_bits_by_name_and_pattern():
    view = viewed()
    before = view.layers[1].weight.detach().clone()
    found = quantize_(view, {"[07]": 4, "7": 8, "?": 2}, layers=["0", "7"])
    assert {name: x.bits for name, x in found.items()} == {"0": 4, "7": 8}
    assert torch.equal(view.layers[1].weight, before)
    assert {name: x.bits for name, x in quantize_(viewed(), {"7": 3}).items()} == {"7": 3}


def test_layers_of_one_number_of_bits():
    assert list(quantize_(viewed(), 4, layers="[03]")) == ["0", "3"]


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"bits": 9}, QuantizeError, "bits is 9"),
        ({"bits": 4.0}, QuantizeError, r"bits is 4\.0"),
        ({"bits": True}, QuantizeError, "bits is True"),
        ({"bits": {"0": 0}}, QuantizeError, "bits is 0"),
        ({"bits": {"fc": 4}}, NoPrunableLayers, "no synaptic layer fits 'fc'"),
        ({"layers": "fc"}, NoPrunableLayers, "no synaptic layer fits 'fc'"),
        ({"layers": []}, NoPrunableLayers, "no layer is left to quantize"),
        ({"bits": {}}, NoPrunableLayers, "no layer is left to quantize"),
        ({"bits": {"0": 4}, "layers": ["0", "3"]}, QuantizeError, "no entry of bits fits layer '3'; there are entries for 0"),
        ({"clip": "median"}, QuantizeError, "no clip 'median'"),
        ({"bias_correction": True}, EmptyCalibration, r"held no batch\. Pass calibration="),
        ({"bias_correction": True, "calibration": X}, MeasureError, "one batch in place of batches"),
    ],
)
def test_bad_options_are_refused_and_nothing_changes(options, error, told):
    view = viewed()
    before = copy.deepcopy(view.net.state_dict())
    with pytest.raises(error, match=told):
        quantize_(view, **options)
    assert all(torch.equal(value, before[name]) for name, value in view.net.state_dict().items())
    assert not any(m._forward_pre_hooks for m in view.net.modules())


def test_what_is_no_view_is_refused():
    with pytest.raises(ModelError, match="a view is needed, but Sequential was given"):
        quantize_(jelly())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(bad):
    view = viewed()
    view.layers[1].weight.data[0, 0, 0, 0] = bad
    with pytest.raises(NonFinite, match=r"1 of 270 weights of layer '3' are NaN or infinite"):
        quantize_(view)


def test_half_precision_is_refused():
    view = plain(3, 2)
    view.net.bfloat16()
    with pytest.raises(QuantizeError, match=r"layer '0' is torch\.bfloat16.*net\.float\(\)"):
        quantize_(view)


def test_parametrized_weights_are_refused():
    view = plain(3, 2)
    parametrizations.weight_norm(view.net[0])
    with pytest.raises(ModelError, match="weight of layer '0' is no longer a plain parameter"):
        quantize_(view)


def test_shared_weights_are_refused():
    view = plain(3, 3, 3)
    view.net[2].weight = view.net[0].weight
    with pytest.raises(QuantizeError, match="'0' and '2' share one weight"):
        quantize_(view)
    assert list(quantize_(plain(3, 3, 3), layers="0")) == ["0"]


def test_weights_in_float64_are_quantized_alike():
    view, wide = plain(5, 4), plain(5, 4)
    wide.net.double()
    assert torch.equal(quantize_(view, 4)["0"].integers, quantize_(wide, 4)["0"].integers)
    assert torch.equal(view.layers[0].weight.double(), wide.layers[0].weight)


def test_a_layer_and_a_channel_of_zeros():
    view = plain(4, 3, 2)
    view.layers[0].weight.data.zero_()
    view.layers[1].weight.data[1] = 0
    found = quantize_(view, 4, per_channel=True)
    assert found["0"].step.tolist() == [1, 1, 1]
    assert not found["0"].integers.any()
    assert found["2"].step[1] == 1
    assert not view.layers[1].weight[1].any()


# Biases


def means(view, net, batches):
    """Each layer's mean output by channel over samples, timesteps and places, all layers given the inputs of `view.net`."""
    totals = {}
    for layer in view.layers:
        twin = net.get_submodule(layer.name)

        def hook(module, args, twin=twin, layer=layer):
            axis = 1 - layer.weight.dim() if layer.weight.dim() > 2 else -1
            totals.setdefault(layer.name, []).append(twin.double()(args[0].double()).movedim(axis, 0).flatten(1))

        handle = layer.module.register_forward_pre_hook(hook)
        with view.undisturbed(), torch.no_grad():
            for x in batches:
                view(x)
        handle.remove()
    return {name: torch.cat(rows, 1).mean(1) for name, rows in totals.items()}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_corrected_biases_keep_the_mean_current(bias, per_channel):
    batches = [spikes(3, 4, 2, 4, 4, seed=seed) for seed in (1, 2)] + [spikes(3, 1, 2, 4, 4, seed=3)]
    view = viewed(bare(bias))
    float_view = viewed(bare(bias))
    wanted = means(float_view, copy.deepcopy(float_view.net), batches)
    off = viewed(bare(bias))
    quantize_(off, 2, per_channel=per_channel)
    quantize_(view, 2, per_channel=per_channel, calibration=[(x, None) for x in batches], bias_correction=True)
    found = means(float_view, copy.deepcopy(view.net), batches)
    worse = means(float_view, copy.deepcopy(off.net), batches)
    for name, mean in wanted.items():
        torch.testing.assert_close(found[name], mean, rtol=0, atol=3e-5)
        assert float((worse[name] - mean).abs().max()) > 1e-3  # the twin without it
    assert all(layer.module.bias is not None for layer in view.layers)
    assert torch.equal(view.layers[0].weight, off.layers[0].weight)


def test_silent_channels_get_no_bias():
    view = viewed(bare(bias=False))
    view.layers[0].weight.data[2] = 0
    quantize_(view, 2, calibration=[X], bias_correction=True)
    bias = view.layers[0].module.bias
    assert bias[2] == 0
    assert bool(bias[[0, 1, 3]].all())


def test_correcting_leaves_no_hooks_and_the_model_at_rest():
    view = viewed(Leaky(), spikes(3, 4, 7))
    quantize_(view, 3, calibration=[spikes(3, 4, 7, seed=2)], bias_correction=True)
    assert not any(m._forward_pre_hooks for m in view.net.modules())
    assert view.net.training


# The sweep


def test_a_sweep_evaluates_copies_and_leaves_the_model():
    view = viewed()
    before = copy.deepcopy(view.net.state_dict())
    seen = []

    def evaluate(quantized):
        seen.append(quantized)
        return float((quantized.layers[1].weight - view.layers[1].weight).detach().abs().max())

    errors = bit_sweep(view, evaluate, bits=(8, 4, 2), layers="3", clip="max")
    assert list(errors) == [8, 4, 2]
    assert 0 < errors[8] < errors[4] < errors[2]
    assert all(torch.equal(value, before[name]) for name, value in view.net.state_dict().items())
    assert all(copy.net is not view.net and torch.equal(copy.layers[0].weight, view.layers[0].weight) for copy in seen)


def test_a_sweep_refuses_before_it_evaluates():
    with pytest.raises(QuantizeError, match="bits is 12"):
        bit_sweep(viewed(), lambda _: pytest.fail("evaluated"), bits=(8, 12))
