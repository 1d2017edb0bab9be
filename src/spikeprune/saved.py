"""A model and its masks in one safetensors file; never a pickle."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spikeprune.errors import MaskMismatch, StorageError
from spikeprune.files import write_tensors
from spikeprune.masks import BELONG, FORMAT, Masks, packed, read, refuse_other, unpacked, weight_of
from spikeprune.plan import ShrinkPlan

MODEL = "model and masks"


def save(path: str | os.PathLike[str], net: nn.Module, masks: Masks | None = None, *, plan: ShrinkPlan | None = None) -> None:
    """Write a model's state and its masks as one safetensors file, in one step; an earlier file stays if that fails.

    Args:
        path: the file.
        net: any model; what its `state_dict` holds is written. Neuron state is not part of it.
        masks: the masks that go with it.
        plan: of a model that was made smaller, how: `load` then makes a model of the old form smaller alike before it reads.

    Raises:
        StorageError: the file cannot be written, or the state holds something other than tensors.
        MaskMismatch: the masks belong to another model.

    Example:
        >>> import os, tempfile, torch
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
    for name, axes in ({} if plan is None else plan.keeps).items():
        found = tuple(state[name].shape) if name in state else ()
        if any(len(found) <= axis or found[axis] != len(keep) for axis, (keep, _) in axes.items()):
            raise MaskMismatch(
                f"cannot save: the plan leaves {name!r} sizes {[len(keep) for keep, _ in axes.values()]}, but the model's is "
                f"{found or 'absent'}. Save the smaller model that the plan made, not the one that it was made from."
            )
    _refuse_foreign(masks, {name: tuple(value.shape) for name, value in state.items()}, "cannot save: there is")
    tensors = {f"model.{name}": value for name, value in state.items()}
    tensors |= {f"mask.{name}": mask for name, mask in packed(masks).items()}
    told = {} if plan is None else {"plan": plan.to_json()}
    write_tensors(path, tensors, {"format": FORMAT, "holds": MODEL, **told})


def load(path: str | os.PathLike[str], net: nn.Module) -> tuple[nn.Module, Masks]:
    """Read what `save` wrote into a model of the same shape; return it with its masks. On error it is left untouched.

    If the file holds a model that was made smaller, give one of the form that it was made from: a smaller copy is returned.

    Raises:
        StorageError: the file is missing or damaged, or holds something else.
        MaskMismatch: the file belongs to another model.

    Example:
        >>> import os, tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "net.safetensors")
        ...     save(path, nn.Linear(2, 1), Masks({"": torch.tensor([[True, False]])}))
        ...     net, masks = load(path, nn.Linear(2, 1))
        >>> masks.kept
        {'': 1}
    """
    tensors, metadata = read(path, MODEL)
    if "plan" in metadata:
        net = ShrinkPlan.from_json(metadata["plan"]).apply(net)
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    masks = unpacked({name.removeprefix("mask."): value for name, value in tensors.items() if name.startswith("mask.")})
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
    for name, mask in [*((weight_of(layer), mask) for layer, mask in masks.items()), *masks.held.items()]:
        if own.get(name) != tuple(mask.shape):
            raise MaskMismatch(
                f"{told} a mask of shape {tuple(mask.shape)} for {name!r}, where the model has {own.get(name, 'nothing')}. {BELONG}"
            )
