"""One self-contained HTML page: words, tables and figures in a single file that asks the network for nothing.

The page needs no script. Every text is escaped by the template; only the figures, whose text is escaped where they are
drawn, go in as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spikeprune.bars import density_scale, energy_split, layer_densities
from spikeprune.drawing import Look, looks, order
from spikeprune.errors import MissingExtra
from spikeprune.figures import accuracy_curve, spike_rates
from spikeprune.findings import DENSE, RULE, Spread, findings

if TYPE_CHECKING:
    from spikeprune.compare import Comparison, Outcome
    from spikeprune.report import Report

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
    """A table of texts; the first column names the row."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    name: str


@dataclass(frozen=True)
class Plot:
    """A figure and what it shows, in words."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """What is said of one group of networks, from top to bottom."""

    anchor: str
    title: str
    tiles: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str, str]] = ()
    rule: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    remarks: Sequence[str] = ()
    details: Sequence[Table] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


def comparison_page(comparison: "Comparison", titles: Sequence[str], caption: str) -> str:
    """Lay out a comparison, a section a group.

    Args:
        comparison: the outcomes.
        titles: of the table that `comparison.rows` fills.
        caption: what its columns mean.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    groups = comparison.groups()
    styles = looks(label for group in groups.values() for label in group)
    sections = []
    for i, (name, group) in enumerate(groups.items()):
        table = Table(titles, comparison.rows(name), caption, "Results")
        sections.append(_group(f"group-{i}", name, group, table, comparison.notes.get(name, {}), styles))
    return render("Pruning methods compared", sections)


def report_page(report: "Report") -> str:
    """Lay out the cost of one network.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    group = {"this network": [report]}
    section = Section(
        "network",
        f"T = {report.timesteps} timesteps, mean of {report.samples:,} samples",
        tiles=_totals(report),
        tables=[Table(COST_TITLES, _cost_rows([report]), COST_CAPTION, "Layers")],
        plots=_cost_plots("network", group, looks(group)),
        remarks=_remarks(group),
        notes=_measured(group),
    )
    return render("Cost of a spiking network", [section])


def render(title: str, sections: Sequence[Section]) -> str:
    """Fill the page's template; equal sections give equal text.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtra.of("jinja2", "recipes", "the HTML report") from error
    from spikeprune import __version__

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spikeprune", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    return template.render(title=title, sections=sections, version=__version__) + "\n"


def _group(
    anchor: str,
    name: str,
    group: "Mapping[str, Sequence[Outcome]]",
    table: Table,
    notes: Mapping[str, str],
    styles: Mapping[str, Look],
) -> Section:
    reports = {label: [outcome.report for outcome in group[label]] for label in order(group)}
    plots = []
    if any(outcome.curve for found in group.values() for outcome in found):
        plots.append(Plot(accuracy_curve(f"{anchor}-curve", group, styles), _curve_caption(group)))
    seeds = sorted({outcome.seed for found in group.values() for outcome in found})
    return Section(
        anchor,
        name,
        facts=[(label, styles[label].color, sentence) for label, sentence in findings(group)],
        rule=RULE if len(group) > 1 and len(seeds) > 1 else "",
        tables=[table],
        plots=plots + _cost_plots(anchor, reports, styles),
        remarks=_remarks(reports),
        details=[Table(COST_TITLES, _cost_rows(found), COST_CAPTION, label) for label, found in reports.items()],
        notes={**notes, "seeds": ", ".join(map(str, seeds)), **_measured(reports)},
    )


def _cost_plots(anchor: str, group: "Mapping[str, Sequence[Report]]", styles: Mapping[str, Look]) -> list[Plot]:
    over = (
        f"measured on test samples{_over(group)}"
        if len(group) > 1
        else f"mean of {next(iter(group.values()))[0].samples:,} samples"
    )
    plots = []
    if any(report.rates for found in group.values() for report in found):
        words = f"Spikes of a neuron at each timestep, by neuron layer; {over}. Each panel has its own scale."
        plots.append(Plot(spike_rates(f"{anchor}-rates", group, styles), words))
    axis = {"linear": "a linear axis", "log": "a logarithmic axis, whose bars do not start at 0"}[density_scale(group)]
    words = f"Density of each synaptic layer, in percent, on {axis}{_over(group)}."
    plots.append(Plot(layer_densities(f"{anchor}-density", group, styles), words))
    words = (
        f"Energy of one sample over all timesteps, split by layer: hatched layers multiply (MAC), plain ones add (AC); {over}."
    )
    return [*plots, Plot(energy_split(f"{anchor}-energy", group), words)]


def _curve_caption(group: "Mapping[str, Sequence[Outcome]]") -> str:
    line = " The black line is the dense network." if DENSE in group else ""
    return (
        f"Accuracy on the validation split at each target sparsity{_over(group)}. Above, after fine-tuning; below, right after pruning, "
        f"on a scale of its own.{line} Points are set side by side where they would hide each other."
    )


def _over(group: Mapping[str, Sequence[Any]]) -> str:
    counts = sorted({len(found) for found in group.values()})
    if counts == [1]:
        return "; one seed" if len(group) > 1 else ""
    return f"; mean ± sample standard deviation of {' to '.join(str(n) for n in {counts[0]: 0, counts[-1]: 0})} seeds"


def _totals(report: "Report") -> list[tuple[str, str]]:
    return [
        (f"{report.density:.2%}", f"density: {report.nonzero:,} of {report.weights:,} weights"),
        (f"{report.synops_effective:,.0f}", f"SynOps effective: {report.acs:,.0f} AC + {report.macs:,.0f} MAC"),
        (f"{report.synops_dense:,.0f}", "SynOps dense"),
        (f"{report.energy_pj / 1000:,.2f} nJ", "energy of a sample"),
    ]


def _cost_rows(reports: "Sequence[Report]") -> list[tuple[str, ...]]:
    return [_cost_row(layers) for layers in zip(*(report.layers for report in reports), strict=False)]


def _cost_row(layers: Sequence[Any]) -> tuple[str, ...]:
    first = layers[0]

    def spread(name: str, spec: str, factor: float = 1.0) -> str:
        return format(Spread.of(factor * getattr(layer, name) for layer in layers), spec)

    return (
        first.name or "(model)", first.kind, f"{first.weights:,}", spread("nonzero", ",.0f"), spread("density", ".2f", 100),
        spread("input_rate", ".4f"), "AC" if first.binary_input else "MAC", spread("synops_effective", ",.0f"),
        spread("synops_dense", ",.0f"), spread("energy_pj", ",.2f", 0.001),
    )  # fmt: skip


def _remarks(group: "Mapping[str, Sequence[Report]]") -> list[str]:
    reports = [report for found in group.values() for report in found]
    said = [f"Energy: {'; '.join(_distinct(report.energy_source for report in reports))}. {LEFT_OUT}"]
    uncounted = _distinct(name for report in reports for name in report.uncounted)
    if uncounted:
        said.append(f"Not counted, since they belong to no Linear or Conv layer that was called: {', '.join(uncounted)}.")
    if not any(report.rates for report in reports):
        said.append("No spike rates: no neuron layer was measured.")
    return said


def _measured(group: "Mapping[str, Sequence[Report]]") -> dict[str, str]:
    reports = [report for found in group.values() for report in found]
    return {
        "timesteps": ", ".join(_distinct(str(report.timesteps) for report in reports)),
        "samples measured": ", ".join(_distinct(f"{report.samples:,}" for report in reports)),
        "versions": "; ".join(_distinct(", ".join(f"{k} {v}" for k, v in report.versions.items()) for report in reports)),
    }


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
