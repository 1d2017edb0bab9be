"""What to cut out of a model, as values: tensor by tensor the indices that stay; applied to models, masks and optimizers, written as JSON."""

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.errors import MaskMismatch, ModelError, ShrinkError, StorageError
from spikeprune.hold import refuse_unreachable
from spikeprune.masks import BELONG, Masks, weight_of
from spikeprune.view.adapters import loaded
from spikeprune.view.model_view import detached_copy

SIZES = {0: ("out_channels", "out_features", "num_features"), 1: ("in_channels", "in_features")}
"""Attributes of a module that tell the size of an axis of its weight; a norm's is along axis 0."""


@dataclass(frozen=True)
class ShrinkPlan:
    """Which indices of which tensors stay, and what modules call their new sizes. Made by `plan_shrink`.

    Attributes:
        keeps: by tensor name and axis, the indices that stay, rising, and how many there were.
        sizes: by module name and attribute, the new size.
        channels: by family name, how many channels stay, and of how many.
    """

    keeps: Mapping[str, Mapping[int, tuple[tuple[int, ...], int]]]
    sizes: Mapping[str, Mapping[str, int]]
    channels: Mapping[str, tuple[int, int]]

    def apply(self, net: nn.Module, *, reinit: bool = False) -> nn.Module:
        """Return a smaller copy of a model of the form that the plan was made for, its neurons at rest; the model is left alone.

        Args:
            net: the model.
            reinit: draw the weights anew (each module's `reset_parameters`) in place of keeping them.

        Raises:
            MaskMismatch: the model has another form.
            ModelError: what is to be cut is parametrized.
        """
        small = detached_copy(net)
        for _, adapter in loaded():
            for module in small.modules():
                if adapter.is_stateful(module):
                    adapter.reset(module)  # what it kept of a batch has the old size
        for name, axes in self.keeps.items():
            self._cut(small, name, axes)
        for name, sizes in self.sizes.items():
            module = small.get_submodule(name)
            for attribute, size in sizes.items():
                setattr(module, attribute, size)
        for module in small.modules() if reinit else ():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        return small

    def _cut(self, small: nn.Module, name: str, axes: Mapping[int, tuple[tuple[int, ...], int]]) -> None:
        owner, _, key = name.rpartition(".")
        module = dict(small.named_modules()).get(owner, nn.Module())
        tensor = getattr(module, key, None)
        if not isinstance(tensor, Tensor) or any(
            tensor.dim() <= axis or tensor.shape[axis] != of for axis, (_, of) in axes.items()
        ):
            found = tuple(tensor.shape) if isinstance(tensor, Tensor) else "nothing"
            sizes = ", ".join(f"{of} along axis {axis}" for axis, (_, of) in axes.items())
            raise MaskMismatch(f"the plan cuts {name!r} of size {sizes}; the model has {found} there. {BELONG}")
        if key not in {**module._parameters, **module._buffers}:
            raise ModelError(f"{name!r} is no longer a plain parameter; undo what parametrized it.")
        value = self.sliced(name, tensor.detach())
        setattr(
            module, key, nn.Parameter(value, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value
        )

    def sliced(self, name: str, value: Tensor) -> Tensor:
        """Cut a tensor as the one of that name: its gradient, a moment, a mask."""
        for axis, (keep, _) in self.keeps.get(name, {}).items():
            value = value.index_select(axis, torch.tensor(keep, device=value.device))
        return value.clone()

    def masks(self, masks: Masks) -> Masks:
        """Give the masks of single weights for the smaller model; channel masks have done their work and are left out."""
        cut = {layer: self.sliced(weight_of(layer), mask) for layer, mask in masks.items()}
        return Masks({layer: mask for layer, mask in cut.items() if not bool(mask.all())})

    def optimizer(self, optimizer: Optimizer, net: nn.Module, small: nn.Module) -> Optimizer:
        """Return an optimizer of the same class for the smaller model, with the same settings and what it remembers, cut alike.

        Args:
            optimizer: of the model's parameters; it is left alone.
            net: the model that the plan was made for.
            small: what `apply` made of it.

        Raises:
            ShrinkError: it updates something other than the model's parameters.
            UnsupportedOptimizer: it keeps memory that is not parameter-shaped (LBFGS, Adafactor).
        """
        refuse_unreachable(optimizer)
        names = {id(param): name for name, param in net.named_parameters()}
        new = dict(small.named_parameters())
        groups, states = [], {}
        for group in optimizer.param_groups:
            if any(id(param) not in names for param in group["params"]):
                raise ShrinkError(
                    "the optimizer updates parameters that are not the model's; make a new one for the smaller model."
                )
            groups.append({**group, "params": [new[names[id(param)]] for param in group["params"]]})
            for param in group["params"]:
                name = names[id(param)]
                state = optimizer.state.get(param, {})
                states[new[name]] = {
                    key: self.sliced(name, value)
                    if isinstance(value, Tensor) and value.shape == param.shape
                    else copy.deepcopy(value)
                    for key, value in state.items()
                }
        accepted = inspect.signature(type(optimizer)).parameters
        twin: Optimizer = type(optimizer)(groups, **{key: v for key, v in optimizer.defaults.items() if key in accepted})
        twin.state.update({param: state for param, state in states.items() if state})
        return twin

    def to_json(self) -> str:
        """Write the plan as JSON."""
        keeps = {
            name: {str(axis): {"keep": keep, "of": of} for axis, (keep, of) in axes.items()} for name, axes in self.keeps.items()
        }
        return json.dumps({"tensors": keeps, "sizes": self.sizes, "channels": self.channels}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ShrinkPlan":
        """Read what `to_json` wrote.

        Raises:
            StorageError: it is no plan.
        """
        try:
            content = json.loads(text)
            keeps = {
                name: {_number(int(axis), 0, 1): (_indices(cut["keep"], cut["of"]), cut["of"]) for axis, cut in axes.items()}
                for name, axes in content["tensors"].items()
            }
            sizes = {name: {key: _number(size, 1) for key, size in found.items()} for name, found in content["sizes"].items()}
            channels = {name: (_number(kept, 1), _number(of, 1)) for name, (kept, of) in content["channels"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"this is no plan of a smaller model ({error!r}).") from error
        for name, found in sizes.items():
            counts = {len(keep) for keep, _ in keeps.get(f"{name}.weight".lstrip("."), {}).values()}
            for key, size in found.items():
                if key not in {*SIZES[0], *SIZES[1], "groups"}:
                    raise StorageError(f"the plan sets {key!r}, which is no size of a layer or norm; it was changed.")
                if size not in counts:
                    raise StorageError(
                        f"the plan sets {key!r} of {name!r} to {size}, but keeps {sorted(counts)}; it was changed."
                    )
        return cls(keeps, sizes, channels)


def _indices(keep: Any, of: Any) -> tuple[int, ...]:
    if not isinstance(keep, list) or not keep:
        raise ValueError("no list of indices")
    found = tuple(_number(index, 0, _number(of, 1) - 1) for index in keep)
    if list(found) != sorted(set(found)):
        raise ValueError("indices that do not rise")
    return found


def _number(value: Any, least: int, most: int | None = None) -> int:
    if type(value) is not int or value < least or (most is not None and value > most):
        raise ValueError(f"{value!r} where there should be a number from {least}{'' if most is None else f' to {most}'}")
    return value
