"""What was measured, as values: a case is one network at one batch size, a row of it what somebody took for it."""

from dataclasses import dataclass
from typing import Any

from spikeprune.bench.goals import Goal, Under, Verdict, verdict
from spikeprune.bench.timing import Ratio, Times

OURS = "spikeprune"
ROUNDING = 1e-4
"""Outputs of an engine and of its plan in float64 may differ by so much, as a share of the largest, where no spike flipped."""
FLIPPED = 0.1
"""The share of samples that a spike at its threshold may make another; one sample may be in any case."""


@dataclass(frozen=True)
class Correctness:
    """Whether the answers are the right ones.

    Attributes:
        difference: largest difference of an output from the plan in float64, of samples that no flipped spike reached.
        flipped: samples of which a spike at its threshold fell the other way.
        samples: that both were looked for in.
        tested: test samples that the next three were measured with.
        same_class: share of them in which the engine and the network as the framework runs it name the same class.
        accuracy: of the engine, in [0, 1]; None if the network was not trained.
        eager_accuracy: of the network as the framework runs it.
        rounded: samples that torch flips as well when it runs the plan in float32: charges that lie at their threshold in many samples alike, as those of
            a background do, are no matter of the engine.
    """

    difference: float
    flipped: int
    samples: int
    tested: int
    same_class: float
    accuracy: float | None = None
    eager_accuracy: float | None = None
    rounded: int = 0

    @property
    def right(self) -> bool:
        """Whether the engine computes its plan.

        Example:
            >>> Correctness(1e-8, 1, 1, 64, 1.0).right, Correctness(1e-2, 0, 1, 64, 1.0).right, Correctness(1e-8, 3, 16, 64, 1.0).right
            (True, False, False)
            >>> Correctness(1e-8, 13, 16, 64, 1.0, rounded=12).right, Correctness(1e-8, 16, 16, 64, 1.0, rounded=12).right
            (True, False)
        """
        return self.difference <= ROUNDING and self.flipped <= self.rounded + max(1, FLIPPED * self.samples)

    def __str__(self) -> str:
        """Tell it in a line."""
        found = (
            f"{'right' if self.right else 'WRONG'}: {self.flipped} of {self.samples} samples flipped ({self.rounded} in torch by float32), largest difference {self.difference:.1e}; "
            f"same class as the framework in {self.same_class:.1%} of {self.tested}"
        )
        if self.accuracy is None or self.eager_accuracy is None:
            return f"{found}; no accuracy, as the network is not trained: its classes hang on any rounding"
        return f"{found}; accuracy {self.accuracy:.1%}, by the framework {self.eager_accuracy:.1%}"


@dataclass(frozen=True)
class Row:
    """What one contestant took.

    Attributes:
        name: of the contestant, or of what was measured.
        amount: milliseconds of a call by processor time, the median; or bytes, or seconds, as `unit` says; None if there is no figure.
        unit: "ms", "s" or "bytes".
        ratio: how many times ours it is; None for ours, and where there is no figure.
        goal: what the ratio should be, or what the amount should stay under; None if none was set.
        spread: of the ratio.
        wall: as `amount`, by the wall clock.
        least: as `amount`, the least.
        same_class: share of the timed batch in which it names the class that the framework names.
        accuracy: of another network, if it runs another one.
        note: why there is no figure, or what it is.
    """

    name: str
    amount: float | None = None
    unit: str = "ms"
    ratio: float | None = None
    goal: Goal | Under | None = None
    spread: Ratio | None = None
    wall: float | None = None
    least: float | None = None
    same_class: float | None = None
    accuracy: float | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the goal is met."""
        return verdict(self.goal, self.ratio, self.amount)

    @property
    def told(self) -> str:
        """Tell the amount."""
        if self.amount is None:
            return "–"
        return f"{self.amount:,.0f} bytes" if self.unit == "bytes" else f"{self.amount:.3g} {self.unit}"

    @property
    def ratio_told(self) -> str:
        """Tell the ratio, with the least and the most of all rounds.

        Example:
            >>> Row("other", 2.0, ratio=2.0).ratio_told
            'x2.00'
        """
        if self.ratio is None:
            return ""
        spread = "" if self.spread is None else f" ({self.spread.least:.2f}–{self.spread.most:.2f})"
        return f"x{self.ratio:.2f}{spread}"


def timed_row(name: str, times: Times, ours: Times | None, goal: Goal | None = None, **more: Any) -> Row:
    """Make a row of times; ours is what they are divided by, None in our own row."""
    spread = None if ours is None else Ratio.of(times, ours)
    ratio = None if spread is None else spread.median
    middle = sorted(times.cpu)[len(times.cpu) // 2]
    wall = sorted(times.wall)[len(times.wall) // 2]
    return Row(name, 1e3 * middle, "ms", ratio, goal, spread, 1e3 * wall, 1e3 * min(times.cpu), **more)


@dataclass(frozen=True)
class Case:
    """One setting of a workload.

    Attributes:
        workload: its name.
        title: which setting.
        network: its name.
        training: how it was trained.
        batch: samples of a call.
        bits: of the engine's weights; None for those of the network.
        layers: of the engine, in order: kernel, rate, density, times.
        density: share of the weights that live, by layer.
        correctness: of the engine.
        rows: ours first.
    """

    workload: str
    title: str
    network: str
    training: str
    batch: int
    bits: int | None
    layers: list[dict[str, Any]]
    density: dict[str, float]
    correctness: Correctness
    rows: list[Row]

    @property
    def kernels(self) -> str:
        """Tell the kernels with how many layers have each.

        Example:
            >>> case = Case("mlp", "", "", "", 1, 8, [{"kernel": "gather"}, {"kernel": "dense"}, {"kernel": "gather"}], {}, Correctness(0, 0, 1, 1, 1), [])
            >>> case.kernels
            'gather 2, dense 1'
        """
        names = [layer["kernel"] for layer in self.layers]
        return ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names))

    @property
    def rate(self) -> float | None:
        """The mean share of inputs that fire, of the layers that spikes feed."""
        known = [layer["rate"] for layer in self.layers if layer.get("rate") is not None]
        return sum(known) / len(known) if known else None
