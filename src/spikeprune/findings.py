"""What the numbers of a group say: mean and spread over seeds, and sentences that claim no more than the spread allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikeprune.compare import Outcome

DENSE = "dense"
RULE = (
    "Within the spread: the ranges of mean ± one sample standard deviation overlap, so the order of the two may be chance. "
    "Beyond the spread: they do not. Neither is a test of significance."
)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of n values; no deviation for one.

    Example:
        >>> f"{Spread.of([1.0, 2.0, 3.0]):.1f}", f"{Spread.of([1.0]):.1f}"
        ('2.0 ± 1.0', '1.0')
    """

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Summarize values, at least one."""
        values = list(values)
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))

    def near(self, other: "Spread") -> bool | None:
        """Tell whether the ranges of mean ± deviation overlap; None where one of the two has no deviation."""
        if self.deviation is None or other.deviation is None:
            return None
        return abs(self.mean - other.mean) <= self.deviation + other.deviation

    def __format__(self, spec: str) -> str:
        text = format(self.mean, spec)
        return text if self.deviation is None else f"{text} ± {format(self.deviation, spec)}"


def findings(group: "Mapping[str, Sequence[Outcome]]") -> list[tuple[str, str]]:
    """Say in one sentence a network what it came to: the dense one first, then by test accuracy at the same sparsity.

    Args:
        group: label -> its outcomes, one a seed; "dense" is the network before pruning.

    Returns:
        (label, sentence) pairs.
    """
    accuracy = {label: Spread.of(100 * outcome.accuracy for outcome in found) for label, found in group.items()}
    budgets: dict[float, list[str]] = {}
    for label in sorted((name for name in group if name != DENSE), key=lambda name: -accuracy[name].mean):
        budgets.setdefault(group[label][0].sparsity, []).append(label)
    said = [(DENSE, _dense(group[DENSE], accuracy[DENSE]))] if DENSE in group else []
    for sparsity in sorted(budgets):
        labels = budgets[sparsity]
        said += [
            (label, f"{_reached(label, accuracy)}; {_standing(label, labels, accuracy)}{_cost(group, label)}") for label in labels
        ]
    return said


def _dense(found: "Sequence[Outcome]", accuracy: Spread) -> str:
    synops = Spread.of(outcome.report.synops_effective for outcome in found)
    energy = Spread.of(outcome.report.energy_pj / 1000 for outcome in found)
    return f"{accuracy:.2f} % test accuracy before pruning, with {synops:,.0f} SynOps (effective) and {energy:,.1f} nJ a sample."


def _reached(label: str, accuracy: Mapping[str, Spread]) -> str:
    own = f"{accuracy[label]:.2f} % test accuracy"
    return own if DENSE not in accuracy else f"{own}, {_distance(accuracy[label], accuracy[DENSE], DENSE)}"


def _standing(label: str, labels: Sequence[str], accuracy: Mapping[str, Spread]) -> str:
    if len(labels) == 1:
        return "the only method at this sparsity"
    if label == labels[0]:
        close = [other for other in labels[1:] if accuracy[other].near(accuracy[label])]
        best = f"the highest mean of {len(labels)} methods at this sparsity"
        return f"{best}, with {' and '.join(close)} within the spread" if close else best
    return _distance(accuracy[label], accuracy[labels[0]], labels[0])


def _distance(own: Spread, other: Spread, name: str) -> str:
    gap, near = own.mean - other.mean, own.near(other)
    trust = "one seed, so no spread to judge it by" if near is None else f"{'within' if near else 'beyond'} the spread"
    return f"{abs(gap):.2f} points {'above' if gap > 0 else 'below'} {name} ({trust})"


def _cost(group: "Mapping[str, Sequence[Outcome]]", label: str) -> str:
    reports = [outcome.report for outcome in group[label]]
    density = f". Density {Spread.of(100 * report.density for report in reports):.2f} %"
    dense = [outcome.report for outcome in group.get(DENSE, ())]
    if not dense or not all(report.synops_effective and report.energy_pj for report in dense):
        return f"{density}."
    synops = mean(report.synops_effective for report in reports) / mean(report.synops_effective for report in dense)
    energy = mean(report.energy_pj for report in reports) / mean(report.energy_pj for report in dense)
    return f"{density}, {100 * synops:.1f} % of the dense network's SynOps (effective) and {100 * energy:.1f} % of its energy."
