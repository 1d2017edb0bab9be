"""Times of contestants that take turns in one process: what drifts with the machine hits all of them alike.

Every round runs each contestant once, in an order that turns, often enough to be measurable. Two clocks: the processor time of
the process, all its threads together, and the time on the wall. A ratio is that of two times of one round.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Clock = Literal["cpu", "wall"]
CLOCKS_AGREE = 0.15
"""By how much the ratio by the wall clock may differ from that by processor time, as a share of it."""


@dataclass(frozen=True)
class Times:
    """What one contestant took, in seconds a call, a value a round.

    Attributes:
        cpu: processor time of the process.
        wall: time on the wall.
    """

    cpu: tuple[float, ...]
    wall: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """How many times as long one takes as another.

    Attributes:
        median: of the ratios of all rounds.
        least: of them.
        most: of them.
        of_minima: the least time of one over the least of the other.
        of_medians: the same of medians.
        wall: the median of the ratios by the wall clock.

    Example:
        >>> Ratio.of(Times((2.0, 4.0), (2.0, 4.0)), Times((1.0, 1.0), (1.0, 1.0)))
        Ratio(median=3.0, least=2.0, most=4.0, of_minima=2.0, of_medians=3.0, wall=3.0)
    """

    median: float
    least: float
    most: float
    of_minima: float
    of_medians: float
    wall: float

    @staticmethod
    def of(slow: Times, fast: Times) -> "Ratio":
        """Divide the times of one by those of another, round by round."""
        rounds = [a / b for a, b in zip(slow.cpu, fast.cpu, strict=True)]
        return Ratio(
            median=statistics.median(rounds),
            least=min(rounds),
            most=max(rounds),
            of_minima=min(slow.cpu) / min(fast.cpu),
            of_medians=statistics.median(slow.cpu) / statistics.median(fast.cpu),
            wall=statistics.median([a / b for a, b in zip(slow.wall, fast.wall, strict=True)]),
        )

    @property
    def clocks_agree(self) -> bool:
        """Whether both clocks tell the same."""
        return abs(self.wall - self.median) <= CLOCKS_AGREE * self.median


def race(contestants: Mapping[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, Times]:
    """Time contestants in turns.

    Args:
        contestants: what to call, by name.
        rounds: how many, 1 or more.
        seconds: how long the calls of a contestant in a round should take together, about; one call at least.

    Returns:
        the times of each, a round an entry.

    Example:
        >>> times = race({"a": lambda: None, "b": lambda: sum(range(1000))}, rounds=3, seconds=0.001)
        >>> sorted(times), len(times["b"].cpu)
        (['a', 'b'], 3)
    """
    calls = {name: _calls(run, seconds) for name, run in contestants.items()}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in turned(list(contestants), turn):
            found[name].append(_timed(contestants[name], calls[name]))
    return {name: Times(*zip(*pairs, strict=True)) for name, pairs in found.items()}


def turned(names: Sequence[str], turn: int) -> list[str]:
    """Give names in the order of a round: the first of a round is the second of the one before.

    Example:
        >>> turned(["a", "b", "c"], 1)
        ['b', 'c', 'a']
    """
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def _calls(run: Callable[[], object], seconds: float) -> int:
    """How many calls fill so many seconds; two calls before warm up."""
    run()
    _, first = _timed(run, 1)
    # A first call may still be a slow one: what is short is measured again.
    _, wall = _timed(run, 3) if first < seconds / 4 else (first, first)
    return max(1, round(seconds / max(wall, 1e-7)))


def _timed(run: Callable[[], object], calls: int) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return max(cpu, 1e-9) / calls, max(wall, 1e-9) / calls
