"""A synaptic layer: a linear map or convolution of one weight, and where time and batch lie in what it is given."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeprune.errors import LayoutError, ModelError, NonFinite
from spikeprune.kernel.patterns import Pattern, by_output

SYNAPTIC = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Layout(Enum):
    """How one pass over T timesteps and N samples reaches a layer."""

    STEP = "called T times with (N, ...)"
    SEQUENCE = "called once with (T, N, ...)"
    FOLDED = "called once with (T * N, ...)"
    ONCE = "called once with (N, ...), for all timesteps"


@dataclass(frozen=True, eq=False)
class Layer:
    """One synaptic layer of the user's model; it points at the module and owns nothing.

    Attributes:
        name: the module's qualified name.
        module: a Linear or Conv layer, or a framework's subclass of one.
        layout: where time and batch lie in its input.
        neuron: name of the neuron layer that it drives: the first that is called after it; None for a readout.
        family: of a layer of `ModelView.channel_layers`, the first layer of those whose output channels go with its own.
        norms: of such a layer, those that normalize its output channels.
        bare: whether its output reaches a reader or an addition through no norm, so that its own weight must silence it.
    """

    name: str
    module: nn.Module
    layout: Layout
    neuron: str | None = None
    family: str | None = None
    norms: tuple["Norm", ...] = ()
    bare: bool = True

    @property
    def weight(self) -> nn.Parameter:
        """The weight: (C_out, C_in) or (C_out, C_in / groups, kernel ...)."""
        weight = self.module.weight
        if not isinstance(weight, nn.Parameter):
            raise ModelError(f"the weight of layer {self.name!r} is no longer a plain parameter; undo what parametrized it.")
        return weight

    @property
    def kind(self) -> str:
        """The operation: "Linear", "Conv2d", ..."""
        return next(base.__name__ for base in SYNAPTIC if isinstance(self.module, base))

    def by_timestep(self, inputs: Tensor, timesteps: int) -> Tensor:
        """View one call's input as (steps, N, ...): steps is T, or 1 when the layer sees one step, or all at once."""
        if self.layout is Layout.SEQUENCE:
            return inputs
        if self.layout is Layout.FOLDED:
            if inputs.shape[0] % timesteps:
                raise LayoutError(
                    f"layer {self.name!r} was given {inputs.shape[0]} rows, not a multiple of its {timesteps} timesteps. "
                    "View the model again with an example of the same number of timesteps."
                )
            return inputs.reshape(timesteps, -1, *inputs.shape[1:])
        return inputs.unsqueeze(0)


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm with gain and shift, and where a layer's channels lie in it.

    Attributes:
        name: its qualified name.
        module: a batch or instance norm.
        offset: place of the first channel's first entry.
        repeat: entries that each channel takes.
    """

    name: str
    module: nn.Module
    offset: int = 0
    repeat: int = 1

    @property
    def gain(self) -> Tensor:
        """The gain (gamma) of all its entries."""
        gain = self.module.weight
        if not isinstance(gain, nn.Parameter):
            raise ModelError(f"the gain of norm {self.name!r} is no longer a plain parameter; undo what parametrized it.")
        return gain

    def place(self, channels: int) -> slice:
        """Say which of its entries so many channels take."""
        return slice(self.offset, self.offset + channels * self.repeat)

    def of_channels(self, values: Tensor, channels: int) -> Tensor:
        """Average what has an entry each over the entries of each channel: (channels,)."""
        return values[self.place(channels)].view(channels, self.repeat).mean(1)


def unit_name(layer: Layer, pattern: Pattern) -> str:
    """Name what a layer's units belong to: itself, or its family if they are output channels."""
    return layer.family or layer.name if by_output(pattern) else layer.name


def by_unit(layers: Iterable[Layer], scores: Mapping[str, Tensor], pattern: Pattern) -> dict[str, Tensor]:
    """Give the scores of units by `unit_name`: those of a family's channels are the mean over its layers."""
    found: dict[str, list[Tensor]] = {}
    for layer in layers:
        found.setdefault(unit_name(layer, pattern), []).append(scores[layer.name])
    return {name: parts[0] if len(parts) == 1 else _mean(torch.stack(parts)) for name, parts in found.items()}


def _mean(scores: Tensor) -> Tensor:
    """Average over layers; a channel is dead (minus infinity) when it is in all of them, and counts as 0 where it is in one."""
    dead = scores == -torch.inf
    return scores.masked_fill(dead & ~dead.all(0), 0).mean(0)


def check_weights(layers: Iterable[Layer]) -> None:
    """Raise NonFinite if a weight of the layers is NaN or infinite."""
    for layer in layers:
        refuse_nonfinite(layer.weight, "weights", layer.name, "Go back to a checkpoint from before training diverged.")


def refuse_nonfinite(values: Tensor, what: str, name: str, advice: str) -> None:
    """Raise NonFinite, with counts, if any of the values is NaN or infinite; `name` is the layer's."""
    finite = torch.isfinite(values.detach())
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise NonFinite(f"{bad} of {values.numel()} {what} of layer {name!r} are NaN or infinite. {advice}")


def apply_synapses(module: nn.Module, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply `weight` to `inputs` as the layer would, whatever its class adds; leading axes before the batch are allowed.

    Args:
        module: the layer that gives stride, padding, dilation and groups.
        inputs: (..., C_in) for a linear layer; (..., C_in, space ...) for a convolution.
        weight: of the layer's shape; the number of output channels may differ.
        bias: (C_out,) or None.
    """
    if isinstance(module, nn.Linear):
        return F.linear(inputs, weight, bias)
    conv: Any = module
    space = weight.dim() - 2
    lead = inputs.shape[: -space - 1]
    inputs = inputs.reshape(-1, *inputs.shape[-space - 1 :])
    padding = conv.padding
    if conv.padding_mode != "zeros":
        inputs = F.pad(inputs, _sides(conv), mode=conv.padding_mode)
        padding = 0
    convolve: Any = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[space]
    out: Tensor = convolve(inputs, weight, bias, conv.stride, padding, conv.dilation, conv.groups)
    return out.reshape(*lead, *out.shape[1:])


def _sides(conv: Any) -> list[int]:
    """Give the padding of a convolution as torch.nn.functional.pad wants it: last axis first, both sides of each."""
    if conv.padding == "valid":
        return [0, 0] * len(conv.kernel_size)
    if conv.padding == "same":
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return [side for p in reversed(conv.padding) for side in (p, p)]
