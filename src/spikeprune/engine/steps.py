"""What a compiled network does, in its order: native programs, some of them shared by threads, and between them what torch runs."""

from collections.abc import Callable
from typing import final

from spikeprune.engine.crew import Crew, Lanes
from spikeprune.runtime.program import Program

Shared = tuple[Program, ...]
Step = Program | Shared | Callable[[], None]


@final
class Steps:
    """Programs and functions, run one after the other; native calls that follow each other are one.

    Attributes:
        torch: how many functions there are.

    Args:
        crew: whose threads share what is to be shared; None for nothing such.

    Example:
        >>> steps, seen = Steps(), []
        >>> steps.then(lambda: seen.append("torch"))
        >>> steps.run()
        >>> seen
        ['torch']
    """

    def __init__(self, crew: Crew | None = None) -> None:
        self._steps: list[Step] = []
        self._crew, self._ready, self.torch = crew, list[Callable[[], None]](), 0

    def then(self, *steps: Step) -> None:
        """Put some at the end: a program, programs that the crew's threads run at once, or a function."""
        self._steps += (step for step in steps if not (isinstance(step, Program) and not len(step)))
        self.torch = sum(callable(step) for step in self._steps)
        self._ready.clear()

    def join(self, other: "Steps") -> None:
        """Put another's at the end."""
        self.then(*other._steps)

    def run(self) -> None:
        """Run everything; the first time calls are put together."""
        if not self._ready:
            self._ready += self._together()
        for run in self._ready:
            run()

    def _together(self) -> list[Callable[[], None]]:
        """Make one of native steps that follow each other."""
        found: list[Callable[[], None]] = []
        row: Program | Lanes | None = None
        shares = any(isinstance(step, tuple) for step in self._steps)
        for step in self._steps:
            if isinstance(step, Program | tuple):
                if row is None:
                    row = Lanes(self._crew) if shares and self._crew is not None else Program()
                    found.append(row.run)
                _add(row, step)
            else:
                row = None
                found.append(step)
        return found


def _add(row: Program | Lanes, step: Program | Shared) -> None:
    if isinstance(row, Lanes):
        row.share(step) if isinstance(step, tuple) else row.alone(step)
    else:
        assert isinstance(step, Program), "programs are shared without a crew"
        row.join(step)
