"""What the sections need to know, and words that they share."""

from collections.abc import Mapping
from dataclasses import dataclass

from spikeprune.studies.rows import Rows
from spikeprune.studies.spikenm.contenders import CONTENDERS
from spikeprune.studies.spikenm.settings import Settings

ABOUT = {name: contender.title for name, contender in CONTENDERS.items()}
SPREAD = "Mean ± sample standard deviation over seeds; differences are taken seed by seed."


@dataclass(frozen=True)
class Told:
    """What the sections need to know besides the rows.

    Attributes:
        rows: all trials.
        settings: the grids.
        left_out: names of the layers without a pattern, by n:m.
    """

    rows: Rows
    settings: Settings
    left_out: Mapping[str, str]

    @property
    def dense(self) -> Rows:
        """The dense network, trained as all others."""
        return self.rows.where(part="dense")

    def at(self, name: str, pattern: str) -> Rows:
        """Pick a contender's rows with a pattern; none if it was not tried."""
        return self.rows.where(part="masks", name=name, pattern=pattern)

    @property
    def names(self) -> list[str]:
        """The contenders that were tried."""
        return [name for name in ABOUT if name in self.settings.contenders]

    @property
    def patterns(self) -> list[str]:
        """All patterns, from dense to sparse."""
        return [f"{n}:{m}" for n, m in self.settings.pairs]


def percents(rows: Rows) -> dict[int, float]:
    """Give top-1 in percent, one a seed; none where nothing was measured."""
    return rows.by_seed("accuracy", 100.0) if len(rows) else {}
