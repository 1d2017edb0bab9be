"""The probe of weights: the size of their gradients."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import MeasureError
from spikeprune.measure.clock import Clock
from spikeprune.view.layer import Layer, refuse_nonfinite
from spikeprune.view.model_view import ModelView


class WeightGradient:
    """|dL/dw| of every weight that takes gradients, a mean over batches that each weigh as many samples as they have."""

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._clock = clock
        self._layers = [layer for layer in view.layers if layer.weight.requires_grad]
        self._sums: dict[str, Tensor] = {}

    def hooks(self) -> Iterator[RemovableHandle]:
        """Need none: `backward` is told of every loss."""
        return iter(())

    def begin(self) -> None:
        """Keep nothing of a batch."""

    def backward(self, loss: Tensor, others: Sequence[Tensor] = ()) -> tuple[Tensor | None, ...]:
        """Take the gradients of a batch's loss; hooks on the way see it pass. Returns those of other parameters.

        Raises:
            MeasureError: the loss depends on the weight of no layer.
            NonFinite: a gradient is NaN or infinite.
        """
        grads: tuple[Tensor | None, ...] = torch.autograd.grad(
            loss, [*(x.weight for x in self._layers), *others], allow_unused=True
        )
        if all(grad is None for grad in grads):
            raise MeasureError(
                f"the loss of calibration batch {self._clock.batch} depends on the weight of no layer. Is the output detached?"
            )
        for layer, grad in zip(self._layers, grads, strict=False):
            if grad is not None:  # a head that this loss does not use counts as zero if other batches reach it
                self._add(layer, grad)
        return grads[len(self._layers) :]

    def means(self) -> Mapping[str, Tensor]:
        """Give what has the weight's shape, by layer."""
        return {name: total / self._clock.samples for name, total in self._sums.items()}

    def _add(self, layer: Layer, grad: Tensor) -> None:
        advice = f"Check calibration batch {self._clock.batch} and the loss, or lower the learning rate that led here."
        refuse_nonfinite(grad, "gradients", layer.name, advice)
        # A batch weighs as many samples as it has: a last batch of three must not count like one of five hundred.
        share = self._clock.batch_samples * grad.abs().double()
        self._sums[layer.name] = self._sums.get(layer.name, torch.zeros_like(share)) + share
