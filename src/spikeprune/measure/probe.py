"""What a statistic is gathered by."""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import MeasureError
from spikeprune.kernel.pca import Scatter


class Probe(Protocol):
    """Hooks on the model that add to running sums, and the means at the end."""

    def hooks(self) -> Iterator[RemovableHandle]:
        """Register the hooks."""
        ...

    def begin(self) -> None:
        """Forget what belongs to the batch before."""
        ...

    def means(self) -> Mapping[str, Tensor] | Mapping[str, Scatter]:
        """Give the means per sample, or a scatter, by the name of the layer or neuron; what was never reached is left out."""
        ...


class Steps:
    """Sums by name and timestep, float64."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[int, Tensor]] = {}

    def add(self, name: str, t: int, value: Tensor) -> None:
        """Add a value to the sum of one timestep."""
        steps = self._sums.setdefault(name, {})
        steps[t] = steps[t] + value if t in steps else value.double()

    def fill(self, timesteps: int, but: Set[str]) -> None:
        """Let timesteps that nothing was added to count as zero, for all names but those given."""
        for name, steps in self._sums.items():
            zero = torch.zeros_like(next(iter(steps.values())))
            for t in range(0 if name in but else timesteps):
                steps.setdefault(t, zero)

    def stacked(self, divisor: float) -> dict[str, Tensor]:
        """Give (T, ...) by name, divided."""
        return {name: stack(steps) / divisor for name, steps in self._sums.items()}


def stack(steps: Mapping[int, Tensor]) -> Tensor:
    """Stack sums in order of their timesteps: (T, ...)."""
    return torch.stack([steps[t] for t in sorted(steps)])


@contextmanager
def naming(neuron: str) -> Iterator[None]:
    """Say in a MeasureError which neuron it is about."""
    try:
        yield
    except MeasureError as error:
        raise MeasureError(f"neuron {neuron!r}: {error}") from error
