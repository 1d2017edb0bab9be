"""SpikingJelly: neurons take (N, ...) in step mode "s" and (T, N, ...) in step mode "m"; their state is a memory, not a buffer.

Modules are reset one by one: `functional.reset_net` works from a cached list that still holds neurons replaced since.
"""

import inspect
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from spikingjelly.activation_based.neuron import BaseNode, IFNode, LIFNode, ParametricLIFNode
from torch import Tensor, nn

from spikeprune.errors import MeasureError, ModelError
from spikeprune.view.adapters import Apart

NEURONS = "spikingjelly.activation_based.neuron"
NEVER = 1e30  # a threshold that nothing reaches
# A subclass that overrides one of these has dynamics of its own.
DYNAMICS = (
    "forward",
    "single_step_forward",
    "multi_step_forward",
    "single_step_functional_forward",
    "multi_step_functional_forward",
    "materialize_states",
)


def is_neuron(module: nn.Module) -> bool:
    """Whether the module is a SpikingJelly neuron, or made from one."""
    return is_stateful(module) and any(kind.__module__.startswith(NEURONS) for kind in type(module).__mro__)


def is_stateful(module: nn.Module) -> bool:
    """Whether the module keeps memories: neurons, but also its Dropout, whose mask lasts for all timesteps."""
    return isinstance(module, MemoryModule)


def takes_sequence(neuron: nn.Module) -> bool:
    """Whether the neuron's step mode is "m"."""
    return bool(neuron.step_mode == "m")


def spikes(neuron: nn.Module, output: object) -> Tensor:
    """Return the spikes: the output itself."""
    if not isinstance(output, Tensor):
        raise ModelError(f"{type(neuron).__name__} returned {type(output).__name__}; its spikes cannot be told.")
    return output


def leak(neuron: nn.Module) -> float:
    """Return 1 for IF, 1 - 1 / tau for LIF and parametric LIF; no other is known."""
    _known(neuron, "leak")
    if isinstance(neuron, LIFNode):
        return 1 - 1 / float(neuron.tau)
    if isinstance(neuron, ParametricLIFNode):
        return 1 - float(neuron.w.detach().sigmoid())
    return 1.0


def threshold(neuron: nn.Module) -> float | Tensor:
    """Return v_threshold; known of those whose leak is."""
    level = _known(neuron, "threshold").v_threshold
    return level.detach() if isinstance(level, Tensor) else float(level)


def charge(neuron: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, float | Tensor]:
    """Run the copy step by step with a threshold that nothing reaches, and fire and reset it by hand."""
    node = _known(neuron, "charge")
    level = float(node.v_threshold)
    return _course(node, *args, **kwargs)[0], level


def membrane(neuron: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Run the copy as for its charge, and take what each step leaves."""
    return _course(_known(neuron, "membrane"), *args, **kwargs)[1]


def surrogate(neuron: nn.Module, *args: Any, **kwargs: Any) -> Apart:
    """Run the copy step by step in its own step mode, and take the graph off its memories in between."""
    node = _known(neuron, "surrogate")
    inputs, spikes = [], []
    for step in args[0].split(1) if takes_sequence(node) else [args[0]]:
        inputs.append(step.detach().requires_grad_())
        spikes.append(node(inputs[-1], **kwargs))
        node.detach()
    return Apart(inputs, spikes, _gain(node))


def _gain(node: BaseNode) -> float:
    if isinstance(node, IFNode) or not node.decay_input:
        return 1.0
    return 1 - leak(node)


def _course(node: BaseNode, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Give charge and membrane, each of the input's shape."""
    sequence, level = takes_sequence(node), float(node.v_threshold)
    node.step_mode, node.v_threshold = "s", NEVER
    charges, membranes = [], []
    for x in args[0] if sequence else args[0].unsqueeze(0):
        node(x, **kwargs)
        charges.append(node.v)
        _fire(node, level)
        membranes.append(node.v)
    return (torch.stack(charges), torch.stack(membranes)) if sequence else (charges[0], membranes[0])


def _known(neuron: nn.Module, what: str) -> BaseNode:
    for kind in (IFNode, LIFNode, ParametricLIFNode):
        if isinstance(neuron, kind) and all(_own(type(neuron), x) is _own(kind, x) for x in DYNAMICS):
            return neuron
    raise MeasureError(
        f"the {what} of a {type(neuron).__name__} neuron is not known here; of SpikingJelly it is of IFNode, LIFNode and "
        "ParametricLIFNode, and of classes made from them that charge alike."
    )


def _own(kind: type, name: str) -> Any:
    """Look up a method, behind a wrapper that computes the same faster."""
    method = getattr(kind, name, None)
    return inspect.unwrap(method) if callable(method) else method


def _fire(neuron: BaseNode, level: float) -> None:
    low = neuron.v - level if neuron.v_reset is None else torch.full_like(neuron.v, neuron.v_reset)
    neuron.v = torch.where(neuron.v >= level, low, neuron.v)


def reset(module: nn.Module) -> None:
    """Put the module's memories back to their reset values."""
    if isinstance(module, MemoryModule):
        module.reset()
