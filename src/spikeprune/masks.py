"""Masks: which weights live. A mapping from layer name to a bool tensor of the weight's shape; True keeps.

Masks are state and are never inferred from zeros. They live beside the model, not in it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from spikeprune.errors import MaskMismatch, ModelError, StorageError
from spikeprune.files import read_tensors, write_tensors
from spikeprune.view.layer import Layer

_WIDTH = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FORMAT = "spikeprune-1"
BELONG = "Masks belong to the model they were made for; make them anew with prune(), or load the model they go with."
_GATE = "gate|"


class Masks(Mapping[str, Tensor]):
    """Bool tensors by layer name, True keeps. Layers without a mask are whole.

    Args:
        masks: by layer name, each of the weight's shape.
        gates: for layers whose output channels were pruned, what silences these: by layer name, which entries of which parameters
            live, by the parameters' qualified names. A layer without gates is held by its weight, as its mask says.

    Example:
        >>> masks = Masks({"fc": torch.tensor([[True, False], [False, False]])})
        >>> masks.sparsity, masks.kept
        (0.75, {'fc': 1})
    """

    def __init__(self, masks: Mapping[str, Tensor], gates: Mapping[str, Mapping[str, Tensor]] | None = None) -> None:
        self._masks, self._gates = dict(masks), {name: dict(held) for name, held in (gates or {}).items()}
        for name, mask in [*masks.items(), *((name, held) for parts in self._gates.values() for name, held in parts.items())]:
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise MaskMismatch(f"the mask of layer {name!r} is {kind}; masks are bool tensors, True keeps.")
        for name in self._gates:
            if name not in self._masks:
                raise MaskMismatch(f"there are gates for layer {name!r}, but no mask; give both.")
        self._forget()

    def _forget(self) -> None:
        self._held: dict[str, Tensor] | None = None
        self._dead: dict[str, Tensor] = {}
        self._bits: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same masks for the same layers; where they lie does not matter."""
        if not isinstance(other, Masks):
            return NotImplemented
        return _same(self, other) and _same(self.held, other.held)

    def __repr__(self) -> str:
        return f"Masks({len(self)} layers, {sum(self.kept.values()):,} of {self.weights:,} weights kept)"

    @property
    def gates(self) -> Mapping[str, Mapping[str, Tensor]]:
        """What silences the dead channels, of layers whose output channels were pruned; see above."""
        return self._gates

    @property
    def held(self) -> Mapping[str, Tensor]:
        """What lives, by the qualified name of every parameter that is held at zero elsewhere."""
        if self._held is None:
            self._held = {}
            for layer, mask in self.items():
                for name, alive in self._gates.get(layer, {weight_of(layer): mask}).items():
                    self._held[name] = self._held[name] & alive.to(self._held[name].device) if name in self._held else alive
        return self._held

    @property
    def weights(self) -> int:
        """How many weights the masks cover."""
        return sum(mask.numel() for mask in self.values())

    @property
    def kept(self) -> dict[str, int]:
        """How many weights each layer keeps."""
        return {name: int(mask.sum()) for name, mask in self.items()}

    @property
    def density(self) -> float:
        """The share of the covered weights that is kept."""
        return sum(self.kept.values()) / self.weights if self.weights else 1.0

    @property
    def sparsity(self) -> float:
        """The share of the covered weights that is removed."""
        return 1 - self.density

    def dead(self, name: str, device: torch.device) -> Tensor:
        """Return which entries of a held parameter are dead, on a device; kept until the masks change."""
        if name not in self._dead or self._dead[name].device != device:
            self._dead[name] = ~self.held[name].to(device)
        return self._dead[name]

    @torch.no_grad()
    def zero_(self, name: str, tensor: Tensor) -> None:
        """Zero the dead entries of a tensor of a held parameter's shape, in place: itself, its gradient, a moment.

        The entries are and-ed bit by bit with all ones or all zeros. That is cheaper than a masked fill, which matters once
        a step, and unlike a product with 0 and 1 it gives +0 from negative numbers and from NaN.
        """
        width = _WIDTH[tensor.element_size()]
        key = (name, tensor.device, width)
        if key not in self._bits:
            self._bits[key] = -self.held[name].to(tensor.device, width)
        tensor.detach().view(width).bitwise_and_(self._bits[key])

    def replace_(self, masks: "Masks") -> "Masks":
        """Take over other masks in place, so that whoever holds these follows."""
        self._masks, self._gates = dict(masks), {name: dict(held) for name, held in masks.gates.items()}
        self._forget()
        return self

    def over(self, earlier: "Masks") -> "Masks":
        """Give these, decided after earlier ones: layers not decided anew keep theirs, and so do weights within living channels."""
        masks, gates = {**earlier, **self}, {**earlier.gates, **self.gates}
        for layer, mask in self.items():
            weight = weight_of(layer)
            before = earlier.gates.get(layer, {weight: earlier[layer]} if layer in earlier else {})
            before = {name: alive.to(mask.device) for name, alive in before.items()}
            if layer not in self.gates:
                gates |= {layer: {**before, weight: mask}} if layer in earlier.gates else {}
            elif weight in before:  # weights were pruned one by one as well
                alive = before[weight]
                if layer in earlier.gates:  # a row that was wholly dead was a channel
                    alive = alive | ~alive.flatten(1).any(1).view(-1, *[1] * (mask.dim() - 1))
                masks[layer] = mask & alive
                gates[layer] = {**self.gates[layer], weight: self.gates[layer].get(weight, torch.ones_like(mask)) & alive}
        return Masks(masks, gates)

    def check(self, layers: Iterable[Layer]) -> "Masks":
        """Return the masks if each belongs to one of the layers.

        Raises:
            MaskMismatch: a mask names no layer, or has another shape than the layer's weight.
        """
        shapes = {layer.name: tuple(layer.weight.shape) for layer in layers}
        for name, mask in self.items():
            if name not in shapes:
                raise MaskMismatch(f"there is a mask for {name!r}, but the model's layers are {', '.join(shapes)}. {BELONG}")
            if tuple(mask.shape) != shapes[name]:
                raise MaskMismatch(
                    f"the mask for layer {name!r} has shape {tuple(mask.shape)}, its weight {shapes[name]}. {BELONG}"
                )
        return self

    def parameters(self, net: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the held parameters of a model with their names.

        Raises:
            MaskMismatch: the model has no such parameter, or one of another shape.
        """
        for name, alive in self.held.items():
            yield name, _parameter(net, name, alive)

    def apply_(self, net: nn.Module) -> None:
        """Set the dead entries of a model's parameters to zero."""
        for name, param in self.parameters(net):
            self.zero_(name, param)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the masks as one safetensors file, in one step."""
        write_tensors(path, packed(self), {"format": FORMAT, "holds": "masks"})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Masks":
        """Read masks written by `save`.

        Raises:
            StorageError: the file is missing or damaged, or holds something else.
        """
        return unpacked(read(path, "masks")[0])


def weight_of(layer: str) -> str:
    """Give the qualified name of a layer's weight; the layer may be the whole model."""
    return f"{layer}.weight".lstrip(".")


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(mask.cpu(), other[name].cpu()) for name, mask in one.items())


def _parameter(net: nn.Module, name: str, alive: Tensor) -> nn.Parameter:
    try:
        param = net.get_parameter(name)
    except AttributeError as error:
        held = any(known == name for known, _ in net.named_buffers()) or name.rpartition(".")[0] in dict(net.named_modules())
        if held:
            raise ModelError(f"{name!r} is no longer a plain parameter; undo what parametrized it.") from error
        raise MaskMismatch(f"the masks hold {name!r}, which the model does not have. {BELONG}") from error
    if param.shape != alive.shape:
        raise MaskMismatch(
            f"the masks hold {name!r} with shape {tuple(alive.shape)}; the model's has {tuple(param.shape)}. {BELONG}"
        )
    return param


def refuse_other(masks: object) -> None:
    """Raise MaskMismatch if what was given for masks is something else, such as a plain dict."""
    if not isinstance(masks, Masks):
        raise MaskMismatch(
            f"masks is {type(masks).__name__}, but must be Masks, as prune() returns them; make them from bool tensors with "
            "Masks({name: tensor, ...}), True keeps."
        )


def packed(masks: Masks) -> dict[str, Tensor]:
    """Give masks and gates as tensors by name, for a file."""
    gates = {f"{_GATE}{layer}|{name}": alive for layer, held in masks.gates.items() for name, alive in held.items()}
    return {**masks, **gates}


def unpacked(tensors: Mapping[str, Tensor]) -> Masks:
    """Give the masks that `packed` gave the tensors of."""
    masks = {name: mask for name, mask in tensors.items() if not name.startswith(_GATE)}
    gates: dict[str, dict[str, Tensor]] = {}
    for name, alive in tensors.items():
        if name.startswith(_GATE):
            layer, _, param = name.removeprefix(_GATE).partition("|")
            gates.setdefault(layer, {})[param] = alive
    return Masks(masks, gates)


def read(path: str | os.PathLike[str], holds: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a file of this version's format that holds one of the kinds named, apart by a comma.

    Raises:
        StorageError: the file is missing or damaged, or holds something else.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT or metadata.get("holds") not in holds.split(", "):
        raise StorageError(
            f"{path} does not hold {holds} as this version of spikeprune writes them: its format is {metadata.get('format')!r}, its "
            f"content {metadata.get('holds')!r}. spikeprune.load reads models and their masks, Masks.load reads masks alone."
        )
    return tensors, metadata
