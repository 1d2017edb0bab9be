"""The running sums of one pass over time.

Stopping everywhere at timestep t, and stopping each sample where the model is sure of it, are one thing: a timestep for
each sample at which it stops. So accuracy, timesteps and SynOps are gathered for T + K such rules at once, K of them the
early exits.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import LayoutError, MeasureError, ModelError
from spikeprune.metrics import EnergyTable, fan_out
from spikeprune.temporal.divergence import batch_mean, per_sample
from spikeprune.temporal.readout import Readout
from spikeprune.view.layer import Layer, Layout, refuse_nonfinite
from spikeprune.view.model_view import ModelView


def surest(running: Tensor) -> Tensor:
    """Give the largest softmax probability of running outputs (..., C), float64, as (...)."""
    return running.double().softmax(-1).amax(-1)


class Sums:
    """Sums over samples of what each rule of stopping gives and costs; see the module."""

    def __init__(self, view: ModelView, readout: Readout, confidences: tuple[float, ...]) -> None:
        self.view, self.readout, self.confidences = view, readout, confidences
        self.scale = readout.scale
        self.samples = self.labelled = self.batch = 0
        self.fires = False
        self.real: set[str] = set()
        self._alive = {layer.name: (layer.weight.detach() != 0).double() for layer in view.layers}
        self._heard: list[Tensor] = []
        self._counts: dict[str, list[Tensor]] = {}
        rules = view.timesteps + len(confidences)
        self._steps, self._right = (torch.zeros(rules, dtype=torch.double, device=view.device) for _ in range(2))
        self._synops = {layer.name: torch.zeros_like(self._steps) for layer in view.layers}
        self._means: Tensor | float = 0.0
        self._changes = torch.zeros(view.timesteps - 1, dtype=torch.double, device=view.device)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note what the layers are given and what the readout gives."""
        with ExitStack() as hooks:
            for layer in self.view.layers:
                hooks.callback(layer.module.register_forward_pre_hook(self._count(layer)).remove)
            hooks.enter_context(self.readout.listening(self.view, lambda steps: self._heard.append(steps)))
            yield

    def begin(self, batch: int) -> None:
        """Forget the batch before; `batch` is the new one's number."""
        self.batch = batch
        self._heard = []
        self._counts = {layer.name: [] for layer in self.view.layers}

    def add(self, output: object, y: Any) -> None:
        """Add the batch that was just run, whose output and labels (or None) these are."""
        heard = self._all_steps(self.readout.name, self._heard, self.view.timesteps)
        running = heard.double().cumsum(0) * self._scale(heard, output)
        t, n, classes = running.shape
        fixed = torch.arange(t, device=running.device).unsqueeze(1).expand(t, n)
        stops = torch.cat([fixed, self._exits(running)])  # (T + K, N), from 0
        for layer in self.view.layers:
            expected = 1 if layer.layout is Layout.ONCE else t
            counts = self._all_steps(layer.name, self._counts[layer.name], expected, samples=n)
            self._synops[layer.name] += counts.cumsum(0).expand(t, n).gather(0, stops).sum(1)
        if y is not None:
            self._right += (running.argmax(2).gather(0, stops) == _labels(y, n, classes, self.batch)).sum(1)
            self.labelled += n
        self._steps += (stops + 1).sum(1)
        self._means = self._means + heard.double().sum(1)
        self._changes += per_sample(running).sum(1)
        self.fires = self.fires or bool(heard.any())
        self.samples += n

    def accuracy(self) -> list[float] | None:
        """The share right by each rule; None if no batch had labels."""
        if self.labelled not in (0, self.samples):
            raise MeasureError(f"{self.labelled} of {self.samples} samples have labels; give every batch as (x, y), or none.")
        return self._mean(self._right) if self.labelled else None

    def steps(self) -> list[float]:
        """Mean timesteps run by each rule."""
        return self._mean(self._steps)

    def refuse_silent(self) -> None:
        """Raise MeasureError if the readout gave nothing but zeros."""
        if not self.fires:
            raise MeasureError(
                f"readout {self.readout.name!r} gave nothing but zeros for all {self.samples} samples and {self.view.timesteps} timesteps: it "
                "never spikes, so there is no decision to follow over time. Check the weights, thresholds and the scale of the input."
            )

    def synops(self) -> list[float]:
        """Mean SynOps effective of a sample, by each rule."""
        return self._mean(sum(self._synops.values(), torch.zeros_like(self._steps)))

    def energy(self, table: EnergyTable) -> list[float]:
        """Mean energy of a sample in picojoule, by each rule; AC or MAC is judged by layer, over the whole pass."""
        parts = (sums * (table.mac if name in self.real else table.ac) for name, sums in self._synops.items())
        return self._mean(sum(parts, torch.zeros_like(self._steps)))

    def batch_mean(self) -> tuple[float, ...] | None:
        """The paper's terms; None of outputs that cannot be spikes."""
        means = self._means / self.samples
        assert isinstance(means, Tensor)
        return None if bool((means < 0).any()) else tuple(batch_mean(means).tolist())

    def per_sample(self) -> tuple[float, ...]:
        """The terms of the running output's softmax, mean over samples."""
        return tuple(self._mean(self._changes))

    def _mean(self, sums: Tensor) -> list[float]:
        return [float(x) for x in (sums / self.samples).tolist()]

    def _count(self, layer: Layer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = layer.by_timestep(args[0].detach(), self.view.timesteps)
            if layer.name in self.real or not bool(((x == 0) | (x.abs() == 1)).all()):
                refuse_nonfinite(x, "inputs", layer.name, f"Check batch {self.batch}, and the norms before the layer.")
                self.real.add(layer.name)
            counts = fan_out(layer, (x != 0).double(), self._alive[layer.name])
            self._counts[layer.name].append(counts.reshape(*counts.shape[:2], -1).sum(2))

        return hook

    def _exits(self, running: Tensor) -> Tensor:
        """Tell where each sample stops for each confidence: (K, N), from 0."""
        levels = torch.tensor(self.confidences, dtype=torch.double, device=running.device)
        sure = surest(running) >= levels[:, None, None]
        sure[:, -1] = True
        return sure.int().argmax(1)  # the first of equals

    def _scale(self, heard: Tensor, output: object) -> float:
        found = self.readout.scale_of(heard, output)
        if found is not None and self.scale is not None and found != self.scale:
            raise ModelError(
                f"the model's output is {self.scale:g} times the sum of readout {self.readout.name!r} at first, and {found:g} times in batch "
                f"{self.batch}. Name another readout."
            )
        self.scale = self.scale if found is None else found
        return self.scale or 1.0  # undecided are zeros only, on which it does not matter

    def _all_steps(self, name: str, pieces: list[Tensor], expected: int, samples: int | None = None) -> Tensor:
        steps = sum(len(piece) for piece in pieces)
        if steps != expected:
            raise LayoutError(
                f"{name!r} saw {steps} timesteps in batch {self.batch}, but {expected} when the model was viewed. "
                "View it again, as it is now, with an example of the same number of timesteps."
            )
        whole = torch.cat(pieces)
        if samples is not None and whole.shape[1] != samples:
            raise LayoutError(
                f"layer {name!r} saw {whole.shape[1]} samples in batch {self.batch}, but the readout {samples}. View the model again, with an "
                "example of another batch size."
            )
        return whole


def _labels(y: Any, samples: int, classes: int, batch: int) -> Tensor:
    shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
    if not isinstance(y, Tensor) or y.shape != (samples,) or y.is_floating_point() or y.is_complex():
        raise MeasureError(
            f"the labels of batch {batch} are {shape}{f' of {y.dtype}' if isinstance(y, Tensor) else ''}; its {samples} samples need class "
            f"numbers of shape ({samples},). For one-hot labels give y.argmax(1)."
        )
    if bool(((y < 0) | (y >= classes)).any()):
        raise MeasureError(
            f"labels of batch {batch} run from {y.min().item()} to {y.max().item()}, but the readout has {classes} classes: 0 to {classes - 1}."
        )
    return y
