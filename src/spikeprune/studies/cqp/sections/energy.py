"""Compound energy: the paper's arithmetic beside exact counts, and why they differ."""

from collections.abc import Callable, Sequence
from typing import Any

from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp.sections.timesteps import Pair, each, pairs
from spikeprune.studies.cqp.sections.words import Told, by_share, percent
from spikeprune.temporal import relative_energy

NEAR = 5.0  # points of saving that count as the same


def energy(told: Told) -> Section:
    """Hold the paper's arithmetic against exact counts."""
    rows = told.rows.where(part="time")
    dense, *names = rows.distinct("network")
    whole = pairs(rows, dense)
    found = {name: pairs(rows, name) for name in names}
    chosen = names[0]
    return Section(
        "energy",
        "Compound energy",
        claims=[_claim(chosen, found[chosen], whole)],
        text=_why(chosen, found[chosen], whole),
        tables=[_table(found, whole)],
    )


def relative(pair: Pair, dense: Pair, steps: int) -> dict[str, float]:
    """Give the energy of a pruned network at some timesteps over that of the dense one at all T, by each account.

    Returns:
        "paper": (1 - s)(t/T); "density": that of the whole net; "synops", "energy": exact counts; "every": exact, if the
        first layer were computed anew at every timestep. Fractions.
    """
    (ours, row), (whole, other) = pair, dense
    first, first_whole = (_first(part)["energy_pj"] for part in (row, other))
    return {
        "paper": relative_energy(row["sparsity"], steps, whole.timesteps),
        "density": row["density"] * steps / whole.timesteps,
        "synops": ours.synops[steps - 1] / whole.synops[-1],
        "energy": ours.energy_pj[steps - 1] / whole.energy_pj[-1],
        "every": (ours.energy_pj[steps - 1] + (steps - 1) * first) / (whole.energy_pj[-1] + (whole.timesteps - 1) * first_whole),
    }


def _first(row: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = next(iter(row["layers"].values()))
    return found


def _claim(name: str, found: list[Pair], whole: list[Pair]) -> Claim:
    total = whole[0][0].timesteps
    steps = max(1, total - 1)
    parts = [relative(pair, dense, steps) for pair, dense in zip(found, whole, strict=True)]
    saved = {key: Spread.of(100 * (1 - part[key]) for part in parts) for key in ("paper", "energy", "every")}
    sparsity = found[0][1]["sparsity"]
    return Claim(
        f"{percent(sparsity)} fewer weights in the first layer and {steps} of {total} timesteps save {saved['paper'].mean:.0f} % of the energy",
        "73 % by (1 − s)(t*/T), at 70 % and 9 of 10",
        f"{name}: exact count {saved['energy']:.1f} %; {saved['every']:.1f} % if the first layer is computed anew at each timestep",
        by_share([abs(saved["paper"].mean - saved[key].mean) <= NEAR for key in ("energy", "every")]),
        f"the exact saving is within {NEAR:.0f} points of the arithmetic, by either count",
    )


def _why(name: str, found: list[Pair], whole: list[Pair]) -> list[str]:
    """Say where the arithmetic goes wrong, each reason with its number."""

    def spread(value: Callable[[Pair, Pair], float]) -> str:
        return f"{Spread.of(100 * value(pair, dense) for pair, dense in zip(found, whole, strict=True)):.1f} %"

    share = spread(lambda pair, dense: _first(dense[1])["energy_pj"] / dense[0].energy_pj[-1])
    last = spread(lambda pair, dense: 1 - dense[0].energy_pj[-2] / dense[0].energy_pj[-1] if dense[0].timesteps > 1 else 0.0)
    kept = spread(lambda pair, dense: _first(pair[1])["synops"] / _first(dense[1])["synops"])
    rest = spread(lambda pair, dense: _others(pair[1]) / _others(dense[1]))
    weights = percent(1 - found[0][1]["sparsity"])
    return [
        f"They differ for these reasons, in numbers of {name}. The first layer reads real values and multiplies: it takes {share} of the dense "
        f"network's energy. Fed a constant image it is computed once, so the last timestep is worth only {last} of that energy. Of the first layer's "
        f"weights {weights} are left, but {kept} of its operations: which weights stay matters. And the other layers are not pruned: their "
        f"operations come to {rest} of what they were."
    ]


def _others(row: dict[str, Any]) -> float:
    return float(sum(layer["synops"] for layer in list(row["layers"].values())[1:]))


def _table(found: dict[str, list[Pair]], whole: Sequence[Pair]) -> Table:
    table = []
    for name, these in found.items():
        parts = [relative(pair, dense, int(pair[1]["paper_term"])) for pair, dense in zip(these, whole, strict=True)]
        table.append(
            (name, each(these, "paper_term"), *(f"{Spread.of(100 * part[key] for part in parts):.1f}" for key in parts[0]))
        )
    titles = ("network", "paper's t*", "paper: (1 − s)(t*/T)", "density (t*/T)", "SynOps", "energy", "energy, first layer at each timestep")  # fmt: skip
    caption = (
        "Percent of the dense network at all T; smaller is cheaper. The arithmetic takes the sparsity of the first layer for that of the net, and "
        "energy for proportional to weights and timesteps. SynOps and energy are exact counts on the test set up to t*: non-zero inputs "
        "times non-zero weights, 4.6 pJ where an input is a real value, 0.9 pJ where it is a spike (Horowitz, 45 nm); memory traffic and "
        "neurons are left out."
    )
    return Table(titles, table, caption, "Relative energy at the paper's t*, %")
