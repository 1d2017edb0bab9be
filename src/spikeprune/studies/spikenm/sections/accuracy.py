"""Accuracy of every contender and pattern, in one training of the same length."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.spikenm.sections.words import ABOUT, SPREAD, Told, percents
from spikeprune.studies.sweep import cell, drawn
from spikeprune.studies.verdicts import BEYOND, ahead, by_share

POINT = 0.3  # that 2:4 may lie below dense
OURS = "spikenm"
CLOSE = "2:4"
SPARSE = ("1:8", "2:16")


def accuracy(told: Told) -> Section:
    """Compare the contenders with each pattern."""
    claims = [_as_dense(told), *(_above(told, other) for other in told.names if other != OURS)]
    share = told.settings.share
    return Section(
        "accuracy",
        "Accuracy at equal budgets",
        claims=[claim for claim in claims if claim is not None],
        text=[
            "Every network is trained from the same first weights, on the same batches, by the same optimizer and rates, as long as the dense one. "
            f"Learned masks are learned in the first {100 * share:g} % of the training, and stay as they are for the rest; others are dense for as long. Random masks "
            "stay from the first step. Unstructured: as many weights in all of the same layers, none in blocks. "
            + _coverage(told)
        ],
        tables=[_table(told), *([_leads(told)] if OURS in told.names else [])],
        plots=_plots(told),
    )


def _coverage(told: Told) -> str:
    found = [f"{pattern}: {words}" for pattern, words in told.left_out.items()]
    return f"Without a pattern stay the first layer, the last, and those whose inputs m does not divide; left out are, with {'; '.join(found)}."


def gaps(told: Told, other: str) -> dict[str, Spread]:
    """Take SpikeNM's lead over another contender in points, seed by seed, for every pattern where they share a seed."""
    found = {pattern: gap(percents(told.at(OURS, pattern)), percents(told.at(other, pattern))) for pattern in told.patterns}
    return {pattern: spread for pattern, spread in found.items() if spread is not None}


def _as_dense(told: Told) -> Claim | None:
    found = gap(percents(told.at(OURS, CLOSE)), percents(told.dense))
    if found is None:
        return None
    return Claim(
        f"{CLOSE} keeps the accuracy of the dense network, or is above it",
        "so said in the abstract, without figures that could be found",
        f"{CLOSE} less dense: {found:+.2f} points",
        by_share([found.mean >= -POINT]),
        f"at most {POINT:g} point lost on average",
    )


def _above(told: Told, other: str) -> Claim | None:
    found = gaps(told, other)
    sparse = {pattern: spread for pattern, spread in found.items() if pattern in SPARSE} or found
    if not sparse or OURS not in told.names:
        return None
    return Claim(
        f"SpikeNM is above {ABOUT[other]} at high sparsity",
        "not told apart" if other != "no distillation" else "distillation stabilises the search at high sparsity",
        "; ".join(f"{pattern}: {spread:+.2f}" for pattern, spread in sparse.items()),
        by_share([ahead(spread) for spread in sparse.values()]),
        f"for each pattern the difference in points is above 0, and {BEYOND}",
    )


def _table(told: Told) -> Table:
    body = [("dense", *[cell(told.dense, "accuracy", ".2f")] * (1 + len(told.names)))]
    for pattern in told.patterns:
        pruned = Rows({"seed": row["seed"], "accuracy": row["pruned"][pattern]} for row in told.dense)
        cells = [cell(told.at(name, pattern), "accuracy", ".2f") for name in told.names]
        body.append((pattern, *cells, cell(pruned, "accuracy", ".2f")))
    titles = ("pattern", *(ABOUT[name] for name in told.names), "magnitude N:M of the dense network")
    caption = f"Top-1 accuracy in percent on held-out data. {SPREAD} Last column: pruned at the end, norms measured anew, not retrained."
    return Table(titles, body, caption, "Top-1")


def _leads(told: Told) -> Table:
    others = [name for name in told.names if name != OURS]
    found = {other: gaps(told, other) for other in others}
    body = [
        (pattern, *(f"{found[other][pattern]:+.2f}" if pattern in found[other] else "–" for other in others))
        for pattern in told.patterns
    ]
    titles = ("pattern", *(f"SpikeNM − {ABOUT[other]}" for other in others))
    return Table(titles, body, f"Differences of top-1 in points. {SPREAD}", "Leads")


def _plots(told: Told) -> list[Plot]:
    lines = []
    for name in told.names:
        points = {float(i): list(percents(told.at(name, pattern)).values()) for i, pattern in enumerate(told.patterns)}
        if found := {x: values for x, values in points.items() if values}:
            lines.append(Line(ABOUT[name], found))
    level = ("dense", list(percents(told.dense).values())) if len(told.dense) else None
    names = {float(i): pattern for i, pattern in enumerate(told.patterns)}
    panel = Panel(lines, "pattern", "top-1 accuracy %", level=level, names=names)
    words = "Top-1 accuracy with every pattern, mean and deviation over seeds; points are set side by side."
    return drawn("accuracy", "Accuracy against patterns", panel, words)
