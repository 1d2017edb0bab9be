"""From scores to masks: which units stay, of single weights or of channels that live and die together."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from spikeprune.errors import NonFinite, NoPrunableLayers, SparsityError
from spikeprune.kernel.allocate import Allocation
from spikeprune.kernel.blocks import NM
from spikeprune.kernel.patterns import Block, Pattern, by_output, rows
from spikeprune.masks import Masks, weight_of
from spikeprune.view.layer import Layer, by_unit, unit_name
from spikeprune.view.model_view import ModelView


def decide(layers: Iterable[Layer], scores: Mapping[str, Tensor], keep: Mapping[str, int], pattern: Pattern) -> Masks:
    """Keep the `keep[name]` best units of each layer; of output channels, of each family, by the name of its first layer.

    Raises:
        NonFinite: a score is NaN.
        SparsityError: a layer is to keep more than is alive, or the pattern makes no sense for it.
    """
    masks: dict[str, Tensor] = {}
    gates: dict[str, dict[str, Tensor]] = {}
    for layer in layers:
        _refuse_unfit(layer, pattern)
        name = unit_name(layer, pattern)
        units = pattern.select(_checked(scores[name], keep[name], name), keep[name])
        masks[layer.name] = pattern.expand(units, layer.weight)
        if by_output(pattern):
            gates[layer.name] = gates_of(layer, units)
    return Masks(masks, gates)


def choose(
    layers: Iterable[Layer], scores: Mapping[str, Tensor], sparsity: float | None, allocation: Allocation, pattern: Pattern
) -> Masks:
    """Join the scores of channels that live and die together, allocate, and keep the best units of each layer.

    Args:
        layers: the layers to prune.
        scores: one a unit, by layer.
        sparsity: of all units; None for a pattern that says itself how much lives.
        allocation: turns scores and sparsity into how many units each layer keeps; unused by such a pattern.
        pattern: that the scores were reduced by.
    """
    layers = tuple(layers)
    units = by_unit(layers, scores, pattern)
    if isinstance(pattern, NM):
        return decide(layers, units, {name: pattern.count(score) for name, score in units.items()}, pattern)
    if sparsity is None:
        raise SparsityError("a sparsity is needed: the share of units to remove, such as 0.9.")
    return decide(layers, units, allocation(units, sparsity), pattern)


def _refuse_unfit(layer: Layer, pattern: Pattern) -> None:
    groups, outputs = int(getattr(layer.module, "groups", 1)), len(layer.weight)
    if isinstance(pattern, Block) and not pattern.fits(outputs, groups):
        raise SparsityError(
            f"layer {layer.name!r} has {groups} groups of {outputs // groups} output channels, each with inputs of its own, and blocks of "
            f"{pattern.outputs} would reach over several groups. Leave the layer out (layers=...), or take outputs that divide {outputs // groups}."
        )


def _checked(score: Tensor, keep: int, name: str) -> Tensor:
    if bool(score.isnan().any()):
        raise NonFinite(
            f"{int(score.isnan().sum())} of {score.numel()} scores of layer {name!r} are NaN. Check its weights and what was "
            "measured of it for NaN or infinity."
        )
    alive = int((score != -torch.inf).sum())
    if keep > alive:
        raise SparsityError(
            f"layer {name!r} is to keep {keep} of its {score.numel()} units, but earlier masks left only {alive} "
            "alive, and what is removed stays removed. Ask for a higher sparsity, or start without those masks."
        )
    return score


def gates_of(layer: Layer, alive: Tensor) -> dict[str, Tensor]:
    """Give what silences the dead output channels of a layer: gain and shift of the norms behind it, or its weight and bias.

    Args:
        layer: one of `ModelView.channel_layers`.
        alive: bool (C_out,).
    """
    gates: dict[str, Tensor] = {}
    for norm in layer.norms:
        kept = torch.ones_like(norm.gain, dtype=torch.bool)
        kept[norm.place(alive.numel())] = alive.to(kept.device).repeat_interleave(norm.repeat)
        parts = [part for part in ("weight", "bias") if getattr(norm.module, part) is not None]
        gates |= {f"{norm.name}.{part}": kept for part in parts}
    if layer.bare:
        gates[weight_of(layer.name)] = rows(alive, layer.weight)
        if layer.module.bias is not None:
            gates[weight_of(layer.name).removesuffix("weight") + "bias"] = alive
    return gates


def in_blocks(view: ModelView, pattern: NM) -> tuple[Layer, ...]:
    """Pick the layers that N:M sparsity is made for: all but the first, the last, and those whose inputs m does not divide.

    Raises:
        NoPrunableLayers: none is left.
    """
    found = tuple(layer for layer in view.layers[1:-1] if layer.weight.shape[1] % pattern.m == 0)
    if not found:
        inputs = ", ".join(f"{layer.name} {layer.weight.shape[1]}" for layer in view.layers)
        raise NoPrunableLayers(
            f"between the first layer and the last none has inputs that {pattern.m} divides (inputs in a row: {inputs}). Name layers with "
            "layers=..., or take smaller blocks."
        )
    return found
