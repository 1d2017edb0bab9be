"""Shrink: silenced channels are cut out, and a plain, smaller model is left that emits the same spikes.

A plan says, tensor by tensor, which indices stay; it knows names and numbers only, so it can be written as JSON and applied to
any model of the same form. Nothing is handed out before it was compared with the silenced network (`certificate`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.certificate import certify, silenced
from spikeprune.decide import gates_of
from spikeprune.errors import MaskMismatch, NoPrunableLayers
from spikeprune.kernel.patterns import rows
from spikeprune.masks import BELONG, Masks, refuse_other, weight_of
from spikeprune.plan import SIZES, ShrinkPlan
from spikeprune.view.graph import Family, Use
from spikeprune.view.layer import Layer
from spikeprune.view.model_view import ModelView, check_view

NORMED = ("weight", "bias", "running_mean", "running_var")
"""What a norm keeps of each channel."""


def shrink(view: ModelView, masks: Masks, *, calibration: Iterable[Any] = (), reinit: bool = False) -> nn.Module:
    """Return a new, smaller model without the dead channels; it emits the same spikes as the model that they are silenced in.

    Before it is returned, both run the example of the view and the calibration batches: spikes must be the same bit by bit in
    float64, and outputs within 1e-5 in float32. The model itself is left as it is, whether or not its dead channels are silent.

    Args:
        view: the model.
        masks: of a method with `pattern=Channel()`, or of `channel_masks`. Masks of single weights are carried into the weights.
        calibration: batches of `x` or `(x, y)` to compare the two networks on, besides the example.
        reinit: draw the smaller model's weights anew, to train its structure from scratch; then there is nothing to compare.

    Raises:
        MaskMismatch: the masks belong to another model, prune no output channel, or differ within a family.
        NoPrunableLayers: channels of a layer must stay, or go only with those of layers that the masks leave whole.
        ShrinkError: the smaller model cannot run, as where the forward has sizes written into it, or differs.

    Example:
        >>> from spikeprune import methods, model_view, patterns, prune
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> view = model_view(net, torch.rand(3, 4), spiking=False)
        >>> masks = prune(view, methods.Magnitude(pattern=patterns.Channel()), 0.5)
        >>> shrink(view, masks)
        Sequential(
          (0): Linear(in_features=4, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    plan = plan_shrink(view, masks)
    if reinit:
        return plan.apply(view.net, reinit=True)
    quiet = silenced(view, masks)
    small = plan.apply(quiet.net)
    certify(quiet, small, _alive(view, masks), calibration).check()
    return small


def plan_shrink(view: ModelView, masks: Masks) -> ShrinkPlan:
    """Work out what to cut; errors as for `shrink`."""
    check_view(view)
    refuse_other(masks)
    masks.check(view.layers)
    for _ in masks.parameters(view.net):
        pass  # raises if one is missing
    if not masks.gates:
        raise MaskMismatch(
            "these masks prune no output channels, so there is nothing to cut out. Prune with pattern=patterns.Channel(), or make masks with "
            "channel_masks(view, {layer: alive})."
        )
    draft = _Draft(view)
    for family, alive in _alive(view, masks).items():
        draft.cut(view.graph.of(family), alive)
    return draft.plan()


def channel_masks(view: ModelView, alive: Mapping[str, Tensor]) -> Masks:
    """Make masks from bool vectors, one a layer: which of its output channels live.

    Args:
        view: the model.
        alive: bool (C_out,) by layer name; for layers whose channels live and die together one of them is enough.

    Raises:
        NoPrunableLayers: a layer's channels must stay, or there is no such layer.
        MaskMismatch: a vector has another size or type, or two differ within a family.

    Example:
        >>> from spikeprune import model_view
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> masks = channel_masks(model_view(net, torch.rand(1, 4), spiking=False), {"0": torch.tensor([True, False, True])})
        >>> sorted(masks.held)
        ['0.bias', '0.weight']
    """
    check_view(view)
    known = {layer.name for layer in view.layers}
    for name in alive:
        if name not in known:
            raise NoPrunableLayers(f"there is no layer {name!r}; give a vector by the name of one of {', '.join(sorted(known))}.")
    layers = view.channel_layers(sorted({other for name in alive for other in view.graph.of(name).layers}))
    found: dict[str, tuple[str, Tensor]] = {}
    for name, units in alive.items():
        family = view.graph.of(name)
        if not isinstance(units, Tensor) or units.dtype != torch.bool or units.shape != (family.channels,):
            raise MaskMismatch(f"the channels of layer {name!r} must be a bool tensor of shape ({family.channels},), True keeps.")
        first, earlier = found.setdefault(family.name, (name, units))
        _refuse_split(first, earlier, name, units)
    masks = {x.name: rows(found[str(x.family)][1].to(x.weight.device), x.weight) for x in layers}
    return Masks(masks, {x.name: gates_of(x, found[str(x.family)][1]) for x in layers})


def _alive(view: ModelView, masks: Masks) -> dict[str, Tensor]:
    """Give which channels of each family live, by family name."""
    told: dict[str, tuple[str, Tensor]] = {}
    found: dict[str, Tensor] = {}
    layers = {layer.name: layer for layer in view.channel_layers([*masks.gates])}
    for name, gates in masks.gates.items():
        family = str(layers[name].family)
        units, sure = _living(layers[name], masks)
        if missing := gates_of(layers[name], units).keys() - gates.keys():
            raise MaskMismatch(
                f"the masks of layer {name!r} do not silence {', '.join(sorted(missing))}, which it passes. {BELONG}"
            )
        if sure:
            _refuse_split(*told.setdefault(family, (name, units)), name, units)
        found[family] = found.get(family, torch.zeros_like(units)) | units
    for family, units in found.items():
        if not bool(units.any()):
            raise MaskMismatch(f"no output channel of layer {family!r} lives; a layer must keep one.")
    return found


def _living(layer: Layer, masks: Masks) -> tuple[Tensor, bool]:
    """Say which output channels a layer's gates leave open, and whether for sure.

    Those of its norm or its bias. A row of weights may also be dead because each of them was pruned by itself.
    """
    gates, weight = masks.gates[layer.name], weight_of(layer.name)
    channels = layer.weight.shape[0]
    for norm in layer.norms:
        if (gate := gates.get(f"{norm.name}.weight")) is not None:
            return gate[norm.place(channels)].view(channels, -1).any(1), True
    if (gate := gates.get(weight.removesuffix("weight") + "bias")) is not None:
        return gate, True
    return masks[layer.name].flatten(1).any(1), False


def _refuse_split(first: str, earlier: Tensor, name: str, units: Tensor) -> None:
    if not torch.equal(earlier, units):
        raise MaskMismatch(
            f"layers {first!r} and {name!r} share their channels, but the masks differ in {int((earlier != units).sum())} of {units.numel()}. "
            "Channels that are added live and die together; see view.explain()."
        )


class _Draft:
    """Collects what stays of every tensor."""

    def __init__(self, view: ModelView) -> None:
        self._net = view.net
        self._keep: dict[tuple[str, int], Tensor] = {}
        self._depthwise: set[str] = set()
        self._channels: dict[str, tuple[int, int]] = {}

    def cut(self, family: Family, alive: Tensor) -> None:
        """Note what goes with the dead channels of a family."""
        self._channels[family.name] = (int(alive.sum()), family.channels)
        for name in family.layers:
            module = self._net.get_submodule(name)
            self._note(name, "weight", 0, Use(name), alive)
            if module.bias is not None:
                self._note(name, "bias", 0, Use(name), alive)
            if getattr(module, "groups", 1) > 1:
                self._depthwise.add(name)
        for use in family.readers:
            self._note(use.module, "weight", 1, use, alive)
        for use in family.norms:
            norm = self._net.get_submodule(use.module)
            for key in NORMED:
                if getattr(norm, key) is not None:
                    self._note(use.module, key, 0, use, alive)
        for use in family.constants:
            size = use.offset + family.channels * use.repeat
            for key, value in _own(self._net.get_submodule(use.module)):
                axis = value.dim() - 1 - use.trailing
                if value.numel() > 1 and axis >= 0 and value.shape[axis] >= size:
                    self._note(use.module, key, axis, use, alive)

    def _note(self, module: str, key: str, axis: int, use: Use, alive: Tensor) -> None:
        value = getattr(self._net.get_submodule(module), key)
        keep = self._keep.setdefault((f"{module}.{key}".lstrip("."), axis), torch.ones(value.shape[axis], dtype=torch.bool))
        end = use.offset + alive.numel() * use.repeat
        keep[use.offset : end] &= alive.cpu().repeat_interleave(use.repeat)

    def plan(self) -> ShrinkPlan:
        """Give what stays, and the new sizes."""
        keeps: dict[str, dict[int, tuple[tuple[int, ...], int]]] = {}
        sizes: dict[str, dict[str, int]] = {}
        for (name, axis), keep in self._keep.items():
            keeps.setdefault(name, {})[axis] = (tuple(keep.nonzero().flatten().tolist()), keep.numel())
            owner, _, key = name.rpartition(".")
            if key == "weight":
                told = SIZES[axis] + (("in_channels", "groups") if owner in self._depthwise else ())
                module = self._net.get_submodule(owner)
                sizes.setdefault(owner, {}).update(
                    {attribute: int(keep.sum()) for attribute in told if hasattr(module, attribute)}
                )
        return ShrinkPlan(keeps, sizes, self._channels)


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Give what a module itself keeps and saves: parameters and persistent buffers."""
    saved = module.state_dict()
    return [(name, getattr(module, name)) for name in saved if "." not in name]
