"""The relaxation trap, the criticality cliff, and zombie weights."""

from itertools import pairwise
from statistics import mean

from spikeprune.report.curves import Line, Panel, bars, curves
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp import published
from spikeprune.studies.cqp.sections.words import TEST, Told, accuracy_line, by_share
from spikeprune.studies.rows import Rows

PROGRAMS = {"paper": "the paper's program", "retained": "retained importance"}
MET = 0.01  # achieved sparsity this close to what was asked counts as met
CLIFF = 20  # points of accuracy lost that make a cliff


def trap(told: Told) -> Section:
    """Hold both quadratic programs against their closed forms and against what was asked."""
    rows = told.rows.where(part="trap")
    ended = [row for row in rows if row["status"] == "solved"]
    over = {name: max((100 * r["overshoot"] for r in ended if r["program"] == name), default=0.0) for name in PROGRAMS}
    lost = {
        name: max((100 * (told.dense[r["seed"]] - r["accuracy"]) for r in ended if r["program"] == name), default=0.0)
        for name in PROGRAMS
    }
    met = sum(abs(row["overshoot"]) <= MET for row in rows)
    exact = sum(not row["differing_columns"] and row["status"] == row["predicted_status"] for row in rows)
    claims = [
        Claim(
            "A quadratic program misses the sparsity it is asked for, once rounded",
            "up to 12 points too many",
            f"paper's program up to {over['paper']:.1f} points too many, retained importance {over['retained']:.1f}; sparsity met in {met} of {len(rows)}",
            by_share([over["paper"] > 5, met < len(rows) / 2]),
        ),
        Claim(
            "Accuracy collapses",
            "by 44 points",
            f"up to {lost['paper']:.1f} points below dense (paper's program), {lost['retained']:.1f} (retained importance)",
            "reproduced" if lost["paper"] >= 44 else "refuted",
        ),
        Claim(
            "Both are predicted by a closed form, before solving",
            "not in the paper",
            f"same columns kept in {exact} of {len(rows)} programs, largest difference of any m {max(row['worst'] for row in rows):.0e}",
            by_share([exact == len(rows), exact >= 0.9 * len(rows)]),
        ),
    ]  # fmt: skip
    text = [
        "The paper's program minimises Σ (w m)² over 0 ≤ m ≤ 1 with m ≥ 0.85 where criticality exceeds τ, and asks that at least the share s "
        "be removed. Every m costs, and the request is one-sided: so each m sits at its lower bound, the p protected columns alone survive "
        "rounding, and the sparsity is 1 − p/n, whatever s is. Where p > (n − sn)/0.85 there is no solution and nothing is pruned. Maximising "
        "what is retained, Σ w² (1 − m)², is not degenerate, but spreads the removal thin, and rounding misses s again.",
        "An exact sort has neither trouble: it removes the units asked for, to the unit.",
    ]
    asked = told.rows.where(part="cliff").distinct("sparsity")[0]
    return Section(
        "trap", "The relaxation trap", claims=claims, text=text,
        tables=[_trap_table(rows.where(sparsity=asked), f"Asked for {asked:.0%}")], plots=[_trap_plot(rows)],
        details=[_trap_table(rows.where(sparsity=s), f"Asked for {s:.0%}") for s in sorted(rows.distinct("sparsity")) if s != asked],
        details_title="Other sparsities",
    )  # fmt: skip


def _trap_table(rows: Rows, name: str) -> Table:
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


def _trap_plot(rows: Rows) -> Plot:
    panels = []
    for program, name in PROGRAMS.items():
        chosen = rows.where(program=program)
        lines = []
        for tau in sorted(set(chosen.where(sparsity=chosen.distinct("sparsity")[0]).distinct("tau"))):
            points = chosen.where(tau=tau).series("sparsity", "achieved", x_factor=100, y_factor=100)
            lines.append(Line(f"τ = {tau:g}", dict(sorted(points.items()))))
        asked = {100 * s: [100 * s] for s in sorted(chosen.distinct("sparsity"))}
        lines.append(Line("as asked", asked, reference=True))
        panels.append(Panel(lines, "sparsity asked, %", "sparsity achieved, %", name))
    words = "Sparsity of the columns after rounding against the sparsity asked for; 0 where the program has no solution."
    return Plot(curves("trap", "Achieved against requested sparsity", panels), words)


def cliff(told: Told) -> Section:
    """Sweep the protection threshold, as a hard constraint and in the paper's program."""
    hard = told.rows.where(part="cliff")
    asked = hard.distinct("sparsity")[0]
    program = told.rows.where(part="trap", program="paper", sparsity=asked)
    taus = sorted(hard.distinct("tau"))
    program = Rows(row for row in program if row["tau"] in taus)
    forms = {"program": program, "constraint": hard}
    fell = {name: _fall(rows) for name, rows in forms.items()}
    missed = {name: max(abs(100 * (row["achieved"] - asked)) for row in rows) for name, rows in forms.items()}
    met = [tau for tau in taus if all(abs(row["achieved"] - asked) <= MET for row in hard.where(tau=tau))]
    level = [hard.where(tau=tau).percent("accuracy").mean for tau in met]
    claims = [
        Claim(
            f"Accuracy falls off a cliff as τ rises to 0.9, at {asked:.0%}",
            "87.0 to 14.4 (synthetic); notebooks: 98.1 to 8.6 (MNIST, program), 89.3 to 46.6 (Fashion-MNIST, constraint)",
            "; ".join(
                f"{name} {start:.1f} to {end:.1f}, steepest from τ = {low:g} to {high:g} ({drop:.0f} points)"
                for name, (start, end, low, high, drop) in fell.items()
            ),
            by_share([found[-1] > CLIFF or found[0] - found[1] > CLIFF for found in fell.values()]),
        ),
        Claim(
            f"The sparsity is {asked:.0%} all along",
            f"{asked:.0%} is the target",
            f"missed by up to {missed['program']:.0f} points (program) and {missed['constraint']:.0f} (constraint): it follows the protected counts",
            "reproduced" if max(missed.values()) <= 100 * MET else "refuted",
        ),
        Claim(
            f"Where {asked:.0%} is really met, the threshold still makes a cliff",
            "not separated",
            f"constraint, τ = {met[0]:g} to {met[-1]:g}: accuracy between {min(level):.1f} and {max(level):.1f}"
            if met
            else "met at no τ",
            "not tested" if len(met) < 2 else "reproduced" if max(level) - min(level) > CLIFF else "refuted",
        ),
    ]
    text = [
        "The cause is in the protected counts. In the program the protected columns are all that survives, so rising τ empties the layer: "
        "accuracy is that of its p most critical columns. Under the hard constraint sparsity is min(s, 1 − p/n): while more is protected than "
        "may stay, fewer columns go than were asked for and accuracy is high for that reason alone; once 1 − p/n reaches s, protection no longer "
        "binds, and accuracy settles at that of plain pruning at s."
    ]
    panels = [
        Panel([accuracy_line("constraint", hard, "tau"), accuracy_line("program", program, "tau"), *_references(told.data)],
              "threshold τ", "accuracy %", "Accuracy", level=told.level),
        Panel([_share("constraint", hard), _share("program", program)], "threshold τ", "sparsity %", "Achieved sparsity of the columns",
              level=("asked", [100 * asked])),
        Panel([Line("protected", hard.series("tau", "protected"))], "threshold τ", "columns", "Protected columns, of 784"),
    ]  # fmt: skip
    words = "Accuracy, achieved sparsity and protected columns against the threshold, without fine-tuning. Grey: the author's notebook."
    plot = Plot(curves("cliff", "The criticality cliff", panels), words)
    return Section("cliff", "The criticality cliff", claims=claims, text=text, tables=[_cliff_table(hard, program)], plots=[plot])


def _share(label: str, rows: Rows) -> Line:
    return Line(label, rows.series("tau", "achieved", y_factor=100))


def _fall(rows: Rows) -> tuple[float, float, float, float, float]:
    """Give accuracy at the first threshold and at 0.9, and the neighbours between which the mean falls most, with that fall."""
    taus = [tau for tau in sorted(rows.distinct("tau")) if tau <= 0.9]
    at = {tau: rows.where(tau=tau).percent("accuracy").mean for tau in taus}
    low, high = max(pairwise(taus), key=lambda pair: at[pair[0]] - at[pair[1]])
    return at[taus[0]], at[taus[-1]], low, high, at[low] - at[high]


def _cliff_table(hard: Rows, program: Rows) -> Table:
    found = []
    for tau in sorted(hard.distinct("tau")):
        one, other = hard.where(tau=tau), program.where(tau=tau)
        cells = [f"{one.spread('protected'):.0f}", f"{one.percent('achieved'):.1f}", f"{one.percent('critical_removed'):.1f}", f"{one.percent('accuracy'):.1f}"]  # fmt: skip
        cells += [f"{other.percent('achieved'):.1f}", f"{other.percent('accuracy'):.1f}"] if len(other) else ["-", "-"]
        found.append((f"{tau:g}", *cells))
    titles = ("τ", "protected columns", "constraint: sparsity %", "criticality removed %", "accuracy %", "program: sparsity %", "accuracy %")  # fmt: skip
    return Table(titles, found, f"{TEST} No fine-tuning; α = 1 in the constraint form, as in the notebooks.", "Both forms")


def _references(data: str) -> list[Line]:
    values = {"mnist": ("program, notebook", published.QP_CLIFF), "fashion-mnist": ("constraint, notebook", published.CONSTRAINT_CLIFF)}  # fmt: skip
    if data not in values:
        return []
    label, found = values[data]
    return [Line(label, {round(0.1 * (i + 1), 1): [value] for i, value in enumerate(found)}, reference=True)]


def zombies(told: Told) -> Section:
    """Count revived weights."""
    rows = told.rows.where(part="zombies")
    held = sum(row["revived"] for row in rows if row["regime"].startswith("hold"))
    carried = rows.where(regime="gradient masked")
    back = {name: _revived(carried.where(optimizer=name)) for name in carried.distinct("optimizer")}
    fresh = {d: _revived(rows.where(regime="gradient masked, fresh optimizer", decay=d)) for d in rows.distinct("decay")}
    resumed = _revived(rows.where(regime="gradient masked, fresh optimizer, dense state resumed", optimizer="Adam"))
    claims = [
        Claim(
            "Masking the gradient is not enough: the optimizer revives pruned weights",
            "Adam does",
            ", ".join(f"{name}: {share:.0f} %" for name, share in back.items()) + " of the dead weights revived",
            by_share([back["Adam"] > 0, back["AdamW"] > 0]),
        ),
        Claim(
            "Weight decay revives them as well",
            "named as a cause",
            "with a fresh optimizer and the gradient masked: "
            + ", ".join(f"{share:.0f} % revived at decay {d:g}" for d, share in fresh.items())
            + f" (the decay of 0 is 0); Adam, once a dense state is resumed: {resumed:.0f} %",
            "reproduced" if max(fresh.values()) > 0 else "refuted",
        ),
        Claim(
            "Masking gradient, weight and memory keeps them dead",
            "asserted, max |W| = 0",
            f"{held} revived under hold, in {sum(1 for row in rows if row['regime'].startswith('hold'))} trials of all optimizers, resumed ones too",
            "reproduced" if held == 0 else "refuted",
        ),
    ]
    found, drawn = [], []
    for name in rows.distinct("optimizer"):
        cells: dict[str, list[float]] = {}
        for regime in rows.distinct("regime"):
            these = rows.where(optimizer=name, regime=regime)
            cells[regime] = [100 * row["revived"] / row["dead"] for row in these]
        found.append((name, *(f"{mean(values):.1f}" for values in cells.values())))
        drawn.append((name, {regime: cells[regime] for regime in [*list(cells)[:3], "hold, dense state resumed"]}))
    caption = (
        "Share of dead weights that are not zero, in percent, mean over seeds and over weight decay 0 and 0.0001 (they agree). The dense network is "
        "trained on, pruned to 90 % by magnitude, and trained on under the regime. Dense state resumed: halfway a new optimizer loads the state "
        "of before the pruning. Plain SGD and RMSprop keep no direction in memory, so a masked gradient is all they need."
    )
    table = Table(("optimizer", *rows.distinct("regime")), found, caption, "Dead weights revived, %")
    plot = Plot(
        bars("zombies", "Dead weights revived", drawn, "dead weights revived, %"), "Dead weights that are not zero any more."
    )
    return Section("zombies", "Zombie weights", claims=claims, tables=[table], plots=[plot])


def _revived(rows: Rows) -> float:
    return 100 * float(mean(row["revived"] / row["dead"] for row in rows))
