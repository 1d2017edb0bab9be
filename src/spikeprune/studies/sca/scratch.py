"""Learned widths trained from scratch, with as many samples as the dense network and its chain together."""

from collections.abc import Iterator, Mapping
from typing import Any

from spikeprune.norms import recalibrate
from spikeprune.recipes.train import clip_gradients, draw, epoch
from spikeprune.studies.lab import Lab
from spikeprune.studies.retrain import falling
from spikeprune.studies.sca.chain import measured, structure
from spikeprune.studies.sca.settings import Settings
from spikeprune.studies.trial import Trial

FROM = ("sca",)


def scratch(settings: Settings) -> Iterator[Trial]:
    """Train the widths that contenders left from newly drawn weights."""
    for name in FROM if settings.scratch is not None else ():

        def run(lab: Lab, contender: str = name) -> Mapping[str, Any]:
            assert settings.scratch is not None
            return trained(lab, contender, settings, settings.scratch)

        yield Trial({"part": "scratch", "method": name, "density": settings.scratch}, run)


def trained(lab: Lab, name: str, settings: Settings, density: float) -> Mapping[str, Any]:
    """Train the structure with the dense network's recipe, and measure it."""
    bench, table, seed = structure(lab, name, settings, density), lab.recipe.train, lab.recipe.seed
    stops = settings.densities.index(density) + 1
    batches = table.epochs * lab.steps + stops * settings.batches * lab.recipe.prune.batch // table.batch
    recalibrate(bench.view, lab.for_norms)
    optimizer = bench.optimizer(table)
    clip_gradients(optimizer, table.clip)
    rate, done = falling(optimizer, table.lr, batches), 0
    while done < batches:
        part = lab.some(min(lab.steps, batches - done) * table.batch, "scratch-on", done)

        def before(step: int, done: int = done) -> None:
            rate(done + step)

        epoch(bench, optimizer, part, batch=table.batch, seed=draw(seed, "scratch", done), before=before, after=_nothing)
        done += -(-len(part.y) // table.batch)
    recalibrate(bench.view, lab.for_norms)
    bench.view.reset()
    return {**measured(lab, bench), "batches": done}


def _nothing(*_: object) -> None:
    """Do nothing after a step."""
