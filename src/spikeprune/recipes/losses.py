"""What training minimizes: the cross-entropy of the output, or that of every timestep."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.recipes.tables import Training

THRESHOLD = 1.0  # of the neurons of the TET paper


def loss_fn(counts: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the spike counts."""
    return F.cross_entropy(counts, labels)


@dataclass(frozen=True)
class Objective:
    """The loss of a training batch.

    Attributes:
        smoothing: of labels.
        tet_lambda: of `tet`; None for the cross-entropy of the output.
    """

    smoothing: float = 0.0
    tet_lambda: float | None = None

    @classmethod
    def of(cls, table: Training) -> "Objective":
        """Take it from a recipe's `[train]` or `[prune]`."""
        return cls(table.smoothing, table.tet_lambda if table.loss == "tet" else None)


def tet(outputs: Tensor, labels: Tensor, share: float, smoothing: float = 0.0) -> Tensor:
    """Temporal efficient training: mean over t of (1 - share) CE(out[t], y) + share MSE(out[t], threshold).

    Source: Deng, Li, Zhang, Gu. Temporal Efficient Training of Spiking Neural Network via Gradient Re-weighting. ICLR 2022.
    arXiv:2202.11946. `share` is their lambda, and the threshold, their phi, is 1.

    Args:
        outputs: of every timestep, (T, N, classes).
        labels: (N,).
        share: lambda, in [0, 1].
        smoothing: of labels.

    Example:
        >>> round(tet(torch.zeros(2, 3, 4), torch.tensor([0, 1, 2]), share=0.5).item(), 4)
        1.1931
    """
    every = F.cross_entropy(outputs.flatten(0, 1), labels.repeat(len(outputs)), label_smoothing=smoothing)
    return (1 - share) * every + share * F.mse_loss(outputs, torch.full_like(outputs, THRESHOLD))
