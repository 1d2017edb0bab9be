"""Fewer timesteps by training: T falls from level to level, and each level goes on from the weights of the last.

Truncation alone asks a network for an answer at a T that it never saw. Trained at each T of a falling list, it can adapt;
the list ends where accuracy has fallen by more than a budget.

Source: Chowdhury, Garg and Roy, Spatio-temporal pruning and quantization for low-latency spiking neural networks, IJCNN
2021, arXiv:2104.12528: T is reduced gradually, the weights initialised from the last T. Their list, their budget and what
becomes of thresholds are not stated; here all three are the user's.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import EmptyCalibration, MeasureError, ScheduleError
from spikeprune.kernel.schedules import Staircase
from spikeprune.measure import check_batches, measure
from spikeprune.metrics import HOROWITZ_45NM, costs
from spikeprune.stats import Need
from spikeprune.temporal.truncate import truncate
from spikeprune.view.model_view import ModelView, check_view

Train = Callable[[ModelView, int], object]
Evaluate = Callable[[ModelView], float]


@dataclass(frozen=True)
class Descent:
    """How T falls during training.

    Attributes:
        schedule: epoch -> T, due exactly then; the first at epoch 0, each lower than the one before.
        epochs: of the whole training; the last level has what is left.
        budget: the accuracy that may be lost against the first level, in the unit of `evaluate`; None runs all levels.
        rebin: add event frames up rather than cut them off; see `truncate`.

    Raises:
        ScheduleError: the schedule is no staircase, does not begin at epoch 0, has a T that is no whole number of 1 or more or
            does not fall, leaves its last level no epoch; or the budget is no number of 0 or more.

    Example:
        >>> from spikeprune import schedules
        >>> Descent(schedules.staircase({0: 25, 20: 10, 30: 5}), epochs=40, budget=0.01).levels
        ((25, range(0, 20)), (10, range(20, 30)), (5, range(30, 40)))
    """

    schedule: Staircase
    epochs: int
    budget: float | None = None
    rebin: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, Staircase):
            raise ScheduleError(
                f"T must fall at given epochs: schedules.staircase({{0: 25, 20: 10}}); got {self.schedule!r:.80}, no Staircase."
            )
        steps, targets = self.schedule.steps, self.schedule.targets
        if not all(type(t) in (int, float) and t >= 1 and float(t).is_integer() for t in targets):
            raise ScheduleError(f"every T must be a whole number of 1 or more; got {targets}.")
        if any(b >= a for a, b in pairwise(targets)):
            raise ScheduleError(f"T must fall from level to level; got {targets}.")
        if steps[0] != 0:
            raise ScheduleError(f"the first level must begin at epoch 0, so that every epoch has a T; got {steps}.")
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs <= steps[-1]:
            raise ScheduleError(
                f"the last level begins at epoch {steps[-1]}, so epochs must be a whole number above it; got {self.epochs!r}."
            )
        number = isinstance(self.budget, int | float) and not isinstance(self.budget, bool)
        if self.budget is not None and not (number and 0 <= self.budget < math.inf):
            raise ScheduleError(f"the budget must be an accuracy of 0 or more, or None; got {self.budget!r}.")

    @property
    def levels(self) -> tuple[tuple[int, range], ...]:
        """T and epochs of each level."""
        steps = (*self.schedule.steps, self.epochs)
        return tuple((int(t), range(*steps[i : i + 2])) for i, t in enumerate(self.schedule.targets))


@dataclass(frozen=True)
class Level:
    """What training at one T gave.

    Attributes:
        timesteps, epochs: T, and the epochs trained at it.
        accuracy: what `evaluate` returned.
        spikes: spikes a sample of all neurons, summed over timesteps; None without calibration, as are the next two.
        synops, energy_pj: SynOps effective and their energy, mean per sample.
        within: whether the loss against the first level is within the budget; True if there is none.
    """

    timesteps: int
    epochs: int
    accuracy: float
    spikes: float | None
    synops: float | None
    energy_pj: float | None
    within: bool

    def to_markdown(self) -> str:
        """Give a row of a Markdown table; what was not measured is a dash."""
        nano = None if self.energy_pj is None else self.energy_pj / 1000
        costs = ["-" if x is None else f"{x:,.{digits}f}" for x, digits in ((self.spikes, 0), (self.synops, 0), (nano, 2))]
        cells = [str(self.timesteps), str(self.epochs), f"{self.accuracy:.6g}", *costs, "yes" if self.within else "no"]
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Shortened:
    """A model trained to run fewer timesteps, and how it came there.

    Attributes:
        view: the model at the last level within the budget, with the weights of that level.
        levels: all that were trained, in order; only the last can be outside of the budget.
        samples: measured for spikes and costs at each level; 0 without calibration.
        energy_source: where the energy of an operation comes from.
    """

    view: ModelView
    levels: tuple[Level, ...]
    samples: int
    energy_source: str = HOROWITZ_45NM.source

    @property
    def timesteps(self) -> int:
        """T that the view runs."""
        return self.view.timesteps

    def to_markdown(self) -> str:
        """Give a row a level as a Markdown table; what was not measured is a dash."""
        lines = ["| T | epochs | accuracy | spikes | SynOps effective | energy nJ | within budget |", "|--:" * 6 + "|---|"]
        lines += [x.to_markdown() for x in self.levels]
        lines += ["", f"Kept: T = {self.timesteps}."]
        if self.samples:
            lines[-1] += f" Per sample, mean of {self.samples:,} samples; energy: {self.energy_source}."
        return "\n".join(lines) + "\n"


def shorten(
    view: ModelView, descent: Descent, *, train: Train, evaluate: Evaluate, calibration: Iterable[Any] | None = None
) -> Shortened:
    """Train a model at ever fewer timesteps, each level from the weights of the last.

    The loop over batches, the optimizer and its learning rate are the user's, and so are what Poisson coding draws and
    what lies beside the model, such as masks and the optimizer's memory: of these nothing is put back when a level is
    undone. Neurons are at rest whenever `train` or `evaluate` is called; training flags stay as `train` leaves them.

    Args:
        view: the model; its T is the most that a level can run.
        descent: levels, epochs and budget. The first level outside of the budget ends the training, and weights and
            buffers are put back to what they were at the end of the level before.
        train: `train(view, epoch)` trains one epoch with the view that runs the T of its level.
        evaluate: `evaluate(view)` to the accuracy, called at the end of each level.
        calibration: batches of `x` or `(x, y)` of the whole T for spikes and costs, gone over once a level; None leaves these out.

    Raises:
        ScheduleError: the first T is above that of the view.
        ModelError: the model cannot be told to run the T of a level, which is found before training; or there are no frames to re-bin.
        MeasureError: the calibration is one batch, or can be gone over only once; or `evaluate` returned no finite number.

    Example:
        >>> import snntorch
        >>> from spikeprune import model_view, schedules
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc, self.lif = nn.Linear(4, 2), snntorch.Leaky(beta=0.9, init_hidden=True)
        ...     def forward(self, x):
        ...         return sum(self.lif(self.fc(step)) for step in x)
        >>> view = model_view(Net(), torch.rand(8, 3, 4))
        >>> descent = Descent(schedules.staircase({0: 8, 2: 4, 3: 1}), epochs=4, budget=0.05)
        >>> def train(view, epoch):
        ...     print("epoch", epoch, "at T =", view.timesteps)
        >>> def evaluate(view):
        ...     return {8: 0.9, 4: 0.88, 1: 0.6}[view.timesteps]
        >>> shorten(view, descent, train=train, evaluate=evaluate).timesteps
        epoch 0 at T = 8
        epoch 1 at T = 8
        epoch 2 at T = 4
        epoch 3 at T = 1
        4
    """
    views = _views(view, descent)
    _check_calibration(calibration)
    levels: list[Level] = []
    kept: dict[str, Any] = {}
    samples = 0
    for short, (_, epochs) in zip(views, descent.levels, strict=True):
        for epoch in epochs:
            short.reset()
            train(short, epoch)
        accuracy = _accuracy(short, evaluate)
        within = not levels or _within(levels[0].accuracy - accuracy, descent.budget)
        spikes, synops, energy, samples = (None, None, None, 0) if calibration is None else _cost(short, calibration)
        levels.append(Level(short.timesteps, len(epochs), accuracy, spikes, synops, energy, within))
        if not within:
            view.net.load_state_dict(kept)
            break
        kept = {} if descent.budget is None else copy.deepcopy(view.net.state_dict())
    view.reset()
    return Shortened(views[sum(level.within for level in levels) - 1], tuple(levels), samples)


def _views(view: ModelView, descent: Descent) -> list[ModelView]:
    check_view(view)
    if not isinstance(descent, Descent):
        raise ScheduleError(f"shorten needs a Descent(schedule, epochs); got {type(descent).__name__}.")
    first = descent.levels[0][0]
    if first > view.timesteps:
        raise ScheduleError(f"the first level has T = {first}, but the view runs T = {view.timesteps}; a level cannot run more.")
    return [truncate(view, t, rebin=descent.rebin) for t, _ in descent.levels]


def _check_calibration(calibration: Iterable[Any] | None) -> None:
    if calibration is None:
        return
    check_batches(calibration)
    if isinstance(calibration, Iterator):
        raise MeasureError(f"calibration is gone over at every level, but a {type(calibration).__name__} only once; give a list.")
    if isinstance(calibration, Sized) and not len(calibration):
        raise EmptyCalibration("calibration holds no batch; leave it out to have neither spikes nor costs.")


def _accuracy(view: ModelView, evaluate: Evaluate) -> float:
    """Evaluate the view; flags that this changes are put back, since the next level may rely on them."""
    flags = [(module, module.training) for module in view.net.modules()]
    view.reset()
    found: object = evaluate(view)
    for module, training in flags:
        module.training = training
    value = found.item() if isinstance(found, Tensor) and found.numel() == 1 else found
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise MeasureError(
            f"evaluate must return the accuracy, a finite number; at T = {view.timesteps} it returned {found!r:.80}."
        )
    return float(value)


def _within(lost: float, budget: float | None) -> bool:
    # 0.9 - 0.89 is more than 0.01 in floating point; accuracies of any unit differ by far more than this.
    return budget is None or lost <= budget + 1e-9


def _cost(view: ModelView, calibration: Iterable[Any]) -> tuple[float, float, float, int]:
    """Measure spikes, SynOps effective and energy of a sample, and count the samples."""
    with _spikes(view) as total:
        stats = measure(view, calibration, {Need.INPUT_COUNT})
    rows = costs(view, stats)
    spikes = sum(float(each) for each in total) / stats.samples
    return spikes, sum(x.synops_effective for x in rows), sum(x.energy_pj for x in rows), stats.samples


@contextmanager
def _spikes(view: ModelView) -> Iterator[list[Tensor]]:
    """Count the spikes of all neurons, one sum for each."""
    total = [torch.zeros((), dtype=torch.int64, device=view.device) for _ in view.neurons]
    adapter = view.adapter

    def counting(count: Tensor) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _: object, output: object) -> None:
            assert adapter is not None
            count.add_((adapter.spikes(module, output) != 0).sum())

        return hook

    with ExitStack() as hooks:
        for neuron, count in zip(view.neurons.values(), total, strict=True):
            hooks.callback(neuron.register_forward_hook(counting(count)).remove)
        yield total
