"""Masks: which weights live. A mapping from layer name to a bool tensor of the weight's shape; True keeps.

Masks are state and are never inferred from zeros. They live beside the model, not in it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import MaskMismatch, NonFinite, SparsityError, StorageError
from spikeprune.files import read_tensors, write_tensors
from spikeprune.kernel.patterns import Pattern
from spikeprune.view.layer import Layer

_WIDTH = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FORMAT = "spikeprune-1"


class Masks(Mapping[str, Tensor]):
    """Bool tensors by layer name, True keeps. Layers without a mask are whole.

    Example:
        >>> masks = Masks({"fc": torch.tensor([[True, False], [False, False]])})
        >>> masks.sparsity, masks.kept
        (0.75, {'fc': 1})
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        for name, mask in masks.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise MaskMismatch(f"the mask of layer {name!r} is {kind}; masks are bool tensors, True keeps.")
        self._masks = dict(masks)
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
        return self.keys() == other.keys() and all(torch.equal(mask.cpu(), other[name].cpu()) for name, mask in self.items())

    def __repr__(self) -> str:
        return f"Masks({len(self)} layers, {sum(self.kept.values()):,} of {self.weights:,} weights kept)"

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
        """Return the mask of the dead weights of a layer on a device; kept until the masks change."""
        if name not in self._dead or self._dead[name].device != device:
            self._dead[name] = ~self._masks[name].to(device)
        return self._dead[name]

    @torch.no_grad()
    def zero_(self, name: str, tensor: Tensor) -> None:
        """Zero the dead entries of a tensor of the layer's weight's shape, in place: a weight, its gradient, a moment.

        The entries are and-ed bit by bit with all ones or all zeros. That is cheaper than a masked fill, which matters once
        a step, and unlike a product with 0 and 1 it gives +0 from negative numbers and from NaN.
        """
        width = _WIDTH[tensor.element_size()]
        key = (name, tensor.device, width)
        if key not in self._bits:
            self._bits[key] = -self._masks[name].to(tensor.device, width)
        tensor.detach().view(width).bitwise_and_(self._bits[key])

    def replace_(self, masks: "Masks") -> "Masks":
        """Take over other masks in place, so that whoever holds these follows."""
        self._masks, self._dead, self._bits = dict(masks), {}, {}
        return self

    def check(self, layers: Iterable[Layer]) -> "Masks":
        """Return the masks if each belongs to one of the layers.

        Raises:
            MaskMismatch: a mask names no layer, or has another shape than the layer's weight.
        """
        shapes = {layer.name: tuple(layer.weight.shape) for layer in layers}
        for name, mask in self.items():
            if name not in shapes:
                raise MaskMismatch(f"there is a mask for {name!r}, but the model's layers are {', '.join(shapes)}. {_BELONG}")
            if tuple(mask.shape) != shapes[name]:
                raise MaskMismatch(
                    f"the mask for layer {name!r} has shape {tuple(mask.shape)}, its weight {shapes[name]}. {_BELONG}"
                )
        return self

    def apply_(self, layers: Iterable[Layer]) -> None:
        """Set the dead weights of the layers to zero."""
        for layer in layers:
            if layer.name in self:
                self.zero_(layer.name, layer.weight)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the masks as one safetensors file, in one step."""
        write_tensors(path, self, {"format": FORMAT, "holds": "masks"})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Masks":
        """Read masks written by `save`.

        Raises:
            StorageError: the file is missing or damaged, or holds something else.
        """
        return cls(_read(path, "masks"))


MODEL = "model and masks"
_BELONG = "Masks belong to the model they were made for; make them anew with prune(), or load the model they go with."


def refuse_other(masks: object) -> None:
    """Raise MaskMismatch if what was given for masks is something else, such as a plain dict."""
    if not isinstance(masks, Masks):
        raise MaskMismatch(
            f"masks is {type(masks).__name__}, but must be Masks, as prune() returns them; make them from bool tensors with "
            "Masks({name: tensor, ...}), True keeps."
        )


def decide(layers: Iterable[Layer], scores: Mapping[str, Tensor], keep: Mapping[str, int], pattern: Pattern) -> Masks:
    """Keep the `keep[name]` best units of each layer.

    Raises:
        NonFinite: a score is NaN.
        SparsityError: a layer is to keep more than is alive.
    """
    masks = {}
    for layer in layers:
        score = scores[layer.name]
        if bool(score.isnan().any()):
            raise NonFinite(
                f"{int(score.isnan().sum())} of {score.numel()} scores of layer {layer.name!r} are NaN. Check its weights and what was "
                "measured of it for NaN or infinity."
            )
        alive = int((score != -torch.inf).sum())
        if keep[layer.name] > alive:
            raise SparsityError(
                f"layer {layer.name!r} is to keep {keep[layer.name]} of its {score.numel()} units, but earlier masks left only {alive} "
                "alive, and what is removed stays removed. Ask for a higher sparsity, or start without those masks."
            )
        masks[layer.name] = pattern.expand(pattern.select(score, keep[layer.name]), layer.weight)
    return Masks(masks)


def save(path: str | os.PathLike[str], net: nn.Module, masks: Masks | None = None) -> None:
    """Write a model's state and its masks as one safetensors file, in one step; an earlier file stays if that fails.

    Args:
        path: the file.
        net: any model; what its `state_dict` holds is written. Neuron state is not part of it.
        masks: the masks that go with it.

    Raises:
        StorageError: the file cannot be written, or the state holds something other than tensors.
        MaskMismatch: the masks belong to another model.

    Example:
        >>> import os, tempfile
        >>> net = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "net.safetensors")
        ...     save(path, net, Masks({"": torch.tensor([[True, False]])}))
        ...     os.listdir(folder)
        ['net.safetensors']
    """
    masks = Masks({}) if masks is None else masks
    refuse_other(masks)
    state: dict[str, Any] = net.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise StorageError(
                f"the model's state {name!r} is {type(value).__name__}, not a tensor; it cannot be saved without pickle."
            )
    _refuse_foreign(masks, {name: tuple(value.shape) for name, value in state.items()}, "cannot save: there is")
    tensors = {f"model.{name}": value for name, value in state.items()}
    tensors |= {f"mask.{name}": mask for name, mask in masks.items()}
    write_tensors(path, tensors, {"format": FORMAT, "holds": MODEL})


def load(path: str | os.PathLike[str], net: nn.Module) -> tuple[nn.Module, Masks]:
    """Read what `save` wrote into a model of the same shape; return it with its masks. On error it is left untouched.

    Raises:
        StorageError: the file is missing or damaged, or holds something else.
        MaskMismatch: the file belongs to another model.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "net.safetensors")
        ...     save(path, nn.Linear(2, 1), Masks({"": torch.tensor([[True, False]])}))
        ...     net, masks = load(path, nn.Linear(2, 1))
        >>> masks.kept
        {'': 1}
    """
    tensors = _read(path, MODEL)
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    masks = Masks({name.removeprefix("mask."): value for name, value in tensors.items() if name.startswith("mask.")})
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    wrong = [name for name in sorted(own.keys() | theirs.keys()) if own.get(name) != theirs.get(name)]
    if wrong:
        first = wrong[0]
        raise MaskMismatch(
            f"{path} belongs to another model: {len(wrong)} entries differ, first {first!r} (file: {theirs.get(first, 'absent')}, "
            f"model: {own.get(first, 'absent')}). Build the model as it was when it was saved."
        )
    _refuse_foreign(masks, own, f"{path} holds")
    net.load_state_dict(state)
    return net, masks


def _refuse_foreign(masks: Masks, own: Mapping[str, tuple[int, ...]], told: str) -> None:
    """Raise MaskMismatch, which begins with `told`, if a mask fits no weight among a model's own shapes."""
    for layer, mask in masks.items():
        name = f"{layer}.weight".lstrip(".")
        if own.get(name) != tuple(mask.shape):
            raise MaskMismatch(
                f"{told} a mask of shape {tuple(mask.shape)} for {name!r}, where the model has {own.get(name, 'nothing')}. {_BELONG}"
            )


def _read(path: str | os.PathLike[str], holds: str) -> dict[str, Tensor]:
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT or metadata.get("holds") != holds:
        raise StorageError(
            f"{path} does not hold {holds} as this version of spikeprune writes them: its format is {metadata.get('format')!r}, its "
            f"content {metadata.get('holds')!r}. spikeprune.load reads {MODEL}, Masks.load reads masks alone."
        )
    return tensors
