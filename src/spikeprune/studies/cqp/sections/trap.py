"""The relaxation trap: what both programs were asked for, what the closed form predicts, what rounding leaves."""

from collections.abc import Sequence

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp.sections.words import TEST, Told, by_share, percent
from spikeprune.studies.ledger import Row
from spikeprune.studies.rows import Rows

PROGRAMS = {"paper": "the paper's program", "retained": "retained importance"}
MET = 0.01  # achieved sparsity this close to what was asked counts as met
COLLAPSE, LOSS = 44.0, 20.0  # points: the paper's, and what still counts as partly
TEXT = (
    "The paper's program minimises Σ (w m)² over 0 ≤ m ≤ 1 with m ≥ 0.85 where criticality exceeds τ, and asks that at least the share s "
    "be removed. Every m costs, and the request is one-sided: so each m sits at its lower bound, the p protected columns alone survive "
    "rounding, and the sparsity is 1 − p/n, whatever s is. Where p > (n − sn)/0.85 there is no solution and nothing is pruned. Maximising "
    "what is retained, Σ w² (1 − m)², is not degenerate, but spreads the removal over many columns, and rounding at 0.5 need not meet s.",
    "An exact sort needs no rounding: it removes the units asked for, to the unit.",
)


def trap(told: Told) -> Section:
    """Hold both quadratic programs against their closed forms and against what was asked."""
    rows = told.rows.where(part="trap")
    asked = told.rows.where(part="cliff").distinct("sparsity")[0]
    others = [s for s in sorted(rows.distinct("sparsity")) if s != asked]
    return Section(
        "trap",
        "The relaxation trap",
        claims=[_missed(rows), _collapsed(told, rows), _predicted(rows)],
        text=TEXT,
        tables=[_table(rows.where(sparsity=asked), f"Asked for {percent(asked)}")],
        plots=[_plot(rows)],
        details=[_table(rows.where(sparsity=s), f"Asked for {percent(s)}") for s in others],
        details_title="Other sparsities",
    )


def _solved(rows: Rows, program: str) -> list[Row]:
    return [row for row in rows.where(program=program) if row["status"] == "solved"]


def _missed(rows: Rows) -> Claim:
    held, said = [], []
    for program, name in PROGRAMS.items():
        off = [row["overshoot"] for row in _solved(rows, program)]
        missed = [abs(x) > MET for x in off]
        held.append(2 * sum(missed) > len(off) > 0)
        span = f", {100 * min(off):+.0f} to {100 * max(off):+.0f} points off" if off else ""
        said.append(f"{name}: missed in {sum(missed)} of {len(off)} that have a solution{span}")
    none = sum(row["status"] == "infeasible" for row in rows)
    return Claim(
        "A quadratic program misses the sparsity that it is asked for, once rounded",
        "up to 12 points too many",
        f"{'; '.join(said)}; without solution: {none} of {len(rows)}",
        by_share(held),
        f"more than half of the programs with a solution are off by more than {percent(MET)}",
    )


def _collapsed(told: Told, rows: Rows) -> Claim:
    """Hold rounded programs against an exact sort at the sparsity that was asked for: less than that is the program's fault."""
    sort = told.rows.where(part="budgets", pattern="column", method="cqp", batches=0)
    exact = {(row["sparsity"], row["seed"]): row["accuracy"] for row in sort}
    lost = {
        program: [
            100 * (exact[row["sparsity"], row["seed"]] - row["accuracy"])
            for row in _solved(rows, program)
            if (row["sparsity"], row["seed"]) in exact
        ]
        for program in PROGRAMS
    }
    worst = {program: max(found, default=0.0) for program, found in lost.items()}
    return Claim(
        "Accuracy collapses below what the sparsity asked for would cost",
        f"by {COLLAPSE:.0f} points",
        "; ".join(f"{PROGRAMS[p]}: up to {points:.0f} points below an exact sort" for p, points in worst.items()),
        by_share([worst["paper"] >= LOSS, worst["paper"] >= COLLAPSE]),
        f"the paper's program falls {COLLAPSE:.0f} points (partly: {LOSS:.0f}) below CQP's columns at the same sparsity asked, in one shot",
    )


def _predicted(rows: Rows) -> Claim:
    exact = sum(not row["differing_columns"] and row["status"] == row["predicted_status"] for row in rows)
    return Claim(
        "Both outcomes follow from a closed form, without solving",
        "not in the paper",
        f"same outcome and same columns in {exact} of {len(rows)} programs; largest difference of any m {max(row['worst'] for row in rows):.0e}",
        by_share([exact == len(rows)]),
        "the same columns are kept in every program",
    )


def _table(rows: Rows, name: str) -> Table:
    found = []
    for program, words in PROGRAMS.items():
        for tau in sorted(rows.distinct("tau")):
            these = rows.where(program=program, tau=tau)
            cells = [f"{these.percent(fact):.1f}" for fact in ("predicted", "achieved", "accuracy", "predicted_accuracy")]
            status = " / ".join(sorted({row["status"] for row in these}))
            found.append((f"{words}, τ = {tau:g}", f"{these.spread('protected'):.0f}", status, *cells))
    titles = ("program", "protected columns", "solver", "predicted sparsity %", "achieved sparsity %", "accuracy %", "accuracy of the prediction %")  # fmt: skip
    caption = (
        f"{TEST} No fine-tuning. Predicted: by the closed form, before solving. Infeasible: nothing is pruned, as in the notebooks. "
        "Protected columns differ between seeds, so a row may hold both outcomes."
    )
    return Table(titles, found, caption, name)


def _plot(rows: Rows) -> Plot:
    sparsities: Sequence[float] = sorted(rows.distinct("sparsity"))
    taus = [tau for tau in sorted(rows.distinct("tau")) if len(rows.where(tau=tau).distinct("sparsity")) > 1]
    asked = Line("as asked", {100 * s: [100 * s] for s in sparsities}, reference=True)
    panels = []
    for program, name in PROGRAMS.items():
        chosen = rows.where(program=program)
        lines = [
            Line(
                f"τ = {tau:g}",
                dict(sorted(chosen.where(tau=tau).series("sparsity", "achieved", x_factor=100, y_factor=100).items())),
            )
            for tau in taus
        ]
        panels.append(Panel([*lines, asked], "sparsity asked, %", "sparsity achieved, %", name))
    words = "Sparsity of the columns after rounding against the sparsity asked for; 0 where the program has no solution."
    return Plot(curves("trap", "Achieved against requested sparsity", panels), words)
