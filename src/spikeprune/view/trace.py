"""One dry forward that follows every layer's output channels: who reads them, who normalizes them, with whom they are added.

Synaptic layers, norms and neurons are known as wholes: hooks speak for them, whatever they do inside. Everything in between is
followed function by function (`rules`). What is not understood makes the channels that reach it stay, with the reason.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from spikeprune.view.adapters import Adapter
from spikeprune.view.graph import ChannelGraph, Notes, Use
from spikeprune.view.layer import Layer
from spikeprune.view.rules import ADDITIVE, passed
from spikeprune.view.spaces import Call, Carried, Label, Opaque, Part, Unknown

MIXING = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)
READING = frozenset({"__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy"})
GIVEN = Opaque(frozenset(), "it comes of the input alone")


def trace(
    net: nn.Module, adapter: Adapter | None, layers: Iterable[Layer], forward: Callable[[nn.Module, Any], Any], example: Any
) -> ChannelGraph:
    """Run the model once and sort its layers into families; the model must be in evaluation mode, its neurons at rest."""
    notes = Notes()
    mode = _Follow(notes)
    for tensor in _tensors(example):
        mode.label(tensor, GIVEN)
    with ExitStack() as hooks, torch.no_grad():
        for name, module, act in _leaves(net, adapter, tuple(layers), mode):
            hooks.callback(module.register_forward_pre_hook(mode.enter).remove)
            hooks.callback(module.register_forward_hook(_speak(mode, name, act)).remove)
        with mode:
            answer = forward(net, example)
    for tensor in _tensors(answer):
        notes.refuse(_spaces(mode.of(tensor)), "the network returns them")
    for layer in layers:
        if layer.name not in notes.channels:
            notes.open(layer.name, layer.weight.shape[0])
            notes.refuse({layer.name}, "it works inside a neuron, or a module with memory, which is taken as a whole")
    return notes.graph()


Act = Callable[["_Follow", str, nn.Module, Tensor, Tensor], Label]


def _leaves(
    net: nn.Module, adapter: Adapter | None, layers: tuple[Layer, ...], mode: "_Follow"
) -> Iterator[tuple[str, nn.Module, Act]]:
    """Give the modules that hooks speak for, and how."""
    synaptic = {layer.name for layer in layers}
    inside: list[str] = []
    for name, module in net.named_modules():
        if any(name.startswith(f"{outer}.") for outer in inside):
            continue
        if name in synaptic:
            yield name, module, _layer
        elif adapter is not None and adapter.is_stateful(module) and not _holds_norms(module, adapter):
            inside.append(name)
            yield name, module, _neuron if adapter.is_neuron(module) else _same
        elif isinstance(module, _BatchNorm | _InstanceNorm):
            yield name, module, _norm
        elif isinstance(module, MIXING):
            yield name, module, _mixing


def _holds_norms(module: nn.Module, adapter: Adapter) -> bool:
    """Whether a stateful module is one of plain norms, such as one a timestep, and is followed inside."""
    return not adapter.is_neuron(module) and any(isinstance(part, _BatchNorm) for part in module.modules() if part is not module)


def _speak(mode: "_Follow", name: str, act: Act) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: Any, out: Any) -> None:
        mode.depth -= 1
        if mode.depth:
            return
        given = next(_tensors(args))
        outputs = list(_tensors(out))
        label = act(mode, name, module, given, outputs[0])
        for tensor in outputs:
            mode.label(tensor, label if tensor.shape == outputs[0].shape else _lost(label, f"{name} gives them in another form"))

    return hook


def _layer(mode: "_Follow", name: str, module: Any, x: Tensor, out: Tensor) -> Label:
    """Note who is read; open a space, or go on with that of what a depthwise convolution is given."""
    space_dims = module.weight.dim() - 2 if module.weight.dim() > 2 else 0
    axis, notes, groups = out.dim() - 1 - space_dims, mode.notes, getattr(module, "groups", 1)
    label = mode.of(x)
    notes.open(name, out.shape[axis])
    if label is None:
        notes.refuse(notes.channels, f"layer {name} is given a tensor whose origin was lost on the way")
    elif isinstance(label, Opaque):
        notes.refuse(label.spaces, f"layer {name} reads what came of them after this: {label.why}")
    elif label.axis != x.dim() - 1 - space_dims:
        notes.refuse(label.spaces, f"layer {name} reads them along another axis than its input channels")
    elif groups == 1:
        _read(mode, name, label)
    elif groups == out.shape[axis] == x.shape[label.axis] and len(label.parts) == 1:
        notes.bare.update(label.bare)
        notes.tie(label.parts[0].space, name)
        return Carried(axis, (Part(name, out.shape[axis]),), frozenset({name}))
    else:
        notes.refuse(label.spaces, f"layer {name} reads them in {groups} groups")
    if groups > 1:
        notes.refuse({name}, f"it gives them in {groups} groups")
    return Carried(axis, (Part(name, out.shape[axis]),), frozenset({name}))


def _read(mode: "_Follow", name: str, label: Carried) -> None:
    mode.notes.bare.update(label.bare)
    for part, use in _uses(name, label):
        mode.notes.use("readers", part.space, use)


def _norm(mode: "_Follow", name: str, module: Any, x: Tensor, out: Tensor) -> Label:
    label = mode.of(x)
    if not isinstance(label, Carried):
        return label
    own_axis = type(module).forward not in (_BatchNorm.forward, _InstanceNorm.forward)  # such as over time, (T, N, C, ...)
    if x.shape[label.axis] != module.num_features or (label.axis > 1 and not own_axis):
        return _refused(mode, label, f"norm {name} normalizes along another axis than theirs")
    if module.weight is None:
        return _refused(mode, label, f"norm {name} has no gain and shift, so that silent channels are silent no more")
    for part, use in _uses(name, label):
        mode.notes.use("norms", part.space, use)
    return replace(label, bare=frozenset())


def _neuron(mode: "_Follow", name: str, module: nn.Module, x: Tensor, out: Tensor) -> Label:
    label = mode.of(x)
    if not isinstance(label, Carried):
        return label
    if out.shape != x.shape:
        return _refused(mode, label, f"neuron {name} turns {tuple(x.shape)} into {tuple(out.shape)}")
    trailing = x.dim() - 1 - label.axis
    for part, use in _uses(name, label):
        mode.notes.use("neurons", part.space, replace(use, trailing=trailing))
    constants = [*module.parameters(), *(b for key, b in module.named_buffers() if key in module.state_dict())]
    for constant in constants:
        axis = label.axis + constant.dim() - x.dim()
        if constant.numel() == 1 or (axis < 0 and constant.dim() < x.dim()) or constant.shape[axis] == 1:
            continue
        if constant.shape[axis] != x.shape[label.axis] or any(size > 1 for size in constant.shape[:axis]):
            return _refused(mode, label, f"neuron {name} keeps a tensor of shape {tuple(constant.shape)}")
        for part, use in _uses(name, label):
            mode.notes.use("constants", part.space, replace(use, trailing=trailing))
    return label


def _same(mode: "_Follow", name: str, module: nn.Module, x: Tensor, out: Tensor) -> Label:
    """A stateful module that is no neuron: SpikingJelly's Dropout, which acts on each entry."""
    label = mode.of(x)
    if isinstance(label, Carried) and "Dropout" not in type(module).__name__:
        return _refused(mode, label, f"what module {name} ({type(module).__name__}) does is not known")
    return label


def _mixing(mode: "_Follow", name: str, module: nn.Module, x: Tensor, out: Tensor) -> Label:
    label = mode.of(x)
    return _refused(mode, label, f"norm {name} ({type(module).__name__}) takes its statistics over them")


def _uses(name: str, label: Carried) -> Iterator[tuple[Part, Use]]:
    offset = 0
    for part in label.parts:
        yield part, Use(name, offset, part.repeat)
        offset += part.channels * part.repeat


def _refused(mode: "_Follow", label: Label, why: str) -> Label:
    mode.notes.refuse(_spaces(label), why)
    return _lost(label, why)


def _lost(label: Label, why: str) -> Label:
    return Opaque(label.spaces, why) if isinstance(label, Carried) else label


def _spaces(label: Label) -> frozenset[str]:
    return label.spaces if label is not None else frozenset()


class _Follow(TorchFunctionMode):
    """Labels the tensors that every function outside of known modules returns."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.notes = notes
        self.depth = 0  # inside how many known modules
        self._labels: dict[int, tuple[Tensor, Label]] = {}

    def of(self, tensor: Tensor) -> Label:
        """Give a tensor's label; None if it comes neither from a layer nor from the input."""
        return self._labels.get(id(tensor), (tensor, None))[1]

    def label(self, tensor: Tensor, label: Label) -> None:
        """Label a tensor, and keep it alive so that its id stays its own."""
        self._labels[id(tensor)] = (tensor, label)

    def enter(self, *_: Any) -> None:
        """Look away until the module is done."""
        self.depth += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, and label what it returns."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.depth:
            self._follow(func, args, kwargs, out)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        known = [(tensor, label) for tensor in _tensors((args, kwargs)) if (label := self.of(tensor)) is not None]
        if not known:
            return
        plain_name = str(getattr(func, "__name__", func))
        name = plain_name if plain_name != "__get__" else str(func.__self__.__name__)
        written = [args[0]] if name == "__setitem__" else []
        outputs = [*_tensors(out), *written]
        if name in READING:
            self.notes.refuse(
                frozenset().union(*(_spaces(label) for _, label in known)), f"the forward looks at their values ({name})"
            )
        if outputs:
            label = self._passed(name.strip("_"), args, kwargs, known, outputs[0])
            for tensor in outputs:
                self.label(tensor, label)

    def _passed(self, name: str, args: Any, kwargs: Any, known: Sequence[tuple[Tensor, Label]], out: Tensor) -> Label:
        carried = tuple((tensor, label) for tensor, label in known if isinstance(label, Carried))
        opaque = [label for _, label in known if isinstance(label, Opaque) and label is not GIVEN]
        if not carried and not opaque:
            return GIVEN
        spaces = frozenset().union(*(_spaces(label) for _, label in known))
        if opaque:
            self.notes.refuse(spaces, opaque[0].why)
            return Opaque(spaces, opaque[0].why)
        plain = tuple(t for t in _tensors((args, kwargs)) if not isinstance(self.of(t), Carried))
        try:
            label = passed(Call(name, args, kwargs, out, carried, plain, self._tie))
            if name in ADDITIVE and any(self.of(x) is GIVEN for x in plain):  # it may be zero in the example alone
                raise Unknown("adds what comes of the input, so that silent channels are silent no more")
            return label
        except Unknown as reason:
            why = f"{name} {reason}"
            self.notes.refuse(spaces, why)
            return Opaque(spaces, why)

    def _tie(self, one: Part, other: Part) -> None:
        self.notes.tie(one.space, other.space)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
