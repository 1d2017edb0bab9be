"""The training loop of recipes: one epoch, accuracy. Every draw comes from the run's seed, epoch by epoch."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.errors import MissingExtra, NonFinite, RecipeError
from spikeprune.recipes.config import Machine, Prune, Recipe, Train
from spikeprune.recipes.losses import Objective, loss_fn, tet
from spikeprune.recipes.splits import Part, Splits
from spikeprune.view.model_view import ModelView, model_view

EVALUATE = 1000  # samples a batch when nothing is learned
EVALUATE_CONV = 200  # of a network of convolutions, whose activations are large
PLAIN = Objective()


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
        objective: what training minimizes.
    """

    def __init__(
        self, net: nn.Module, example: Tensor, machine: Machine, objective: Objective = PLAIN, *, spiking: bool = True
    ) -> None:
        fabric = make_fabric(machine)
        self.net, self.objective = net.to(fabric.device), objective
        if machine.channels_last is True or (machine.channels_last == "auto" and fabric.device.type == "cuda"):
            self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._autocast = fabric.autocast
        self.view: ModelView = model_view(self.net, example.to(fabric.device), forward=self._run, spiking=spiking)

    def _run(self, net: nn.Module, x: Tensor) -> Tensor:
        with self._autocast():
            counts: Tensor = net(x)
        return counts.float()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Give the training loss of a batch."""
        share, smoothing = self.objective.tet_lambda, self.objective.smoothing
        if share is None:
            return F.cross_entropy(self.view(x), y, label_smoothing=smoothing)
        self.view.reset()
        with self._autocast():
            outputs: Tensor = self.net.over_time(x)  # type: ignore[operator]
        return tet(outputs.float(), y, share, smoothing)

    @property
    def evaluate(self) -> int:
        """How many samples a batch may have when nothing is learned."""
        return EVALUATE_CONV if any(layer.kind.startswith("Conv") for layer in self.view.layers) else EVALUATE

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


def make_net(recipe: Recipe, example: Tensor, classes: int) -> nn.Module:
    """Build the recipe's network for data such as the example, its weights drawn from the recipe's seed."""
    channels, height, width = example.shape[-3:]
    with seeded(draw(recipe.seed, "weights")):
        return recipe.net.build((channels, height, width), classes, events=recipe.data.events)


def clip_gradients(optimizer: Optimizer, norm: float) -> None:
    """Scale all gradients before each step so that their norm, together, is at most `norm`; 0 leaves them as they are.

    To be called after `Pruner.attach`: hooks run in the order in which they came, and dead weights' gradients are to be gone
    before the norm is taken.
    """
    if norm:
        params = [param for group in optimizer.param_groups for param in group["params"]]
        optimizer.register_step_pre_hook(lambda *_: _clipped(params, norm))


def _clipped(params: Sequence[nn.Parameter], norm: float) -> None:
    torch.nn.utils.clip_grad_norm_(params, norm)


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
        seed: of the order, of augmentation and of all noise in this epoch.
        before: called with the step's number in the epoch, before its forward.
        after: called after each step.
    """
    total = torch.zeros((), dtype=torch.double, device=part.y.device)
    generator = torch.Generator(part.y.device).manual_seed(draw(seed, "augment"))
    with seeded(seed):
        order = torch.randperm(len(part.y))
        bench.net.train()
        for step, (x, y) in enumerate(part.batches(batch, order)):
            before(step)
            optimizer.zero_grad()
            loss = bench.loss(part.augmented(x, generator), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            # On the device: to read it would wait for the step to end.
            total += loss.detach().double() * len(y)
            after()
    mean = float(total) / len(part.y)
    if not math.isfinite(mean):
        raise NonFinite(
            f"the training loss became {mean}. Lower the learning rate (train.lr or prune.lr) and run again with --fresh."
        )
    return mean


def accuracy(bench: Bench, part: Part) -> float:
    """Return the share of samples whose label has the highest output; the lower class wins ties."""
    return accuracies(bench, part, top=(1,))[0]


def accuracies(bench: Bench, part: Part, top: Sequence[int] = (1, 5)) -> tuple[float, ...]:
    """Return, for each number in `top`, the share of samples whose label is among so many highest outputs.

    Of equal outputs the lower class is the higher one.

    Raises:
        NonFinite: an output is NaN.
    """
    right = torch.zeros(len(top), dtype=torch.long)
    with bench.view.undisturbed(), torch.no_grad():
        for x, y in part.batches(bench.evaluate):
            rank = ranks(bench.view(x), y)
            right += torch.stack([(rank < places).sum() for places in top]).cpu()
    return tuple(int(count) / len(part.y) for count in right)


def ranks(outputs: Tensor, labels: Tensor) -> Tensor:
    """Count, for each sample, the classes that come before its label: those with a higher output, or an equal one and a lower number.

    Args:
        outputs: (N, classes).
        labels: (N,).

    Raises:
        NonFinite: an output is NaN, which has no rank.

    Example:
        >>> ranks(torch.tensor([[0.5, 0.5, 0.9], [0.5, 0.5, 0.9]]), torch.tensor([0, 1])).tolist()
        [1, 2]
    """
    if bool(outputs.isnan().any()):
        raise NonFinite("an output of the network is NaN, so no class comes first. Lower the learning rate and train again.")
    own = outputs.gather(1, labels[:, None])
    lower = torch.arange(outputs.shape[1], device=outputs.device) < labels[:, None]
    return ((outputs > own) | (outputs == own) & lower).sum(1)


def learning_rate(table: Train | Prune, step: int, steps: int) -> float:
    """Return the learning rate at a step of the training, or of a stage, of `table.epochs` epochs of so many steps.

    It rises linearly through the warmup, and is what the decay says after it.
    """
    warm, total = table.warmup * steps, table.epochs * steps
    if step < warm:
        return table.lr * (step + 1) / (warm + 1)
    return cosine(table.lr, step - warm, total - warm) if table.decay == "cosine" else table.lr


def cosine(lr: float, step: int, steps: int) -> float:
    """Return the learning rate at a step of a cosine decay to zero."""
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))


__all__ = [
    "EVALUATE",
    "EVALUATE_CONV",
    "Bench",
    "Objective",
    "Part",
    "Splits",
    "accuracies",
    "accuracy",
    "clip_gradients",
    "cosine",
    "draw",
    "epoch",
    "learning_rate",
    "loss_fn",
    "make_fabric",
    "make_net",
    "ranks",
    "seeded",
]
