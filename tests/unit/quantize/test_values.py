"""Integers and steps: as weights, in files, in words; and what they refuse."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from channel_nets import jelly
from small_nets import spikes
from spikeprune import Masks, model_view
from spikeprune.errors import ModelError, QuantizeError, StorageError
from spikeprune.files import read_tensors, write_tensors
from spikeprune.quantize import Quantization, Quantized, quantize_

X = spikes(3, 4, 2, 4, 4)


def made(bits=5, **options):
    view = model_view(jelly(), X)
    return view, quantize_(view, bits, **options)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", [1, 4, {"0": 8, "*": 2}])
def test_a_file_gives_back_what_was_saved(tmp_path, bits, per_channel):
    _, quantization = made(bits, per_channel=per_channel)
    quantization.save(tmp_path / "q.safetensors")
    loaded = Quantization.load(tmp_path / "q.safetensors")
    assert list(loaded) == list(quantization)
    for name, x in quantization.items():
        y = loaded[name]
        assert torch.equal(x.integers, y.integers)
        assert y.integers.dtype == torch.int8
        assert torch.equal(x.step, y.step)
        assert (x.bits, x.snr) == (y.bits, y.snr)


def test_a_whole_model_that_is_one_layer_travels_too(tmp_path):
    view = model_view(nn.Linear(3, 2), torch.rand(1, 3), spiking=False)
    quantize_(view, 3).save(tmp_path / "q")
    other = nn.Linear(3, 2)
    Quantization.load(tmp_path / "q").apply_(other)
    assert torch.equal(other.weight, view.net.weight)


def test_no_layers_are_fine(tmp_path):
    Quantization({}).save(tmp_path / "q")
    assert len(Quantization.load(tmp_path / "q")) == 0


def test_applied_to_a_model_of_the_same_form():
    view, quantization = made(3, per_channel=True)
    other = jelly()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    quantization.apply_(other)
    for name, x in quantization.items():
        assert torch.equal(other.get_parameter(f"{name}.weight"), view.net.get_parameter(f"{name}.weight"))
        assert torch.equal(other.get_parameter(f"{name}.weight"), x.weight())
    wide = jelly().double()
    quantization.apply_(wide)
    assert torch.equal(wide[0].weight, view.net[0].weight.double())


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2)), r"shape \(5, 2, 3, 3\) for layer '0', where the model has \(2, 2\)"),
        (lambda: nn.Sequential(nn.ReLU()), "for layer '0', where the model has nothing"),
        (lambda: nn.Linear(2, 2), "for layer '0', where the model has nothing"),
    ],
)
def test_a_model_of_another_form_is_refused(net, told):
    with pytest.raises(QuantizeError, match=told):
        made()[1].apply_(net())


def test_a_model_that_fits_in_part_is_left_alone():
    quantization, net = made()[1], jelly()
    net[7] = nn.Linear(5, 3)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(QuantizeError, match="for layer '7'"):
        quantization.apply_(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_parametrized_model_is_refused():
    quantization, net = made()[1], jelly()
    parametrizations.weight_norm(net[0])
    with pytest.raises(ModelError, match="no longer a plain parameter"):
        quantization.apply_(net)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        Quantization.load(tmp_path / "none")
    Masks({"0": torch.ones(2, dtype=torch.bool)}).save(tmp_path / "masks")
    with pytest.raises(StorageError, match=r"does not hold integers and steps.*its content 'masks'"):
        Quantization.load(tmp_path / "masks")
    made()[1].save(tmp_path / "q")
    with pytest.raises(StorageError, match="does not hold masks"):
        Masks.load(tmp_path / "q")
    (tmp_path / "cut").write_bytes((tmp_path / "q").read_bytes()[:-10])
    with pytest.raises(StorageError, match="not a whole safetensors file"):
        Quantization.load(tmp_path / "cut")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("step.0", None, "does not hold integers, step and bits of layer '0'"),
        ("bits.0", torch.tensor(9), "bits is 9"),
        ("bits.0", torch.tensor([3, 4]), "does not hold integers, step and bits of layer '0'"),
        ("bits.0", torch.tensor(2), "for 2 bits"),
        ("integers.0", torch.ones(5, 2, 3, 3), "has torch.float32"),
        ("step.0", torch.ones(4), r"a step of shape \(4,\)"),
        ("step.0", torch.tensor(-1.0), "not what was saved"),
        ("step.0", torch.tensor(torch.nan), "not what was saved"),
        ("step.0", torch.tensor(1 / 3), "not what was saved"),
    ],
)
def test_files_that_were_changed_are_refused(tmp_path, key, value, told):
    made()[1].save(tmp_path / "q")
    tensors, metadata = read_tensors(tmp_path / "q")
    tensors = {k: v for k, v in tensors.items() if k != key} | ({} if value is None else {key: value})
    write_tensors(tmp_path / "q", tensors, metadata)
    with pytest.raises(StorageError, match=told):
        Quantization.load(tmp_path / "q")


def test_bytes_are_integers_packed_and_steps():
    integers = torch.zeros(5, 3, dtype=torch.int8)
    assert Quantized(integers, torch.tensor(1.0), 3, 0.0).bytes == 6 + 4  # 45 bits
    assert Quantized(integers, torch.ones(5), 8, 0.0).bytes == 15 + 20
    _, quantization = made(4)
    assert quantization.bytes == sum(-(-n * 4 // 8) + 4 for n in (90, 270, 72))
    assert repr(quantization) == "Quantization(3 layers, 432 weights in 228 bytes)"


def test_the_table():
    weight = torch.tensor([[1.0, -0.5, 0.0, 0.45]])
    integers = torch.tensor([[2, -1, 0, 1]], dtype=torch.int8)
    table = Quantization({"fc": Quantized.of(weight, integers, torch.tensor(0.5), 3)}).describe()
    head, line = table.splitlines()
    assert head.split() == ["layer", "bits", "step", "used", "SNR", "(dB)", "bytes"]
    # power 1.4525 over 0.05^2; 4 of 7 integers; 12 bits and a step
    assert line.split() == ["fc", "3", "0.5", "57.1", "%", "27.6", "6"]
