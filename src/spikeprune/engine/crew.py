"""Threads that share a network: samples of a batch on each, or a layer's outputs; and a clock for what that gains."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import cycle
from statistics import median
from typing import TypeVar, final

import torch

from spikeprune.runtime.meeting import give_way, meeting
from spikeprune.runtime.program import Program

ROUNDS, BUDGET = 15, 100_000_000  # of measuring, the second in nanoseconds
GAIN = 0.9
"""Sharing must take less than this share of the time on one thread: others may use the processors as well now and then."""
NOBODY = 1 << 62  # as a count of threads that have come: none waits for more

One = TypeVar("One")
Found = TypeVar("Found")


@final
class Crew:
    """Some threads, of which the caller's is one.

    Args:
        threads: how many, 2 or more.

    Example:
        >>> Crew(2).each(str, [1, 2, 3])
        ['1', '2', '3']
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._begin()

    def _begin(self) -> None:
        self._process, self._pools = (
            os.getpid(),
            [ThreadPoolExecutor(1) for _ in range(self.threads - 1)],
        )  # each call has its own

    def each(
        self, call: Callable[[One], Found], items: Iterable[One], release: Callable[[], object] | None = None
    ) -> list[Found]:
        """Call a function with all items at once, the first of them on the caller's own thread.

        Args:
            call: the function.
            items: one or more; no more than threads if calls wait for each other.
            release: lets the other calls end if the caller is stopped.
        """
        if self._process != os.getpid():
            self._begin()  # a process that was forked has none of its parent's threads
        first, *others = items
        started = list[Future[Found]]()
        try:
            started += (pool.submit(call, one) for pool, one in zip(cycle(self._pools), others, strict=False))
            found = call(first)
            wait(started)
        except BaseException:
            if release is not None:
                release()
            wait(started)  # none may write when the next call begins
            raise
        return [found, *(one.result() for one in started)]


@final
class Lanes:
    """Programs for each thread of a crew, which wait for each other where one needs what another made."""

    def __init__(self, crew: Crew) -> None:
        self._crew, self._programs = crew, [Program() for _ in range(crew.threads)]
        self._count, self._meetings = torch.zeros(1, dtype=torch.int64), 0
        self._alone: bool | None = None  # what came last

    def alone(self, program: Program) -> None:
        """Put at the end what the caller's thread does, after all before it."""
        if self._alone is False:
            self._meet()
        self._programs[0].join(program)
        self._alone = True

    def share(self, programs: Sequence[Program]) -> None:
        """Put at the end what threads do at once, after all before it."""
        if self._alone is not None:
            self._meet()
        for lane, program in zip(self._programs, programs, strict=False):  # some threads may have nothing to do
            lane.join(program)
        self._alone = False

    def run(self) -> None:
        """Run everything."""
        for lane in self._programs:
            lane.ready()
        self._count.zero_()
        self._crew.each(Program.run, self._programs, lambda: self._count.fill_(NOBODY))

    def _meet(self) -> None:
        self._meetings += 1
        for lane in self._programs:
            lane.add(meeting(), self._count, self._meetings * len(self._programs), give_way())


def usual(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Measure microseconds on the wall of calls that take turns: the median of some rounds each, after one that counts for nothing."""
    took: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    begun = time.perf_counter_ns()
    for _ in range(ROUNDS):
        for times, run in zip(took, runs, strict=True):
            start = time.perf_counter_ns()
            run()
            times.append((time.perf_counter_ns() - start) / 1000)
        if time.perf_counter_ns() - begun > BUDGET:
            break
    return [median(times) for times in took]
