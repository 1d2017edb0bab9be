"""Networks that are sparse from the start: SNIP, SET and RigL, trained with as many samples as the dense network and a whole chain together."""

from collections.abc import Iterator, Mapping
from typing import Any

from spikeprune.kernel.schedules import Schedule, every, once
from spikeprune.methods import SET, SNIP, RigL
from spikeprune.norms import recalibrate
from spikeprune.pruner import Method, Pruner
from spikeprune.recipes.losses import loss_fn
from spikeprune.recipes.train import clip_gradients, draw, epoch
from spikeprune.studies.lab import Lab
from spikeprune.studies.retrain import falling
from spikeprune.studies.slamp.chain import measured
from spikeprune.studies.slamp.settings import Settings
from spikeprune.studies.trial import Trial

EXCHANGED = 0.75  # share of the training after which sparse training exchanges no more


def scratch(settings: Settings) -> Iterator[Trial]:
    """Train a sparse network from the untrained one, once for each method and density."""
    for density in settings.scratch_densities:
        for name in settings.scratch:

            def run(lab: Lab, method: str = name, share: float = density) -> Mapping[str, Any]:
                return trained(lab, method, share, settings)

            yield Trial({"part": "scratch", "method": name, "density": density}, run)


def trained(lab: Lab, name: str, density: float, settings: Settings) -> Mapping[str, Any]:
    """Prune the untrained network, train it under hold with the dense network's recipe, and measure it."""
    bench, table, seed = lab.untrained(), lab.recipe.train, lab.recipe.seed
    batches = table.epochs * lab.steps + retrained(lab, settings) // table.batch
    recalibrate(bench.view, lab.for_norms)  # or the norms of an untrained network pass neither spikes nor gradients
    method, schedule = plan(name, 1 - density, batches, settings.updates, seed)
    pruner = Pruner(bench.view, method, schedule, calibration=Fresh(lab), loss_fn=loss_fn)
    optimizer = bench.optimizer(table)
    pruner.attach(optimizer)
    clip_gradients(optimizer, table.clip)
    rate = falling(optimizer, table.lr, batches)
    done = 0

    def before(_: int) -> None:
        nonlocal done
        pruner.step()
        rate(done)
        done += 1

    for round_ in range(-(-batches // lab.steps)):
        part = lab.some(min(lab.steps, batches - done) * table.batch, "scratch-on", round_)
        epoch(bench, optimizer, part, batch=table.batch, seed=draw(seed, "scratch", round_), before=before, after=_nothing)
    pruner.detach()
    recalibrate(bench.view, lab.for_norms)
    return {**measured(lab, bench, pruner.masks), "batches": done}


class Fresh:
    """One batch of training samples: the first of the calibration, then another each time that one is asked for.

    SNIP asks once. RigL asks at every exchange, for the gradient of the moment.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab, self._asked = lab, 0

    def __iter__(self) -> Iterator[Any]:
        asked, self._asked = self._asked, self._asked + 1
        if not asked:
            return iter(self._lab.calibration[:1])
        size = self._lab.recipe.train.batch
        return self._lab.some(size, "scratch-gradient", asked).batches(size)


def retrained(lab: Lab, settings: Settings) -> int:
    """Count the samples that a whole chain is retrained with."""
    return len(settings.densities) * settings.batches * lab.recipe.prune.batch


def plan(name: str, sparsity: float, batches: int, updates: int, seed: int) -> tuple[Method, Schedule]:
    """Give a method that starts from nothing, and when it acts: SNIP once, sparse training over and over."""
    stop = round(EXCHANGED * batches)
    exchanges = every(sparsity, max(1, stop // updates), stop=stop)
    found: dict[str, tuple[Method, Schedule]] = {
        "snip": (SNIP(), once(sparsity)),
        "set": (SET(seed=draw(seed, "random")), exchanges),
        "rigl": (RigL(seed=draw(seed, "random"), stop=stop), exchanges),
    }
    return found[name]


def _nothing(*_: object) -> None:
    """Do nothing after a step."""
