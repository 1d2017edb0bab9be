"""One file a framework. An adapter is tried only when its framework is already imported: its models could not exist otherwise."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from torch import Tensor, nn

# framework as imported by users -> our module that knows it
FRAMEWORKS = {"snntorch": "snntorch", "spikingjelly": "spikingjelly"}


@dataclass(frozen=True, eq=False)
class Apart:
    """A neuron's calls, one a timestep, each from the membrane that the one before left; no gradient passes from one to another.

    The gradient of spikes at their input is the slope of the surrogate times the gain.

    Attributes:
        inputs: leaves of the graph; (N, ...) or, of a neuron that takes sequences, (1, N, ...).
        spikes: of the same shape.
        gain: how much of its input the charge takes: dh[t] / dx[t].
    """

    inputs: list[Tensor]
    spikes: list[Tensor]
    gain: float


class Adapter(Protocol):
    """What must be known of a framework; each adapter module offers these functions."""

    def is_neuron(self, module: nn.Module) -> bool:
        """Whether the module is a spiking neuron of the framework."""
        ...

    def is_stateful(self, module: nn.Module) -> bool:
        """Whether the module carries something from one timestep to the next: a neuron, but also a dropout mask."""
        ...

    def takes_sequence(self, neuron: nn.Module) -> bool:
        """Whether one call takes all timesteps, (T, N, ...), rather than one, (N, ...)."""
        ...

    def spikes(self, neuron: nn.Module, output: object) -> Tensor:
        """Pick the spikes out of what the neuron returned."""
        ...

    def leak(self, neuron: nn.Module) -> float:
        """Return the factor by which the membrane decays each timestep, in [0, 1]; the mean where neurons differ.

        Raises:
            MeasureError: the neuron's membrane does not decay by a factor, as far as is known here.
        """
        ...

    def threshold(self, neuron: nn.Module) -> float | Tensor:
        """Return the charge at which neurons fire: one number, or a tensor with one for each.

        Raises:
            MeasureError: the neuron fires by another rule, as far as is known here.
        """
        ...

    def charge(self, neuron: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, float | Tensor]:
        """Return the charge that a neuron reaches when called with these arguments from its present state, and its threshold.

        The neuron is a copy that may be run. The charge has the shape of its input.

        Raises:
            MeasureError: the charge cannot be told.
        """
        ...

    def membrane(self, neuron: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Return the membrane after firing and reset of a neuron called with these arguments from its present state.

        The neuron is a copy that may be run. The membrane has the shape of its input.

        Raises:
            MeasureError: the membrane cannot be told.
        """
        ...

    def surrogate(self, neuron: nn.Module, *args: Any, **kwargs: Any) -> Apart:
        """Run a neuron with its timesteps apart, so that nothing but its surrogate lies between an input and its spikes.

        The neuron is a copy that may be run.

        Raises:
            MeasureError: it cannot be told how the charge takes its input.
        """
        ...

    def reset(self, module: nn.Module) -> None:
        """Put a stateful module back to rest."""
        ...


def loaded() -> Iterator[tuple[str, Adapter]]:
    """Yield the adapters of all supported frameworks that this process has imported."""
    for framework, file in FRAMEWORKS.items():
        if framework in sys.modules:
            yield framework, import_module(f"{__name__}.{file}")  # a module serves as the protocol
