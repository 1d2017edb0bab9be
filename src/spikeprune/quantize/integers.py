"""Quantized layers computed in integers: a copy of a network that emits the same spikes as the one with step * integer weights.

An input must lie on a grid of 2^-f: spikes on f = 0, 2x2 average pools of them on f = 2. Layers multiply and add in int32 and refuse
what could overflow. In float64 the other network's sums are exact too (see `kernel.quantize`), so outputs are equal bit by bit.
"""

import math
from collections.abc import Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeprune.errors import MeasureError, NonFinite, QuantizeError
from spikeprune.kernel.quantize import exact_bias
from spikeprune.quantize.fold import replace_module
from spikeprune.quantize.values import Quantization, Quantized
from spikeprune.quantize.wiring import batch_norms, wiring
from spikeprune.view.layer import Layer
from spikeprune.view.model_view import ModelView, check_view, detached_copy, left_as_found

FINEST = 16
"""The finest grid of inputs is 2^-16."""


def grid(x: Tensor, bits: int = 12) -> Tensor:
    """Round an input to multiples of 2^-bits, so that integer layers take it; give both networks the same.

    Example:
        >>> grid(torch.tensor([0.3, -0.7]), bits=2)
        tensor([ 0.2500, -0.7500])
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits <= FINEST:
        raise QuantizeError(f"the bits of a grid are {bits!r}, but must be a whole number from 0 to {FINEST}.")
    places: int = 1 << bits
    return (x * places).round() / places


def integer_twin(view: ModelView, quantization: Quantization, *, rescale: bool = False) -> nn.Module:
    """Return a copy of a quantized model whose layers compute in int32; all else is in float64.

    It runs in evaluation mode, on the CPU. Its twin in floating point is `net.double()` in evaluation mode: their spikes are the same,
    and so are layers' outputs bit by bit.

    With `rescale`, layers give the accumulator itself, in steps, and thresholds and reset potentials are divided by the step of the
    layer that drives the neuron. Without a leak or a bias the spikes are still the same, with reset to zero. A leak, a bias and reset by
    subtraction are then rounded at other places than before, in float64, and might differ where a charge is within 1e-15 of its threshold.

    Args:
        view: a model that `quantize_` or `quantize_aware` left, or that `quantization` was applied to.
        quantization: its integers and steps.
        rescale: whether layers that drive a neuron keep to steps.

    Raises:
        QuantizeError: the model's weights or biases are not those of the quantization. With `rescale`: a neuron that is driven by
            something else than one layer, directly, with one step; or whose dynamics do not scale.
        ModelError: a weight is parametrized.

    The copy itself raises QuantizeError when an input lies on no grid of 2^-16 or coarser, or a sum could leave int32, and NonFinite on
    NaN or infinity.

    Example:
        >>> from spikeprune import model_view
        >>> from spikeprune.quantize import quantize_
        >>> view = model_view(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(2, 4), spiking=False)
        >>> twin = integer_twin(view, quantize_(view, bits=4))
        >>> x = grid(torch.rand(2, 4)).double()
        >>> torch.equal(twin(x), view.net.double()(x))
        True
    """
    check_view(view)
    layers = {layer.name: layer for layer in view.layers}
    for name, quantized in quantization.items():
        _check_same(name, layers.get(name), quantized)
    driven = _driven(view, quantization) if rescale else {}
    with left_as_found(view.net):
        view.reset()
        net = detached_copy(view.net).cpu().double().eval()
    for neuron, layer in driven.items():
        _divide(net.get_submodule(neuron), float(quantization[layer].step))
    modules = dict(net.named_modules())
    for name, quantized in quantization.items():
        net = replace_module(net, modules[name], IntegerLayer(name, modules[name], quantized, in_steps=name in driven.values()))
    return net


def _check_same(name: str, layer: Layer | None, quantized: Quantized) -> None:
    advice = "Quantize the model, or apply the quantization to it, and change nothing before its twin is made."
    if layer is None:
        raise QuantizeError(f"there are integers for {name!r}, which is no layer of the model. {advice}")
    weight = layer.weight.detach()
    if weight.shape != quantized.integers.shape or not torch.equal(weight.cpu(), quantized.weight(weight.dtype).cpu()):
        raise QuantizeError(f"the weight of layer {name!r} is not step * integers. {advice}")
    bias = getattr(layer.module, "bias", None)
    if bias is not None and not torch.equal(exact_bias(bias.detach().cpu(), quantized.step.cpu()), bias.detach().cpu()):
        raise QuantizeError(f"the bias of layer {name!r} is finer than the last place of its step. {advice}")


@final
class IntegerLayer(nn.Module):
    """A linear layer or convolution of integers; what it gives is float64, in the units of the weight or in steps.

    Args:
        name: of the layer, for messages.
        module: the layer that gives stride, padding, dilation, groups and bias.
        quantized: its integers and step.
        in_steps: give sums as they are, and the bias divided by the step.
    """

    def __init__(self, name: str, module: nn.Module, quantized: Quantized, *, in_steps: bool = False) -> None:
        super().__init__()
        source: Any = module
        self.name, self.space, self.groups = name, quantized.integers.dim() - 2, getattr(source, "groups", 1)
        if self.space:
            self.stride, self.dilation, self.kernel = source.stride, source.dilation, source.kernel_size
            self.sides, self.mode = source._reversed_padding_repeated_twice, source.padding_mode
        step = quantized.step.detach().double().cpu()
        bias = torch.zeros(()) if source.bias is None else source.bias.detach().cpu()
        self.register_buffer("integers", quantized.integers.cpu().to(torch.int32))
        self.register_buffer("step", torch.ones_like(step) if in_steps else step)
        self.register_buffer("bias", bias.double() / (step if in_steps else 1))
        # The largest sum that an input of size 1 can reach, and the largest bias in steps.
        self._reach = int(self.integers.abs().flatten(1).sum(1, dtype=torch.long).max())  # type: ignore[operator]
        self._bias = float((bias.double() / step).abs().max())

    def forward(self, x: Tensor) -> Tensor:
        """Give (..., C_out, space ...) in float64; x is (..., C_in, space ...) on a grid, or (..., C_in) of a linear layer."""
        whole, places = self._whole(x.detach())
        total = self._linear(whole) if not self.space else self._convolution(whole)
        shape = (-1, *[1] * self.space)
        step: Tensor = self.step  # type: ignore[assignment]
        bias: Tensor = self.bias  # type: ignore[assignment]
        step, bias = (value.view(shape) if value.dim() else value for value in (step, bias))
        return total.double() * (step * 2.0**-places) + bias

    def _whole(self, x: Tensor) -> tuple[Tensor, int]:
        """Give x * 2^f in int32, and f, the least that makes it whole."""
        wide = x.double()
        if not bool(torch.isfinite(wide).all()):
            raise NonFinite(f"layer {self.name!r} was given NaN or infinity.")
        if not torch.equal(wide * 2**FINEST, (wide * 2**FINEST).round()):
            raise QuantizeError(
                f"layer {self.name!r} was given values that are no multiples of 2^-{FINEST}, so it cannot compute in integers. Round real "
                "inputs with grid(x), for both networks. Averages over places whose number is no power of 2 lie on no grid."
            )
        places = next(f for f in range(FINEST + 1) if torch.equal(wide * 2**f, (wide * 2**f).round()))
        most = float(wide.abs().max()) * 2**places if wide.numel() else 0.0
        if most * self._reach + self._bias * 2**places >= 2**31:
            raise QuantizeError(
                f"a sum in layer {self.name!r} could leave int32: inputs reach {most:,.0f} on a grid of 2^-{places}, and a channel's "
                f"integers add up to {self._reach:,}. Use a coarser grid for the inputs, or fewer bits."
            )
        return (wide * 2**places).to(torch.int32), places

    def _linear(self, x: Tensor) -> Tensor:
        integers: Tensor = self.integers  # type: ignore[assignment]
        return x @ integers.T

    def _convolution(self, x: Tensor) -> Tensor:
        integers: Tensor = self.integers  # type: ignore[assignment]
        lead, axes = x.shape[: -self.space - 1], range(2, self.space + 2)
        x = x.reshape(-1, *x.shape[-self.space - 1 :])
        if any(self.sides):
            # Padding is a copy; not every mode of it knows integers.
            mode = "constant" if self.mode == "zeros" else self.mode
            x = F.pad(x.double(), self.sides, mode=mode).to(torch.int32)
        size = [(x.shape[2 + i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1 for i in range(self.space)]
        weight = integers.view(self.groups, -1, *integers.shape[1:])
        total = torch.zeros((), dtype=torch.int32)
        for offset in torch.cartesian_prod(*map(torch.arange, self.kernel)).view(-1, self.space).tolist():
            part = x
            for axis, at, dilation, stride, n in zip(axes, offset, self.dilation, self.stride, size, strict=True):
                part = part.narrow(axis, at * dilation, (n - 1) * stride + 1)
                part = part[(slice(None),) * axis + (slice(None, None, stride),)]
            columns = part.reshape(len(x), self.groups, integers.shape[1], math.prod(size))
            total = total + weight[(..., *offset)] @ columns
        return total.reshape(*lead, len(integers), *size)


def _driven(view: ModelView, quantization: Mapping[str, Quantized]) -> dict[str, str]:
    """Give the layer that drives each neuron alone, where it is quantized; refuse the others."""
    found = wiring(view)
    pairs = found.pairs(view.neurons)
    norms = batch_norms(view)
    for neuron, sources in found.sources.items():
        if neuron in norms:
            continue
        layer = pairs.get(neuron)
        if layer is None:
            told = " and ".join(sorted(source or "something else" for source in sources))
            raise QuantizeError(
                f"the threshold of neuron {neuron!r} cannot be divided by a step: it is driven by {told}, not directly by one layer that "
                "drives nothing else. Fold norms first (fold_norms); for sums of layers, leave rescale out."
            )
        if layer not in quantization:
            continue
        if quantization[layer].step.dim():
            raise QuantizeError(
                f"the threshold of neuron {neuron!r} cannot be divided by a step: layer {layer!r} has one a channel. Quantize it with "
                "per_channel=False."
            )
        _refuse_unscalable(view, neuron)
    return {neuron: layer for neuron, layer in pairs.items() if layer in quantization}


def _refuse_unscalable(view: ModelView, name: str) -> None:
    """Refuse neurons whose dynamics in a membrane of other units are not known to be the same: leaky or not they are."""
    neuron: Any = view.neurons[name]
    try:
        assert view.adapter is not None
        view.adapter.leak(neuron)
    except MeasureError as error:
        raise QuantizeError(f"the threshold of neuron {name!r} cannot be divided by a step: {error}") from error
    if getattr(neuron, "state_quant", False):
        raise QuantizeError(
            f"the threshold of neuron {name!r} cannot be divided by a step: its membrane is quantized (state_quant)."
        )


def _divide(neuron: Any, step: float) -> None:
    """Divide the potentials that a neuron keeps by a step, under the names that the frameworks give them."""
    if hasattr(neuron, "v_threshold"):
        level = neuron.v_threshold
        if isinstance(level, nn.Parameter):
            level.data /= step
        else:  # a tensor that is no buffer did not become float64 with the network
            neuron.v_threshold = (level.double() if isinstance(level, Tensor) else level) / step
        if neuron.v_reset:
            neuron.v_reset = neuron.v_reset / step
            neuron.set_reset_value("v", neuron.v_reset)
            neuron.reset()
        return
    with torch.no_grad():
        neuron.threshold.copy_(neuron.threshold / step)
