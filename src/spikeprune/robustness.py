"""How much accuracy a model keeps when its input is disturbed.

A noise is a value: called with an input and a generator it gives the disturbed input, and leaves the input as it is. A
noise that is random is measured several times: one draw tells little.

Source: Chowdhury, Garg and Roy, IJCNN 2021, arXiv:2104.12528, add Gaussian noise to the input and compare networks over
sigma; their values of sigma are not known here. Deletion and jitter are the event camera's counterparts.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import DataError, EmptyCalibration, LayoutError, MeasureError, NonFinite
from spikeprune.measure import check_batches, parts, refuse_empty, run_batch
from spikeprune.view.model_view import ModelView, check_view

Noise = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Gaussian:
    """Add noise of N(0, sigma^2) to every entry.

    Attributes:
        sigma: standard deviation, in the unit of the input; 0 or more.
        low, high: what the sum is clamped to, such as -1 and 1 for Poisson coding; None clamps nothing.

    Raises:
        DataError: sigma is no number of 0 or more, or low is not below high; on a call, the input is no tensor of floats.

    Example:
        >>> x = torch.zeros(1000)
        >>> noisy = Gaussian(0.5, low=-1, high=1)(x, torch.Generator().manual_seed(0))
        >>> noisy.shape, bool(noisy.abs().max() == 1), bool(abs(noisy.std() - 0.5) < 0.05)
        (torch.Size([1000]), True, True)
    """

    sigma: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not _number(self.sigma) or not 0 <= self.sigma < math.inf:
            raise DataError(f"sigma must be a number of 0 or more; got {self.sigma!r}.")
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if any(not _number(bound) or math.isnan(bound) for bound in bounds) or (len(bounds) == 2 and bounds[0] >= bounds[1]):
            raise DataError(f"low must be below high, each a number or None; got {self.low!r} and {self.high!r}.")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the noisy input, of its shape and type."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise DataError(f"Gaussian noise is added to floating point values; got {_kind(x)}. Convert the input with .float().")
        draw = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        noisy = x + self.sigma * draw
        return noisy if self.low is None and self.high is None else noisy.clamp(self.low, self.high)


@dataclass(frozen=True)
class Deletion:
    """Lose each event of count frames with the same probability, whatever the others do.

    Attributes:
        share: the probability, in [0, 1].

    Raises:
        DataError: the share lies outside; on a call, an entry is no count: negative, fractional or not finite.

    Example:
        >>> frames = torch.full((2, 1, 500), 4.0)
        >>> left = Deletion(0.25)(frames, torch.Generator().manual_seed(0))
        >>> bool((left <= frames).all()), bool(abs(left.sum() / frames.sum() - 0.75) < 0.05)
        (True, True)
    """

    share: float

    def __post_init__(self) -> None:
        if not _number(self.share) or not 0 <= self.share <= 1:
            raise DataError(f"the share of events that is lost must be a number in [0, 1]; got {self.share!r}.")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the frames with what is left, of their shape and type."""
        counts = _counts(x, "deletion").to(generator.device).double()
        return torch.binomial(counts, torch.full_like(counts, 1 - self.share), generator=generator).to(x)


@dataclass(frozen=True)
class Jitter:
    """Move each event by a whole number of timesteps, drawn uniformly from -steps to steps; none leaves the recording.

    Events that would come before the first frame or after the last fall into these, so their number stays the same.

    Attributes:
        steps: the farthest that an event moves, in timesteps; a whole number of 0 or more.

    Raises:
        DataError: steps is none; on a call, an entry is no count: negative, fractional or not finite; or a count outgrows its type.

    Example:
        >>> frames = torch.tensor([[[0.0]], [[9.0]], [[0.0]], [[0.0]]])  # (T, N, ...)
        >>> moved = Jitter(1)(frames, torch.Generator().manual_seed(0)).flatten()
        >>> moved.sum().item(), moved[3].item()
        (9.0, 0.0)
    """

    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 0:
            raise DataError(f"events move by whole timesteps, so steps must be an integer of 0 or more; got {self.steps!r}.")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the frames with every event moved, (T, N, ...), of their shape and type."""
        counts = _counts(x, "jitter").to(generator.device).long()
        if not counts.dim():
            raise LayoutError("frames must be (T, N, ...), time first; got a tensor without axes.")
        cells = torch.arange(counts.numel(), device=counts.device).repeat_interleave(counts.flatten())  # an entry an event
        size = max(counts[0].numel(), 1) if len(counts) else 1
        moves = torch.randint(-self.steps, self.steps + 1, cells.shape, generator=generator, device=counts.device)
        step = (cells.div(size, rounding_mode="floor") + moves).clamp(0, max(len(counts) - 1, 0))
        moved = (step * size + cells % size).bincount(minlength=counts.numel()).view(counts.shape)
        if not torch.equal(moved.to(x).to(moved), moved):
            raise DataError(f"a frame counts up to {int(moved.max())} events once they are moved, more than {x.dtype} holds.")
        return moved.to(x)


def accuracy_under(
    view: ModelView, batches: Iterable[Any], noise: Noise, *, repeats: int = 3, seed: int = 0
) -> tuple[float, ...]:
    """Measure the accuracy on disturbed input, once for each repeat; the model is left as it was found.

    Noise, and what the model itself draws, such as Poisson coding, are anew in every repeat and for every batch. They follow
    from the seed, and are the same for every model and every level of a noise, so differences between these are paired.

    Args:
        view: a model whose output is (N, classes); the largest wins, the lower class of equals.
        batches: `(x, y)`, y class numbers (N,), gone over once a repeat: a list or a DataLoader.
        noise: such as `Gaussian(0.1)`, or any `noise(x, generator)` that returns the disturbed x.
        repeats: how often, 1 or more.
        seed: of all draws.

    Returns:
        The share answered right, for each repeat.

    Raises:
        EmptyCalibration: no batch came.
        NonFinite: a disturbed input or an output is NaN or infinite.
        DataError: the noise does not go with the input.
        LayoutError: events are to be moved in time, but time does not come first.
        MeasureError: repeats is below 1, a batch has no labels or labels that do not fit, or the output is not (N, classes).

    Example:
        >>> from spikeprune import model_view
        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.eye(2))
        >>> view = model_view(net, torch.ones(1, 2), spiking=False)
        >>> accuracy_under(view, [(torch.eye(2), torch.tensor([0, 1]))], Gaussian(0.01), repeats=2)
        (1.0, 1.0)
    """
    check_view(view)
    check_batches(batches)
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise MeasureError(f"repeats must be a whole number of 1 or more; got {repeats!r}.")
    if not callable(noise):
        raise MeasureError(f"a noise is called with an input and a generator, such as Gaussian(0.1); got {type(noise).__name__}.")
    # Two seeds a repeat: from one, the noise and what the model draws would be made of the same random numbers.
    seeds = torch.randint(2**62, (repeats, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(_accuracy(view, batches, noise, *pair) for pair in seeds)


def curve(
    view: ModelView, batches: Iterable[Any], noises: Iterable[Noise], *, repeats: int = 3, seed: int = 0
) -> dict[Noise, tuple[float, ...]]:
    """Measure the accuracy under each of several noises, such as one at rising levels; see `accuracy_under`.

    Example:
        >>> from spikeprune import model_view
        >>> view = model_view(torch.nn.Linear(2, 2), torch.ones(1, 2), spiking=False)
        >>> found = curve(view, [(torch.eye(2), torch.tensor([0, 1]))], [Gaussian(0.1), Gaussian(0.2)])
        >>> [noise.sigma for noise in found], len(found[Gaussian(0.1)])
        ([0.1, 0.2], 3)
    """
    return {noise: accuracy_under(view, batches, noise, repeats=repeats, seed=seed) for noise in noises}


def _accuracy(view: ModelView, batches: Iterable[Any], noise: Noise, noise_seed: int, model_seed: int) -> float:
    right = samples = 0
    generator = torch.Generator().manual_seed(noise_seed)
    with view.undisturbed(seed=model_seed), torch.no_grad():
        for number, batch in enumerate(batches):
            x, y = parts(batch, view.device)
            refuse_empty(x, number)
            _check_labels(y, number)
            out = run_batch(view, _disturbed(noise, x, y, generator, number), number)
            right += _right(out, y, number)
            samples += len(y)
    if not samples:
        raise EmptyCalibration(
            "the data held no batch. Pass a list or a DataLoader with at least one; a generator is empty the second time."
        )
    return right / samples


def _disturbed(noise: Noise, x: Any, y: Tensor, generator: torch.Generator, batch: int) -> Tensor:
    if isinstance(noise, Jitter) and not (isinstance(x, Tensor) and x.shape[1:2] == y.shape):
        raise LayoutError(
            f"events are moved along the first axis, but that of batch {batch}, {_kind(x)}, is not time: with {len(y)} labels, frames "
            f"are (T, {len(y)}, ...)."
        )
    noisy = noise(x, generator)
    if isinstance(noisy, Tensor) and not bool(torch.isfinite(noisy).all()):
        raise NonFinite(f"batch {batch}, disturbed by {noise}, has entries that are NaN or infinite. Check the data.")
    return noisy


def _check_labels(y: Any, batch: int) -> None:
    if not isinstance(y, Tensor) or y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype is torch.bool:
        raise MeasureError(f"batch {batch} needs labels, class numbers of shape (N,): give batches of (x, y). Got {_kind(y)}.")


def _right(out: Any, y: Tensor, batch: int) -> int:
    if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != len(y):
        raise MeasureError(
            f"the output of batch {batch} is {_kind(out)}; with {len(y)} labels it must be ({len(y)}, classes). View the model with a forward "
            "that returns the sum or mean over timesteps."
        )
    if not bool(torch.isfinite(out).all()):
        raise NonFinite(f"the output of batch {batch} has entries that are NaN or infinite. Check the model's weights.")
    if bool(((y < 0) | (y >= out.shape[1])).any()):
        raise MeasureError(
            f"labels of batch {batch} run from {y.min().item()} to {y.max().item()}, but the output has {out.shape[1]} classes: 0 to "
            f"{out.shape[1] - 1}."
        )
    return int((out.argmax(1) == y).sum())


def _counts(x: Any, what: str) -> Tensor:
    """Refuse what is no frames of event counts."""
    if not isinstance(x, Tensor) or x.is_complex() or x.dtype is torch.bool:
        raise DataError(f"{what} needs frames of event counts; got {_kind(x)}.")
    odd = ~torch.isfinite(x) | (x < 0) | (x != x.round()) if x.is_floating_point() else x < 0
    if bool(odd.any()):
        raise DataError(
            f"{what} needs frames of event counts, whole numbers of 0 or more, but {int(odd.sum())} of {x.numel()} entries are none, "
            f"the first {x[odd][0].item():.4g}. Frames that were resized or scaled hold no counts; disturb them before that."
        )
    return x


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: object) -> str:
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
