"""What the sections need to know, and words that they share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spikeprune.metrics import HOROWITZ_45NM
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Claim
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.settings import Settings
from spikeprune.studies.verdicts import BEYOND, ahead, by_share

ABOUT = {
    "dense": "dense SNN",
    "dense on": "dense SNN, trained on",
    "ann": "ANN twin",
    "ann on": "ANN twin, trained on",
    "slim": "significant widths, from scratch",
    "leading": "significant widths, leading channels",
    "uniform": "one factor for all layers, from scratch",
    "shallow": "significant widths and depth, from scratch",
    "short": "significant widths, fewer timesteps",
    "leading short": "leading channels, fewer timesteps",
    "dense short": "dense SNN, fewer timesteps",
    "sudden": "significant widths, as few timesteps from scratch",
}
SPREAD = "Mean ± sample standard deviation over seeds; differences are taken seed by seed."


@dataclass(frozen=True)
class Told:
    """What the sections need to know besides the rows.

    Attributes:
        rows: all trials.
        settings: the grids.
        events: whether the data are events.
    """

    rows: Rows
    settings: Settings
    events: bool

    def network(self, name: str) -> Rows:
        """Give a network's rows, one a seed."""
        return self.rows.where(part="dense") if name == "dense" else self.rows.where(part="network", name=name)

    def names(self, names: Iterable[str]) -> list[str]:
        """Pick the networks that were made."""
        return [name for name in names if len(self.network(name))]

    def inner(self, which: Mapping[str, Any], key: str = "rows") -> Rows:
        """Turn the rows inside of trials into rows of their own, each with its seed."""
        return Rows({"seed": row["seed"], **each} for row in self.rows.where(**which) for each in row[key])


def percents(rows: Rows, name: str = "accuracy") -> dict[int, float]:
    """Give a share in percent, one a seed."""
    return rows.by_seed(name, 100.0) if len(rows) else {}


def lost(own: Mapping[int, float], whole: Mapping[int, float]) -> Spread | None:
    """Tell how many points a network lies below another."""
    return gap(whole, own)


def paper_energy(rows: Rows, name: str) -> dict[int, float]:
    """Count energy as the paper does: an SNN accumulates for every spike and full fan-out, an ANN multiplies everywhere.

    Pixels that drive the first layer as they are multiply in both; the paper's are spikes.
    """
    if name.startswith("ann"):
        return rows.by_seed("operations", HOROWITZ_45NM.mac)
    spikes, pixels = rows.by_seed("synops_dense"), rows.by_seed("pixels")
    return {seed: HOROWITZ_45NM.ac * (all_ - pixels[seed]) + HOROWITZ_45NM.mac * pixels[seed] for seed, all_ in spikes.items()}


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Spread:
    """Divide seed by seed."""
    return Spread.of(above[seed] / below[seed] for seed in sorted(above.keys() & below.keys()))


def lead(text: str, own: Mapping[int, float], other: Mapping[int, float], words: str) -> Claim | None:
    """Claim that one network is above another; None where they share no seed."""
    found = gap(own, other)
    if found is None:
        return None
    rule = f"{words}, in points, is above 0, and {BEYOND}"
    return Claim(text, "not measured", f"{found:+.2f}", by_share([ahead(found)]), rule)
