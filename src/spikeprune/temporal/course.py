"""What a model knows, and has spent, after each timestep: from one pass, as a value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from spikeprune.errors import EmptyCalibration
from spikeprune.measure import check_batches, parts, refuse_empty, run_batch
from spikeprune.metrics import HOROWITZ_45NM, EnergyTable
from spikeprune.temporal.divergence import Decision, decision, refuse_share
from spikeprune.temporal.readout import Readout, find_readout
from spikeprune.temporal.sums import Sums
from spikeprune.view.layer import check_weights
from spikeprune.view.model_view import ModelView, check_view

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


@dataclass(frozen=True)
class ExitPoint:
    """What it gives, and costs, if each sample stops once the model is sure of it.

    A sample stops at the first timestep at which the largest softmax probability of its running output reaches the
    confidence; at T at the latest.

    Attributes:
        confidence: in (0, 1].
        accuracy: the share answered right; None without labels.
        steps: mean timesteps run.
        synops, energy_pj: SynOps effective and their energy, mean per sample, each counted up to its own stop.
    """

    confidence: float
    accuracy: float | None
    steps: float
    synops: float
    energy_pj: float


@dataclass(frozen=True)
class Course:
    """A model over its timesteps; entry t - 1 of a tuple over timesteps is of a model stopped after timestep t.

    Attributes:
        timesteps, samples: T, and how many samples were run.
        readout: the module whose outputs are added up.
        accuracy: (T,) share answered right by the largest running output, the lower class winning ties; None without labels.
        batch_mean: (T - 1,) the paper's divergence terms; None if the readout's means are negative, so no spikes.
        per_sample: (T - 1,) divergence of the running output's softmax, mean over samples.
        synops, energy_pj: (T,) SynOps effective and their energy, mean per sample. What is not run is not counted; a layer
            that is called once for all timesteps, such as one fed a constant image, is paid in full at timestep 1.
        exits: early exits, one for each confidence.
        energy_source: where the energy of an operation comes from.
    """

    timesteps: int
    samples: int
    readout: str
    accuracy: tuple[float, ...] | None
    batch_mean: tuple[float, ...] | None
    per_sample: tuple[float, ...]
    synops: tuple[float, ...]
    energy_pj: tuple[float, ...]
    exits: tuple[ExitPoint, ...]
    energy_source: str = HOROWITZ_45NM.source

    @property
    def decision(self) -> Decision:
        """The timesteps needed by the running output, sample by sample, at the paper's share of 95%."""
        return decision(self.per_sample)

    @property
    def paper_decision(self) -> Decision | None:
        """The paper's decision, from the batch mean at 95%; None where that is not defined."""
        return None if self.batch_mean is None else decision(self.batch_mean)

    def to_dict(self) -> dict[str, Any]:
        """Give all fields as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Course":
        """Build the course that `to_dict` described."""
        exits = tuple(ExitPoint(**row) for row in data["exits"])
        rest: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name != "exits"
        }
        return cls(exits=exits, **rest)


def course(
    view: ModelView,
    batches: Iterable[Any],
    *,
    readout: str | Readout | None = None,
    confidences: Sequence[float] = CONFIDENCES,
    energy: EnergyTable = HOROWITZ_45NM,
) -> Course:
    """Run the model over `batches` once, and tell its accuracy, divergence and cost at every timestep.

    A model stopped after t timesteps gives what it had added up by then; that presumes, as spiking models do, that no
    timestep sees a later one. Nothing is kept of a batch but sums; the model is left as it was found.

    Args:
        view: the model.
        batches: any iterable of `x` or `(x, y)`; y holds class numbers, (N,).
        readout: the module whose outputs over timesteps are added up to the model's; see `find_readout`.
        confidences: of the early exits, each in (0, 1].
        energy: energy of an operation.

    Raises:
        EmptyCalibration: no batch came.
        NonFinite: a weight, an input or an output is NaN or infinite.
        ModelError: the output is not the sum or mean of the readout's.
        LayoutError: a batch has other timesteps than the view.
        MeasureError: the readout gave zeros only, labels do not fit, or a confidence lies outside (0, 1].

    Example:
        >>> from spikeprune import model_view
        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.eye(2))
        >>> found = course(model_view(net, torch.ones(1, 2), spiking=False), [(torch.eye(2), torch.tensor([0, 0]))])
        >>> found.accuracy, found.synops, found.per_sample
        ((0.5,), (1.0,), ())
    """
    check_view(view)
    check_batches(batches)
    for confidence in confidences:
        refuse_share(confidence, "a confidence")
    check_weights(view.layers)
    sums = Sums(view, readout if isinstance(readout, Readout) else find_readout(view, readout), tuple(confidences))
    with view.undisturbed(), torch.no_grad(), sums.listening():
        for number, batch in enumerate(batches):
            x, y = parts(batch, view.device)
            refuse_empty(x, number)
            sums.begin(number)
            sums.add(run_batch(view, x, number), y)
    if not sums.samples:
        raise EmptyCalibration(
            "the data held no batch. Pass a list or a DataLoader with at least one; a generator is empty the second time."
        )
    sums.refuse_silent()
    return _course(sums, energy)


def _course(sums: Sums, energy: EnergyTable) -> Course:
    t, right, synops, joule = sums.view.timesteps, sums.accuracy(), sums.synops(), sums.energy(energy)
    exits = (
        ExitPoint(sums.confidences[i - t], None if right is None else right[i], steps, synops[i], joule[i])
        for i, steps in enumerate(sums.steps())
        if i >= t
    )
    return Course(
        timesteps=t,
        samples=sums.samples,
        readout=sums.readout.name,
        accuracy=None if right is None else tuple(right[:t]),
        batch_mean=sums.batch_mean(),
        per_sample=sums.per_sample(),
        synops=tuple(synops[:t]),
        energy_pj=tuple(joule[:t]),
        exits=tuple(exits),
        energy_source=energy.source,
    )
