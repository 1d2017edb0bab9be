"""Calibration batches: refused, split, run, and their loss; every error names the batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import EmptyCalibration, MeasureError, NonFinite, SpikepruneError
from spikeprune.view.model_view import ModelView

LossFn = Callable[[Any, Any], Tensor]


def check_batches(batches: Any) -> None:
    """Refuse a lone batch, and what gives no batches."""
    for part in batches if isinstance(batches, tuple) else (batches,):
        if isinstance(part, Tensor):
            raise MeasureError(
                f"this is one batch in place of batches: a {type(batches).__name__} with a tensor of shape {tuple(part.shape)}. "
                "Put batches in a list: [x], or [(x, y)] with targets."
            )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise MeasureError(f"{type(batches).__name__} gives no batches; pass a list or a DataLoader.")


def refuse_empty(x: Any, batch: int) -> None:
    """Refuse a batch without a sample; `batch` is its number."""
    if isinstance(x, Tensor) and not x.numel():
        raise EmptyCalibration(f"batch {batch} holds no sample: its shape is {tuple(x.shape)}. Leave it out of the data.")


def run_batch(view: ModelView, x: Any, batch: int) -> Any:
    """Run the model over one batch; what it raises is told with the batch's number and shape."""
    try:
        return view(x)
    except SpikepruneError:
        raise
    except Exception as error:
        shape = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise MeasureError(
            f"{type(view.net).__name__} could not run batch {batch}, of {shape}: {type(error).__name__}: {error}. A batch must be as "
            "the example of the view was: the same axes and sizes, except for the number of samples."
        ) from error


def parts(batch: Any, device: torch.device) -> tuple[Any, Any]:
    """Split a batch into input and target (None if it has none), on the model's device."""
    x, y = (*batch, None)[:2] if isinstance(batch, tuple | list) and len(batch) in (1, 2) else (batch, None)
    return tuple(part.to(device) if isinstance(part, Tensor) else part for part in (x, y))  # type: ignore[return-value]


def loss_of(loss_fn: LossFn, out: Any, y: Any, batch: int) -> Tensor:
    """Compute the loss of a batch.

    Raises:
        MeasureError: there is no target, the loss cannot be computed, or it is no number that depends on the output.
        NonFinite: the loss is NaN or infinite.
    """
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if y is None:
        raise MeasureError(f"calibration batch {batch} has no target, but the loss needs one; give batches of (x, y).")
    try:
        loss = loss_fn(out, y)
    except SpikepruneError:
        raise
    except Exception as error:
        spread = f"targets from {y.min().item()} to {y.max().item()}" if isinstance(y, Tensor) and y.numel() else "no target"
        raise MeasureError(
            f"loss_fn failed on calibration batch {batch}: {type(error).__name__}: {error}. The model's output is {shape}, {spread}; "
            "labels must be 0 to classes - 1, and the loss must fit the output."
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise MeasureError(
            f"loss_fn must return one number that depends on the output (shape {shape}); it returned {loss!r:.80}."
        )
    if not bool(torch.isfinite(loss)):
        raise NonFinite(f"the loss of calibration batch {batch} is {loss.item()}. Check its input and the model's weights.")
    return loss
