"""Accuracy at equal budgets: CQP, magnitude, criticality alone and chance, by weight and by input column."""

from collections.abc import Sequence
from itertools import product
from statistics import mean

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp import published
from spikeprune.studies.cqp.sections.words import (
    BEYOND,
    NAMES,
    PATTERNS,
    TEST,
    Told,
    accuracy_line,
    ahead,
    budget,
    by_share,
    difference,
    percent,
)
from spikeprune.studies.cqp.settings import ROUNDS
from spikeprune.studies.rows import Rows

FAR = 10.0  # points behind that count as far
STOPS = (0.7, 0.9)
CAPTION = (
    f"{TEST} Mean ± sample standard deviation over seeds; differences are taken seed by seed. Within a row all methods have the same "
    "dense networks, rounds, and batches of fine-tuning. CQP and criticality alone read the calibration batches with gradients besides, once "
    "a round. SynOps: effective, of the first 1,000 test images."
)


def budgets(told: Told) -> Section:
    """Compare the methods at each budget, pattern and sparsity."""
    rows = told.rows.where(part="budgets")
    return Section(
        "budgets",
        "Accuracy at equal budgets",
        claims=[*_leads(told, rows), *_levels(told, rows), _alone(rows), _chance(rows), *_unequal(told, rows)],
        text=[
            f"The first layer of {told.network} is pruned by weight or by input column: in one shot, or in {ROUNDS} rounds with fine-tuning "
            "after each, under hold and with a fresh optimizer, the same for every method. Criticality is measured anew in every round. "
            "The larger a budget, the fewer the sparsities at which it was tried."
        ],
        tables=[_table(rows)],
        plots=[_plot(told, rows, pattern) for pattern in PATTERNS],
    )


def _pick(rows: Rows, pattern: str, method: str, sparsity: float, batches: int) -> Rows:
    return rows.where(pattern=pattern, method=method, sparsity=sparsity, batches=batches)


def _tried(rows: Rows, pattern: str, sparsity: float) -> list[int]:
    """Give the budgets at which a sparsity was tried, one shot first."""
    return [b for b in rows.distinct("batches") if len(_pick(rows, pattern, "cqp", sparsity, b))]


def _gap(rows: Rows, pattern: str, sparsity: float, batches: int, other: str) -> Spread:
    return difference(_pick(rows, pattern, "cqp", sparsity, batches), _pick(rows, pattern, other, sparsity, batches))


def _leads(told: Told, rows: Rows) -> list[Claim]:
    """Hold CQP's lead over magnitude against the paper's: without fine-tuning, and with the same for both."""
    claims = []
    for sparsity, theirs, magnitude in published.HEADLINES.get(told.data, ()):
        gaps = {b: _gap(rows, "unstructured", sparsity, b, "magnitude") for b in _tried(rows, "unstructured", sparsity)}
        said = {b: f"{budget(b)} {found:+.2f}" for b, found in gaps.items()}
        once = [_pick(rows, "unstructured", m, sparsity, 0).percent("accuracy") for m in ("cqp", "magnitude")]
        words, rule = f"weights, {percent(sparsity)}", f"CQP − magnitude > 0, and {BEYOND}"
        paper = f"{theirs} against {magnitude}: {theirs - magnitude:+.1f}"
        here = f"{once[0]:.1f} against {once[1]:.1f}: {gaps[0]:+.2f}"
        tuned = [b for b in gaps if b]
        claims += [
            Claim(f"CQP is above magnitude in one shot ({words})", paper, here, by_share([ahead(gaps[0])]), rule),
            Claim(
                f"It is still above when both are fine-tuned alike ({words})", paper, "; ".join(said[b] for b in tuned),
                by_share([ahead(gaps[b]) for b in tuned]), rule,
            ),
        ]  # fmt: skip
    return claims


def _levels(told: Told, rows: Rows) -> list[Claim]:
    """Hold CQP's accuracy against the paper's, at the pattern and budget of the author's code."""
    claims = []
    for sparsity, theirs, _ in published.HEADLINES.get(told.data, ()):
        pattern, batches = published.FORM[told.data]
        found = {m: _pick(rows, pattern, m, sparsity, batches).percent("accuracy") for m in NAMES}
        claims.append(
            Claim(
                f"CQP, fine-tuned, reaches {theirs} % ({PATTERNS[pattern]}, {percent(sparsity)}, {budget(batches)})",
                str(theirs),
                "; ".join(f"{NAMES[m]} {spread:.1f}" for m, spread in found.items()),
                by_share([found["cqp"].mean >= theirs]),
                "mean of CQP at least the paper's",
            )
        )
    return claims


def _alone(rows: Rows) -> Claim:
    """Say what criticality without magnitude is worth at 90 %."""
    gaps = {(p, b): _gap(rows, p, 0.9, b, "gradient") for p in PATTERNS for b in _tried(rows, p, 0.9)}
    return Claim(
        "Criticality alone falls far behind CQP at 90 %",
        "76.1 points behind (synthetic data)",
        "; ".join(f"{PATTERNS[p]}, {budget(b)}: {found:.1f}" for (p, b), found in gaps.items()),
        by_share([found.mean >= FAR for found in gaps.values()]),
        f"at least {FAR:.0f} points behind, at every pattern and budget",
    )


def _chance(rows: Rows) -> Claim:
    """Compare CQP with chance at 70 and 90 %, by pattern and budget."""
    gaps = {p: [_gap(rows, p, s, b, "random") for s in STOPS for b in _tried(rows, p, s)] for p in PATTERNS}
    return Claim(
        "CQP is above random pruning, at 70 and 90 %",
        "in all notebooks",
        "; ".join(
            f"{PATTERNS[p]}: in {sum(map(ahead, found))} of {len(found)}, from {min(x.mean for x in found):+.1f} to {max(x.mean for x in found):+.1f}"
            for p, found in gaps.items()
        ),
        by_share([ahead(found) for each in gaps.values() for found in each]),
        f"CQP − random > 0, and {BEYOND}, at every pattern and budget",
    )


def _unequal(told: Told, rows: Rows) -> list[Claim]:
    """Repeat the author's comparison, in which CQP alone is fine-tuned, and beside it the one at equal budgets."""
    if told.data not in published.NOTEBOOK_CQP:
        return []
    batches, cqp = published.NOTEBOOK_CQP[told.data]
    theirs = cqp[-1] - published.NOTEBOOK_MAGNITUDE[told.data][-1]
    ours = _pick(rows, "column", "cqp", 0.9, batches)
    against = [("unstructured", 0), ("column", batches), ("unstructured", batches)]
    untuned, columns, weights = (difference(ours, _pick(rows, p, "magnitude", 0.9, b)) for p, b in against)
    same = [found.mean * theirs > 0 and found.clear is not False for found in (untuned, columns, weights)]
    return [
        Claim(
            f"Columns by CQP, {budget(batches)}, are {'above' if theirs > 0 else 'below'} weights by magnitude that are not fine-tuned (90 %)",
            f"{theirs:+.1f} (notebook)", f"{untuned:+.1f}", by_share(same[:1]), f"the sign is the notebook's, and {BEYOND}",
        ),
        Claim(
            "That comparison says which method is better", "compared so in the notebook",
            f"both fine-tuned: {columns:+.1f} to columns by magnitude, {weights:+.1f} to weights by magnitude", by_share(same[1:]),
            "with both fine-tuned the sign stays, against columns and against weights",
        ),
    ]  # fmt: skip


def _table(rows: Rows) -> Table:
    found = []
    for pattern, sparsity, batches in product(PATTERNS, STOPS, rows.distinct("batches")):
        cells = {method: _pick(rows, pattern, method, sparsity, batches) for method in NAMES}
        if all(map(len, cells.values())):
            cost = mean(cells["cqp"].by_seed("synops").values()) / mean(cells["magnitude"].by_seed("synops").values())
            accuracies = [f"{cells[method].percent('accuracy'):.2f}" for method in NAMES]
            gained = f"{difference(cells['cqp'], cells['magnitude']):+.2f}"
            found.append((f"{PATTERNS[pattern]}, {percent(sparsity)}, {budget(batches)}", *accuracies, gained, f"{cost:.2f}"))
    titles = ("first layer", *(f"{name} %" for name in NAMES.values()), "CQP − magnitude", "SynOps, CQP / magnitude")
    return Table(titles, found, CAPTION, "At 70 % and 90 %")


def _plot(told: Told, rows: Rows, pattern: str) -> Plot:
    panels, references = [], []
    for batches in rows.distinct("batches"):
        chosen = rows.where(pattern=pattern, batches=batches)
        lines = [accuracy_line(NAMES[m], chosen.where(method=m), "sparsity", x_factor=100) for m in NAMES]
        if (reference := _notebook(told.data, pattern, batches)) is not None:
            references.append(reference)
        panels.append(
            Panel([*lines, *references[-1:]] if reference else lines, "sparsity of the first layer, %", "accuracy %", budget(batches), level=told.level)
        )  # fmt: skip
    name = PATTERNS[pattern]
    words = f"Accuracy against sparsity, {name} of the first layer, at each budget; points are set side by side."
    words += " Grey: the author's notebook, of its own training (CQP on MNIST with α = 1)." * bool(references)
    return Plot(curves(f"budgets-{pattern}", f"Accuracy against sparsity, {name}", panels), words)


def _notebook(data: str, pattern: str, batches: int) -> Line | None:
    values: Sequence[float] | None = None
    if (pattern, batches) == ("unstructured", 0):
        values, label = published.NOTEBOOK_MAGNITUDE.get(data), "magnitude, notebook"
    elif pattern == "column" and data in published.NOTEBOOK_CQP and published.NOTEBOOK_CQP[data][0] == batches:
        values, label = published.NOTEBOOK_CQP[data][1], "CQP, notebook"
    if values is None:
        return None
    return Line(label, {round(100 * s, 9): [v] for s, v in zip(published.SPARSITIES, values, strict=True)}, reference=True)
