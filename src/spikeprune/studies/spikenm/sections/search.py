"""The search: how sure the logits become, and how much their gradients vary from draw to draw, with credits and without."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.spikenm.sections.words import ABOUT, SPREAD, Told
from spikeprune.studies.sweep import cell, drawn
from spikeprune.studies.verdicts import by_share

SEARCHED = ("spikenm", "no distillation")


def search(told: Told) -> Section | None:
    """Show what the logits went through."""
    names = [name for name in SEARCHED if name in told.names]
    if not names:
        return None
    return Section(
        "search",
        "The search",
        claims=[claim for claim in [_claim(told)] if claim is not None and len(names) == len(SEARCHED)],
        text=[
            "Entropy: of the chances of every block, over that of equal ones. Chance: the share of the mean square that is variance over "
            f"{told.settings.draws} draws of the masks, on the same samples and weights: of the gradient of the loss for the logits; of the direction that the logits "
            "then move in, distillation included; and of the masks."
        ],
        tables=[_table(told, pattern, names) for pattern in told.patterns if _looked(told, names[0], pattern)],
        plots=_plots(told, names),
    )


def _looked(told: Told, name: str, pattern: str) -> Rows:
    """Give a row for each moment and seed at which a search was looked at."""
    rows = told.at(name, pattern)
    return Rows(
        {"seed": row["seed"], "moment": moment, **found}
        for row in rows
        for moment, found in zip(told.settings.moments, row["search"], strict=False)
    )


def _claim(told: Told) -> Claim | None:
    found: dict[str, Spread] = {}
    for pattern in told.patterns:
        mean = [_mean(_looked(told, name, pattern), "direction") for name in SEARCHED]
        if (difference := gap(mean[1], mean[0])) is not None:
            found[pattern] = difference
    if not found:
        return None
    return Claim(
        "Distillation lowers what is chance in the gradients of the logits",
        "so said, without figures that could be found",
        "; ".join(
            f"{pattern}: from {_of(told, 'no distillation', pattern)} to {_of(told, 'spikenm', pattern)}" for pattern in found
        ),
        by_share([spread.mean > 0 for spread in found.values()]),
        "for each pattern, the share of chance in the direction is smaller with distillation, a mean over the search",
    )


def _mean(rows: Rows, name: str) -> dict[int, float]:
    seeds = sorted({row["seed"] for row in rows})
    return {seed: Spread.of(row[name] for row in rows.where(seed=seed)).mean for seed in seeds}


def _of(told: Told, name: str, pattern: str) -> str:
    return f"{Spread.of(_mean(_looked(told, name, pattern), 'direction').values()):.2f}"


def _table(told: Told, pattern: str, names: list[str]) -> Table:
    keys = {
        "entropy": "entropy",
        "slope": "chance in the gradient",
        "direction": "chance in the direction",
        "masks": "chance in the masks",
    }
    body = []
    for moment in told.settings.moments:
        for name in names:
            rows = _looked(told, name, pattern).where(moment=moment)
            if len(rows):
                body.append((f"{100 * moment:g} %", ABOUT[name], *(cell(rows, key, ".3f", 1.0) for key in keys)))
    return Table(("of the search", "", *keys.values()), body, SPREAD, pattern)


def _plots(told: Told, names: list[str]) -> list[Plot]:
    lines = []
    for name in names:
        points = {}
        for place, pattern in enumerate(told.patterns):
            if found := _mean(_looked(told, name, pattern), "direction"):
                points[float(place)] = list(found.values())
        if points:
            lines.append(Line(ABOUT[name], points))
    panel = Panel(
        lines, "pattern", "chance in the direction", names={float(i): pattern for i, pattern in enumerate(told.patterns)}
    )
    words = "Share of chance in the direction that logits move in, a mean over the search; mean and deviation over seeds."
    return drawn("chance", "Chance in the search", panel, words)
