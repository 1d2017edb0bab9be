"""How long the smaller network takes beside the dense one, in turns in one process, against the ratio of what they compute."""

import time
from statistics import median
from typing import Any

import torch
from torch import Tensor

from spikeprune.recipes.train import Bench
from spikeprune.studies.lab import Lab
from spikeprune.studies.measured import macs
from spikeprune.view.model_view import ModelView

SIZES = (1, 64)  # samples a batch


def ratios(lab: Lab, small: Bench, pairs: int) -> dict[str, Any]:
    """Time the dense network over the smaller one at each batch size: the median over pairs of passes, and the ratio of MACs."""
    dense = lab.copy()
    found: dict[str, Any] = {"macs_ratio": macs(dense.view) / macs(small.view)}
    for size in SIZES:
        x = next(lab.splits.test.batches(size))[0]
        found[f"speedup_{size}"] = in_turns(dense.view, small.view, x, pairs)
    return found


def in_turns(one: ModelView, other: ModelView, x: Tensor, pairs: int) -> float:
    """Give how many times as long the first network takes, the median over pairs of passes; each warms up first."""
    with one.undisturbed(), other.undisturbed(), torch.no_grad():
        for view in (one, other):
            view(x)
        return median(_seconds(one, x) / _seconds(other, x) for _ in range(pairs))


def _seconds(view: ModelView, x: Tensor) -> float:
    start = time.perf_counter()
    view(x)
    return time.perf_counter() - start
