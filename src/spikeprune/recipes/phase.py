"""A phase of a run: epochs of training with a checkpoint after each, so that it goes on wherever it was killed."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch.optim import Optimizer

from spikeprune.errors import MissingExtra
from spikeprune.masks import Masks
from spikeprune.pruner import Pruner
from spikeprune.recipes.config import Prune, Train
from spikeprune.recipes.rundir import RunDir
from spikeprune.recipes.train import Bench, Splits, accuracy, cosine, draw, epoch


class Watch(Protocol):
    """Who is told how far a run is."""

    def phase(self, label: str, steps: int, done: int) -> None:
        """A phase of so many steps begins, or goes on from `done`."""
        ...

    def advance(self) -> None:
        """One step was taken."""
        ...


@dataclass
class Progress:
    """How far a phase is; what a checkpoint keeps besides tensors."""

    label: str
    epochs: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: float = 0.0


@dataclass
class Phase:
    """The training of one network of a run: the dense one, or with a pruner a pruned copy of it.

    Attributes:
        folder: where the run is kept.
        bench: the network.
        splits: the data.
        watch: who is told.
        table: how to train: the recipe's `[train]` or `[prune]`.
        seed: of the run.
        progress: how far it is; holds the label.
        pruner: decides and holds masks; None for the dense network.
    """

    folder: RunDir
    bench: Bench
    splits: Splits
    watch: Watch
    table: Train | Prune
    seed: int
    progress: Progress
    pruner: Pruner | None = None

    def __post_init__(self) -> None:
        self.optimizer: Optimizer = self.bench.optimizer(self.table)
        self.steps = steps(self.splits, self.table)
        if self.pruner is not None:
            self.pruner.attach(self.optimizer)

    @property
    def epochs(self) -> int:
        """All epochs of the phase: fine-tuning has its epochs for every stage."""
        return self.table.epochs * (len(self.table.stages) if isinstance(self.table, Prune) else 1)

    def run(self) -> None:
        """Train to the last epoch, from where the phase stands, and keep the network."""
        if resumed := self.folder.resume(self.progress.label, self.bench.net, self.optimizer):
            state, facts = resumed
            self.progress = Progress(**facts)
            if self.pruner is not None:
                self.pruner.load_state_dict(state)
        self.folder.rewind(self.progress.label, self.progress.epochs)
        self.watch.phase(self.progress.label, self.epochs * self.steps, self.progress.epochs * self.steps)
        if not self.epochs:
            self._prune_only()
        board = self._board()
        while self.progress.epochs < self.epochs:
            self._epoch(board)
        board.close()
        self._finish()

    def _before(self, step: int) -> None:
        """Before each training step: prune if a stage is due, or set the learning rate."""
        if self.pruner is not None and self.pruner.step():
            self.optimizer.state.clear()  # a fresh optimizer for every stage, as the paper has it
            now = accuracy(self.bench, self.splits.validation)
            assert isinstance(self.table, Prune)
            target = self.table.stages[len(self.progress.curve)]
            self.progress.curve.append({"sparsity": target, "pruned": now, "tuned": now})
            row = {"phase": self.progress.label, "epoch": self.progress.epochs, "event": "pruned", "sparsity": target}
            self.folder.log({**row, "kept": sum(self.pruner.masks.kept.values()), "validation": now})
        elif isinstance(self.table, Train) and self.table.decay == "cosine":
            for group in self.optimizer.param_groups:
                group["lr"] = cosine(self.table.lr, self.progress.epochs * self.steps + step, self.epochs * self.steps)

    def _prune_only(self) -> None:
        assert isinstance(self.table, Prune)
        start = time.perf_counter()
        for step in range(len(self.table.stages)):
            self._before(step)
        self.progress.seconds = time.perf_counter() - start
        self.progress.validation = self.progress.curve[-1]["tuned"]

    def _epoch(self, board: Any) -> None:
        progress, start = self.progress, time.perf_counter()
        seed = draw(self.seed, "train" if self.pruner is None else "tune", progress.epochs)
        part, batch = self.splits.train, self.table.batch
        loss = epoch(self.bench, self.optimizer, part, batch=batch, seed=seed, before=self._before, after=self.watch.advance)
        progress.validation = accuracy(self.bench, self.splits.validation)
        if progress.curve:
            progress.curve[-1]["tuned"] = progress.validation
        seconds = time.perf_counter() - start
        row = {
            "phase": progress.label,
            "epoch": progress.epochs,
            "event": "trained",
            "loss": loss,
            "validation": progress.validation,
        }
        row |= {"sparsity": progress.curve[-1]["sparsity"] if progress.curve else 0.0, "seconds": seconds}
        for key in ("loss", "validation", "sparsity"):
            board.add_scalar(key, row[key], progress.epochs)
        progress.epochs, progress.seconds = progress.epochs + 1, progress.seconds + seconds
        self.folder.log(row)
        state = {"steps": 0, "masks": {}} if self.pruner is None else self.pruner.state_dict()
        self.folder.checkpoint(self.bench.net, self.optimizer, state, asdict(progress))

    def _board(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra.of("tensorboard", "recipes", "logging a run") from error
        name = self.folder.network(self.progress.label).name
        return SummaryWriter(self.folder.path / "tensorboard" / name, purge_step=self.progress.epochs)

    def _finish(self) -> None:
        masks = Masks({}) if self.pruner is None else self.pruner.masks
        facts = {
            "sparsity": self.table.stages[-1] if isinstance(self.table, Prune) else 0.0,
            "revived": revived(self.bench, masks),
        }
        self.folder.finish(self.progress.label, self.bench.net, masks, {**asdict(self.progress), **facts})


def steps(splits: Splits, table: Train | Prune) -> int:
    """Count the steps of one epoch."""
    return -(-len(splits.train.y) // table.batch)


def revived(bench: Bench, masks: Masks) -> int:
    """Count dead weights that are not zero: zombies."""
    layers = {layer.name: layer for layer in bench.view.layers}
    return sum(int((layers[name].weight[masks.dead(name, bench.view.device)] != 0).sum()) for name in masks)
