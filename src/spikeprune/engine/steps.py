"""What a compiled network does, in its order: native programs, and between them what torch runs."""

from collections.abc import Callable
from typing import final

from spikeprune.runtime.program import Program


@final
class Steps:
    """Programs and functions, run one after the other; native calls that follow each other are one.

    Attributes:
        torch: how many functions there are.

    Example:
        >>> steps, seen = Steps(), []
        >>> steps.then(lambda: seen.append("torch"))
        >>> steps.run()
        >>> seen, steps.native
        (['torch'], 0)
    """

    def __init__(self) -> None:
        self._parts: list[Program | Callable[[], None]] = []
        self.torch = 0

    @property
    def native(self) -> int:
        """How many native calls there are, from Python."""
        return len(self._parts) - self.torch

    @property
    def bytes(self) -> int:
        """Memory that native code reads and writes."""
        return sum(part.bytes for part in self._parts if isinstance(part, Program))

    def then(self, part: Program | Callable[[], None]) -> None:
        """Put something at the end."""
        last = self._parts[-1] if self._parts else None
        if isinstance(part, Program) and isinstance(last, Program):
            last.join(part)
        else:
            self._parts.append(part)
            self.torch += not isinstance(part, Program)

    def run(self) -> None:
        """Run everything."""
        for part in self._parts:
            part.run() if isinstance(part, Program) else part()
