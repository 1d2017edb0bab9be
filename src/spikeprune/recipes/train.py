"""The training loop of recipes: batches, one epoch, accuracy. Every draw comes from the run's seed, epoch by epoch."""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.data import DataSet, Images, holdout
from spikeprune.errors import MissingExtra, NonFinite, RecipeError
from spikeprune.recipes.config import Machine, Prune, Recipe, Train
from spikeprune.view.model_view import ModelView, model_view
from spikeprune.zoo import SpikingMLP

EVALUATE = 1000  # samples a batch when nothing is learned


@dataclass(frozen=True)
class Part:
    """Images as the network takes them, and labels, on the device."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, images: Images, device: torch.device) -> "Part":
        """Scale pixels to [0, 1]."""
        return cls((images.x.float() / 255).to(device), images.y.to(device))

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) in the given order, the last batch smaller; in their own order without one."""
        order = torch.arange(len(self.y)) if order is None else order
        for pick in torch.split(order.to(self.y.device), size):
            yield self.x[pick], self.y[pick]


@dataclass(frozen=True)
class Splits:
    """Training, validation and test part of a data set. Every choice is made on validation; test is for the end."""

    train: Part
    validation: Part
    test: Part

    @classmethod
    def of(cls, found: DataSet, validation: int, device: torch.device) -> "Splits":
        """Hold out `validation` images; the same ones for every seed of a run, so that runs compare."""
        train, held = holdout(found.train, validation, seed=0)
        return cls(Part.of(train, device), Part.of(held, device), Part.of(found.test, device))


def draw(seed: int, *what: object) -> int:
    """Derive the seed of one draw from the run's seed and what the draw is for."""
    text = ":".join(str(part) for part in (seed, *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw all randomness inside from `seed`, and give the process its own random state back after."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class Bench:
    """A network on the device and in the precision that Lightning Fabric sets up, and the view that runs it.

    Attributes:
        net: the network; its weights stay float32.
        view: of the network; its forward runs under Fabric's autocast, so that precision applies.
    """

    def __init__(self, net: nn.Module, example: Tensor, machine: Machine) -> None:
        fabric = make_fabric(machine)
        self.net = net.to(fabric.device)

        def forward(net: nn.Module, x: Tensor) -> Tensor:
            with fabric.autocast():
                counts: Tensor = net(x)
            return counts.float()

        self.view: ModelView = model_view(self.net, example.to(fabric.device), forward=forward)

    def optimizer(self, table: Train | Prune) -> Optimizer:
        """Make the optimizer that a recipe's table describes."""
        params, decay = self.net.parameters(), table.weight_decay
        if table.optimizer == "sgd":
            return torch.optim.SGD(params, lr=table.lr, momentum=table.momentum, weight_decay=decay)
        if table.optimizer == "adamw":
            return torch.optim.AdamW(params, lr=table.lr, weight_decay=decay)
        return torch.optim.Adam(params, lr=table.lr, weight_decay=decay)


def make_fabric(machine: Machine) -> Any:
    """Set up Lightning Fabric for one device.

    Raises:
        MissingExtra: Fabric is not installed.
        RecipeError: the machine has no such device, or the device no such precision.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingExtra.of("lightning-fabric", "recipes", "running recipes") from error
    try:
        return Fabric(accelerator=machine.device, devices=1, precision=machine.precision)
    except (RuntimeError, ValueError) as error:
        raise RecipeError(
            f"machine.device = {machine.device!r} with precision {machine.precision!r} does not work here: {error} Use 'auto'."
        ) from error


def make_net(recipe: Recipe, found: DataSet) -> SpikingMLP:
    """Build the recipe's network for a data set, its weights drawn from the recipe's seed."""
    table = recipe.net
    sizes = (found.train.x[0].numel(), *table.hidden, found.classes)
    with seeded(draw(recipe.seed, "weights")):
        return SpikingMLP(sizes, beta=table.beta, timesteps=table.timesteps, dropout=table.dropout, noise=table.noise)


def loss_fn(counts: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the spike counts."""
    return F.cross_entropy(counts, labels)


def epoch(
    bench: Bench,
    optimizer: Optimizer,
    part: Part,
    *,
    batch: int,
    seed: int,
    before: Callable[[int], None],
    after: Callable[[], None],
) -> float:
    """Train for one epoch; returns the mean loss.

    Args:
        bench: the network.
        optimizer: a plain optimizer, over the network's parameters.
        part: what to train on.
        batch: samples a step.
        seed: of the order and of all noise in this epoch.
        before: called with the step's number in the epoch, before its forward.
        after: called after each step.
    """
    total = torch.zeros((), dtype=torch.double)
    with seeded(seed):
        order = torch.randperm(len(part.y))
        bench.net.train()
        for step, (x, y) in enumerate(part.batches(batch, order)):
            before(step)
            optimizer.zero_grad()
            loss = loss_fn(bench.view(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(y)
            after()
    mean = float(total) / len(part.y)
    if not math.isfinite(mean):
        raise NonFinite(
            f"the training loss became {mean}. Lower the learning rate (train.lr or prune.lr) and run again with --fresh."
        )
    return mean


def accuracy(bench: Bench, part: Part) -> float:
    """Return the share of samples whose label has the highest spike count; the lower class wins ties."""
    with bench.view.undisturbed(), torch.no_grad():
        right = sum(int((bench.view(x).argmax(1) == y).sum()) for x, y in part.batches(EVALUATE))
    return right / len(part.y)


def cosine(lr: float, step: int, steps: int) -> float:
    """Return the learning rate at a step of a cosine decay to zero."""
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))
