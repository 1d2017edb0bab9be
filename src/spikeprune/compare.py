"""Several networks side by side: what each run came to, grouped over seeds, with the spread shown.

An `Outcome` is one network of one run, a `Comparison` many of them. Networks are compared only where their budget is the
same: outcomes carry the description of their budget, and each budget is a group of its own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spikeprune.findings import RULE, Spread, findings
from spikeprune.report import Report, table


@dataclass(frozen=True)
class Point:
    """One stop on the way to the target: accuracies on the validation split, as fractions."""

    sparsity: float
    pruned: float
    tuned: float


@dataclass(frozen=True)
class Outcome:
    """One network at the end of a run.

    Attributes:
        group: what was the same for all that may be compared: recipe, data, network, budget.
        label: the method, or "dense" for the network before pruning.
        seed: of the run.
        accuracy, validation: on the test set, touched once, and on the validation split; fractions.
        sparsity: what was asked of the pruned layers; 0 for the dense network.
        weights, kept: weights of the layers that the run prunes, and how many of them are kept.
        revived: dead weights that are not zero at the end.
        curve: validation accuracy at each target on the way.
        seconds: wall time of the pruning and fine-tuning (of the training, for "dense").
        report: size and cost, measured on test samples.
    """

    group: str
    label: str
    seed: int
    accuracy: float
    validation: float
    sparsity: float
    weights: int
    kept: int
    revived: int
    curve: tuple[Point, ...]
    seconds: float
    report: Report

    def to_dict(self) -> dict[str, Any]:
        """Give the outcome as JSON values."""
        own = {k: v for k, v in vars(self).items() if k not in ("curve", "report")}
        return own | {"curve": [asdict(point) for point in self.curve], "report": self.report.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Outcome":
        """Build the outcome that `to_dict` described."""
        rest = {k: v for k, v in data.items() if k not in ("curve", "report")}
        curve = tuple(Point(**point) for point in data["curve"])
        return cls(**rest, curve=curve, report=Report.from_dict(data["report"]))


@dataclass(frozen=True)
class Comparison:
    """Outcomes of one or more runs, in the order in which they came.

    Attributes:
        outcomes: the networks.
        notes: facts that hold for a group, by group: data, budget, versions.
    """

    outcomes: tuple[Outcome, ...]
    notes: Mapping[str, Mapping[str, str]]

    @classmethod
    def joined(cls, parts: Iterable["Comparison"]) -> "Comparison":
        """Put comparisons together; a network that two of them hold (same budget, label and seed) is taken once."""
        outcomes: dict[tuple[str, str, int], Outcome] = {}
        notes: dict[str, Mapping[str, str]] = {}
        for part in parts:
            notes = {**part.notes, **notes}
            for outcome in part.outcomes:
                outcomes.setdefault((outcome.group, outcome.label, outcome.seed), outcome)
        return cls(tuple(outcomes.values()), notes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Comparison":
        """Build the comparison that `to_json` described."""
        return cls(tuple(Outcome.from_dict(outcome) for outcome in data["outcomes"]), data["notes"])

    def groups(self) -> dict[str, dict[str, list[Outcome]]]:
        """Sort the outcomes: group -> label -> one a seed."""
        groups: dict[str, dict[str, list[Outcome]]] = {}
        for outcome in self.outcomes:
            groups.setdefault(outcome.group, {}).setdefault(outcome.label, []).append(outcome)
        return groups

    def rows(self, group: str) -> list[tuple[str, ...]]:
        """Give the table of one group, a row a method; `TITLES` names the columns."""
        return [_row(label, found) for label, found in self.groups()[group].items()]

    def to_json(self) -> str:
        """Give all outcomes and notes as indented JSON."""
        data = {
            "notes": {k: dict(v) for k, v in self.notes.items()},
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
        }
        return json.dumps(data, indent=2) + "\n"

    def to_markdown(self) -> str:
        """Give a table a group, and the notes under it."""
        parts = []
        for group, labels in self.groups().items():
            said = "\n".join(f"- **{label}**: {sentence}" for label, sentence in findings(labels))
            facts = "\n".join(f"- {key}: {value}" for key, value in self.notes.get(group, {}).items())
            parts += [f"## {group}", said, RULE, table(TITLES, self.rows(group)), CAPTION, facts]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_html(self) -> str:
        """Give one self-contained page with tables and figures.

        Raises:
            MissingExtra: jinja2 or matplotlib is not installed.
        """
        from spikeprune.page import comparison_page

        return comparison_page(self, TITLES, CAPTION)


TITLES = (
    "method",
    "seeds",
    "test accuracy %",
    "kept",
    "density %",
    "SynOps effective",
    "SynOps dense",
    "energy nJ",
    "time s",
    "revived",
)
CAPTION = (
    "Mean ± sample standard deviation over seeds. Kept: weights that live, of those of the pruned layers. Density: non-zero weights over the weights of all synaptic layers (biases not counted). "
    "SynOps and energy: per sample, over all timesteps; effective = non-zero inputs x non-zero fan-out, dense = non-zero inputs x full "
    "fan-out. Time: pruning and fine-tuning (training, for dense). Revived: dead weights that are not zero at the end."
)


def _row(label: str, found: list[Outcome]) -> tuple[str, ...]:
    reports = [outcome.report for outcome in found]
    return (
        label,
        str(len(found)),
        f"{Spread.of(100 * outcome.accuracy for outcome in found):.2f}",
        " or ".join(sorted({f"{outcome.kept:,} / {outcome.weights:,}" for outcome in found})),
        f"{Spread.of(100 * report.density for report in reports):.2f}",
        f"{Spread.of(report.synops_effective for report in reports):,.0f}",
        f"{Spread.of(report.synops_dense for report in reports):,.0f}",
        f"{Spread.of(report.energy_pj / 1000 for report in reports):,.1f}",
        f"{Spread.of(outcome.seconds for outcome in found):.1f}",
        str(sum(outcome.revived for outcome in found)),
    )
