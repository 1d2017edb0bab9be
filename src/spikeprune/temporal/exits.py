"""Early exit for real: the forward is abandoned as soon as the model is sure of every sample of the batch."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import ModelError
from spikeprune.measure import parts, refuse_empty, run_batch
from spikeprune.temporal.divergence import refuse_share
from spikeprune.temporal.readout import Readout, find_readout
from spikeprune.temporal.sums import surest
from spikeprune.view.layer import Layout, refuse_nonfinite
from spikeprune.view.model_view import ModelView


class _Enough(BaseException):
    """Every sample has stopped: no error, and no Exception, which a model may catch."""


def early_exit(view: ModelView, x: Any, confidence: float, *, readout: str | Readout | None = None) -> tuple[Tensor, Tensor]:
    """Run a batch until the model is sure of each sample, and not one timestep further.

    The timesteps of a batch are run as long as one sample of it is unsure; a batch of one saves most. What is saved is
    what the model computes after the readout's call: all later timesteps, if it loops over time outermost.

    Args:
        view: a model that calls its readout once a timestep. It is left as it was found, whatever happens.
        x: one batch, as the model takes it.
        confidence: the largest softmax probability of the running output at which a sample stops, in (0, 1].
        readout: the module whose outputs are added up; see `find_readout`. To run many batches, find it once and give it:
            otherwise the example of the view is run each time to find it.

    Returns:
        The outputs, (N, C), each as it was when the sample stopped, in the scale of the model's output (a sequence is
        added up); and the timesteps that each took, (N,) int64.

    Raises:
        ModelError: one call of the readout takes all timesteps; or what its outputs make of the model's cannot be told.
        MeasureError: the confidence lies outside (0, 1], or the model cannot run the batch.
        NonFinite: an output is NaN or infinite.

    Example:
        >>> from spikeprune import model_view
        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.eye(2))
        >>> early_exit(model_view(net, torch.ones(1, 2), spiking=False), torch.tensor([[3.0, 0.0]]), 0.9)
        (tensor([[3., 0.]]), tensor([1]))
    """
    refuse_share(confidence, "the confidence")
    found = readout if isinstance(readout, Readout) else find_readout(view, readout)
    scale = _check(found)
    x, _ = parts((x,), view.device)
    refuse_empty(x, 0)
    race = _Race(found, confidence, scale)
    with view.undisturbed(), torch.no_grad(), found.listening(view, race.step), suppress(_Enough):
        run_batch(view, x, 0)
    return race.result()


class _Race:
    """The running output of one batch, and where each sample stopped."""

    def __init__(self, readout: Readout, confidence: float, scale: float) -> None:
        self.readout, self.confidence, self.scale = readout, confidence, scale
        self.taken = 0
        self.running = self.outputs = self.steps = torch.empty(0)
        self.dtype = torch.float32

    def step(self, heard: Tensor) -> None:
        """Add one timestep, (1, N, C); raise _Enough once all samples have stopped."""
        refuse_nonfinite(heard, "outputs", self.readout.name, "Check the batch, and the model's weights.")
        if not self.taken:
            self.dtype = heard.dtype
            self.running = torch.zeros_like(heard[0], dtype=torch.double)
            self.outputs = torch.zeros_like(self.running)
            self.steps = torch.zeros(len(self.running), dtype=torch.long, device=heard.device)
        self.taken += 1
        self.running = self.running + heard[0].double()
        running = self.running * self.scale
        sure = (self.steps == 0) & ((surest(running) >= self.confidence) | (self.taken >= self.readout.timesteps))
        self.outputs[sure] = running[sure]
        self.steps[sure] = self.taken
        if self.taken < self.readout.timesteps and bool((self.steps > 0).all()):
            raise _Enough

    def result(self) -> tuple[Tensor, Tensor]:
        """Give outputs and steps, once every sample has stopped."""
        if not self.taken or not bool((self.steps > 0).all()):
            raise ModelError(
                f"readout {self.readout.name!r} was called {self.taken} times, not {self.readout.timesteps} as when the model was viewed. "
                "View it again, as it is now."
            )
        return self.outputs.to(self.dtype), self.steps


def _check(readout: Readout) -> float:
    if readout.layout is not Layout.STEP and readout.timesteps > 1:
        raise ModelError(
            f"one call of readout {readout.name!r} computes all {readout.timesteps} timesteps, so none can be saved. Use step mode 's', or a "
            "loop over timesteps; temporal.course gives the curve without stopping."
        )
    if readout.scale is None:
        raise ModelError(
            f"readout {readout.name!r} gave zeros only for the example of the view, so it cannot be told whether the model's output is the sum "
            "or the mean over timesteps. View the model with an example on which the readout spikes."
        )
    return readout.scale
