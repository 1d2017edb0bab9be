"""The ground that trials of a study stand on: one seed's trained network, copies of it, its data, and pruning at a set budget.

Every trial works on a fresh copy, draws its randomness from the seed and what the draw is for, and so gives the same
result in any order, alone or after a kill.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from spikeprune.kernel.schedules import once
from spikeprune.masks import Masks
from spikeprune.measure import measure
from spikeprune.pruner import Method, Pruner
from spikeprune.recipes.config import Recipe
from spikeprune.recipes.losses import loss_fn
from spikeprune.recipes.phase import Watch, revived, steps
from spikeprune.recipes.run import Run, calibration, train_dense
from spikeprune.recipes.rundir import RunDir, environment
from spikeprune.recipes.splits import Part, Splits, opened
from spikeprune.recipes.train import EVALUATE, Bench, accuracy, draw, epoch, make_fabric
from spikeprune.report import profile
from spikeprune.report.findings import DENSE
from spikeprune.stats import Need, Stats

Batches = Sequence[tuple[Tensor, Tensor]]
WHOLE_EPOCH = -1  # as a number of batches
NORMS = 20  # batches that the statistics of norms are measured with


@dataclass(frozen=True)
class Pruned:
    """What a pruned copy came to.

    Attributes:
        bench: the copy.
        masks: what lives.
        accuracy: on the test set.
    """

    bench: Bench
    masks: Masks
    accuracy: float

    @property
    def facts(self) -> dict[str, float]:
        """Give accuracy, achieved sparsity of the pruned layers, and dead weights that are not zero."""
        return {"accuracy": self.accuracy, "achieved": self.masks.sparsity, "revived": revived(self.bench, self.masks)}


class Lab:
    """One seed of a study.

    Args:
        recipe: of the dense network and of fine-tuning; its seed is the trials' seed.
        path: the run directory that keeps the dense network.
        watch: is told how far the dense training is.
    """

    def __init__(self, recipe: Recipe, path: Path, watch: Watch) -> None:
        self.recipe = recipe
        found, splits = opened(recipe.data, recipe.net.timesteps, make_fabric(recipe.machine).device)
        self._run = Run(recipe, RunDir.open(path, recipe), found, splits, watch)

    def train(self) -> None:
        """Train the dense network, or go on with it, unless that is done."""
        self.note()
        train_dense(self._run)

    def note(self) -> None:
        """Write down what machine and versions the trials run with."""
        self._run.folder.note_environment(environment(self.recipe, self._run.found.source))

    @property
    def seconds(self) -> float:
        """How long the dense training took."""
        return float((self._run.folder.finished(DENSE) or {}).get("seconds", 0.0))

    @property
    def path(self) -> Path:
        """Where the seed's networks are kept."""
        return self._run.folder.path

    @property
    def splits(self) -> Splits:
        """The data."""
        return self._run.splits

    @property
    def classes(self) -> int:
        """Classes of the data."""
        return self._run.found.classes

    def copy(self) -> Bench:
        """Copy the trained dense network."""
        return self._run.bench(DENSE)[0]

    def untrained(self) -> Bench:
        """Build the network as the dense training found it."""
        return self._run.bench()[0]

    @property
    def steps(self) -> int:
        """Batches of an epoch of the dense training."""
        return steps(self.splits, self.recipe.train)

    @cached_property
    def for_norms(self) -> Batches:
        """Training batches to measure the statistics of norms with: the same for every trial of the seed."""
        return list(self.some(NORMS * self.recipe.prune.batch, "norms").batches(self.recipe.prune.batch))

    @cached_property
    def dense(self) -> float:
        """Test accuracy of the dense network."""
        return accuracy(self.copy(), self.splits.test)

    @cached_property
    def calibration(self) -> Batches:
        """The batches that methods measure: the same for every method and trial of the seed."""
        return calibration(self._run)

    @cached_property
    def stats(self) -> Stats:
        """The criticality of the dense network's weights over all calibration batches."""
        return self.measured(self.copy(), self.calibration)

    def measured(self, bench: Bench, batches: Batches) -> Stats:
        """Measure the gradients of a network."""
        return measure(bench.view, batches, {Need.WEIGHT_GRADIENT}, loss_fn=loss_fn)

    def one_shot(self, method: Method, sparsity: float, layers: str | Sequence[str], stats: Stats | None = None) -> Pruned:
        """Prune a copy at once, by the statistics of the dense network (or those given), without fine-tuning."""
        bench = self.copy()
        masks = method(bench.view.select(layers), stats or self.stats, Masks({}), sparsity)
        return self.masked(bench, masks)

    def masked(self, bench: Bench, masks: Masks) -> Pruned:
        """Apply masks and measure."""
        masks.apply_(bench.net)
        bench.view.reset()  # a neuron's state would keep the graph of its last training step, and snnTorch keeps every neuron
        return Pruned(bench, masks, accuracy(bench, self.splits.test))

    def cost(self, bench: Bench) -> dict[str, float]:
        """Measure what a sample costs, as the mean of the first test images."""
        report = profile(bench.view, [next(self.splits.test.batches(EVALUATE))[0]])
        return {"synops": report.synops_effective, "energy_pj": report.energy_pj}

    def in_rounds(self, method: Method, sparsity: float, layers: str, *, rounds: int, batches: int) -> Pruned:
        """Prune a copy in rounds of equal steps, criticality measured anew in each, and fine-tune after each.

        Args:
            method: what decides.
            sparsity: the last target.
            layers: what is pruned.
            rounds: how many.
            batches: of fine-tuning after each round, under `hold`, with a fresh optimizer; `WHOLE_EPOCH` for an epoch.
        """
        bench, table = self.copy(), self.recipe.prune
        pruner = Pruner(bench.view, method, once(sparsity), calibration=self.calibration, loss_fn=loss_fn, layers=layers)
        for done in range(1, rounds + 1):
            pruner.update(sparsity * done / rounds)
            optimizer = bench.optimizer(table)
            pruner.attach(optimizer)
            seed = draw(self.recipe.seed, "tune", done)
            part = self._part(batches, done)
            epoch(bench, optimizer, part, batch=table.batch, seed=seed, before=_nothing, after=_nothing)
            pruner.detach()
        return self.masked(bench, pruner.masks)

    def _part(self, batches: int, done: int) -> Part:
        """Draw what one round trains on: the same samples for every method."""
        if batches == WHOLE_EPOCH:
            return self.splits.train
        return self.some(batches * self.recipe.prune.batch, "tune-on", done)

    def some(self, samples: int, *what: object) -> Part:
        """Draw so many training samples, or all if there are no more, by the seed and what they are for."""
        train = self.splits.train
        generator = torch.Generator().manual_seed(draw(self.recipe.seed, *what))
        pick = torch.randperm(len(train.y), generator=generator)[:samples]
        return replace(train, x=train.x[pick], y=train.y[pick])


def _nothing(*_: int) -> None:
    """Do nothing before or after a step."""
