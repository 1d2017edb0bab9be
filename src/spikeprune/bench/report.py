"""A finished benchmark as a value: to JSON, to Markdown, and as the rows of a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spikeprune.bench.cases import Case, Row
from spikeprune.report.cost import table

TITLES = ("contestant", "time or size", "over ours", "goal", "verdict", "accuracy", "same class", "remark")
INTRO = (
    "Processor time of a call on one thread, the median of rounds in which all contestants take turns; ratios are medians of the "
    "rounds, with the least and the most. A goal is what the ratio must reach, and after the stroke a further aim. Accuracy is that of "
    "our engine in our row, of another network in its row. Same class: share of the timed batch in which a contestant names the class "
    "that the framework names."
)
QUICK = "**The quick form: tiny networks that learned next to nothing, a few calls. Its figures and verdicts mean nothing.**"


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        facts: command, machine, versions, options.
        cases: all of them, in order.
    """

    facts: dict[str, Any]
    cases: Sequence[Case]

    @property
    def right(self) -> bool:
        """Whether all engines gave right answers."""
        return all(case.correctness.right for case in self.cases)

    def to_json(self) -> str:
        """Give everything."""
        return json.dumps({**self.facts, "cases": [_case(case) for case in self.cases]}, indent=2) + "\n"

    def to_markdown(self) -> str:
        """Give a table a case."""
        parts = ["# Benchmark", INTRO, *([QUICK] if self.facts["options"]["quick"] else [])]
        for case in self.cases:
            parts += [f"## {heading(case)}", table(TITLES, [cells(row) for row in case.rows]), *lines(case)]
        parts.append("\n".join(f"- {key}: {fact(value)}" for key, value in self.facts.items()))
        return "\n\n".join(parts) + "\n"


def heading(case: Case) -> str:
    """Name a case."""
    return f"{case.workload}: {case.title}"


def cells(row: Row) -> tuple[str, ...]:
    """Give a row of a table, as `TITLES` has it."""
    goal = "" if row.goal is None else str(row.goal)
    judged = "" if row.goal is None else row.verdict
    accuracy, same = (("" if share is None else f"{share:.1%}") for share in (row.accuracy, row.same_class))
    drift = "; wall clock tells otherwise" if row.spread is not None and not row.spread.clocks_agree else ""
    return row.name, row.told, row.ratio_told, goal, judged, accuracy, same, row.note + drift


def lines(case: Case) -> list[str]:
    """Tell what stands below the table of a case."""
    rate = "" if case.rate is None else f"; on average {case.rate:.1%} of a layer's inputs fire"
    return [f"Answers {case.correctness}.", f"Network {case.network}, {case.training}. Kernels: {case.kernels}{rate}."]


def _case(case: Case) -> dict[str, Any]:
    found = asdict(case)
    found["correctness"]["right"] = case.correctness.right
    found["mean_rate"] = case.rate
    for told, row in zip(found["rows"], case.rows, strict=True):
        told["verdict"] = row.verdict
        if row.spread is not None:
            told["clocks_agree"] = row.spread.clocks_agree
    return found


def fact(value: Any) -> str:
    """Write what figures depend on in a line.

    Example:
        >>> fact({"torch": "2.0", "numpy": "2.1"}), fact(9)
        ('torch 2.0, numpy 2.1', '9')
    """
    return ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)
