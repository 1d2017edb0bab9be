"""One contender on its way down the densities: prune, retrain, measure, go on from there."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from spikeprune.errors import NonFinite, SparsityError
from spikeprune.hold import hold
from spikeprune.masks import Masks
from spikeprune.measure import measure
from spikeprune.methods import SLAMP
from spikeprune.metrics import connectivity
from spikeprune.norms import recalibrate
from spikeprune.pruner import Method
from spikeprune.recipes.losses import loss_fn
from spikeprune.recipes.phase import revived
from spikeprune.recipes.splits import Part
from spikeprune.recipes.train import Bench, accuracies, clip_gradients, cosine, draw, epoch
from spikeprune.report import profile
from spikeprune.stats import Need, Stats
from spikeprune.studies.lab import Lab
from spikeprune.studies.slamp.contenders import build
from spikeprune.studies.slamp.settings import Settings
from spikeprune.studies.trial import Trial
from spikeprune.view.layer import Layer

WARM = 0.1  # share of the batches after a stop in which the learning rate rises
SMALL = 1000  # samples: a smaller test set is joined by the validation set, which no trial chooses by
PROFILED = 500  # test samples whose operations are counted


def chains(settings: Settings) -> Iterator[Trial]:
    """Prune a copy of the trained network down all densities, once for each contender."""
    for name in settings.contenders:

        def run(lab: Lab, contender: str = name) -> Mapping[str, Any]:
            return chain(lab, build(contender, draw(lab.recipe.seed, "random")), settings)

        yield Trial({"part": "sweep", "method": name}, run)


def chain(lab: Lab, method: Method, settings: Settings) -> Mapping[str, Any]:
    """Go down the densities as far as the method can: some leave layers too large for the last ones, or diverge."""
    found: list[dict[str, Any]] = []
    try:
        found.extend(stops(lab, method, settings))
    except (SparsityError, NonFinite) as error:
        return {"stops": found, "ended": str(error)}
    return {"stops": found}


def stops(lab: Lab, method: Method, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what was measured at each density, from the highest on."""
    bench, masks = lab.copy(), Masks({})
    layers = bench.view.select(lab.recipe.prune.layers)
    for stop, density in enumerate(settings.densities):
        stats = Stats({}, None, 0, 0)
        if method.needs:
            stats = measure(bench.view, lab.calibration, method.needs, loss_fn=loss_fn)
        told = _told(method, layers, stats)
        masks = method(layers, stats, masks, 1 - density)
        masks.apply_(bench.net)
        retrain(lab, bench, masks, stop, settings.batches)
        yield {"density": density, **measured(lab, bench, masks), **told}


def _told(method: Method, layers: Sequence[Layer], stats: Stats) -> dict[str, Any]:
    """Log SLAMP's gain^2 and its weights of timesteps, by layer."""
    if not isinstance(method, SLAMP) or method.per_input:
        return {}
    gains = method.gains(layers, stats)
    return {"gains": list(gains.values()), "steps": [method.weights(layer, stats).tolist() for layer in layers]}


def retrain(lab: Lab, bench: Bench, masks: Masks, stop: int, batches: int) -> None:
    """Train so many batches under hold with a fresh optimizer, and measure the norms' statistics anew."""
    table = lab.recipe.prune
    optimizer = bench.optimizer(table)
    with hold(optimizer, bench.view, masks):
        clip_gradients(optimizer, table.clip)
        rate, done = falling(optimizer, table.lr, batches), 0
        while done < batches:  # in several rounds where there are fewer samples
            what = (stop, done) if done else (stop,)
            part, seed = lab.some((batches - done) * table.batch, "tune-on", *what), draw(lab.recipe.seed, "tune", *what)
            before = partial(_shifted, rate, done)
            epoch(bench, optimizer, part, batch=table.batch, seed=seed, before=before, after=_nothing)
            done += -(-len(part.y) // table.batch)
    recalibrate(bench.view, lab.for_norms)
    bench.view.reset()


def _shifted(rate: Callable[[int], None], done: int, step: int) -> None:
    """Set the learning rate of a step that comes after so many of earlier rounds."""
    rate(done + step)


def falling(optimizer: Optimizer, lr: float, steps: int) -> Callable[[int], None]:
    """Set the learning rate before each step: a rise, then a cosine to zero."""
    warm = max(1, round(WARM * steps))

    def before(step: int) -> None:
        rate = lr * (step + 1) / warm if step < warm else cosine(lr, step - warm, steps - warm)
        for group in optimizer.param_groups:
            group["lr"] = rate

    return before


def measured(lab: Lab, bench: Bench, masks: Masks) -> dict[str, Any]:
    """Measure a network on held-out data: accuracies, connectivity, operations, and densities and rates by layer."""
    top1, top5 = accuracies(bench, held_out(lab), (1, 5))
    batch = [next(lab.splits.test.batches(min(PROFILED, len(lab.splits.test.y))))[0]]
    report, found = profile(bench.view, batch), connectivity(bench.view, measure(bench.view, batch, {Need.INPUT_COUNT}))
    rates = [sum(rate) / len(rate) for rate in report.rates.values()]
    return {
        "accuracy": top1,
        "top5": top5,
        "achieved": masks.sparsity if masks else 0.0,
        "revived": revived(bench, masks),
        "weights": found.by_weight,
        "unrolled": found.unrolled,
        "conv": _conv_density(bench),
        "synops": report.synops_effective,
        "energy_pj": report.energy_pj,
        "layers": [layer.density for layer in report.layers],
        "rates": rates,
    }


def held_out(lab: Lab) -> Part:
    """Give the test set, with the validation set if it is small."""
    test, validation = lab.splits.test, lab.splits.validation
    if len(test.y) >= SMALL:
        return test
    return Part(torch.cat([test.x, validation.x.to(test.x.dtype)]), torch.cat([test.y, validation.y]))


def _conv_density(bench: Bench) -> float:
    """Density of the convolutions alone: one large linear layer can make the other number its own."""
    convolutions = [layer.weight for layer in bench.view.layers if layer.kind.startswith("Conv")]
    return sum(int((w != 0).sum()) for w in convolutions) / max(1, sum(w.numel() for w in convolutions))


def _nothing(*_: object) -> None:
    """Do nothing after a step."""
