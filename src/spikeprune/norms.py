"""Batch norms after pruning: their running statistics are those of the network that was, until they are measured anew."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from spikeprune.errors import EmptyCalibration
from spikeprune.measure import check_batches, parts, refuse_empty, run_batch
from spikeprune.view.model_view import ModelView, check_view


def recalibrate(view: ModelView, batches: Iterable[Any]) -> int:
    """Set the running mean and variance of every batch norm to their means over the batches; returns how many norms it set.

    Weights stay; dropout is off; every batch counts alike. The network is otherwise left as it was (see `measure`), and wholly
    so if a batch fails. Norms without running statistics, or that the model does not call, are passed by.

    Args:
        view: the model.
        batches: any iterable of `x` or `(x, y)`, at least one; labels are not used.

    Raises:
        EmptyCalibration: no batch came.
        MeasureError: the model cannot run a batch.

    Example:
        >>> from spikeprune import model_view
        >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
        >>> _ = net[0].weight.data.fill_(1.0), net[0].bias.data.fill_(0.0)
        >>> recalibrate(model_view(net, torch.ones(2, 1), spiking=False), [torch.tensor([[1.0], [3.0]])])
        1
        >>> net[1].running_mean
        tensor([2.])
    """
    check_view(view)
    check_batches(batches)
    norms = [m for m in view.net.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    count = 0
    with view.undisturbed(), torch.no_grad():
        _average_anew(norms)
        for count, batch in enumerate(batches, start=1):
            x, _ = parts(batch, view.device)
            refuse_empty(x, count - 1)
            run_batch(view, x, count - 1)
        if not count:
            raise EmptyCalibration(
                "the batches to recalibrate norms with held none. Pass a list or a DataLoader with at least one."
            )
        found = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms if norm.num_batches_tracked]
    for norm, buffers in found:
        for name, value in buffers.items():
            norm.get_buffer(name).copy_(value)
    return len(found)


def _average_anew(norms: list[_BatchNorm]) -> None:
    """Let norms alone train, as plain averages from nothing. What lends the model for the pass puts it all back."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's sign for a cumulative average
        norm.train()
