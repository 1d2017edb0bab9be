"""N:M weights without what is dead: values and packed indices by layer; a file of them, and back into a model.

The layout is that of `kernel.packing`. Every block has n slots, so none has more than n alive, whatever becomes of the model.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from spikeprune.decide import in_blocks
from spikeprune.errors import MaskMismatch, MethodError, ModelError, NoPrunableLayers, SparsityError, StorageError
from spikeprune.files import write_tensors
from spikeprune.kernel.blocks import NM
from spikeprune.kernel.packing import fault, pack, unpack
from spikeprune.masks import BELONG, FORMAT, Masks, read, refuse_other, weight_of
from spikeprune.view.layer import Layer
from spikeprune.view.model_view import ModelView, check_view

HOLDS = "N:M values and indices"


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """One layer's weight as the values of its blocks' slots, and their indices.

    Args:
        values: (C_out, kernel ..., blocks, n), of the weight's dtype; a slot that no living weight fills holds +0.0.
        indices: uint8, bit-packed in the order of values: where in its block of m inputs each value lies.
        shape: of the weight: (C_out, C_in, kernel ...).
        pattern: n of every m.

    Raises:
        SparsityError: these are no packed weight of that shape.

    Example:
        >>> indices = torch.tensor([0b1101], dtype=torch.uint8)  # 1, then 3
        >>> PackedLayer(torch.tensor([[[0.5, -2.0]]]), indices, torch.Size([1, 4]), NM(2, 4)).weight()
        tensor([[ 0.0000,  0.5000,  0.0000, -2.0000]])
    """

    values: Tensor
    indices: Tensor
    shape: torch.Size
    pattern: NM

    def __post_init__(self) -> None:
        if (told := fault(self.values, self.indices, self.shape, self.pattern)) is not None:
            n, m = self.pattern.n, self.pattern.m
            raise SparsityError(f"this is no weight packed in {n}:{m}: {told}. Make it with pack_nm(view, NM({n}, {m})).")

    def weight(self) -> Tensor:
        """Give the weight, of the dtype it was packed in: living values bit by bit, dead ones +0.0."""
        return unpack(self.values, self.indices, self.shape, self.pattern.m)

    @property
    def bytes(self) -> int:
        """Size of values and indices."""
        return self.values.numel() * self.values.element_size() + self.indices.numel()


@dataclass(frozen=True, eq=False, repr=False)
class PackedNM(Mapping[str, PackedLayer]):
    """Packed weights by layer name. Made by `pack_nm`; biases and layers that are not packed stay with the model.

    Args:
        layers: by layer name, all of one pattern.
        pattern: that pattern.

    Example:
        >>> from spikeprune import model_view
        >>> net = nn.Linear(4, 1, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[0.0, 0.5, 0.0, -2.0]]))
        >>> packed = pack_nm(model_view(net, torch.rand(1, 4), spiking=False), NM(2, 4), layers="")
        >>> packed[""].values, packed.bytes
        (tensor([[[ 0.5000, -2.0000]]]), 9)
        >>> packed.dense()[""]
        tensor([[ 0.0000,  0.5000,  0.0000, -2.0000]])
    """

    layers: Mapping[str, PackedLayer]
    pattern: NM

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
        for name, layer in self.layers.items():
            if layer.pattern != self.pattern:
                raise SparsityError(
                    f"layer {name!r} is packed in {layer.pattern}, the others in {self.pattern}; keep them apart."
                )

    def __getitem__(self, name: str) -> PackedLayer:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        weights = sum(math.prod(layer.shape) for layer in self.values())
        return f"PackedNM({self.pattern.n}:{self.pattern.m}, {len(self)} layers, {weights:,} weights in {self.bytes:,} bytes)"

    @property
    def bytes(self) -> int:
        """Size of all values and indices."""
        return sum(layer.bytes for layer in self.values())

    def dense(self) -> dict[str, Tensor]:
        """Give the weights by layer: living values bit by bit, dead ones +0.0."""
        return {name: layer.weight() for name, layer in self.items()}

    @torch.no_grad()
    def apply_(self, net: nn.Module) -> None:
        """Write the weights into a model of the same form, of the same dtype or one that holds all their values.

        Raises:
            MaskMismatch: the model has no such layer, or one of another shape or of a dtype that would round; it is left as it was.
            ModelError: a weight is parametrized.
        """
        modules = dict(net.named_modules())
        weights = {name: _fitting(name, layer, modules.get(name)) for name, layer in self.items()}
        for name, weight in weights.items():
            weight.copy_(self[name].weight())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write values and indices as one safetensors file, in one step; biases and other layers are not in it."""
        tensors = {f"values.{name}": layer.values for name, layer in self.items()}
        tensors |= {f"indices.{name}": layer.indices for name, layer in self.items()}
        told = {"pattern": [self.pattern.n, self.pattern.m], "shapes": {name: list(layer.shape) for name, layer in self.items()}}
        write_tensors(path, tensors, {"format": FORMAT, "holds": HOLDS, "packed": json.dumps(told)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "PackedNM":
        """Read what `save` wrote.

        Raises:
            StorageError: the file is missing or damaged, or holds something else.
        """
        tensors, metadata = read(path, HOLDS)
        try:
            told = json.loads(metadata["packed"])
            pattern, shapes = NM(*told["pattern"]), {name: _shape(sizes) for name, sizes in told["shapes"].items()}
            if wrong := tensors.keys() ^ {f"{part}.{name}" for part in ("values", "indices") for name in shapes}:
                raise ValueError(f"{sorted(wrong)} are missing, or belong to no layer")
            return cls({name: _loaded(name, shape, pattern, tensors) for name, shape in shapes.items()}, pattern)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"{path} does not hold packed weights as they were saved ({error}). Copy it again, or make it anew."
            ) from error


def pack_nm(view: ModelView, pattern: NM, layers: str | Iterable[str] | None = None, *, masks: Masks | None = None) -> PackedNM:
    """Pack the N:M weights of a model: the values of n slots a block, and where in the block they lie.

    Going back gives every living weight bit by bit and every dead one as +0.0. Without masks the weights that are zero are dead,
    -0.0 among them.

    Args:
        view: a model whose blocks have at most n alive; it is left as it is.
        pattern: n of every m, such as `patterns.NM(2, 4)`.
        layers: names or shell patterns; None takes those that masks hold, or, without masks, those that the pattern is made for: all
            but the first, the last, and those whose inputs m does not divide.
        masks: what lives, as `prune` returned them.

    Raises:
        SparsityError: a block has more than n alive, or a layer has fewer inputs than m.
        NoPrunableLayers: a name fits no layer, or none is left.
        MaskMismatch: the masks belong to another model, or a weight that they say is dead is not zero.
        MethodError: the pattern is none of n in m.

    Example:
        >>> from spikeprune import methods, model_view, prune
        >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> view = model_view(net, torch.rand(1, 8), spiking=False)
        >>> masks = prune(view, methods.Magnitude(pattern=NM(2, 4)))
        >>> packed = pack_nm(view, NM(2, 4), masks=masks)
        >>> packed, torch.equal(packed.dense()["2"], net[2].weight)
        (PackedNM(2:4, 1 layers, 128 weights in 272 bytes), True)
    """
    check_view(view)
    if not isinstance(pattern, NM):
        raise MethodError(f"pattern is {pattern!r}, but must be one of n in m, such as patterns.NM(2, 4).")
    if masks is not None:
        refuse_other(masks)
        masks.check(view.layers)
    return PackedNM({layer.name: _packed(layer, pattern, masks) for layer in _chosen(view, pattern, layers, masks)}, pattern)


def _chosen(view: ModelView, pattern: NM, names: str | Iterable[str] | None, masks: Masks | None) -> tuple[Layer, ...]:
    if names is None and masks is None:
        return in_blocks(view, pattern)
    found = view.select(names)
    if names is None and masks is not None:
        found = tuple(layer for layer in found if weight_of(layer.name) in masks.held)
    if not found:
        raise NoPrunableLayers(
            f"no layer is left to pack: layers is empty, or the masks hold no weight. Name some of {', '.join(x.name for x in view.layers)}."
        )
    return found


def _packed(layer: Layer, pattern: NM, masks: Masks | None) -> PackedLayer:
    weight = layer.weight.detach()
    alive = weight != 0
    if masks is not None:
        held = masks.held.get(weight_of(layer.name))
        living = torch.ones_like(alive) if held is None else held.to(alive.device)
        if (wrong := int((alive & ~living).sum())) > 0:
            raise MaskMismatch(
                f"{wrong} weights of layer {layer.name!r} are not zero, but dead by its mask. Set them to zero with masks.apply_(view.net), "
                "or give the masks that the model was pruned with."
            )
        alive = living
    try:
        values, indices = pack(weight, alive, pattern)
    except SparsityError as error:
        raise SparsityError(
            f"layer {layer.name!r} cannot be packed in {pattern.n}:{pattern.m}: {error} Prune it first, as "
            f"prune(view, methods.Magnitude(pattern={pattern!r})) does, or name the layers that are."
        ) from error
    return PackedLayer(values, indices, weight.shape, pattern)


def _fitting(name: str, layer: PackedLayer, module: nn.Module | None) -> nn.Parameter:
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and not isinstance(weight, nn.Parameter):
        raise ModelError(f"the weight of layer {name!r} is no longer a plain parameter; undo what parametrized it.")
    if not isinstance(weight, nn.Parameter) or weight.shape != layer.shape:
        found = tuple(weight.shape) if isinstance(weight, Tensor) else "nothing"
        raise MaskMismatch(f"layer {name!r} was packed with shape {tuple(layer.shape)}, where the model has {found}. {BELONG}")
    if torch.promote_types(weight.dtype, layer.values.dtype) != weight.dtype:
        raise MaskMismatch(
            f"layer {name!r} was packed in {layer.values.dtype}; the model's {weight.dtype} would round it. Convert the model first: "
            f"net.to({layer.values.dtype})."
        )
    return weight


def _shape(sizes: list[int]) -> torch.Size:
    if not isinstance(sizes, list) or any(type(size) is not int for size in sizes):
        raise ValueError(f"{sizes!r} is no shape")
    return torch.Size(sizes)


def _loaded(name: str, shape: torch.Size, pattern: NM, tensors: Mapping[str, Tensor]) -> PackedLayer:
    try:
        return PackedLayer(tensors[f"values.{name}"], tensors[f"indices.{name}"], shape, pattern)
    except SparsityError as error:
        raise ValueError(f"layer {name!r}: {error}") from error
