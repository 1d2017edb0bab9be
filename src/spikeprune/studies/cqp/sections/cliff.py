"""The criticality cliff: the threshold, the sparsity that it really gives, and the accuracy."""

from itertools import pairwise

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp import published
from spikeprune.studies.cqp.sections.trap import MET
from spikeprune.studies.cqp.sections.words import TEST, Told, accuracy_line, by_share, percent
from spikeprune.studies.rows import Rows

LAST = 0.9  # the paper's last threshold
STEEP = 20.0  # points of accuracy lost from one threshold to the next that make a cliff


def cliff(told: Told) -> Section:
    """Sweep the protection threshold, as a hard constraint and in the paper's program."""
    hard = told.rows.where(part="cliff")
    asked = hard.distinct("sparsity")[0]
    program = Rows(
        row for row in told.rows.where(part="trap", program="paper", sparsity=asked) if row["tau"] in hard.distinct("tau")
    )
    forms = {"program": program, "constraint": hard}
    as_said = sum(abs(row["achieved"] - min(asked, 1 - row["protected"] / row["columns"])) <= MET for row in hard)
    text = [
        "The cause is in the protected counts. In the program the protected columns are all that survives once there is a solution: while more "
        "are protected than that, nothing is pruned at all, and the cliff is the step from no solution to one. Under the hard constraint the "
        f"sparsity is the smaller of s and 1 − p/n (in {as_said} of {len(hard)} trials): a low threshold keeps accuracy by pruning less than was asked.",
    ]  # fmt: skip
    return Section(
        "cliff",
        "The criticality cliff",
        claims=[_falls(forms, asked), _constant(forms, asked), _really(hard, asked)],
        text=text,
        tables=[_table(hard, program)],
        plots=[_plot(told, forms, asked)],
    )


def _falls(forms: dict[str, Rows], asked: float) -> Claim:
    steps = {name: [_steepest(rows.where(seed=seed)) for seed in rows.distinct("seed")] for name, rows in forms.items()}
    said = []
    for name, rows in forms.items():
        taus = [tau for tau in sorted(rows.distinct("tau")) if tau <= LAST]
        first, last = (rows.where(tau=tau).percent("accuracy") for tau in (taus[0], taus[-1]))
        drop = Spread.of(points for _, points in steps[name])
        where = ", ".join(f"{tau:g}" for tau, _ in steps[name])
        said.append(f"{name}: {first:.1f} to {last:.1f}, steepest step {drop:.0f} points, to τ = {where}")
    return Claim(
        f"Accuracy falls off a cliff as τ rises to {LAST:g}, at {percent(asked)}",
        "87.0 to 14.4 (synthetic); notebooks: 98.1 to 8.6 (MNIST, program), 89.3 to 46.6 (Fashion-MNIST, constraint)",
        "; ".join(said),
        by_share([Spread.of(points for _, points in found).mean >= STEEP for found in steps.values()]),
        f"{STEEP:.0f} points are lost from one threshold to the next, 0.1 apart, in the mean of the seeds' steepest steps, in each form",
    )


def _constant(forms: dict[str, Rows], asked: float) -> Claim:
    missed = {name: max(abs(row["achieved"] - asked) for row in rows) for name, rows in forms.items()}
    return Claim(
        f"The sparsity is {percent(asked)} at every threshold",
        f"{percent(asked)} is the target",
        "; ".join(f"{name}: missed by up to {100 * most:.0f} points" for name, most in missed.items()),
        by_share([most <= MET for most in missed.values()]),
        f"never missed by more than {percent(MET)}, in each form",
    )


def _really(hard: Rows, asked: float) -> Claim:
    met = [tau for tau in sorted(hard.distinct("tau")) if all(abs(row["achieved"] - asked) <= MET for row in hard.where(tau=tau))]
    level = [hard.where(tau=tau).percent("accuracy").mean for tau in met]
    here = (
        f"constraint, τ = {met[0]:g} to {met[-1]:g}: between {min(level):.1f} and {max(level):.1f}"
        if met
        else "met at no threshold"
    )
    return Claim(
        f"Where {percent(asked)} is really met, raising the threshold still costs accuracy like that",
        "not separated",
        here,
        by_share([max(level) - min(level) >= STEEP] if len(met) > 1 else []),
        f"mean accuracies at these thresholds differ by {STEEP:.0f} points",
    )


def _steepest(rows: Rows) -> tuple[float, float]:
    """Give the threshold up to 0.9 at which one seed's accuracy has fallen most since the one before, and by how many points."""
    at = {row["tau"]: 100 * row["accuracy"] for row in rows if row["tau"] <= LAST}
    return max(((high, at[low] - at[high]) for low, high in pairwise(sorted(at))), key=lambda step: step[1])


def _table(hard: Rows, program: Rows) -> Table:
    found = []
    for tau in sorted(hard.distinct("tau")):
        one, other = hard.where(tau=tau), program.where(tau=tau)
        cells = [
            f"{one.spread('protected'):.0f}",
            *(f"{one.percent(x):.1f}" for x in ("achieved", "critical_removed", "accuracy")),
        ]
        cells += [f"{other.percent(x):.1f}" for x in ("achieved", "accuracy")] if len(other) else ["-", "-"]
        found.append((f"{tau:g}", *cells))
    titles = ("τ", "protected columns", "constraint: sparsity %", "criticality removed %", "accuracy %", "program: sparsity %", "accuracy %")  # fmt: skip
    return Table(titles, found, f"{TEST} No fine-tuning; α = 1 in the constraint form, as in the notebooks.", "Both forms")


def _plot(told: Told, forms: dict[str, Rows], asked: float) -> Plot:
    hard, x = forms["constraint"], "threshold τ"
    references = _references(told.data)
    accuracy = [accuracy_line(name, rows, "tau") for name, rows in forms.items()]
    sparsity = [Line(name, rows.series("tau", "achieved", y_factor=100)) for name, rows in forms.items()]
    goal = Line("asked", {tau: [100 * asked] for tau in sorted(hard.distinct("tau"))}, reference=True)
    panels = [
        Panel([*accuracy, *references], x, "accuracy %", "Accuracy", level=told.level),
        Panel([*sparsity, goal], x, "sparsity %", "Achieved sparsity of the columns"),
        Panel([Line("protected", hard.series("tau", "protected"))], x, "columns", f"Protected columns, of {hard.distinct('columns')[0]}"),
    ]  # fmt: skip
    words = "Accuracy, achieved sparsity and protected columns against the threshold, without fine-tuning."
    words += " Grey, above: the author's notebook, of its own training." * bool(references)
    return Plot(curves("cliff", "The criticality cliff", panels), words)


def _references(data: str) -> list[Line]:
    values = {"mnist": ("program, notebook", published.QP_CLIFF), "fashion-mnist": ("constraint, notebook", published.CONSTRAINT_CLIFF)}  # fmt: skip
    if data not in values:
        return []
    label, found = values[data]
    return [Line(label, {round(0.1 * (i + 1), 1): [value] for i, value in enumerate(found)}, reference=True)]
