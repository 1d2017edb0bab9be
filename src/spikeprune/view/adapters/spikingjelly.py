"""SpikingJelly: neurons take (N, ...) in step mode "s" and (T, N, ...) in step mode "m"; their state is a memory, not a buffer.

Modules are reset one by one: `functional.reset_net` works from a cached list that still holds neurons replaced since.
"""

from spikingjelly.activation_based.base import MemoryModule
from torch import Tensor, nn

from spikeprune.errors import ModelError

NEURONS = "spikingjelly.activation_based.neuron"


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


def reset(module: nn.Module) -> None:
    """Put the module's memories back to their reset values."""
    if isinstance(module, MemoryModule):
        module.reset()
