import pytest
import torch
from torch import nn

import small_nets
from spikeprune import Masks, hold, load, model_view, save
from spikeprune.decide import decide
from spikeprune.errors import MaskMismatch, NonFinite, SparsityError, StorageError
from spikeprune.files import read_tensors, write_tensors
from spikeprune.kernel.patterns import Channel, Unstructured
from spikeprune.view.layer import Layer, Layout

YES, NO = True, False
NETS = {"snntorch": small_nets.Loop, "spikingjelly": small_nets.jelly}


def mask(*rows):
    return torch.tensor(rows)


def layer(rows, name="fc"):
    module = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return Layer(name, module, Layout.ONCE)


def first_weight(net):
    return next(name.removesuffix(".weight") for name, p in net.named_parameters() if p.dim() == 2)


def half(net):
    name = first_weight(net)
    weight = net.get_submodule(name).weight
    return Masks({name: (torch.arange(weight.numel()) % 2 == 0).reshape(weight.shape)})


def test_masks_count():
    masks = Masks({"a": mask([YES, NO, NO, NO]), "b": mask([YES, YES], [YES, NO])})
    assert masks.kept == {"a": 1, "b": 3}
    assert (masks.weights, masks.density, masks.sparsity) == (8, 0.5, 0.5)
    assert repr(masks) == "Masks(2 layers, 4 of 8 weights kept)"


def test_no_masks_prune_nothing():
    assert (Masks({}).density, Masks({}).sparsity, len(Masks({}))) == (1.0, 0.0, 0)
    assert not Masks({})


def test_masks_compare_by_value():
    masks = Masks({"a": mask([YES, NO])})
    assert masks == Masks({"a": mask([YES, NO])})
    assert masks != Masks({"a": mask([YES, YES])})
    assert masks != Masks({"b": mask([YES, NO])})
    assert masks != Masks({"a": mask([YES], [NO])})
    assert masks != {"a": 1}


@pytest.mark.parametrize(
    ("value", "told"), [(torch.ones(2), "torch.float32"), ([True], "list"), (torch.ones(2, dtype=torch.uint8), "uint8")]
)
def test_a_mask_must_be_bool(value, told):
    with pytest.raises(MaskMismatch, match=rf"mask of layer 'fc' is .*{told}; masks are bool tensors, True keeps"):
        Masks({"fc": value})


def test_dead_is_kept_until_the_masks_change():
    masks, cpu = Masks({"a": mask([YES, NO])}), torch.device("cpu")
    dead = masks.dead("a.weight", cpu)
    assert dead.tolist() == [[False, True]]
    assert masks.dead("a.weight", cpu) is dead
    masks.replace_(Masks({"a": mask([NO, NO])}))
    assert masks.dead("a.weight", cpu).tolist() == [[True, True]]


def test_replace_keeps_the_object_and_not_the_other():
    masks, other = Masks({"a": mask([YES])}), Masks({"b": mask([NO])})
    assert masks.replace_(other) is masks
    other.replace_(Masks({}))
    assert masks.kept == {"b": 0}


def test_apply_zeroes_the_dead_and_nothing_else():
    fc, whole = layer([[1.0, 2.0]]), layer([[3.0]], "whole")
    Masks({"fc": mask([NO, YES])}).apply_(nn.ModuleDict({"fc": fc.module, "whole": whole.module}))
    assert fc.weight.tolist() == [[0.0, 2.0]]
    assert whole.weight.tolist() == [[3.0]]


def test_a_dead_nan_becomes_zero():
    fc = layer([[torch.nan, 2.0]])
    Masks({"fc": mask([NO, YES])}).apply_(nn.ModuleDict({"fc": fc.module}))
    assert fc.weight.tolist() == [[0.0, 2.0]]


def test_check_names_an_unknown_layer():
    with pytest.raises(MaskMismatch, match=r"mask for 'fc9', but the model's layers are fc\. Masks belong to the model"):
        Masks({"fc9": mask([YES])}).check([layer([[1.0]])])


def test_check_names_both_shapes():
    with pytest.raises(MaskMismatch, match=r"layer 'fc' has shape \(1, 2\), its weight \(1, 1\)\. Masks belong"):
        Masks({"fc": mask([YES, NO])}).check([layer([[1.0]])])


def test_masks_round_trip(tmp_path):
    masks = Masks({"a.b": mask([YES, NO], [NO, NO]), "": mask([YES])})
    masks.save(tmp_path / "masks.safetensors")
    assert Masks.load(tmp_path / "masks.safetensors") == masks


def test_masks_are_read_from_a_file_of_masks_only(tmp_path):
    net = small_nets.Loop()
    save(tmp_path / "x", net, half(net))
    with pytest.raises(StorageError, match=r"does not hold masks .*its content 'model and masks'.*Masks\.load reads masks alone"):
        Masks.load(tmp_path / "x")


def test_a_foreign_file_is_refused(tmp_path):
    write_tensors(tmp_path / "x", {"fc": mask([YES])})
    with pytest.raises(StorageError, match="its format is None"):
        Masks.load(tmp_path / "x")
    with pytest.raises(StorageError, match="its format is None"):
        load(tmp_path / "x", nn.Linear(1, 1))


def test_decide_is_exact():
    fc, out = layer([[1.0, -4.0], [3.0, 2.0]]), layer([[5.0, 1.0]], "out")
    scores = {"fc": fc.weight.detach().abs(), "out": torch.tensor([[0.0, 0.0]])}
    masks = decide([fc, out], scores, {"fc": 2, "out": 1}, Unstructured())
    assert masks == Masks({"fc": mask([NO, YES], [YES, NO]), "out": mask([YES, NO])})


def test_decide_by_channel():
    fc = layer([[1.0, 4.0], [3.0, 2.0]])
    assert decide([fc], {"fc": torch.tensor([1.0, 2.0])}, {"fc": 1}, Channel(dim=1)) == Masks({"fc": mask([NO, YES], [NO, YES])})


def test_decide_refuses_nan():
    with pytest.raises(NonFinite, match=r"1 of 2 scores of layer 'fc' are NaN\. Check its weights"):
        decide([layer([[1.0, 1.0]])], {"fc": torch.tensor([[1.0, torch.nan]])}, {"fc": 1}, Unstructured())


def test_decide_revives_nothing():
    scores = {"fc": torch.tensor([[1.0, -torch.inf]])}
    assert decide([layer([[1.0, 1.0]])], scores, {"fc": 1}, Unstructured()).kept == {"fc": 1}
    with pytest.raises(
        SparsityError, match=r"'fc' is to keep 2 of its 2 units, but earlier masks left only 1 alive.*higher sparsity"
    ):
        decide([layer([[1.0, 1.0]])], scores, {"fc": 2}, Unstructured())


@pytest.mark.parametrize("framework", NETS)
def test_a_model_and_its_masks_round_trip(tmp_path, framework):
    net, x = NETS[framework](), small_nets.spikes(4, 2, 6)
    view = model_view(net, x)
    masks = half(net)
    masks.apply_(view.net)
    expected = view(x).detach().clone()  # its neurons are charged when it is saved
    save(tmp_path / "net.safetensors", net, masks)

    other = small_nets.lively(NETS[framework](), seed=1)
    returned, found = load(tmp_path / "net.safetensors", other)
    assert returned is other
    assert found == masks
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))
    again = model_view(other, x)
    assert torch.equal(again(x), expected)
    with hold(torch.optim.Adam(other.parameters()), again, found) as held:
        assert held is found


def test_a_model_without_masks_round_trips(tmp_path):
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    save(tmp_path / "x", net)
    assert len(load(tmp_path / "x", other)[1]) == 0
    assert torch.equal(net.weight, other.weight)


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        (Masks({"0": mask([YES, NO, NO])}), r"shape \(1, 3\) for '0\.weight', where the model has \(2, 2\)\. Masks belong"),
        (Masks({"fc": mask([YES])}), r"for 'fc\.weight', where the model has nothing"),
        ({"0": mask([YES, NO], [NO, NO])}, r"masks is dict, .*Masks\(\{"),
    ],
)
def test_masks_of_another_model_are_not_saved(tmp_path, masks, told):
    (tmp_path / "x").write_bytes(b"earlier")
    with pytest.raises(MaskMismatch, match=told):
        save(tmp_path / "x", nn.Sequential(nn.Linear(2, 2)), masks)
    assert (tmp_path / "x").read_bytes() == b"earlier"


def test_a_layer_that_is_the_whole_model_round_trips(tmp_path):
    masks = Masks({"": mask([YES, NO])})
    save(tmp_path / "x", nn.Linear(2, 1), masks)
    assert load(tmp_path / "x", nn.Linear(2, 1))[1] == masks


def test_tied_weights_are_written(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    save(tmp_path / "x", net)
    assert torch.equal(load(tmp_path / "x", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))[0][1].weight, net[0].weight)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 3)), r"first '0\.bias' \(file: \(2,\), model: \(3,\)\)"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            r"2 entries differ, first '1\.bias' \(file: absent, model: \(2,\)\)",
        ),
        (lambda: nn.Sequential(nn.Linear(2, 2, bias=False)), r"first '0\.bias' \(file: \(2,\), model: absent\)"),
    ],
)
def test_a_file_of_another_model_is_refused(tmp_path, other, told):
    save(tmp_path / "x", nn.Sequential(nn.Linear(2, 2)))
    net = other()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(MaskMismatch, match=rf"belongs to another model: .*{told}"):
        load(tmp_path / "x", net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("0", mask([YES, NO, NO]), r"shape \(1, 3\) for '0\.weight', where the model has \(2, 2\)"),
        ("7", mask([YES]), r"for '7\.weight', where the model has nothing"),
        ("0", torch.ones(2, 2), r"mask of layer '0' is torch\.float32"),
    ],
)
def test_a_wrong_mask_in_a_file_leaves_the_model_untouched(tmp_path, name, value, told):
    save(tmp_path / "x", nn.Sequential(nn.Linear(2, 2)))
    tensors, metadata = read_tensors(tmp_path / "x")
    write_tensors(tmp_path / "x", tensors | {f"mask.{name}": value}, metadata)
    net = nn.Sequential(nn.Linear(2, 2))
    before = net[0].weight.detach().clone()
    with pytest.raises(MaskMismatch, match=told):
        load(tmp_path / "x", net)
    assert torch.equal(net[0].weight, before)


def test_a_truncated_model_file_is_refused(tmp_path):
    save(tmp_path / "x", nn.Linear(2, 2))
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-3])
    net = nn.Linear(2, 2)
    before = net.weight.detach().clone()
    with pytest.raises(StorageError, match="is not a whole safetensors file"):
        load(tmp_path / "x", net)
    assert torch.equal(net.weight, before)


def test_a_state_that_would_need_pickle_is_refused(tmp_path):
    class Odd(nn.Linear):
        def get_extra_state(self):
            return {"x": 1}

        def set_extra_state(self, state):
            raise AssertionError

    with pytest.raises(StorageError, match=r"state '_extra_state' is dict, not a tensor; it cannot be saved without pickle"):
        save(tmp_path / "x", Odd(1, 1))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_gives_positive_zero_from_anything_and_touches_nothing_alive(dtype):
    masks = Masks({"fc": torch.tensor([[True, False, False], [False, True, False]])})
    tensor = torch.tensor([[-1.5, -2.0, torch.nan], [torch.inf, torch.nan, 0.0]], dtype=dtype)
    masks.zero_("fc.weight", tensor)
    assert tensor[0, 0] == -1.5
    assert tensor[1, 1].isnan()
    dead = tensor[~masks["fc"]]
    assert torch.equal(dead, torch.zeros(4, dtype=dtype))
    assert not dead.signbit().any()


def test_zero_reaches_through_strides_and_follows_replaced_masks():
    masks = Masks({"fc": torch.tensor([[True, False], [True, True], [False, True]])})
    base = torch.ones(2, 3)
    masks.zero_("fc.weight", base.T)
    assert base.tolist() == [[1, 1, 0], [0, 1, 1]]
    masks.replace_(Masks({"fc": torch.zeros(3, 2, dtype=torch.bool)}))
    masks.zero_("fc.weight", base.T)
    assert base.tolist() == [[0, 0, 0], [0, 0, 0]]
