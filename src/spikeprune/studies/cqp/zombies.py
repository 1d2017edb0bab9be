"""Zombie weights: pruned weights that an optimizer brings back, under every common way of keeping them down.

The paper's claim is that masking the gradient is not enough. Each trial trains the dense network on, so that the
optimizer has something to remember, prunes the first layer by magnitude, trains on under one regime, and counts the dead
weights that are not zero.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from spikeprune.hold import hold
from spikeprune.masks import Masks, weight_of
from spikeprune.methods import Magnitude
from spikeprune.pruner import prune
from spikeprune.recipes.train import Bench, draw, loss_fn, seeded
from spikeprune.studies.cqp.settings import LAYER, Settings
from spikeprune.studies.lab import Lab
from spikeprune.studies.trial import Trial

BATCH = 128
SPARSITY = 0.9
Make = Callable[[Bench, float], Optimizer]

OPTIMIZERS: Mapping[str, Make] = {
    "SGD": lambda bench, decay: SGD(bench.net.parameters(), lr=0.05, weight_decay=decay),
    "SGD, momentum 0.9": lambda bench, decay: SGD(bench.net.parameters(), lr=0.05, momentum=0.9, weight_decay=decay),
    "Adam": lambda bench, decay: Adam(bench.net.parameters(), lr=5e-4, weight_decay=decay),
    "AdamW": lambda bench, decay: AdamW(bench.net.parameters(), lr=5e-4, weight_decay=decay),
    "RMSprop": lambda bench, decay: RMSprop(bench.net.parameters(), lr=5e-4, weight_decay=decay),
    "RMSprop, momentum 0.9": lambda bench, decay: RMSprop(bench.net.parameters(), lr=5e-4, momentum=0.9, weight_decay=decay),
}
DECAYS = (0.0, 1e-4)


@dataclass(frozen=True)
class Regime:
    """A way to keep dead weights dead.

    Attributes:
        gradient: their gradient is zeroed before each step.
        weight: they are zeroed after each step.
        held: by `hold`, which does both and clears the optimizer's memory of them too.
        fresh: a new optimizer is made after pruning; otherwise the one that knew them goes on.
        resumed: halfway, a new optimizer loads the state of before the pruning, as a script that resumes from a dense
            checkpoint would.
    """

    gradient: bool = False
    weight: bool = False
    held: bool = False
    fresh: bool = False
    resumed: bool = False


REGIMES: Mapping[str, Regime] = {
    "gradient masked": Regime(gradient=True),
    "gradient masked, fresh optimizer": Regime(gradient=True, fresh=True),
    "gradient masked, fresh optimizer, dense state resumed": Regime(gradient=True, fresh=True, resumed=True),
    "gradient and weight masked": Regime(gradient=True, weight=True),
    "hold": Regime(held=True),
    "hold, dense state resumed": Regime(held=True, resumed=True),
}


def zombies(settings: Settings) -> Iterator[Trial]:
    """Count revived weights for every optimizer, weight decay and regime."""
    for (name, make), decay, (title, regime) in product(OPTIMIZERS.items(), DECAYS, REGIMES.items()):
        facts = {"part": "zombies", "optimizer": name, "decay": decay, "regime": title}

        def run(lab: Lab, m: Make = make, d: float = decay, r: Regime = regime) -> Mapping[str, Any]:
            return revive(lab, lambda bench: m(bench, d), r, settings)

        yield Trial(facts, run)


def revive(lab: Lab, make: Callable[[Bench], Optimizer], regime: Regime, settings: Settings) -> Mapping[str, Any]:
    """Train, prune, train on; count the dead weights that are not zero, and the largest of them."""
    bench = lab.copy()
    weight = bench.view.select(LAYER)[0].weight
    optimizer = make(bench)
    with seeded(draw(lab.recipe.seed, "zombies")):
        _train(lab, bench, optimizer, Regime(), Masks({}), settings.warm_up)
        before = copy.deepcopy(optimizer.state_dict())
        masks = prune(bench.view, Magnitude(), SPARSITY, layers=LAYER)
        optimizer = make(bench) if regime.fresh else optimizer
        _train(lab, bench, optimizer, regime, masks, settings.steps // 2)
        if regime.resumed:
            optimizer = make(bench)
            optimizer.load_state_dict(before)
        _train(lab, bench, optimizer, regime, masks, settings.steps - settings.steps // 2)
    bench.view.reset()
    dead = weight.detach()[masks.dead(weight_of(LAYER), weight.device)]
    return {"revived": int((dead != 0).sum()), "dead": dead.numel(), "largest": float(dead.abs().max())}


def _train(lab: Lab, bench: Bench, optimizer: Optimizer, regime: Regime, masks: Masks, steps: int) -> None:
    train = lab.splits.train
    keeper: AbstractContextManager[Any] = hold(optimizer, bench.view, masks) if regime.held else nullcontext()
    bench.net.train()
    with keeper:
        for _ in range(steps):
            pick = torch.randint(len(train.y), (BATCH,)).to(train.y.device)
            optimizer.zero_grad()
            loss_fn(bench.view(train.x[pick]), train.y[pick]).backward()  # type: ignore[no-untyped-call]
            for name, param in masks.parameters(bench.net) if regime.gradient else ():
                assert param.grad is not None
                masks.zero_(name, param.grad)
            optimizer.step()
            if regime.weight:
                masks.apply_(bench.net)
