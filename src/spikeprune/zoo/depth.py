"""A plain stack of convolutions with fewer of them: the last ones are left out."""

import re
from typing import Any

from torch import nn

from spikeprune.errors import RecipeError
from spikeprune.view.model_view import detached_copy
from spikeprune.zoo.names import unknown
from spikeprune.zoo.parts import Block, SpikingNet

NUMBERED = re.compile(r"(conv|norm|neuron|drop)(\d+)")


def shallower(net: SpikingNet, layer: str) -> SpikingNet:
    """Copy a network without its convolutions from a layer on, with their norms and neurons; pools stay, and the readout is drawn anew.

    Args:
        net: a stack of convolutions with one linear layer, `fc`: `vgg9`, `vgg11`, `vggsnn`, `sca_dvs`, or one made narrower by `shrink`.
        layer: the first convolution to leave out, such as "conv7"; not the first of all.

    Raises:
        RecipeError: there is no such convolution, nothing would be left, or other layers than `fc` follow.

    Example:
        >>> from spikeprune.zoo import make
        >>> net = shallower(make("vgg9", width=1 / 16), "conv7")
        >>> [name for name, _ in net.named_children() if name.startswith("conv")], net.fc.in_features
        (['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'conv6'], 128)
    """
    parts: dict[str, Any] = dict(net.named_children())
    stacked = [name for name in parts if name.startswith("conv")]
    linear = [name for name, part in parts.items() if isinstance(part, nn.Linear)]
    if len(stacked) < 2 or linear != ["fc"] or any(isinstance(part, Block) for part in parts.values()):
        raise RecipeError(
            f"only a stack of convolutions with the one linear layer fc can be made shallower; this has {', '.join(parts)}."
        )
    if layer not in stacked[1:]:
        raise RecipeError(unknown("convolution to leave out", layer, stacked[1:]))
    first = stacked.index(layer) + 1
    left = {name: part for name, part in parts.items() if not (found := NUMBERED.fullmatch(name)) or int(found[2]) < first}
    fc, before, last = parts["fc"], left[stacked[first - 2]], parts[stacked[-1]]
    features = fc.in_features // last.out_channels * before.out_channels
    made = SpikingNet(left, image=net.image, timesteps=net.timesteps, coding=net.coding)  # type: ignore[arg-type]
    copy: SpikingNet = detached_copy(made)  # type: ignore[assignment]
    copy.fc = nn.Linear(features, fc.out_features, bias=fc.bias is not None)
    return copy
