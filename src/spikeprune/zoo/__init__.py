"""The papers' networks, by name, on the frameworks' own neurons.

The deep ones, `networks()`, stand on SpikingJelly; `SpikingMLP` on snnTorch. A framework is imported when the first of its
networks is asked for, so either may be missing.
"""

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from spikeprune.errors import RecipeError
from spikeprune.zoo.names import unknown

if TYPE_CHECKING:
    from spikeprune.zoo.depth import shallower
    from spikeprune.zoo.mlp import SpikingMLP
    from spikeprune.zoo.neurons import Neuron
    from spikeprune.zoo.parts import SpikingNet
    from spikeprune.zoo.resnet import preact_resnet18, resnet18, resnet19, sew_resnet18
    from spikeprune.zoo.vgg import sca_dvs, six_conv_two_fc, vgg9, vgg11, vgg16, vggsnn

_VGG = dict.fromkeys(("sca_dvs", "six_conv_two_fc", "vgg9", "vgg11", "vgg16", "vggsnn"), "vgg")
_RESNET = dict.fromkeys(("preact_resnet18", "resnet18", "resnet19", "sew_resnet18"), "resnet")
_NETWORKS = _VGG | _RESNET
# public name -> our module that has it
_HOME = _NETWORKS | {"Neuron": "neurons", "SpikingMLP": "mlp", "SpikingNet": "parts", "shallower": "depth"}


def networks() -> tuple[str, ...]:
    """Name the networks that `make` builds, in alphabetical order.

    Example:
        >>> networks()[:3]
        ('preact_resnet18', 'resnet18', 'resnet19')
    """
    return tuple(sorted(_NETWORKS))


def make(name: str, **options: Any) -> "SpikingNet":
    """Build a network by name.

    All networks take the same options but for the last two, and each has its paper's values as defaults; at width 1 it has the paper's size.

    Args:
        name: one of `networks()`.
        options: those of the network's function:

            classes: outputs.
            timesteps: T.
            image: channels, height and width of what the network is given.
            width: multiplies the channels of every layer but inputs and outputs; a fraction gives a smaller net.
            neuron: a `Neuron`.
            coding: "direct", "poisson" or "events"; see `SpikingNet`.
            norm: of `vgg9` and `vgg11` alone: "batch"; "gain", one trained gain a layer; or "none".
            dropout: of `vgg9` and `vgg11` alone: share dropped behind each convolution that no pool follows, in [0, 1).

    Raises:
        RecipeError: no such network or option, or an impossible value.
        MissingExtra: SpikingJelly is not installed.

    Example:
        >>> import torch
        >>> net = make("vgg9", width=1 / 16, timesteps=2)
        >>> net(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    if name not in _NETWORKS:
        raise RecipeError(unknown("network", name, networks()))
    build = __getattr__(name)
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            raise RecipeError(f"{name}: {unknown('option', option, known)}")
    net: SpikingNet = build(**options)
    return net


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


__all__ = [
    "Neuron",
    "SpikingMLP",
    "SpikingNet",
    "make",
    "networks",
    "preact_resnet18",
    "resnet18",
    "resnet19",
    "sca_dvs",
    "sew_resnet18",
    "shallower",
    "six_conv_two_fc",
    "vgg9",
    "vgg11",
    "vgg16",
    "vggsnn",
]
