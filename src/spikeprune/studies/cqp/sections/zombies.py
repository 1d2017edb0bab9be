"""Zombie weights: who brings dead weights back, and what keeps them down."""

from statistics import mean

from spikeprune.report.curves import bars
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp.sections.words import Told, by_share, percent
from spikeprune.studies.cqp.zombies import SPARSITY
from spikeprune.studies.rows import Rows

CARRIED, FRESH = "gradient masked", "gradient masked, fresh optimizer"
RESUMED = "gradient masked, fresh optimizer, dense state resumed"
HELD = ("hold", "hold, dense state resumed")


def zombies(told: Told) -> Section:
    """Count revived weights."""
    rows = told.rows.where(part="zombies")
    text = [
        "A weight whose gradient is masked still moves if the optimizer remembers a direction: momentum, or Adam's first moment. Plain SGD and "
        "RMSprop remember none. Weight decay pulls a weight towards 0, and one that is 0 stays."
    ]
    return Section(
        "zombies", "Zombie weights", claims=[_memory(rows), _decay(rows), _resumed(rows), _cure(rows)], text=text,
        tables=[_table(rows)], plots=[_plot(rows)],
    )  # fmt: skip


def _revived(rows: Rows) -> float:
    return 100 * float(mean(row["revived"] / row["dead"] for row in rows))


def _memory(rows: Rows) -> Claim:
    back = {name: _revived(rows.where(regime=CARRIED, optimizer=name)) for name in rows.distinct("optimizer")}
    return Claim(
        "Masking the gradient is not enough: Adam revives pruned weights",
        "Adam does",
        "; ".join(f"{name}: {share:.0f} %" for name, share in back.items()) + " of the dead weights revived",
        by_share([back["Adam"] > 0]),
        "with the optimizer that trained the dense network, Adam revives some",
    )


def _decay(rows: Rows) -> Claim:
    fresh = {d: _revived(rows.where(regime=FRESH, decay=d)) for d in rows.distinct("decay")}
    return Claim(
        "Weight decay revives them as well",
        "named as a cause",
        "; ".join(f"decay {d:g}: {share:.0f} % revived" for d, share in fresh.items()),
        by_share([any(share > 0 for d, share in fresh.items() if d)]),
        "with a fresh optimizer and the gradient masked, decay revives some",
    )


def _resumed(rows: Rows) -> Claim:
    adam = rows.where(optimizer="Adam")
    shares = [_revived(adam.where(regime=regime)) for regime in (FRESH, RESUMED)]
    return Claim(
        "A fresh optimizer after pruning is a cure for good",
        "done in the notebooks",
        f"Adam: {shares[0]:.0f} % revived; {shares[1]:.0f} % once the state of the dense network is resumed",
        by_share([share == 0 for share in shares]),
        "none is revived, before and after resuming the dense network's optimizer state",
    )


def _cure(rows: Rows) -> Claim:
    held = [row for row in rows if row["regime"] in HELD]
    return Claim(
        "Masking gradient, weight and memory keeps them dead",
        "max |W| = 0",
        f"hold: {sum(row['revived'] for row in held)} weights revived in {len(held)} trials of all optimizers, resumed ones among them",
        by_share([all(row["revived"] == 0 for row in held)]),
        "none is revived under hold",
    )


def _table(rows: Rows) -> Table:
    found = [
        (name, *(f"{_revived(rows.where(optimizer=name, regime=regime)):.1f}" for regime in rows.distinct("regime")))
        for name in rows.distinct("optimizer")
    ]
    decays = " and ".join(f"{decay:g}" for decay in rows.distinct("decay"))
    caption = (
        f"Share of dead weights that are not zero, in percent, mean over seeds and over weight decays of {decays}. The dense network is trained on, "
        f"its first layer pruned to {percent(SPARSITY)} by magnitude, and trained on under the regime. Dense state resumed: halfway a new optimizer loads "
        "the state of before the pruning."
    )
    return Table(("optimizer", *rows.distinct("regime")), found, caption, "Dead weights revived, %")


def _plot(rows: Rows) -> Plot:
    shown = (CARRIED, FRESH, RESUMED, HELD[1])
    drawn = [
        (name, {regime: [_revived(rows.where(optimizer=name, regime=regime))] for regime in shown}) for name in rows.distinct("optimizer")
    ]  # fmt: skip
    words = "Dead weights that are not zero any more; mean over seeds and weight decays."
    return Plot(bars("zombies", "Dead weights revived", drawn, "dead weights revived, %"), words)
