"""Retraining after a stop of a chain: the same samples, rates and length for every contender."""

from collections.abc import Callable
from functools import partial

import torch
from torch.optim import Optimizer

from spikeprune.norms import recalibrate
from spikeprune.recipes.splits import Part
from spikeprune.recipes.train import Bench, clip_gradients, cosine, draw, epoch
from spikeprune.studies.lab import Lab

WARM = 0.1  # share of the batches after a stop in which the learning rate rises
SMALL = 1000  # samples: a smaller test set is joined by the validation set, which no trial chooses by


def _nothing(*_: object) -> None:
    """Do nothing before or after a step."""


def retrain(
    lab: Lab,
    bench: Bench,
    optimizer: Optimizer,
    stop: int,
    batches: int,
    *,
    before: Callable[[int], None] = _nothing,
    after: Callable[[], None] = _nothing,
) -> None:
    """Train so many batches, and measure the norms' statistics anew.

    Args:
        lab: the seed's ground.
        bench: the network.
        optimizer: a fresh one; whoever holds masks holds it already.
        stop: number of the stop in its chain: which samples are drawn.
        batches: how many.
        before: called with the number of the batch, before each.
        after: called after each step.
    """
    table = lab.recipe.prune
    clip_gradients(optimizer, table.clip)
    rate, done = falling(optimizer, table.lr, batches), 0
    while done < batches:  # in several rounds where there are fewer samples
        what = (stop, done) if done else (stop,)
        part, seed = lab.some((batches - done) * table.batch, "tune-on", *what), draw(lab.recipe.seed, "tune", *what)
        each = partial(_each, rate, before, done)
        epoch(bench, optimizer, part, batch=table.batch, seed=seed, before=each, after=after)
        done += -(-len(part.y) // table.batch)
    recalibrate(bench.view, lab.for_norms)
    bench.view.reset()


def _each(rate: Callable[[int], None], before: Callable[[int], None], done: int, step: int) -> None:
    """Act on a step that comes after so many of earlier rounds."""
    rate(done + step)
    before(done + step)


def fit(
    lab: Lab,
    bench: Bench,
    batches: int,
    *,
    name: str,
    optimizer: Optimizer | None = None,
    before: Callable[[int], None] = _nothing,
) -> int:
    """Train a network with the dense network's recipe, so many batches with a warm-up before the cosine; returns how many it took.

    Args:
        lab: the seed's ground.
        bench: the network.
        batches: how many, at least; rounds of an epoch or less.
        name: what the training is for: which samples are drawn.
        optimizer: the recipe's, if someone holds it already; otherwise it is made here.
        before: called with the number of the batch, before each.
    """
    table, seed = lab.recipe.train, lab.recipe.seed
    recalibrate(bench.view, lab.for_norms)
    optimizer = optimizer or bench.optimizer(table)
    clip_gradients(optimizer, table.clip)
    rate, done = falling(optimizer, table.lr, batches), 0
    while done < batches:
        part = lab.some(min(lab.steps, batches - done) * table.batch, f"{name}-on", done)
        each = partial(_each, rate, before, done)
        epoch(bench, optimizer, part, batch=table.batch, seed=draw(seed, name, done), before=each, after=_nothing)
        done += -(-len(part.y) // table.batch)
    recalibrate(bench.view, lab.for_norms)
    bench.view.reset()
    return done


def falling(optimizer: Optimizer, lr: float, steps: int) -> Callable[[int], None]:
    """Set the learning rate before each step: a rise, then a cosine to zero."""
    warm = max(1, round(WARM * steps))

    def before(step: int) -> None:
        rate = lr * (step + 1) / warm if step < warm else cosine(lr, step - warm, steps - warm)
        for group in optimizer.param_groups:
            group["lr"] = rate

    return before


def held_out(lab: Lab) -> Part:
    """Give the test set, with the validation set if it is small."""
    test, validation = lab.splits.test, lab.splits.validation
    if len(test.y) >= SMALL:
        return test
    return Part(torch.cat([test.x, validation.x.to(test.x.dtype)]), torch.cat([test.y, validation.y]))
