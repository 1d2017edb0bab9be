"""Which timestep a layer or neuron is at within a batch, and which batch it is."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import LayoutError
from spikeprune.view.layer import Layer, Layout, refuse_nonfinite
from spikeprune.view.model_view import ModelView


class Clock:
    """Counts batches, samples, and the timesteps that each module has seen of the batch in progress.

    Attributes:
        batch: number of the batch in progress.
        samples: seen so far, the batch in progress included.
        batch_samples: of the batch in progress.
    """

    def __init__(self, view: ModelView) -> None:
        self._view = view
        self._seen: dict[str, int] = defaultdict(int)
        self._watched: dict[str, int] = {}
        self.batch, self.samples, self.batch_samples = -1, 0, 0
        self._sampled = False

    def begin(self) -> None:
        """Begin a batch."""
        self.batch += 1
        self._sampled = False
        self._seen.clear()

    def at(self, name: str) -> int:
        """Return how many timesteps the module has seen before the call in progress."""
        return self._seen[name]

    def first(self) -> Iterator[RemovableHandle]:
        """Count samples: to be registered before all other hooks."""
        yield self._view.layers[0].module.register_forward_pre_hook(self._sample)

    def last(self, layers: tuple[Layer, ...]) -> Iterator[RemovableHandle]:
        """Advance the timesteps of all neurons and of these layers: to be registered after all other hooks.

        Neurons always: only they tell the timesteps of a folded layer.
        """
        steps = self._view.timesteps
        for name, neuron in self._view.neurons.items():
            self._watched[name] = steps
            yield neuron.register_forward_hook(self._neuron(name))
        for layer in layers:
            self._watched[layer.name] = 1 if layer.layout is Layout.ONCE else steps
            yield layer.module.register_forward_hook(self._layer(layer))

    def check(self) -> None:
        """Require that every layer and neuron saw the T timesteps that the view knows, or one call for all of them.

        Raises:
            LayoutError: one saw another number.
        """
        for name, expected in self._watched.items():
            if self._seen[name] != expected:
                raise LayoutError(
                    f"{name!r} saw {self._seen[name]} timesteps in batch {self.batch}, but {expected} when the model was viewed. "
                    "View it again, as it is now, with an example of the same number of timesteps."
                )

    def _sample(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        layer = self._view.layers[0]
        refuse_nonfinite(args[0], "inputs", layer.name, self.advice)
        if not self._sampled:
            self.batch_samples = layer.by_timestep(args[0], self._view.timesteps).shape[1]
            self.samples += self.batch_samples
            self._sampled = True

    @property
    def advice(self) -> str:
        """What to do about inputs that are not finite."""
        return f"Check calibration batch {self.batch}, and the norms before the layer."

    def _neuron(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], _: object) -> None:
            assert self._view.adapter is not None
            self._seen[name] += args[0].shape[0] if self._view.adapter.takes_sequence(module) else 1

        return hook

    def _layer(self, layer: Layer) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: object) -> None:
            self._seen[layer.name] += layer.by_timestep(args[0], self._view.timesteps).shape[0]

        return hook
