"""One contender on its way down the densities: prune, retrain, measure, go on from there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spikeprune.errors import NonFinite, SparsityError
from spikeprune.hold import hold
from spikeprune.masks import Masks
from spikeprune.measure import measure
from spikeprune.methods import SLAMP
from spikeprune.metrics import connectivity
from spikeprune.pruner import Method
from spikeprune.recipes.losses import loss_fn
from spikeprune.recipes.phase import revived
from spikeprune.recipes.train import Bench, accuracies, draw
from spikeprune.report import profile
from spikeprune.stats import Need, Stats
from spikeprune.studies.lab import Lab
from spikeprune.studies.retrain import held_out, retrain
from spikeprune.studies.slamp.contenders import build
from spikeprune.studies.slamp.settings import Settings
from spikeprune.studies.trial import Trial
from spikeprune.view.layer import Layer

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
        _retrain(lab, bench, masks, stop, settings.batches)
        yield {"density": density, **measured(lab, bench, masks), **told}


def _told(method: Method, layers: Sequence[Layer], stats: Stats) -> dict[str, Any]:
    """Log SLAMP's gain^2 and its weights of timesteps, by layer."""
    if not isinstance(method, SLAMP) or method.per_input:
        return {}
    gains = method.gains(layers, stats)
    return {"gains": list(gains.values()), "steps": [method.weights(layer, stats).tolist() for layer in layers]}


def _retrain(lab: Lab, bench: Bench, masks: Masks, stop: int, batches: int) -> None:
    """Train on under hold with a fresh optimizer."""
    optimizer = bench.optimizer(lab.recipe.prune)
    with hold(optimizer, bench.view, masks):
        retrain(lab, bench, optimizer, stop, batches)


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


def _conv_density(bench: Bench) -> float:
    """Density of the convolutions alone: one large linear layer can make the other number its own."""
    convolutions = [layer.weight for layer in bench.view.layers if layer.kind.startswith("Conv")]
    return sum(int((w != 0).sum()) for w in convolutions) / max(1, sum(w.numel() for w in convolutions))
