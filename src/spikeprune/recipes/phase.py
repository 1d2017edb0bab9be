"""A phase of a run: epochs of training with a checkpoint after each, so that it goes on wherever it was killed."""

import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch.optim import Optimizer

from spikeprune.errors import MissingExtra
from spikeprune.hold import gates
from spikeprune.masks import Masks
from spikeprune.pruner import Pruner
from spikeprune.recipes import memory
from spikeprune.recipes.average import Average
from spikeprune.recipes.config import Prune, Train
from spikeprune.recipes.rundir import RunDir
from spikeprune.recipes.train import Bench, Splits, accuracy, clip_gradients, draw, epoch, learning_rate
from spikeprune.shrink import plan_shrink, shrink


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
    """How far a phase is; what a checkpoint keeps besides tensors.

    Attributes:
        label: of the network.
        epochs: finished ones.
        seconds: wall time of all.
        curve: validation accuracies at each target.
        validation: accuracy now.
        samples, stepping: trained on, and the seconds of the training steps alone.
        memory_mb, memory: peak so far, and which; see `memory`.
    """

    label: str
    epochs: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: float = 0.0
    samples: int = 0
    stepping: float = 0.0
    memory_mb: float = 0.0
    memory: str = ""


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
        clip_gradients(self.optimizer, self.table.clip)
        decay = self.table.ema if isinstance(self.table, Train) else 0.0
        self.average = Average(self.bench.net, decay) if decay else None
        self._pause = 0.0  # seconds of the epoch that went into pruning
        self._updates = 0  # of the average

    @property
    def epochs(self) -> int:
        """All epochs of the phase: fine-tuning has its epochs for every stage."""
        return self.table.epochs * (len(self.table.stages) if isinstance(self.table, Prune) else 1)

    def run(self) -> None:
        """Train to the last epoch, from where the phase stands, and keep the network."""
        memory.restart(self.bench.view.device)
        self._resume()
        self.folder.rewind(self.progress.label, self.progress.epochs)
        self.watch.phase(self.progress.label, self.epochs * self.steps, self.progress.epochs * self.steps)
        if not self.epochs:
            self._prune_only()
        board = self._board()
        while self.progress.epochs < self.epochs:
            self._epoch(board)
        board.close()
        self._finish()

    def _resume(self) -> None:
        if not (resumed := self.folder.resume(self.progress.label, self.bench.net, self.optimizer)):
            return
        state, facts = resumed
        self.progress = Progress(**facts)
        if self.pruner is not None:
            self.pruner.load_state_dict(state)
        if self.average is not None:
            self.average.load(state["average"])

    def _before(self, step: int) -> None:
        """Before each training step: prune if a stage is due, and set the learning rate."""
        start = time.perf_counter()
        if self._prune_if_due():
            self._pause += time.perf_counter() - start
        within = (self.progress.epochs * self.steps + step) % (self.table.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.table, within, self.steps)

    def _after(self) -> None:
        if self.average is not None:
            self.average.update(self._updates)
            self._updates += 1
        self.watch.advance()

    def _prune_if_due(self) -> bool:
        if self.pruner is None or not self.pruner.step():
            return False
        self.optimizer.state.clear()  # a fresh optimizer for every stage, as the paper has it
        now = accuracy(self.bench, self.splits.validation)
        assert isinstance(self.table, Prune)
        target = self.table.stages[len(self.progress.curve)]
        self.progress.curve.append({"sparsity": target, "pruned": now, "tuned": now})
        row = {"phase": self.progress.label, "epoch": self.progress.epochs, "event": "pruned", "sparsity": target}
        self.folder.log({**row, "kept": sum(self.pruner.masks.kept.values()), "validation": now})
        return True

    def _prune_only(self) -> None:
        assert isinstance(self.table, Prune)
        start = time.perf_counter()
        for _ in self.table.stages:
            self._prune_if_due()
        self.progress.seconds = time.perf_counter() - start
        self.progress.validation = self.progress.curve[-1]["tuned"]

    def _epoch(self, board: Any) -> None:
        progress, start = self.progress, time.perf_counter()
        loss = self._train()
        with self.average.lent() if self.average else nullcontext():
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
        self._checkpoint()

    def _train(self) -> float:
        """Take the steps of one epoch, and time them without the pruning in between; returns the mean loss."""
        progress, part = self.progress, self.splits.train
        seed = draw(self.seed, "train" if self.pruner is None else "tune", progress.epochs)
        self._pause, self._updates, start = 0.0, progress.epochs * self.steps, time.perf_counter()
        loss = epoch(self.bench, self.optimizer, part, batch=self.table.batch, seed=seed, before=self._before, after=self._after)
        progress.stepping += time.perf_counter() - start - self._pause
        progress.samples += len(part.y)
        return loss

    def _checkpoint(self) -> None:
        self._note_memory()
        state = {"steps": 0, "masks": {}} if self.pruner is None else self.pruner.state_dict()
        if self.average is not None:
            state["average"] = self.average.state
        self.folder.checkpoint(self.bench.net, self.optimizer, state, asdict(self.progress))

    def _note_memory(self) -> None:
        device = self.bench.view.device
        self.progress.memory = memory.KINDS[device.type]
        self.progress.memory_mb = max(self.progress.memory_mb, memory.peak(device))

    def _board(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra.of("tensorboard", "recipes", "logging a run") from error
        name = self.folder.network(self.progress.label).name
        return SummaryWriter(self.folder.path / "tensorboard" / name, purge_step=self.progress.epochs)

    def _finish(self) -> None:
        self._note_memory()
        if self.average is not None:
            self.average.keep()
        masks = Masks({}) if self.pruner is None else self.pruner.masks
        facts = {
            "sparsity": self.table.stages[-1] if isinstance(self.table, Prune) else 0.0,
            "revived": revived(self.bench, masks),
        }
        label, facts = self.progress.label, {**asdict(self.progress), **facts}
        if not masks.gates:
            self.folder.finish(label, self.bench.net, masks, facts)
            return
        view = self.bench.view
        facts["weights"] = sum(
            layer.weight.numel() for layer in view.select(self.table.layers if isinstance(self.table, Prune) else None)
        )
        self.folder.finish(label, shrink(view, masks), masks, facts, plan=plan_shrink(view, masks))


def steps(splits: Splits, table: Train | Prune) -> int:
    """Count the steps of one epoch."""
    return -(-len(splits.train.y) // table.batch)


def revived(bench: Bench, masks: Masks) -> int:
    """Count dead weights that are not zero: zombies."""
    return sum(int((param[dead] != 0).sum()) for _, param, dead in gates(bench.view, masks))
