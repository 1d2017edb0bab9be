"""A run, phase by phase: train the dense network, prune copies of it alike by every method, measure all at the end.

Every phase goes on from its last finished epoch when the run was killed, and draws its randomness by epoch from the run's
seed, so a run in pieces ends as a run in one piece. All methods see the same batches in the same order.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from spikeprune.data import DataSet, EventSet
from spikeprune.errors import MaskMismatch, StorageError
from spikeprune.kernel.schedules import stages
from spikeprune.masks import Masks
from spikeprune.measure import Stats
from spikeprune.methods import Magnitude
from spikeprune.pruner import Pruner, chosen
from spikeprune.recipes.config import Recipe
from spikeprune.recipes.losses import Objective, loss_fn
from spikeprune.recipes.methods import PATTERNS, MethodSpec, build
from spikeprune.recipes.notes import notes
from spikeprune.recipes.phase import Phase, Progress, Watch, steps
from spikeprune.recipes.rundir import RunDir, environment
from spikeprune.recipes.splits import Splits, opened
from spikeprune.recipes.train import Bench, accuracy, draw, make_fabric, make_net
from spikeprune.report import Comparison, Outcome, Point, profile
from spikeprune.report.findings import DENSE
from spikeprune.saved import load


class Silent:
    """Tells nobody."""

    def phase(self, label: str, steps: int, done: int) -> None:
        """Say nothing."""

    def advance(self) -> None:
        """Say nothing."""


@dataclass
class Run:
    """One run on its way: the recipe, where it is kept, its data, and who watches."""

    recipe: Recipe
    folder: RunDir
    found: DataSet | EventSet
    splits: Splits
    watch: Watch

    def bench(self, weights_of: str | None = None) -> tuple[Bench, Masks]:
        """Build the network to be trained; or with the weights and masks of a finished phase, to be fine-tuned."""
        example = next(self.splits.train.batches(2))[0]
        net, masks = make_net(self.recipe, example, self.found.classes), Masks({})
        if weights_of is not None:
            folder = self.folder.network(weights_of)
            try:
                net, masks = load(folder / "model.safetensors", net)
            except (StorageError, MaskMismatch) as error:
                raise StorageError(f"{error} Delete {folder} and run again: that network is then made anew.") from error
        table = self.recipe.train if weights_of is None else self.recipe.prune
        return Bench(net, example, self.recipe.machine, Objective.of(table)), masks


def run(recipe: Recipe, path: str | os.PathLike[str], *, watch: Watch | None = None, fresh: bool = False) -> Comparison:
    """Run a recipe into a directory, or finish what is there; returns the measured networks.

    A finished run is read, not measured again: the test set is used once.

    Args:
        recipe: what to do.
        path: the run directory; see `RunDir` for what it holds.
        watch: is told about progress.
        fresh: delete a run that is there and start anew.

    Raises:
        StorageError: the directory holds another run, or cannot be written.
        DataError: the data set is missing or wrong.
        RecipeError, NoPrunableLayers, SparsityError: the recipe asks for what cannot be; known before any training.
    """
    device = make_fabric(recipe.machine).device
    found, splits = opened(recipe.data, recipe.net.timesteps, device)
    job = Run(recipe, RunDir(path), found, splits, watch or Silent())
    refuse_impossible(job)
    job.folder = RunDir.open(path, recipe, fresh=fresh)
    if (done := job.folder.report()) is None:
        job.folder.note_environment(environment(recipe, found.source))
        train_dense(job)
        for spec in recipe.methods:
            prune_copy(job, spec)
        job.folder.promote(recipe.method.label)
        done = Comparison(tuple(measured(job)), {recipe.budget: notes(recipe, found, splits)})
    job.folder.write("report.md", done.to_markdown())
    job.folder.write("report.html", done.to_html())
    job.folder.write("report.json", done.to_json())
    return done


def refuse_impossible(job: Run) -> None:
    """Choose layers and allocate on the untrained network, so that a recipe that cannot be met fails before it trains."""
    bench, _ = job.bench()
    table = job.recipe.prune
    for spec in job.recipe.methods:
        method = build(spec, table.pattern, seed=0)
        layers = chosen(bench.view, table.layers, method)
        stand_in = Magnitude(pattern=PATTERNS[table.pattern]) if method.needs else method
        for target in table.stages:
            stand_in(layers, Stats({}, None, 0, 0), Masks({}), target)


def train_dense(job: Run) -> None:
    """Train the dense network, unless that is done."""
    if not job.folder.finished(DENSE):
        bench, _ = job.bench()
        Phase(job.folder, bench, job.splits, job.watch, job.recipe.train, job.recipe.seed, Progress(DENSE)).run()


def prune_copy(job: Run, spec: MethodSpec) -> None:
    """Prune a copy of the dense network by one method, in the recipe's stages, unless that is done."""
    if job.folder.finished(spec.label):
        return
    bench, _ = job.bench(DENSE)
    table, seed = job.recipe.prune, job.recipe.seed
    pruner = Pruner(
        bench.view,
        build(spec, table.pattern, draw(seed, "random")),
        stages(table.stages, every=max(1, table.epochs * steps(job.splits, table))),
        calibration=calibration(job),
        loss_fn=loss_fn,
        layers=table.layers,
    )
    Phase(job.folder, bench, job.splits, job.watch, table, seed, Progress(spec.label), pruner).run()


def calibration(job: Run) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Draw the batches that methods measure: from the training part, the same for every method and stage of a seed."""
    table, part = job.recipe.prune, job.splits.train
    generator = torch.Generator().manual_seed(draw(job.recipe.seed, "calibration"))
    order = torch.randperm(len(part.y), generator=generator)[: table.calibration * table.calibration_batch]
    return list(part.batches(table.calibration_batch, order))


def measured(job: Run) -> list[Outcome]:
    """Measure every finished network on the test set: its one use."""
    labels = [DENSE, *(spec.label for spec in job.recipe.methods)]
    job.watch.phase("test", len(labels), 0)
    return [_told(job.watch.advance, _outcome(job, label)) for label in labels]


def _told(tell: Callable[[], None], outcome: Outcome) -> Outcome:
    tell()
    return outcome


def _outcome(job: Run, label: str) -> Outcome:
    facts = job.folder.finished(label)
    if facts is None:
        raise StorageError(f"the network {label!r} of {job.folder.path} is gone; run again, and it is made anew.")
    bench, masks = job.bench(label)
    left = sum(layer.weight.numel() for layer in bench.view.select(job.recipe.prune.layers))
    return Outcome(
        group=job.recipe.budget,
        label=label,
        seed=job.recipe.seed,
        accuracy=accuracy(bench, job.splits.test),
        validation=facts["validation"],
        sparsity=facts["sparsity"],
        weights=facts.get("weights", left),
        kept=sum(masks.kept.values()) if masks else left,
        revived=facts["revived"],
        curve=tuple(Point(**point) for point in facts["curve"]),
        seconds=facts["seconds"],
        report=profile(bench.view, (x for x, _ in job.splits.test.batches(bench.evaluate))),
        throughput=facts["samples"] / facts["stepping"] if facts.get("stepping") else None,
        memory_mb=facts.get("memory_mb"),
        memory=facts.get("memory", ""),
    )
