"""What a report's page says in numbers and words: the cost of each layer, the totals, what is left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spikeprune.metrics import LayerCost
from spikeprune.report.cost import Report
from spikeprune.report.findings import Spread

COST_TITLES = (
    "layer",
    "kind",
    "weights",
    "non-zero",
    "density %",
    "input rate",
    "op",
    "SynOps effective",
    "SynOps dense",
    "energy nJ",
)
COST_CAPTION = (
    "Density: non-zero weights over the layer's weights. Input rate: share of inputs that are not zero, over timesteps. "
    "AC: accumulate, for layers fed by spikes; MAC: multiply-accumulate, for layers fed by real values. "
    "SynOps and energy: per sample, over all timesteps."
)
LEFT_OUT = (
    "Left out: memory traffic, membrane updates, leak, norms, biases and pooling. Counts times a table are a model of "
    "the energy, not a measurement."
)


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row, and the columns of `prose` hold words, which wrap."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    name: str
    prose: frozenset[int] = frozenset()


def totals(report: Report) -> list[tuple[str, str]]:
    """Give (number, what it is) of the whole network."""
    return [
        (f"{100 * report.density:.2f} %", f"density: {report.nonzero:,} of {report.weights:,} weights"),
        (f"{report.synops_effective:,.0f}", f"SynOps effective: {report.acs:,.0f} AC + {report.macs:,.0f} MAC"),
        (f"{report.synops_dense:,.0f}", "SynOps dense"),
        (f"{report.energy_pj / 1000:,.2f} nJ", "energy of a sample"),
    ]


def cost_table(reports: Sequence[Report], name: str) -> Table:
    """Give a row a layer, mean and deviation over the reports of one network, which have the same layers."""
    rows = [_cost_row(layers) for layers in zip(*(report.layers for report in reports), strict=True)]
    return Table(COST_TITLES, rows, COST_CAPTION, name)


def _cost_row(layers: Sequence[LayerCost]) -> tuple[str, ...]:
    first = layers[0]

    def spread(name: str, spec: str, factor: float = 1.0) -> str:
        return format(Spread.of(factor * getattr(layer, name) for layer in layers), spec)

    return (
        first.name or "(model)", first.kind, f"{first.weights:,}", spread("nonzero", ",.0f"), spread("density", ".2f", 100),
        spread("input_rate", ".4f"), "AC" if first.binary_input else "MAC", spread("synops_effective", ",.0f"),
        spread("synops_dense", ",.0f"), spread("energy_pj", ",.2f", 0.001),
    )  # fmt: skip


def remarks(group: Mapping[str, Sequence[Report]]) -> list[str]:
    """Say where the energy comes from, and what is in no number."""
    reports = [report for found in group.values() for report in found]
    said = [f"Energy: {'; '.join(_distinct(report.energy_source for report in reports))}. {LEFT_OUT}"]
    said += _distinct(report.coverage for report in reports if report.coverage)
    uncounted = _distinct(name for report in reports for name in report.uncounted)
    if uncounted:
        said.append(f"Not counted, since they belong to no Linear or Conv layer that was called: {', '.join(uncounted)}.")
    if not any(report.rates for report in reports):
        said.append("No spike rates: no neuron layer was measured.")
    return said


def measured(group: Mapping[str, Sequence[Report]]) -> dict[str, str]:
    """Give the conditions of the measurement."""
    reports = [report for found in group.values() for report in found]
    return {
        "timesteps": ", ".join(_distinct(str(report.timesteps) for report in reports)),
        "samples measured": ", ".join(_distinct(f"{report.samples:,}" for report in reports)),
        "versions": "; ".join(_distinct(", ".join(f"{k} {v}" for k, v in report.versions.items()) for report in reports)),
    }


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
