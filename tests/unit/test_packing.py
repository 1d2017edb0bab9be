"""Packed N:M weights of a model: which layers, there and back, in files, and what they refuse."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from channel_nets import jelly
from small_nets import spikes
from spikeprune import Masks, methods, model_view, patterns, prune
from spikeprune.errors import MaskMismatch, MethodError, ModelError, NoPrunableLayers, SparsityError, StorageError
from spikeprune.files import read_tensors, write_tensors
from spikeprune.kernel.blocks import fullest
from spikeprune.packing import PackedLayer, PackedNM, pack_nm

NM = patterns.NM


def convolutions():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 8, 3, groups=1), nn.Flatten(), nn.Linear(32, 8), nn.Linear(8, 2)
    )
    return model_view(net, torch.rand(2, 3, 8, 8), spiking=False)


def pruned(view=None, pattern=None, **options):
    view, pattern = view or convolutions(), pattern or NM(2, 4)
    return view, prune(view, methods.Magnitude(pattern=pattern), **options)


def made():
    view, _ = pruned()
    return view, pack_nm(view, NM(2, 4))


def test_what_prune_left_is_packed_and_comes_back():
    view, masks = pruned()
    before = copy.deepcopy(view.net.state_dict())
    packed = pack_nm(view, NM(2, 4))
    assert list(packed) == ["1", "4"] == list(masks)  # not the first, the last, and six inputs
    for name, dense in packed.dense().items():
        weight = view.net.get_submodule(name).weight
        assert torch.equal(dense, weight)
        assert fullest(dense != 0, 4) == 2
        assert packed[name].shape == weight.shape
    assert packed["1"].values.shape == (6, 3, 3, 2, 2)
    assert packed["4"].values.shape == (8, 8, 2)
    assert all(torch.equal(value, before[name]) for name, value in view.net.state_dict().items())


def test_bytes():
    _, packed = made()
    # Half the weights of float32, and two bits each.
    assert packed["1"].bytes == 216 * 4 + 54
    assert packed["4"].bytes == 128 * 4 + 32
    assert packed.bytes == 918 + 544
    assert repr(packed) == "PackedNM(2:4, 2 layers, 688 weights in 1,462 bytes)"


def test_a_spiking_network_gives_the_same_after():
    x = spikes(3, 4, 2, 4, 4)
    view = model_view(jelly(), x)
    masks = prune(view, methods.Magnitude(pattern=NM(1, 2)), layers="*")
    packed, expected = pack_nm(view, NM(1, 2), masks=masks), view(x)
    assert list(packed) == ["0", "3", "7"]
    other = view.clone()
    for name in packed:
        nn.init.normal_(other.net.get_submodule(name).weight)
    assert not torch.equal(other(x), expected)
    packed.apply_(other.net)
    assert torch.equal(other(x), expected)


@pytest.mark.parametrize("shape", [(5, 6), (5, 7, 2), (5, 7, 3, 1), (4, 9, 2, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tails_of_every_kind_of_layer(tmp_path, shape, dtype):
    out, inputs, *kernel = shape
    kind = [nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d][len(kernel)]
    torch.manual_seed(0)
    net = kind(inputs, out, tuple(kernel)) if kernel else kind(inputs, out)
    view = model_view(net, torch.rand(2, inputs, *[4] * len(kernel)), spiking=False)
    pruned(view, layers="")
    net.to(dtype)
    packed = pack_nm(view, NM(2, 4), layers="")
    packed.save(tmp_path / "packed")
    loaded = PackedNM.load(tmp_path / "packed").dense()[""]
    assert loaded.dtype == dtype
    assert torch.equal(loaded, net.weight)
    assert 0 < int((loaded != 0).sum()) < loaded.numel()


def test_names_and_shell_patterns():
    view, _ = pruned(layers=["1", "2", "4"])
    assert list(pack_nm(view, NM(2, 4), layers="[24]")) == ["2", "4"]
    assert list(pack_nm(view, NM(2, 4), ["1"])) == ["1"]


def test_masks_say_what_lives():
    view, masks = pruned(layers="2")
    packed = pack_nm(view, NM(2, 4), masks=masks)
    assert list(packed) == ["2"]
    alive = masks["2"].nonzero()[0].tolist()
    with torch.no_grad():
        view.net[2].weight[tuple(alive)] = -0.0  # it lives, and is kept with its sign
    assert bool(pack_nm(view, NM(2, 4), masks=masks).dense()["2"][tuple(alive)].signbit())
    assert not bool(pack_nm(view, NM(2, 4), layers="2").dense()["2"][tuple(alive)].signbit())
    full = Masks({"2": torch.ones_like(masks["2"])})  # three zeros of four are not dead
    with pytest.raises(SparsityError, match=r"layer '2' cannot be packed in 2:4: \d+ of 144 blocks"):
        pack_nm(view, NM(2, 4), masks=full)


def test_masks_that_are_not_the_models():
    view, masks = pruned()
    with torch.no_grad():
        view.net[1].weight.add_(1.0)
    with pytest.raises(MaskMismatch, match="216 weights of layer '1' are not zero, but dead by its mask"):
        pack_nm(view, NM(2, 4), masks=masks)
    with pytest.raises(MaskMismatch, match="there is a mask for 'other'"):
        pack_nm(view, NM(2, 4), masks=Masks({"other": masks["1"]}))
    with pytest.raises(MaskMismatch, match="masks is dict"):
        pack_nm(view, NM(2, 4), masks=dict(masks))


def test_a_block_that_is_too_full_is_named():
    view, _ = pruned()
    with torch.no_grad():
        view.net[4].weight[0, :4] = 1.0
        view.net[4].weight[3, 4:7] = 1.0
    told = r"layer '4' cannot be packed in 2:4: 2 of 64 blocks of 4 weights have more than 2 alive; the fullest has 4. Prune it"
    with pytest.raises(SparsityError, match=told):
        pack_nm(view, NM(2, 4))
    with pytest.raises(SparsityError, match=r"layer '0' cannot be packed in 2:4: a weight of shape .* has 3 inputs"):
        pack_nm(view, NM(2, 4), layers="0")


def test_other_things_are_refused():
    view, _ = pruned()
    with pytest.raises(MethodError, match=r"pattern is Channel\(dim=0\), but must be one of n in m"):
        pack_nm(view, patterns.Channel())
    with pytest.raises(MethodError, match="pattern is '2:4'"):
        pack_nm(view, "2:4")
    with pytest.raises(ModelError, match="a view is needed"):
        pack_nm(view.net, NM(2, 4))
    with pytest.raises(NoPrunableLayers, match="no synaptic layer fits 'nine'"):
        pack_nm(view, NM(2, 4), layers="nine")
    for options in ({"layers": []}, {"masks": Masks({})}):
        with pytest.raises(NoPrunableLayers, match=r"no layer is left to pack.*Name some of 0, 1, 2, 4, 5"):
            pack_nm(view, NM(2, 4), **options)


def test_a_value_that_is_none():
    _, packed = made()
    layer = packed["4"]
    with pytest.raises(SparsityError, match=r"this is no weight packed in 2:4: the values are .* Make it with pack_nm"):
        PackedLayer(layer.values[:4], layer.indices, layer.shape, layer.pattern)
    with pytest.raises(SparsityError, match=r"layer '4' is packed in NM\(n=2, m=4\), the others in NM\(n=1, m=4\)"):
        PackedNM({"4": layer}, NM(1, 4))
    with pytest.raises(TypeError, match="does not support item assignment"):
        packed.layers["4"] = layer


def test_applied_to_a_model_of_the_same_form():
    view, packed = made()
    other = convolutions().net
    bias = other[4].bias.clone()
    packed.apply_(other)
    assert all(torch.equal(other.get_submodule(name).weight, view.net.get_submodule(name).weight) for name in packed)
    assert torch.equal(other[4].bias, bias)
    assert other[4].weight.requires_grad
    wide = convolutions().net.double()
    packed.apply_(wide)
    assert torch.equal(wide[1].weight, view.net[1].weight.double())


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (
            lambda net: net.half(),
            MaskMismatch,
            r"packed in torch.float32; the model's torch.float16 would round it.*net.to\(torch.float32\)",
        ),
        (
            lambda net: net.append(nn.ReLU()) and setattr(net, "4", nn.Linear(8, 8)),
            MaskMismatch,
            r"shape \(8, 32\), where the model has \(8, 8\)",
        ),
        (lambda net: setattr(net, "4", nn.ReLU()), MaskMismatch, "layer '4' was packed .* where the model has nothing"),
        (lambda net: parametrizations.weight_norm(net[4]), ModelError, "layer '4' is no longer a plain parameter"),
    ],
)
def test_a_model_of_another_form_is_refused_and_left_alone(change, error, told):
    packed, net = made()[1], convolutions().net
    change(net)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(error, match=told):
        packed.apply_(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_half_precision_is_not_the_other_half():
    view, _ = pruned()
    packed = pack_nm(model_view(view.net.half(), view.example.half(), spiking=False), NM(2, 4))
    with pytest.raises(MaskMismatch, match=r"packed in torch.float16; the model's torch.bfloat16 would round it"):
        packed.apply_(convolutions().net.bfloat16())
    packed.apply_(other := convolutions().net)
    assert torch.equal(other[1].weight, view.net[1].weight.float())


def test_a_file_gives_back_what_was_saved(tmp_path):
    _, packed = made()
    packed.save(tmp_path / "a.safetensors")
    loaded = PackedNM.load(tmp_path / "a.safetensors")
    assert list(loaded) == list(packed)
    assert loaded.pattern == NM(2, 4)
    for name, layer in packed.items():
        assert torch.equal(loaded[name].values, layer.values)
        assert torch.equal(loaded[name].indices, layer.indices)
        assert (loaded[name].shape, loaded[name].pattern) == (layer.shape, layer.pattern)
    loaded.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    PackedNM({}, NM(1, 2)).save(tmp_path / "none")
    assert len(PackedNM.load(tmp_path / "none")) == 0


def test_other_files_are_refused(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        PackedNM.load(tmp_path / "none")
    Masks({"0": torch.ones(2, dtype=torch.bool)}).save(tmp_path / "masks")
    with pytest.raises(StorageError, match=r"does not hold N:M values and indices.*its content 'masks'"):
        PackedNM.load(tmp_path / "masks")
    made()[1].save(tmp_path / "packed")
    (tmp_path / "cut").write_bytes((tmp_path / "packed").read_bytes()[:-10])
    with pytest.raises(StorageError, match="not a whole safetensors file"):
        PackedNM.load(tmp_path / "cut")


def rewritten(path, tensors=None, told=None):
    """Change tensors, or what is told of them, in a file that `save` wrote."""
    made()[1].save(path)
    found, metadata = read_tensors(path)
    found = {name: value for name, value in {**found, **(tensors or {})}.items() if value is not None}
    metadata["packed"] = told if isinstance(told, str) else json.dumps({**json.loads(metadata["packed"]), **(told or {})})
    write_tensors(path, found, metadata)
    return path


def test_a_file_is_rewritten_as_it_was(tmp_path):
    assert len(PackedNM.load(rewritten(tmp_path / "same"))) == 2


@pytest.mark.parametrize(
    ("tensors", "told", "message"),
    [
        ({"values.4": None}, None, r"\['values.4'\] are missing, or belong to no layer"),
        (
            {"indices.4": torch.full((32,), 0x45, dtype=torch.uint8)},
            None,
            "layer '4': .*the indices of 32 of 64 blocks do not rise",
        ),
        ({"indices.4": torch.zeros(31, dtype=torch.uint8)}, None, r"layer '4': .*of shape \(31,\)"),
        ({"values.4": torch.zeros(8, 8, 1)}, None, r"layer '4': .*of shape \(8, 8, 1\), not floats of shape \(8, 8, 2\)"),
        ({"values.9": torch.zeros(1)}, None, r"\['values.9'\] are missing, or belong to no layer"),
        (None, {"pattern": [1, 4]}, r"layer '1': .*not floats of shape \(6, 3, 3, 2, 1\)"),
        (None, {"pattern": [5, 4]}, r"NM\(5, 4\) is no pattern"),
        (None, {"pattern": [2]}, "does not hold packed weights as they were saved"),
        (None, {"shapes": [2]}, "does not hold packed weights as they were saved"),
        (None, {"shapes": {"1": "8", "4": [8, 32]}}, "'8' is no shape"),
        (None, {"shapes": {"1": [6, 8, 3, 3], "4": [8, 31]}}, r"layer '4': .*\d+ values lie behind the last of 31 inputs"),
        (None, {"shapes": {"1": [6, 8, 3, 3], "4": [10**30, 32]}}, r"layer '4': .*no"),
        (None, "[", "does not hold packed weights as they were saved"),
        (None, "3", "does not hold packed weights as they were saved"),
    ],
)
def test_files_that_were_changed_are_refused(tmp_path, tensors, told, message):
    with pytest.raises(StorageError, match=message):
        PackedNM.load(rewritten(tmp_path / "packed", tensors, told))
