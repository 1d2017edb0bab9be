"""Schedules: when something is due, and how much. A schedule maps a step to a target, or to None when nothing is due.

Steps count from 0. The same values serve for sparsity, in [0, 1), and for timesteps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from spikeprune.errors import ScheduleError
from spikeprune.kernel.allocate import kept


@runtime_checkable
class Schedule(Protocol):
    """A callable value: step -> target, or None when nothing is due."""

    def __call__(self, step: int) -> float | None:
        """Return the target due at `step`, or None."""
        ...


@dataclass(frozen=True)
class Staircase:
    """Targets at given steps, in rising order of steps."""

    steps: tuple[int, ...]
    targets: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.steps or len(self.steps) != len(self.targets):
            raise ScheduleError(
                f"a staircase needs as many steps as targets, and at least one; got {self.steps} and {self.targets}."
            )
        if self.steps[0] < 0 or any(b <= a for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise ScheduleError(f"steps must be 0 or more and rise; got {self.steps}.")

    def __call__(self, step: int) -> float | None:
        """Return the target that falls due exactly at `step`."""
        return self.targets[self.steps.index(step)] if step in self.steps else None


@dataclass(frozen=True)
class Cubic:
    """Rise from sparsity `initial` to `target` along 1 - (1 - x)^3, due every `every` steps from `start` to `stop`."""

    target: float
    start: int
    stop: int
    every: int
    initial: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop or self.every < 1:
            raise ScheduleError(
                f"need 0 <= start < stop and every >= 1; got start {self.start}, stop {self.stop}, every {self.every}."
            )
        for sparsity in (self.initial, self.target):
            kept(1, sparsity)  # refuse a bad one now, not in the middle of training
        if self.initial > self.target:
            raise ScheduleError(f"sparsity must rise, but falls from initial {self.initial} to target {self.target}.")

    def __call__(self, step: int) -> float | None:
        """Return the sparsity due at `step`; the full target falls due at `stop`, whatever `every` is."""
        if not self.start <= step <= self.stop or ((step - self.start) % self.every and step != self.stop):
            return None
        left = (self.stop - step) / (self.stop - self.start)
        return self.target + (self.initial - self.target) * left**3


@dataclass(frozen=True)
class Repeated:
    """One target, due every `every` steps from `start` on, up to `stop`; None goes on for ever."""

    target: float
    every: int
    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        kept(1, self.target)  # refuse a bad one now, not in the middle of training
        if self.every < 1 or self.start < 0 or (self.stop is not None and self.stop < self.start):
            raise ScheduleError(
                f"need every >= 1 and 0 <= start <= stop; got every {self.every}, start {self.start}, stop {self.stop}."
            )

    def __call__(self, step: int) -> float | None:
        """Return the target every `every` steps, the last time at `stop` or before."""
        over = self.stop is not None and step > self.stop
        return None if step < self.start or over or (step - self.start) % self.every else self.target


def once(target: float, *, at: int = 0) -> Staircase:
    """Ask for everything at one step.

    Example:
        >>> [once(0.9)(step) for step in range(3)]
        [0.9, None, None]
    """
    return Staircase((at,), (target,))


def stages(targets: Sequence[float], *, every: int, start: int = 0) -> Staircase:
    """Ask for each target in turn, `every` steps apart.

    Example:
        >>> [stages([0.5, 0.9], every=2)(step) for step in range(4)]
        [0.5, None, 0.9, None]
    """
    if every < 1:
        raise ScheduleError(f"every is {every}, but must be at least 1 step.")
    return Staircase(tuple(start + every * i for i in range(len(targets))), tuple(targets))


def staircase(targets: dict[int, float]) -> Staircase:
    """Ask for given targets at given steps.

    Example:
        >>> staircase({0: 0.5, 100: 0.9})(100)
        0.9
    """
    return Staircase(tuple(targets), tuple(targets.values()))


def cubic(target: float, *, start: int = 0, stop: int, every: int = 1, initial: float = 0.0) -> Cubic:
    """Prune fast at first and ever more slowly towards the target.

    Source: Zhu and Gupta 2017, arXiv:1710.01878, equation 1.

    Example:
        >>> [cubic(0.8, stop=4, every=2)(step) for step in (0, 1, 2, 4, 5)]
        [0.0, None, 0.7000000000000001, 0.8, None]
    """
    return Cubic(target, start, stop, every, initial)


def every(target: float, every: int, *, start: int = 0, stop: int | None = None) -> Repeated:
    """Ask for the same sparsity again and again, as sparse training does: it exchanges weights at each update.

    Example:
        >>> [every(0.9, 2, stop=3)(step) for step in range(6)]
        [0.9, None, 0.9, None, None, None]
    """
    return Repeated(target, every, start, stop)
