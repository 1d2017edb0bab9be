"""What one network of one run came to: accuracy, what is kept of it, the way there, and its cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spikeprune.report.cost import Report


@dataclass(frozen=True)
class Point:
    """One stop on the way to the target: accuracies on the validation split, as fractions."""

    sparsity: float
    pruned: float
    tuned: float


@dataclass(frozen=True)
class Outcome:
    """One network at the end of a run.

    Attributes:
        group: what was the same for all that may be compared: recipe, data, network, budget.
        label: the method, or "dense" for the network before pruning.
        seed: of the run.
        accuracy, validation: on the test set, touched once, and on the validation split; fractions.
        sparsity: what was asked of the pruned layers; 0 for the dense network.
        weights, kept: weights of the layers that the run prunes, and how many of them are kept.
        revived: dead weights that are not zero at the end.
        curve: validation accuracy at each target on the way.
        seconds: wall time of the pruning and fine-tuning (of the training, for "dense").
        report: size and cost, measured on test samples.
        throughput: samples a second of its training or fine-tuning, steps alone; None where no step was taken or timed.
        memory_mb, memory: the peak of its phase in MB (10^6 bytes), and which: "CUDA", what PyTorch had allocated on the GPU,
            or "RSS", what the whole process had resident up to then; None where it was not taken.
    """

    group: str
    label: str
    seed: int
    accuracy: float
    validation: float
    sparsity: float
    weights: int
    kept: int
    revived: int
    curve: tuple[Point, ...]
    seconds: float
    report: Report
    throughput: float | None = None
    memory_mb: float | None = None
    memory: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Give the outcome as JSON values."""
        own = {k: v for k, v in vars(self).items() if k not in ("curve", "report")}
        return own | {"curve": [asdict(point) for point in self.curve], "report": self.report.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Outcome":
        """Build the outcome that `to_dict` described."""
        rest = {k: v for k, v in data.items() if k not in ("curve", "report")}
        curve = tuple(Point(**point) for point in data["curve"])
        return cls(**rest, curve=curve, report=Report.from_dict(data["report"]))
