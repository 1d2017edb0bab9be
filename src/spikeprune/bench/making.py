"""Networks made ready: trained, shortened, cut, pruned, each step from the network before it, and kept in a folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeprune.bench.networks import Network, build, untrained
from spikeprune.bench.samples import Part, Samples, fed, samples
from spikeprune.errors import NonFinite
from spikeprune.hold import hold
from spikeprune.kernel.allocate import lamp, uniform
from spikeprune.kernel.patterns import Channel
from spikeprune.masks import Masks, read
from spikeprune.methods import Magnitude
from spikeprune.norms import recalibrate
from spikeprune.plan import ShrinkPlan
from spikeprune.pruner import prune
from spikeprune.recipes.train import cosine, draw, seeded
from spikeprune.saved import MODEL, load, save
from spikeprune.shrink import plan_shrink, shrink
from spikeprune.view.model_view import ModelView, model_view

CLIP = 5.0  # norm of the gradient
NORMS = 10  # batches that norms are measured with


@dataclass(frozen=True)
class Budget:
    """How long networks learn.

    Attributes:
        data: name of the data set.
        dense: batches of training from the first.
        again: batches after each step of pruning, cutting or shortening.
        batch: samples of each.
        lr: learning rate, falling to 0 as a cosine.
    """

    data: str
    dense: int
    again: int
    batch: int = 64
    lr: float = 2e-3


BUDGETS = {
    "mlp": Budget("fashion-mnist", 2000, 500, lr=1e-3),
    "vgg": Budget("fashion-mnist", 700, 150),
    "events": Budget("nmnist-1k", 120, 50, batch=32),
}
QUICK = {
    "mlp": Budget("fashion-sample", 4, 2, batch=32),
    "vgg": Budget("fashion-sample", 3, 2, batch=16),
    "events": Budget("nmnist-1k", 2, 1, batch=8),
}


@dataclass(frozen=True, eq=False)
class Made:
    """A network that is ready.

    Attributes:
        network: what it is.
        view: of it, in evaluation mode.
        density: share of its weights that lives, by layer.
        training: how it was trained, in words.
    """

    network: Network
    view: ModelView
    density: dict[str, float]
    training: str

    @property
    def net(self) -> nn.Module:
        """The network itself."""
        return self.view.net


@final
class Maker:
    """Makes networks, or reads those that were made before.

    Args:
        folder: where they are kept.
        quick: train for a few batches on the embedded sample only.
    """

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        self.folder, self.budgets = folder, QUICK if quick else BUDGETS
        self._samples: dict[str, Samples] = {}
        self._made: dict[Network, Made] = {}

    def samples(self, network: Network) -> Samples:
        """Give the data of a network, loaded once."""
        if network.kind not in self._samples:
            self._samples[network.kind] = samples(network.kind, self.budgets[network.kind].data)
        return self._samples[network.kind]

    def batch(self, network: Network, size: int) -> Tensor:
        """Give the first test samples as the network takes them."""
        generator = torch.Generator().manual_seed(draw(network.seed, "test"))
        return fed(network.kind, self.samples(network).test.x[:size], network.timesteps, generator)

    def training(self, network: Network, size: int, count: int) -> list[Tensor]:
        """Give so many batches of training samples as the network takes them."""
        generator = torch.Generator().manual_seed(draw(network.seed, "calibration"))
        pairs = _batches(self.samples(network).train, size, count, generator)
        return [fed(network.kind, x, network.timesteps, generator) for x, _ in pairs]

    def tests(self, network: Network, limit: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield whole batches of test samples as the network takes them, with labels; `limit` samples at most."""
        part = self.samples(network).test.first(limit)
        generator = torch.Generator().manual_seed(draw(network.seed, "test"))
        for start in range(0, len(part.y) - size + 1, size):
            yield fed(network.kind, part.x[start : start + size], network.timesteps, generator), part.y[start : start + size]

    def make(self, network: Network) -> Made:
        """Give a network: from memory, from its file, or by making it and those that it is made from."""
        if network not in self._made:
            self._made[network] = self._ready(network)
        return self._made[network]

    def path(self, network: Network) -> Path:
        """Name the file of a trained network; another budget has another."""
        key = hashlib.sha256(json.dumps(asdict(self.budgets[network.kind]), sort_keys=True).encode()).hexdigest()[:8]
        return self.folder / "networks" / f"{network.name}-{key}.safetensors"

    def _ready(self, network: Network) -> Made:
        if network.rate is not None:
            view, net = untrained(network)
            told = f"not trained: random weights, scaled so that {network.rate:.0%} of each layer's inputs fire"
            return Made(network, view, _density(net), told)
        path = self.path(network)
        if path.exists():
            net, _ = load(path, build(network))
            view = self._view(network, net)
        else:
            view = self._trained(network, path)
        return Made(network, view, _density(view.net), self._told(network))

    def _trained(self, network: Network, path: Path) -> ModelView:
        budget, parent = self.budgets[network.kind], network.parent
        masks, plan = Masks({}), None
        view = self._view(network, build(network))
        if parent is not None:
            before = self.make(parent)
            if network.timesteps == parent.timesteps:
                view = before.view.clone()
            else:
                view.net.load_state_dict(before.net.state_dict())
        if parent is not None and network.sparsity:
            masks = prune(view, Magnitude(uniform if network.blocks else lamp, network.pattern), network.sparsity)
        elif parent is not None and network.channels < parent.channels:
            view, plan = self._cut(network, view)
        self._learn(network, view, masks, budget.dense if parent is None else budget.again)
        save(path, view.net, masks, plan=plan or self._plan(network))
        return view

    def _cut(self, network: Network, view: ModelView) -> tuple[ModelView, ShrinkPlan]:
        masks = prune(view, Magnitude(uniform, Channel()), 1 - network.channels)
        plan = plan_shrink(view, masks)
        return self._view(network, shrink(view, masks)), plan

    def _plan(self, network: Network) -> ShrinkPlan | None:
        """The plan of the cut that an ancestor had, so that the file can be read alone."""
        if network.channels == 1 or not network.sparsity:
            return None
        parent = network.parent
        assert parent is not None
        return ShrinkPlan.from_json(read(self.path(parent), MODEL)[1]["plan"])

    def _learn(self, network: Network, view: ModelView, masks: Masks, batches: int) -> None:
        budget, part = self.budgets[network.kind], self.samples(network).train
        optimizer = torch.optim.Adam(view.net.parameters(), lr=budget.lr)
        seed = draw(network.seed, "train", network.name)
        generator = torch.Generator().manual_seed(seed)
        with seeded(seed), hold(optimizer, view, masks) if len(masks) else nullcontext():
            view.net.train()
            for step, (x, y) in enumerate(_batches(part, budget.batch, batches, generator)):
                for group in optimizer.param_groups:
                    group["lr"] = cosine(budget.lr, step, batches)
                optimizer.zero_grad()
                loss = F.cross_entropy(view(fed(network.kind, x, network.timesteps, generator)), y)
                if not bool(loss.isfinite()):
                    raise NonFinite(f"the loss of {network.name} became {float(loss)} in batch {step}.")
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(view.net.parameters(), CLIP)
                optimizer.step()
        measured = _batches(part, budget.batch, min(NORMS, batches), generator)
        recalibrate(view, [fed(network.kind, x, network.timesteps, generator) for x, _ in measured])
        view.reset()
        view.net.eval()

    def _view(self, network: Network, net: nn.Module) -> ModelView:
        return model_view(net.eval(), network.input(2, torch.Generator().manual_seed(0)))

    def _told(self, network: Network) -> str:
        budget = self.budgets[network.kind]
        steps = [f"{budget.dense} batches of {budget.batch} from {budget.data}"]
        while (parent := network.parent) is not None:
            steps.insert(1, f"{_change(network, parent)} and {budget.again} batches more")
            network = parent
        return "; ".join(steps)


def _change(network: Network, parent: Network) -> str:
    if network.sparsity:
        return f"{network.sparsity:.0%} of the weights pruned {'in blocks of 32 outputs, uniformly,' if network.blocks else 'by LAMP'}"
    return f"{network.channels:.0%} of the channels" if network.channels < parent.channels else f"T = {network.timesteps}"


def _batches(part: Part, size: int, count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield so many batches, in an order drawn anew for every pass over the data."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(count):
        if len(order) < size:
            order = torch.randperm(len(part.y), generator=generator)
        pick, order = order[:size], order[size:]
        yield part.x[pick], part.y[pick]


def _density(net: nn.Module) -> dict[str, float]:
    """Give the share of each layer's weights that is not 0: what kernels see."""
    return {
        name: float((part.weight != 0).float().mean())
        for name, part in net.named_modules()
        if isinstance(part, nn.Linear | nn.Conv2d)
    }
