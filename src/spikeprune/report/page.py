"""One self-contained HTML page: words, tables and figures in a single file that asks the network for nothing.

The page needs no script. Every text is escaped by the template; only the figures, whose text is escaped where they are
drawn, go in as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from spikeprune.errors import MeasureError, MissingExtra
from spikeprune.report.bars import density_scale, energy_split, layer_densities
from spikeprune.report.compare import CAPTION, TITLES, Comparison
from spikeprune.report.cost import Report
from spikeprune.report.drawing import Look, looks, order
from spikeprune.report.figures import accuracy_curve, spike_rates
from spikeprune.report.findings import DENSE, RULE, findings
from spikeprune.report.outcome import Outcome
from spikeprune.report.tables import Table, cost_table, measured, remarks, totals

Verdict = Literal["reproduced", "partly", "refuted", "not tested"]


@dataclass(frozen=True)
class Plot:
    """A figure and what it shows, in words; a wide one, and one that stands alone, has the words beside it."""

    svg: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim of a paper: what it says, the paper's number, ours, what we hold of it, and the rule that the verdict follows.

    Raises:
        MeasureError: the verdict is none that the page knows.
    """

    text: str
    paper: str
    here: str
    verdict: Verdict
    rule: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise MeasureError(
                f"the verdict on {self.text!r} is {self.verdict!r}, but must be one of {', '.join(get_args(Verdict))}."
            )


@dataclass(frozen=True)
class Section:
    """What is said of one group of networks, or of one experiment of a paper; its fields in the order of the page."""

    anchor: str
    title: str
    claims: Sequence[Claim] = ()
    text: Sequence[str] = ()
    tiles: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, str, str]] = ()
    rule: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    remarks: Sequence[str] = ()
    details: Sequence[Table] = ()
    details_title: str = "Numbers of each layer"
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def tally(self) -> str:
        """Count the verdicts, as in "2 reproduced, 1 refuted"."""
        given = [claim.verdict for claim in self.claims]
        return ", ".join(f"{given.count(verdict)}\u00a0{verdict}" for verdict in get_args(Verdict) if verdict in given)


def comparison_page(comparison: Comparison) -> str:
    """Lay out a comparison, a section a group.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    groups = comparison.groups()
    styles = looks(label for group in groups.values() for label in group)
    sections = []
    for i, (name, group) in enumerate(groups.items()):
        table = Table(TITLES, comparison.rows(name), CAPTION, "Results")
        sections.append(_group(f"group-{i}", name, group, table, comparison.notes.get(name, {}), styles))
    lead = "Networks are compared within a group, never across groups."
    return render("Pruning methods compared", sections, lead=lead, nav="Groups")


def report_page(report: Report) -> str:
    """Lay out the cost of one network.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    group = {"this network": [report]}
    section = Section(
        "network",
        f"T = {report.timesteps} timesteps, mean of {report.samples:,} samples",
        tiles=totals(report),
        tables=[cost_table([report], "Layers")],
        plots=_cost_plots("network", group, looks(group)),
        remarks=remarks(group),
        notes=measured(group),
    )
    return render("Cost of a spiking network", [section])


def render(
    title: str,
    sections: Sequence[Section],
    *,
    intro: str = "",
    lead: str = "",
    nav: str = "Sections",
    footer: Mapping[str, str] | None = None,
) -> str:
    """Fill the page's template; equal sections give equal text.

    Args:
        title: of the page.
        sections: from top to bottom, with anchors that differ.
        intro: below the title; an empty line starts a new paragraph.
        lead: above the list of sections, which stands where there are several.
        nav: what a screen reader calls that list.
        footer: facts at the end of the page, as versions and machines.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtra.of("jinja2", "recipes", "the HTML report") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spikeprune.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    template = environment.get_template("page.html")
    paragraphs = [part.strip() for part in intro.split("\n\n") if part.strip()]
    return template.render(title=title, sections=sections, intro=paragraphs, lead=lead, nav=nav, footer=footer or {}) + "\n"


def _group(
    anchor: str,
    name: str,
    group: Mapping[str, Sequence[Outcome]],
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
        facts=[(label, styles[label].color, _unbroken(sentence)) for label, sentence in findings(group)],
        rule=RULE if len(group) > 1 and len(seeds) > 1 else "",
        tables=[table],
        plots=plots + _cost_plots(anchor, reports, styles),
        remarks=remarks(reports),
        details=[cost_table(found, label) for label, found in reports.items()],
        notes={**notes, "seeds": ", ".join(map(str, seeds)), **measured(reports)},
    )


def _cost_plots(anchor: str, group: Mapping[str, Sequence[Report]], styles: Mapping[str, Look]) -> list[Plot]:
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


def _curve_caption(group: Mapping[str, Sequence[Outcome]]) -> str:
    shifted = " Points are set side by side where they would hide each other." if len(group) > 2 else ""
    line = " The black line is the dense network." if DENSE in group else ""
    return (
        f"Accuracy on the validation split at each target sparsity{_over(group)}. Above, after fine-tuning; below, right after pruning, "
        f"on a scale of its own.{line}{shifted}"
    )


def _over(group: Mapping[str, Sequence[Any]]) -> str:
    counts = sorted({len(found) for found in group.values()})
    if counts == [1]:
        return "; one seed" if len(group) > 1 else ""
    return f"; mean ± sample standard deviation of {' to '.join(str(n) for n in {counts[0]: 0, counts[-1]: 0})} seeds"


def _unbroken(sentence: str) -> str:
    """Keep a number with its unit and its spread on one line."""
    return sentence.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0").replace(" nJ", "\u00a0nJ")
