"""One dry forward that tells whether a layer's output goes to one norm or one neuron alone, unchanged.

Reshaping is no change. A tensor is known by the memory it lies in, which a view of it shares; all that the pass makes is kept until
its end, so that no memory is used twice.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from spikeprune.view.model_view import ModelView
from spikeprune.view.trace import READING


@dataclass
class Wiring:
    """Who reads what, over all calls of a pass.

    Attributes:
        readers: by layer, the norms and neurons that are given its output as it is, and the names of functions that read it.
        sources: by norm or neuron, the layers whose output it is given as it is; None stands for anything else.
    """

    readers: dict[str, set[str]] = field(default_factory=dict)
    sources: dict[str, set[str | None]] = field(default_factory=dict)

    def pairs(self, names: Iterable[str]) -> dict[str, str]:
        """Give the layer of each of the norms or neurons named that one layer alone feeds, and which alone reads that layer."""
        found = {name: next(iter(self.sources[name])) for name in names if len(self.sources.get(name, ())) == 1}
        return {name: layer for name, layer in found.items() if layer is not None and self.readers[layer] == {name}}


def wiring(view: ModelView) -> Wiring:
    """Run the example of the view once, and tell who reads the output of each layer."""
    found = Wiring()
    watch = _Watch(found)
    with view.undisturbed(), torch.no_grad(), ExitStack() as hooks:
        for layer in view.layers:
            hooks.callback(layer.module.register_forward_hook(watch.gives(layer.name)).remove)
        for name, module in {**batch_norms(view), **view.neurons}.items():
            hooks.callback(module.register_forward_pre_hook(watch.takes(name)).remove)
            hooks.callback(module.register_forward_hook(watch.leave).remove)
        with watch:
            answer = view.forward(view.net, view.example)
        watch.note(tree_leaves(answer), "the network's output")
    return found


def batch_norms(view: ModelView) -> Mapping[str, nn.Module]:
    """Give the batch norms of a model by name, those inside neurons left out."""
    inside = tuple(f"{name}." for name in view.neurons)
    return {name: m for name, m in view.net.named_modules() if isinstance(m, _BatchNorm) and not name.startswith(inside)}


class _Watch(TorchFunctionMode):
    """Sees every function that reads a layer's output outside of norms and neurons."""

    def __init__(self, found: Wiring) -> None:
        super().__init__()
        self._found, self._depth = found, 0
        self._owner: dict[int, str] = {}
        self._alive: list[Any] = []

    def gives(self, layer: str) -> Callable[[nn.Module, Any, Any], None]:
        """Make a hook that notes a layer's output."""

        def hook(_: nn.Module, __: Any, out: Tensor) -> None:
            self._found.readers.setdefault(layer, set())
            self._owner[_memory(out)] = layer
            self._alive.append(out)

        return hook

    def takes(self, name: str) -> Callable[[nn.Module, Any], None]:
        """Make a hook that notes what a norm or neuron is given, and looks away until it is done."""

        def hook(_: nn.Module, args: Any) -> None:
            if not self._depth:
                self.note(args[:1], name)
                self._found.sources.setdefault(name, set()).add(self._owner.get(_memory(args[0])) if args else None)
            self._depth += 1

        return hook

    def leave(self, *_: Any) -> None:
        """Look again."""
        self._depth -= 1

    def note(self, values: Iterable[Any], reader: str) -> None:
        """Note that tensors are read."""
        for tensor in _tensors(values):
            if owner := self._owner.get(_memory(tensor)):
                self._found.readers[owner].add(reader)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, and note whose values it reads or writes over."""
        given = [(tensor, tensor._version) for tensor in _tensors(tree_leaves((args, kwargs)))]
        out = func(*args, **(kwargs or {}))
        if self._depth:
            return out
        self._alive.append(out)
        name = str(getattr(func, "__name__", func))
        memories = {_memory(tensor) for tensor in _tensors(tree_leaves(out))}
        for tensor, version in given:
            looked = _memory(tensor) not in memories if memories else name in READING
            if looked or tensor._version != version:  # what lies in the same memory is a view, unless it was written over
                self.note([tensor], name)
        return out


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    return (value for value in values if isinstance(value, Tensor))
