"""Several networks side by side: what each run came to, grouped over seeds, with the spread shown.

A `Comparison` is many outcomes. Networks are compared only where their budget is the
same: outcomes carry the description of their budget, and each budget is a group of its own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spikeprune.errors import StorageError
from spikeprune.report.cost import table
from spikeprune.report.findings import RULE, Spread, findings
from spikeprune.report.outcome import Outcome


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
        """Put comparisons together; a network that two of them hold (same budget, label and seed) is taken once.

        Raises:
            StorageError: two of them are not the same network after all: accuracy, kept weights or SynOps differ.
        """
        outcomes: dict[tuple[str, str, int], Outcome] = {}
        notes: dict[str, Mapping[str, str]] = {}
        for part in parts:
            notes = {**part.notes, **notes}
            for outcome in part.outcomes:
                first = outcomes.setdefault((outcome.group, outcome.label, outcome.seed), outcome)
                if _numbers(first) != _numbers(outcome):
                    raise StorageError(_clash(first, outcome))
        return cls(tuple(outcomes.values()), notes)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Comparison":
        """Build the comparison that `to_json` described.

        Raises:
            StorageError: keys are missing or unknown, or of the wrong kind.
        """
        try:
            outcomes = tuple(Outcome.from_dict(outcome) for outcome in data["outcomes"])
            notes = {group: dict(facts.items()) for group, facts in data["notes"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"this is not a report that this version reads ({type(error).__name__}: {error}): it is damaged, or of another version of "
                "spikeprune. Make it anew from its run."
            ) from error
        return cls(outcomes, notes)

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
        from spikeprune.report.page import comparison_page

        return comparison_page(self)


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
    "samples/s",
    "peak MB",
    "revived",
)
DETAILS = ("SynOps dense", "time s", "samples/s", "peak MB", "revived")
"""Columns that a narrow terminal leaves to the report."""
CAPTION = (
    "Mean ± sample standard deviation over seeds. Kept: weights that live, of those of the pruned layers. Density: non-zero weights over the weights of all synaptic layers (biases not counted). "
    "SynOps and energy: per sample, over all timesteps; effective = non-zero inputs x non-zero fan-out, dense = non-zero inputs x full "
    "fan-out. Time: pruning and fine-tuning (training, for dense). Samples/s: trained on in a second of training steps, pruning and evaluation "
    "left out. Peak MB: CUDA, what PyTorch had allocated at most on the GPU; RSS, what the whole process had resident at most until then. "
    "Where neither was taken, there is a dash. Revived: dead weights that are not zero at the end."
)


def _numbers(outcome: Outcome) -> tuple[float, ...]:
    """What two runs of one network agree in; their wall time differs."""
    return outcome.accuracy, outcome.kept, outcome.report.synops_effective, outcome.report.synops_dense


def _clash(first: Outcome, second: Outcome) -> str:
    both = " and ".join(
        f"group {outcome.group!r}, label {outcome.label!r}, seed {outcome.seed} (accuracy {outcome.accuracy:.4%}, {outcome.kept:,} kept, "
        f"{outcome.report.synops_effective:,.1f} SynOps)"
        for outcome in (first, second)
    )
    return (
        f"two runs hold different networks under one name: {both}. The runs differ in something that their budget does not say, "
        "such as precision or machine; compare them apart."
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
        _throughput(found),
        _memory(found),
        str(sum(outcome.revived for outcome in found)),
    )


def _throughput(found: list[Outcome]) -> str:
    known = [outcome.throughput for outcome in found if outcome.throughput is not None]
    return f"{Spread.of(known):,.0f}" if known else "-"


def _memory(found: list[Outcome]) -> str:
    """One peak a kind of memory, should the seeds have run on different devices."""
    kinds = sorted({outcome.memory for outcome in found if outcome.memory_mb is not None})
    peaks = {kind: [outcome.memory_mb for outcome in found if outcome.memory == kind] for kind in kinds}
    return " or ".join(f"{Spread.of(x for x in peaks[kind] if x is not None):,.0f} {kind}" for kind in kinds) or "-"
