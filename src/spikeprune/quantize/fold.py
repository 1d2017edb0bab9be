"""Fold batch norms into the layers before them: a chip has no norms, and a quantized layer should be the whole of its current.

In evaluation mode a batch norm is gain * (x - mean) / sqrt(var + eps) + shift, a factor and a sum a channel, which the weight and
bias of a layer can take over if the norm follows that layer directly, and nothing else reads the layer.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from spikeprune.errors import ModelError, QuantizeError, SpikepruneError
from spikeprune.kernel.quantize import exact_step
from spikeprune.quantize.values import Quantization, Quantized
from spikeprune.quantize.wiring import batch_norms, wiring
from spikeprune.view.model_view import ModelView, check_view, detached_copy, left_as_found

TOLERANCE = 1e-9
"""How far outputs may differ in float64, as a share of the largest, or of 1."""


def foldable(view: ModelView) -> dict[str, str]:
    """Name the batch norms that can be folded, each with the layer that takes it over.

    Norms that do not follow one layer directly stay, such as those before a neuron that is given a sum; so do norms that share a
    layer, one a timestep, and norms of layers that are read elsewhere.

    Raises:
        QuantizeError: such a norm has no running statistics, so that it normalizes by each batch.
        ModelError: a weight is parametrized.

    Example:
        >>> from spikeprune import model_view
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.BatchNorm1d(3))
        >>> foldable(model_view(net, torch.rand(2, 4), spiking=False))
        {'1': '0'}
    """
    check_view(view)
    norms = batch_norms(view)
    layers = {layer.name: layer for layer in view.layers}
    found = {}
    for name, layer in wiring(view).pairs(norms).items():
        norm: Any = norms[name]
        if norm.running_mean is None or norm.running_var is None:
            raise QuantizeError(
                f"norm {name!r} keeps no running statistics and normalizes by each batch, so it cannot be folded into layer {layer!r}. "
                "Build it with track_running_stats=True, and train or recalibrate it."
            )
        if len(layers[layer].weight) == norm.num_features:
            found[name] = layer
    return found


def fold_norms(view: ModelView) -> nn.Module:
    """Return a copy of the model in which batch norms are folded into the layers before them, where that can be.

    A folded norm is an `nn.Identity`, and its layer has a bias. Those that are not in `foldable` stay. The copy works as the model
    does in evaluation mode only. View it anew, and quantize it then: a gain that is folded after changes each channel's step.

    Raises:
        QuantizeError: outputs for the example of the view differ by more than 1e-9 in float64, or a norm normalizes by each batch.
        ModelError: a weight is parametrized.

    Example:
        >>> from spikeprune import model_view
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
        >>> fold_norms(model_view(net, torch.rand(2, 4), spiking=False))
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): Identity()
          (2): ReLU()
        )
    """
    pairs = foldable(view)
    with left_as_found(view.net):
        view.reset()
        wide = detached_copy(view.net).double()
        net = detached_copy(view.net)
    before = outputs(view, wide, view.example)
    for copy in (wide, net):
        for norm, layer in pairs.items():
            _fold(copy, norm, layer)
    _compare(before, outputs(view, wide, view.example))
    return net


def fold_steps(quantization: Quantization, view: ModelView) -> Quantization:
    """Give the integers and steps of a quantized network after `fold_norms`: the same integers, and steps a channel.

    A channel's step is multiplied by |gain| / sqrt(var + eps), and rounded to 17 significant bits; where the gain is below zero its
    integers change sign. For networks that were trained with quantized weights and norms: fold, then apply these.

    Args:
        quantization: of the model as viewed.
        view: the model with its norms.

    Raises:
        QuantizeError: a norm normalizes by each batch.

    Example:
        >>> from spikeprune import model_view
        >>> from spikeprune.quantize import quantize_
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
        >>> view = model_view(net, torch.rand(2, 4), spiking=False)
        >>> folded = fold_steps(quantize_(view), view)
        >>> folded["0"].step.shape
        torch.Size([3])
        >>> folded.apply_(fold_norms(view))
    """
    layers = dict(quantization)
    for norm, layer in foldable(view).items():
        if layer in layers:
            x = layers[layer]
            scale, _ = _factors(view.net.get_submodule(norm))
            scale = scale.to(x.step.device)
            signs = scale.sign().to(torch.int8).view(-1, *[1] * (x.integers.dim() - 1))
            step = torch.where(scale == 0, 1.0, x.step.double() * scale.abs())
            layers[layer] = Quantized(x.integers * signs, exact_step(step), x.bits, x.snr)
    return Quantization(layers)


def _factors(norm: Any) -> tuple[Tensor, Tensor]:
    """Give what a norm in evaluation mode multiplies each channel by, and then adds: float64."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


@torch.no_grad()
def _fold(net: nn.Module, norm: str, layer: str) -> None:
    module: Any = net.get_submodule(layer)
    scale, shift = _factors(net.get_submodule(norm))
    wide = module.weight.detach().double() * scale.view(-1, *[1] * (module.weight.dim() - 1))
    bias = shift if module.bias is None else module.bias.detach().double() * scale + shift
    module.weight.copy_(wide)
    if module.bias is None:
        module.bias = nn.Parameter(bias.to(module.weight.dtype))
    else:
        module.bias.copy_(bias)
    replace_module(net, net.get_submodule(norm), nn.Identity())


def replace_module(net: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a module in another's place, under all its names; returns the network, or the new module if it was the whole."""
    for parent in net.modules():
        for key, child in parent._modules.items():
            if child is old:
                parent._modules[key] = new
    return new if net is old else net


def outputs(view: ModelView, net: nn.Module, x: Any) -> list[Tensor]:
    """Run a float64 copy of a view's network from rest, and give the tensors that it returns.

    snnTorch's spikes are float32 whatever a neuron is given, so what a module with weights is given is made float64 first.
    """
    adapter, before = view.adapter, torch.get_default_dtype()
    with left_as_found(net), torch.no_grad(), ExitStack() as hooks:
        net.eval()
        for module in net.modules():
            if adapter is not None and adapter.is_stateful(module):
                adapter.reset(module)
            if next(module.parameters(recurse=False), None) is not None:
                hooks.callback(module.register_forward_pre_hook(lambda _, args: _widened(args)).remove)
        torch.set_default_dtype(torch.double)
        try:
            out = view.forward(net, _widened(x))
        except SpikepruneError:
            raise
        except Exception as error:
            raise ModelError(f"the model cannot run its example in float64 ({type(error).__name__}: {error}).") from error
        finally:
            torch.set_default_dtype(before)
    return [value for value in tree_leaves(out) if isinstance(value, Tensor)]


def _widened(values: Any) -> Any:
    return tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, values)


def _compare(before: list[Tensor], after: list[Tensor]) -> None:
    for one, other in zip(before, after, strict=True):
        gap = float((one.double() - other.double()).abs().max()) if one.numel() else 0.0
        if not gap <= TOLERANCE * max(1.0, float(one.double().abs().max()) if one.numel() else 1.0):
            raise QuantizeError(
                f"with its norms folded the network's outputs differ by {gap:.3g} in float64. A norm does something else than gain and "
                "shift in evaluation mode, or follows its layer for this example only; or a neuron's charge lies so near its threshold "
                "that the order of a sum decides. View the model with another example, and see foldable(view)."
            )
