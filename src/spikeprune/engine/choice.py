"""Which kernel a layer runs with, and why."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

ROUNDS = 5
BUDGET = 20_000_000  # nanoseconds that the rounds of one candidate may take


@dataclass
class Choice:
    """What was chosen for a layer.

    Attributes:
        number: of the operation.
        name: of the layer.
        kernel: what runs it.
        rate: share of its inputs that fired in the example; None if it is not fed by spikes.
        density: share of its weights that are not 0; None if no kernel takes it.
        predicted: microseconds of a run by the laws, by kernel.
        measured: microseconds of a run on the example, by kernel, of those that were tried.
        note: why there was no choice, or "".
    """

    number: int
    name: str
    kernel: str
    rate: float | None = None
    density: float | None = None
    predicted: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    note: str = ""


def microseconds(run: Callable[[], None]) -> float:
    """Measure the processor time of this thread for a call: the least of some rounds, after one that counts for nothing."""
    run()
    best, spent = float("inf"), 0
    for _ in range(ROUNDS):
        start = time.thread_time_ns()
        run()
        took = time.thread_time_ns() - start
        best, spent = min(best, took / 1000), spent + took
        if spent > BUDGET:
            break
    return best


def table(choices: list[Choice]) -> str:
    """Tell the choices as a table of text."""
    rows = [("layer", "kernel", "inputs firing", "weights alive", "predicted us", "measured us", "why")]
    for one in choices:
        share = (_percent(one.rate), _percent(one.density))
        rows.append((one.name, one.kernel, *share, _times(one.predicted, one.kernel), _times(one.measured, one.kernel), one.note))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _times(found: dict[str, float], kernel: str) -> str:
    """The chosen one first, then the others."""
    order = sorted(found, key=lambda name: (name != kernel, found[name]))
    told = {name: f"{took:,.0f}" if took >= 10 else f"{took:.1f}" for name, took in found.items()}
    return ", ".join(told[name] if name == kernel else f"{name} {told[name]}" for name in order)
