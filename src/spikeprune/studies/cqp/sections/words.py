"""Words, differences and verdicts that the sections share."""

from dataclasses import dataclass

from spikeprune.report.curves import Line
from spikeprune.report.findings import Spread, gap
from spikeprune.studies.lab import WHOLE_EPOCH
from spikeprune.studies.rows import Rows
from spikeprune.studies.verdicts import BEYOND as BEYOND
from spikeprune.studies.verdicts import ahead as ahead
from spikeprune.studies.verdicts import by_share as by_share

PATTERNS = {"unstructured": "weights", "column": "input columns"}
NAMES = {"cqp": "CQP", "magnitude": "magnitude", "gradient": "criticality alone", "random": "random"}
TEST = "Accuracy is that on the whole test set."


@dataclass(frozen=True)
class Told:
    """What the sections need to know besides the rows.

    Attributes:
        data: name of the data set.
        rows: all finished trials.
        dense: test accuracy of the dense network, by seed, as a fraction.
        sizes: neurons of every layer of the network, inputs first.
    """

    data: str
    rows: Rows
    dense: dict[int, float]
    sizes: tuple[int, ...]

    @property
    def network(self) -> str:
        """The sizes as text."""
        return "-".join(map(str, self.sizes))

    @property
    def level(self) -> tuple[str, list[float]]:
        """The dense network's accuracies in percent, as a level of a figure."""
        return "dense", [100 * value for value in self.dense.values()]


def percent(share: float) -> str:
    """Write a fraction as a whole percentage."""
    return f"{100 * share:.0f} %"


def budget(batches: int) -> str:
    """Name a budget of fine-tuning."""
    return {0: "one shot", WHOLE_EPOCH: "1 epoch a round"}.get(batches, f"{batches} batches a round")


def difference(ours: Rows, theirs: Rows, name: str = "accuracy") -> Spread:
    """Take the difference of two trials in points, seed by seed."""
    found = gap(ours.by_seed(name, 100.0), theirs.by_seed(name, 100.0))
    assert found is not None
    return found


def accuracy_line(label: str, rows: Rows, x: str, *, x_factor: float = 1.0) -> Line:
    """Draw accuracy in percent over a fact."""
    return Line(label, rows.series(x, "accuracy", x_factor=x_factor, y_factor=100.0))
