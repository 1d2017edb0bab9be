"""What masked networks cost: density, synaptic operations, energy, spikes; and whether every block obeys the pattern."""

from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.spikenm.sections.words import ABOUT, SPREAD, Told
from spikeprune.studies.sweep import cell
from spikeprune.studies.verdicts import by_share

FREE = ("unstructured",)  # contenders that obey no pattern


def cost(told: Told) -> Section:
    """Show what is alive and what it does."""
    return Section(
        "cost",
        "What is alive, and what it costs",
        claims=[_rule(told)],
        text=[
            "Covered: the share of all weights whose layers have the pattern. Alive: the share of all synaptic weights that are not zero, those of layers without a pattern "
            "included. SynOps: non-zero inputs times non-zero fan-out, over all timesteps, a sample; energy is of them."
        ],
        tables=[_table(told, pattern) for pattern in told.patterns],
    )


def _rule(told: Told) -> Claim:
    rows = [row for row in told.rows.where(part="masks") if row["name"] not in FREE]
    broken = [row for row in rows if row["fullest"] > int(row["pattern"].split(":")[0])]
    usage = {row["pattern"]: _used(row["usage"]) for row in rows if row["name"] == "spikenm"}
    return Claim(
        "No block has more than n of its m weights alive",
        "by construction",
        f"{len(rows)} networks, {len(broken)} with a fuller block; weights alive in blocks: "
        + "; ".join(f"{pattern}: {words}" for pattern, words in usage.items()),
        by_share([not broken]) if rows else "not tested",
        "no block is fuller in the network that was measured",
    )


def _used(usage: list[float]) -> str:
    return ", ".join(f"{count} in {100 * share:.0f} %" for count, share in enumerate(usage) if share > 0)


def _table(told: Told, pattern: str) -> Table:
    body = [("dense", "", "100.0", *_numbers(told.dense, told.dense))]
    for name in told.names:
        if len(rows := told.at(name, pattern)):
            body.append((ABOUT[name], cell(rows, "covered"), cell(rows, "alive"), *_numbers(rows, told.dense)))
    titles = (
        "network",
        "covered %",
        "alive %",
        "top-1 %",
        "SynOps, thousands",
        "of dense",
        "energy nJ",
        "spikes a neuron and step, %",
    )
    return Table(titles, body, SPREAD, pattern)


def _numbers(rows: Rows, dense: Rows) -> tuple[str, ...]:
    whole = dense.by_seed("synops")
    share = Spread.of(value / whole[seed] for seed, value in rows.by_seed("synops").items() if seed in whole)
    rates = Spread.of(100 * sum(row["rates"]) / len(row["rates"]) for row in rows)
    return (
        cell(rows, "accuracy", ".2f"),
        cell(rows, "synops", ",.0f", 1e-3),
        f"{share:.2f}",
        cell(rows, "energy_pj", ",.1f", 1e-3),
        f"{rates:.1f}",
    )
