"""snnTorch: neurons are called once a timestep and return spikes, or spikes with their state.

State is reset neuron by neuron: `snntorch.utils.reset` of version 1.0 sees direct children only and acts on every
neuron of the process.
"""

from typing import Any

from snntorch import Leaky, SpikingNeuron
from torch import Tensor, nn

from spikeprune.errors import MeasureError, ModelError
from spikeprune.view.adapters import Apart

# Neurons that unroll time inside one call.
SEQUENCE = frozenset({"StateLeaky", "LinearLeaky", "AssociativeLeaky"})


def is_neuron(module: nn.Module) -> bool:
    """Whether the module is an snnTorch neuron."""
    return isinstance(module, SpikingNeuron)


def is_stateful(module: nn.Module) -> bool:
    """Whether the module keeps state: neurons do."""
    return is_neuron(module)


def takes_sequence(neuron: nn.Module) -> bool:
    """Whether the neuron takes (T, N, ...) in one call."""
    return any(kind.__name__ in SEQUENCE for kind in type(neuron).__mro__)


def spikes(neuron: nn.Module, output: object) -> Tensor:
    """Return the spikes: the output itself, or its first part."""
    first = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(first, Tensor):
        raise ModelError(f"{type(neuron).__name__} returned {type(output).__name__}; its spikes cannot be told.")
    return first


def leak(neuron: nn.Module) -> float:
    """Return beta, clamped to [0, 1] as its forward does; known of Leaky alone."""
    if type(neuron) is not Leaky:
        raise MeasureError(f"the leak of a {type(neuron).__name__} neuron is not known here; of snnTorch it is of Leaky.")
    beta: Tensor = neuron.beta  # type: ignore[assignment]
    return float(beta.detach().clamp(0, 1).mean())


def threshold(neuron: nn.Module) -> Tensor:
    """Return the threshold; known of Leaky alone."""
    if type(neuron) is not Leaky:
        raise MeasureError(f"the threshold of a {type(neuron).__name__} neuron is not known here; of snnTorch it is of Leaky.")
    found: Tensor = neuron.threshold  # type: ignore[assignment]
    return found.detach()


def charge(neuron: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, float | Tensor]:
    """Run the copy: a Leaky neuron that resets a step later is left with its charge."""
    if type(neuron) is not Leaky or not neuron.reset_delay:
        raise MeasureError(
            f"the charge of a {type(neuron).__name__} neuron is not known here; of snnTorch it is of Leaky with reset_delay=True."
        )
    neuron(*args, **kwargs)
    mem: Tensor = neuron.mem  # type: ignore[assignment]
    level: Tensor = neuron.threshold  # type: ignore[assignment]
    return mem, level


def membrane(neuron: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Take from the charge what the reset takes, though snnTorch itself does so a step later."""
    mem, level = charge(neuron, *args, **kwargs)
    fired = (mem > level).to(mem.dtype)
    kind = neuron.reset_mechanism
    if kind == "subtract":
        return mem - fired * level
    return mem * (1 - fired) if kind == "zero" else mem


def surrogate(neuron: nn.Module, *args: Any, **kwargs: Any) -> Apart:
    """Run the copy from a membrane without its graph; known of Leaky alone, whose charge takes its input whole."""
    if type(neuron) is not Leaky:
        raise MeasureError(f"the surrogate of a {type(neuron).__name__} neuron is not known here; of snnTorch it is of Leaky.")
    x, *state = (arg.detach() if isinstance(arg, Tensor) else arg for arg in args)
    named = {key: arg.detach() if isinstance(arg, Tensor) else arg for key, arg in kwargs.items()}
    x.requires_grad_()
    return Apart([x], [spikes(neuron, neuron(x, *state, **named))], 1.0)


def reset(module: nn.Module) -> None:
    """Zero the neuron's state."""
    if callable(zero := getattr(module, "reset_mem", None)):
        zero()
