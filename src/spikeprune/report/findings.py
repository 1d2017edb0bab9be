"""What the numbers of a group say: mean and spread over seeds, and sentences that claim no more than the spread allows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from spikeprune.report.outcome import Outcome

DENSE = "dense"
RULE = (
    "Differences are taken seed by seed, between networks that started from the same dense one. Within the spread: their mean is "
    "no larger than their sample standard deviation, so the order of the two may be chance. Beyond the spread: it is larger. Neither "
    "is a test of significance."
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

    @property
    def clear(self) -> bool | None:
        """Whether a difference is larger than its deviation; None for a single value."""
        return None if self.deviation is None else abs(self.mean) > self.deviation

    def __format__(self, spec: str) -> str:
        text = format(self.mean, spec)
        return text if self.deviation is None else f"{text} ± {format(self.deviation, spec.replace('+', ''))}"


def findings(group: Mapping[str, Sequence[Outcome]]) -> list[tuple[str, str]]:
    """Say in one sentence a network what it came to: the dense one first, then by test accuracy at the same sparsity.

    Args:
        group: label -> its outcomes, one a seed; "dense" is the network before pruning.

    Returns:
        (label, sentence) pairs.
    """
    accuracy = {label: {outcome.seed: 100 * outcome.accuracy for outcome in found} for label, found in group.items()}
    budgets: dict[float, list[str]] = {}
    for label in sorted((name for name in group if name != DENSE), key=lambda name: -mean(accuracy[name].values())):
        budgets.setdefault(group[label][0].sparsity, []).append(label)
    said = [(DENSE, _dense(group[DENSE]))] if DENSE in group else []
    for sparsity in sorted(budgets):
        labels = budgets[sparsity]
        said += [
            (label, f"{_reached(label, accuracy)}; {_standing(label, labels, accuracy)}{_cost(group, label)}") for label in labels
        ]
    return said


def gap(own: Mapping[int, float], other: Mapping[int, float]) -> Spread | None:
    """Take the difference of two methods seed by seed; None where they share no seed.

    Example:
        >>> f"{gap({0: 95.0, 1: 96.0}, {0: 92.0, 1: 91.0}):+.1f}"
        '+4.0 ± 1.4'
    """
    shared = own.keys() & other.keys()
    return Spread.of(own[seed] - other[seed] for seed in sorted(shared)) if shared else None


def _dense(found: Sequence[Outcome]) -> str:
    accuracy = Spread.of(100 * outcome.accuracy for outcome in found)
    synops = Spread.of(outcome.report.synops_effective for outcome in found)
    energy = Spread.of(outcome.report.energy_pj / 1000 for outcome in found)
    return f"{accuracy:.2f} % test accuracy before pruning, with {synops:,.0f} SynOps (effective) and {energy:,.1f} nJ a sample."


def _reached(label: str, accuracy: Mapping[str, Mapping[int, float]]) -> str:
    own = f"{Spread.of(accuracy[label].values()):.2f} % test accuracy"
    return own if DENSE not in accuracy else f"{own}, {_distance(accuracy[label], accuracy[DENSE], DENSE)}"


def _standing(label: str, labels: Sequence[str], accuracy: Mapping[str, Mapping[int, float]]) -> str:
    if len(labels) == 1:
        return "the only method at this sparsity"
    if label == labels[0]:
        gaps = {other: gap(accuracy[label], accuracy[other]) for other in labels[1:]}
        close = [other for other, found in gaps.items() if found is not None and found.clear is False]
        best = f"the highest mean of {len(labels)} methods at this sparsity"
        return f"{best}, with {' and '.join(close)} within the spread" if close else best
    return _distance(accuracy[label], accuracy[labels[0]], labels[0])


def _distance(own: Mapping[int, float], other: Mapping[int, float], name: str) -> str:
    found = gap(own, other)
    if found is None:
        return f"no seed shared with {name}, so no difference to it"
    size = Spread(abs(found.mean), found.deviation, found.n)
    trust = (
        "one seed, so no spread to judge it by" if found.clear is None else f"{'beyond' if found.clear else 'within'} the spread"
    )
    return f"{size:.2f} points {'above' if found.mean > 0 else 'below'} {name} ({trust})"


def _cost(group: Mapping[str, Sequence[Outcome]], label: str) -> str:
    reports = [outcome.report for outcome in group[label]]
    density = f". Density {Spread.of(100 * report.density for report in reports):.2f} %"
    dense = [outcome.report for outcome in group.get(DENSE, ())]
    if not dense or not all(report.synops_effective and report.energy_pj for report in dense):
        return f"{density}."
    synops = mean(report.synops_effective for report in reports) / mean(report.synops_effective for report in dense)
    energy = mean(report.energy_pj for report in reports) / mean(report.energy_pj for report in dense)
    return f"{density}, {100 * synops:.1f} % of the dense network's SynOps (effective) and {100 * energy:.1f} % of its energy."
