"""A run, phase by phase: train the dense network, prune copies of it alike by every method, measure all at the end.

Every phase goes on from its last finished epoch when the run was killed, and draws its randomness by epoch from the run's
seed, so a run in pieces ends as a run in one piece. All methods see the same batches in the same order.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch.optim import Optimizer

from spikeprune import data
from spikeprune.compare import Comparison, Outcome, Point
from spikeprune.errors import MissingExtra
from spikeprune.files import write_json
from spikeprune.kernel.schedules import stages
from spikeprune.masks import Masks, load
from spikeprune.pruner import Pruner
from spikeprune.recipes.config import Recipe
from spikeprune.recipes.methods import MethodSpec, build
from spikeprune.recipes.rundir import RunDir, environment
from spikeprune.recipes.train import EVALUATE, Bench, Part, Splits, accuracy, cosine, draw, epoch, loss_fn, make_fabric, make_net
from spikeprune.report import Report, profile

DENSE = "dense"


class Watch(Protocol):
    """Who is told how far a run is."""

    def phase(self, label: str, steps: int, done: int) -> None:
        """A phase of so many steps begins, or goes on from `done`."""
        ...

    def advance(self) -> None:
        """One step was taken."""
        ...


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
    found: data.DataSet
    splits: Splits
    watch: Watch

    def bench(self, weights_of: str | None = None) -> tuple[Bench, Masks]:
        """Build the network, with the weights and masks of a finished phase if named."""
        net, masks = make_net(self.recipe, self.found), Masks({})
        if weights_of is not None:
            _, masks = load(self.folder.network(weights_of) / "model.safetensors", net)
        return Bench(net, self.splits.train.x[:2], self.recipe.machine), masks


def run(recipe: Recipe, path: str | os.PathLike[str], *, watch: Watch | None = None, fresh: bool = False) -> Comparison:
    """Run a recipe into a directory, or finish what is there; returns the measured networks.

    Args:
        recipe: what to do.
        path: the run directory; see `RunDir` for what it holds.
        watch: is told about progress.
        fresh: delete a run that is there and start anew.

    Raises:
        StorageError: the directory holds another run, or cannot be written.
        DataError: the data set is missing or wrong.
    """
    folder = RunDir.open(path, recipe, fresh=fresh)
    found = data.load(recipe.data.name)
    splits = Splits.of(found, recipe.data.validation, make_fabric(recipe.machine).device)
    write_json(folder.path / "environment.json", environment(recipe, found.source))
    job = Run(recipe, folder, found, splits, watch or Silent())
    train_dense(job)
    for spec in recipe.methods:
        prune_copy(job, spec)
    folder.promote(recipe.method.label)
    comparison = Comparison(tuple(measured(job)), {recipe.budget: notes(job)})
    folder.write("report.json", comparison.to_json())
    folder.write("report.md", comparison.to_markdown())
    folder.write("report.html", comparison.to_html())
    return comparison


@dataclass
class Progress:
    """How far a phase is; what a checkpoint keeps besides tensors."""

    label: str
    epochs: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: float = 0.0


def train_dense(job: Run) -> None:
    """Train the dense network, unless that is done."""
    if job.folder.finished(DENSE):
        return
    table = job.recipe.train
    bench, _ = job.bench()
    optimizer = bench.optimizer(table)
    steps = -(-len(job.splits.train.y) // table.batch)
    progress = Progress(DENSE)
    if resumed := job.folder.resume(DENSE, bench.net, optimizer):
        progress = Progress(**resumed[1])

    def before(step: int) -> None:
        if table.decay == "cosine":
            for group in optimizer.param_groups:
                group["lr"] = cosine(table.lr, progress.epochs * steps + step, table.epochs * steps)

    _epochs(job, bench, optimizer, progress, table.epochs, before, lambda: {"steps": 0, "masks": {}})
    job.folder.finish(DENSE, bench.net, Masks({}), {**asdict(progress), "sparsity": 0.0})


def prune_copy(job: Run, spec: MethodSpec) -> None:
    """Prune a copy of the dense network by one method, in the recipe's stages, unless that is done."""
    label, table = spec.label, job.recipe.prune
    if job.folder.finished(label):
        return
    bench, _ = job.bench(DENSE)
    optimizer = bench.optimizer(table)
    steps = -(-len(job.splits.train.y) // table.batch)
    pruner = Pruner(
        bench.view,
        build(spec, table.pattern, draw(job.recipe.seed, "random")),
        stages(table.stages, every=max(1, table.epochs * steps)),
        calibration=calibration(job),
        loss_fn=loss_fn,
        layers=table.layers,
    ).attach(optimizer)
    progress = Progress(label)
    if resumed := job.folder.resume(label, bench.net, optimizer):
        pruner.load_state_dict(resumed[0])
        progress = Progress(**resumed[1])

    def before(_: int) -> None:
        if pruner.step():
            optimizer.state.clear()  # a fresh optimizer for every stage, as the paper has it
            now = accuracy(bench, job.splits.validation)
            progress.curve.append({"sparsity": table.stages[len(progress.curve)], "pruned": now, "tuned": now})

    start = time.perf_counter()
    if not table.epochs:
        for step in range(len(table.stages)):
            before(step)
        progress.seconds, progress.validation = time.perf_counter() - start, progress.curve[-1]["tuned"]
    _epochs(job, bench, optimizer, progress, table.epochs * len(table.stages), before, pruner.state_dict)
    facts = {**asdict(progress), "sparsity": table.stages[-1], "revived": revived(bench, pruner.masks)}
    job.folder.finish(label, bench.net, pruner.masks, facts)


def _epochs(
    job: Run,
    bench: Bench,
    optimizer: Optimizer,
    progress: Progress,
    epochs: int,
    before: Callable[[int], None],
    pruner_state: Callable[[], dict[str, Any]],
) -> None:
    """Train to the last epoch; after each, validate, log, and checkpoint."""
    part, label = job.splits.train, progress.label
    kind, table = ("train", job.recipe.train) if label == DENSE else ("tune", job.recipe.prune)
    steps = -(-len(part.y) // table.batch)
    job.folder.rewind(label, progress.epochs)
    job.watch.phase(label, epochs * steps, progress.epochs * steps)
    board = _board(job, label, progress.epochs)
    while progress.epochs < epochs:
        start = time.perf_counter()
        seed = draw(job.recipe.seed, kind, progress.epochs)
        loss = epoch(bench, optimizer, part, batch=table.batch, seed=seed, before=before, after=job.watch.advance)
        progress.validation = accuracy(bench, job.splits.validation)
        if progress.curve:
            progress.curve[-1]["tuned"] = progress.validation
        seconds = time.perf_counter() - start
        row = {"phase": label, "epoch": progress.epochs, "loss": loss, "validation": progress.validation}
        row |= {"sparsity": progress.curve[-1]["sparsity"] if progress.curve else 0.0, "seconds": seconds}
        progress.epochs, progress.seconds = progress.epochs + 1, progress.seconds + seconds
        job.folder.log(row)
        for key in ("loss", "validation", "sparsity"):
            board.add_scalar(key, row[key], row["epoch"])
        job.folder.checkpoint(bench.net, optimizer, pruner_state(), asdict(progress))
    board.close()


def _board(job: Run, label: str, epochs: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra.of("tensorboard", "recipes", "logging a run") from error
    return SummaryWriter(job.folder.path / "tensorboard" / job.folder.network(label).name, purge_step=epochs)


def calibration(job: Run) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Draw the batches that methods measure: from the training part, the same for every method and stage of a seed."""
    table, part = job.recipe.prune, job.splits.train
    generator = torch.Generator().manual_seed(draw(job.recipe.seed, "calibration"))
    order = torch.randperm(len(part.y), generator=generator)[: table.calibration * table.calibration_batch]
    return list(part.batches(table.calibration_batch, order))


def revived(bench: Bench, masks: Masks) -> int:
    """Count dead weights that are not zero: zombies."""
    layers = {layer.name: layer for layer in bench.view.layers}
    return sum(int((layers[name].weight[masks.dead(name, bench.view.device)] != 0).sum()) for name in masks)


def measured(job: Run) -> list[Outcome]:
    """Measure every finished network on the test set: its one use."""
    labels = [DENSE, *(spec.label for spec in job.recipe.methods)]
    job.watch.phase("test", len(labels), 0)
    outcomes = []
    for label in labels:
        outcomes.append(_outcome(job, label))
        job.watch.advance()
    return outcomes


def _outcome(job: Run, label: str) -> Outcome:
    facts = job.folder.finished(label)
    assert facts is not None
    bench, masks = job.bench(label)
    report = cost(bench, job.splits.test)
    pruned = {layer.name: layer.weight.numel() for layer in bench.view.select(job.recipe.prune.layers)}
    weights = sum(pruned.values())
    return Outcome(
        group=job.recipe.budget,
        label=label,
        seed=job.recipe.seed,
        accuracy=accuracy(bench, job.splits.test),
        validation=facts["validation"],
        sparsity=facts["sparsity"],
        weights=weights,
        kept=sum(masks.kept.values()) if masks else weights,
        revived=facts.get("revived", 0),
        curve=tuple(Point(**point) for point in facts["curve"]),
        seconds=facts["seconds"],
        report=report,
    )


def cost(bench: Bench, part: Part) -> Report:
    """Measure size and cost of a network on a whole part."""
    return profile(bench.view, [x for x, _ in part.batches(EVALUATE)])


def notes(job: Run) -> dict[str, str]:
    """Say in words what the numbers of the run rest on."""
    recipe, splits = job.recipe, job.splits
    train, tune = recipe.train, recipe.prune
    env = environment(recipe, job.found.source)
    return {
        "data": f"{recipe.data.name}: {len(splits.train.y):,} training, {len(splits.validation.y):,} validation (held out of the training "
        f"set, used for every choice and curve), {len(splits.test.y):,} test images (used once, at the end); licence: {job.found.licence}",
        "dense training": f"{train.epochs} epochs, {train.optimizer}, learning rate {train.lr:g} ({train.decay}), batch {train.batch}, "
        f"weight decay {train.weight_decay:g}",
        "pruning": f"{' '.join(tune.layers)} ({tune.pattern}) to {', '.join(f'{s:.0%}' for s in tune.stages)}, {tune.epochs} epochs of fine-tuning "
        f"after each ({tune.optimizer}, learning rate {tune.lr:g}, batch {tune.batch}, fresh optimizer each), the same for every method",
        "calibration": f"{tune.calibration} batches of {tune.calibration_batch} training images",
        "versions": ", ".join(f"{name} {version}" for name, version in env["versions"].items()),
        "machine": f"{env['machine']['cpu']}, {env['machine']['threads']} threads",
    }
