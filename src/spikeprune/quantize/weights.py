"""Quantize weights after training: each layer's weight becomes a step times integers of a few bits, in place.

The weight stays a plain parameter. Exact zeros stay exact zeros, so every mask is kept.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import EmptyCalibration, NoPrunableLayers, QuantizeError
from spikeprune.kernel.quantize import Clip, check_bits, from_integers, step_of, to_integers
from spikeprune.measure import check_batches, parts, refuse_empty, run_batch
from spikeprune.quantize.values import Quantization, Quantized
from spikeprune.view.layer import Layer, apply_synapses, check_weights
from spikeprune.view.model_view import ModelView, check_view

Bits = int | Mapping[str, int]
EXACT = (torch.float32, torch.float64)


def quantize_(
    view: ModelView,
    bits: Bits = 8,
    *,
    per_channel: bool = False,
    clip: Clip = "max",
    layers: str | Iterable[str] | None = None,
    calibration: Iterable[Any] = (),
    bias_correction: bool = False,
) -> Quantization:
    """Quantize the weights of a model in place; norms, thresholds and membranes are left in floating point.

    A bias is rounded to the last place of its layer's step, some 2^-17 of it, so that sums stay exact (see `kernel.quantize`).

    Args:
        view: the model.
        bits: of all layers, 1 to 8; or by layer name or shell pattern, a name before patterns and an earlier pattern before a
            later one. Layers that no entry fits are left as they are.
        per_channel: a step for each output channel, in place of one a layer.
        clip: what the largest integer stands for: "max", the largest weight; "mse", what gives the least squared error.
        layers: names or shell patterns; None takes all.
        calibration: batches of `x` or `(x, y)`, for the correction of biases.
        bias_correction: add to each bias what the channel's input current loses on average over samples, timesteps and
            places, measured at the inputs that the float network gives. A layer without a bias gets one.

    Raises:
        QuantizeError: bits outside 1 to 8; an unknown clip; a layer that no entry of bits fits; weights of half precision, or
            shared by two layers.
        NoPrunableLayers: a name fits no layer, or none is chosen.
        NonFinite: a weight is NaN or infinite.
        EmptyCalibration: a correction without batches.

    Example:
        >>> from spikeprune import model_view
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[0.75, -0.3]]))
        >>> found = quantize_(model_view(net, torch.rand(1, 2), spiking=False), bits=3)
        >>> found[""].integers, net.weight.data
        (tensor([[ 3, -1]], dtype=torch.int8), tensor([[ 0.7500, -0.2500]]))
    """
    check_view(view)
    check_batches(calibration)
    found = {layer: _quantized(layer, k, clip, per_channel) for layer, k in chosen(view, bits, layers).items()}
    shifts = _shifts(view, found, calibration) if bias_correction else {}
    for layer, shift in shifts.items():
        _shift(layer, shift)
    quantization = Quantization({layer.name: value for layer, value in found.items()})
    quantization.apply_(view.net)
    return quantization


def chosen(view: ModelView, bits: Bits, names: str | Iterable[str] | None) -> dict[Layer, int]:
    """Give the bits of each layer that is to be quantized, all of which can be.

    Raises:
        QuantizeError, NoPrunableLayers, NonFinite: as `quantize_`.
    """
    table = {"*": bits} if not isinstance(bits, Mapping) else dict(bits)
    for value in table.values():
        check_bits(value)
    fits = view.select(table)
    layers = fits if names is None else view.select(names)
    if missing := [layer.name for layer in layers if layer not in fits]:
        raise QuantizeError(f"no entry of bits fits layer {missing[0]!r}; there are entries for {', '.join(table)}.")
    if not layers:
        raise NoPrunableLayers("no layer is left to quantize: bits or layers is empty. Name layers, or leave layers out for all.")
    check_weights(layers)
    _refuse_shared(view.net, layers)
    for layer in layers:
        if layer.weight.dtype not in EXACT:
            raise QuantizeError(
                f"the weight of layer {layer.name!r} is {layer.weight.dtype}, which cannot hold a step times an integer exactly. "
                "Quantize the model in float32: net.float()."
            )
    return {layer: _entry(table, layer.name) for layer in layers}


def _entry(table: Mapping[str, int], name: str) -> int:
    return table[name] if name in table else next(bits for pattern, bits in table.items() if fnmatchcase(name, pattern))


def _refuse_shared(net: nn.Module, layers: Iterable[Layer]) -> None:
    own = {id(layer.weight): layer for layer in layers}
    for name, module in net.named_modules():
        for param in module.parameters(recurse=False):
            if id(param) in own and own[id(param)].module is not module:
                one, other = sorted((own[id(param)].name, name))
                raise QuantizeError(f"{one!r} and {other!r} share one weight, which would be quantized twice. Give each its own.")


def _quantized(layer: Layer, bits: int, clip: Clip, per_channel: bool) -> Quantized:
    weight = layer.weight.detach()
    step = step_of(weight, bits, clip=clip, per_channel=per_channel)
    return Quantized.of(weight, to_integers(weight, step, bits), step, bits)


@torch.no_grad()
def _shifts(view: ModelView, found: Mapping[Layer, Quantized], batches: Iterable[Any]) -> dict[Layer, Tensor]:
    """Measure what each output channel's input current loses on average: (C_out,) float64 by layer."""
    totals: dict[Layer, Tensor] = {}
    counts = dict.fromkeys(found, 0)

    def listen(layer: Layer) -> Any:
        lost = (layer.weight - from_integers(found[layer].integers, found[layer].step, layer.weight.dtype)).detach()
        axis = 1 - lost.dim() if lost.dim() > 2 else -1

        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            rows = apply_synapses(layer.module, args[0].detach(), lost).movedim(axis, 0).flatten(1)
            totals[layer] = totals.get(layer, torch.zeros((), device=rows.device)) + rows.sum(1, dtype=torch.double)
            counts[layer] += rows.shape[1]

        return hook

    handles = [layer.module.register_forward_pre_hook(listen(layer)) for layer in found]
    number = -1
    try:
        with view.undisturbed():
            for number, batch in enumerate(batches):
                x, _ = parts(batch, view.device)
                refuse_empty(x, number)
                run_batch(view, x, number)
    finally:
        for handle in handles:
            handle.remove()
    if number < 0:
        raise EmptyCalibration(
            "the calibration data to correct biases with held no batch. Pass calibration=[...] with at least one."
        )
    return {layer: totals[layer] / counts[layer] for layer in found if counts[layer]}


def _shift(layer: Layer, shift: Tensor) -> None:
    module: Any = layer.module
    if module.bias is None:
        module.bias = nn.Parameter(torch.zeros_like(shift, dtype=layer.weight.dtype))
    module.bias.data += shift.to(module.bias.dtype)
