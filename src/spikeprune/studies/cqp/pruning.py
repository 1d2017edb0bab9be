"""Accuracy against sparsity at equal budgets, the exponent, the layers, the readings, and the criticality cliff."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from torch import Tensor, nn

from spikeprune.kernel.allocate import kept, reachable
from spikeprune.kernel.scores import by_mean, by_rank, per_input, per_output, per_weight, unit
from spikeprune.measure import measure
from spikeprune.methods import CQP, GradientOnly, Magnitude, Random
from spikeprune.pruner import Method
from spikeprune.recipes.methods import PATTERNS
from spikeprune.recipes.train import Bench, draw, loss_fn
from spikeprune.stats import Need, Stats
from spikeprune.studies.cqp.settings import LAYER, ROUNDS, TAUS, Settings
from spikeprune.studies.lab import Lab
from spikeprune.studies.trial import Trial
from spikeprune.view.model_view import model_view

METHODS = ("cqp", "magnitude", "gradient", "random")


def build(name: str, pattern: str, seed: int) -> Method:
    """Build one of the paper's methods."""
    units = PATTERNS[pattern]
    made: Mapping[str, Method] = {
        "cqp": CQP(pattern=units),
        "magnitude": Magnitude(pattern=units),
        "gradient": GradientOnly(pattern=units),
        "random": Random(draw(seed, "random"), pattern=units),
    }
    return made[name]


def budgets(settings: Settings) -> Iterator[Trial]:
    """Prune the first layer by every method and pattern at every sparsity of a budget."""
    for batches, sparsities in settings.sparsities:
        for pattern, method, sparsity in product(("unstructured", "column"), METHODS, sparsities):
            facts = {"part": "budgets", "batches": batches, "pattern": pattern, "method": method, "sparsity": sparsity}

            def run(lab: Lab, p: str = pattern, m: str = method, s: float = sparsity, b: int = batches) -> Mapping[str, Any]:
                return at_budget(lab, build(m, p, lab.recipe.seed), s, b)

            yield Trial(facts, run)


def at_budget(lab: Lab, method: Method, sparsity: float, batches: int) -> Mapping[str, Any]:
    """Prune the first layer in one shot (0 batches), or in rounds with so many batches of fine-tuning after each."""
    if batches == 0:
        pruned = lab.one_shot(method, sparsity, LAYER)
    else:
        pruned = lab.in_rounds(method, sparsity, LAYER, rounds=ROUNDS, batches=batches)
    return {**pruned.facts, **lab.cost(pruned.bench)}


def alphas(settings: Settings) -> Iterator[Trial]:
    """Sweep the exponent, in one shot at two sparsities and with fine-tuning at those of the settings."""
    one_shot = [(pattern, sparsity, 0) for pattern in ("unstructured", "column") for sparsity in (0.7, 0.9)]
    for (pattern, sparsity, batches), alpha in product([*one_shot, *settings.tuned_alphas], settings.alphas):
        facts = {"part": "alpha", "batches": batches, "pattern": pattern, "sparsity": sparsity, "alpha": alpha}

        def run(lab: Lab, p: str = pattern, s: float = sparsity, b: int = batches, a: float = alpha) -> Mapping[str, Any]:
            return at_budget(lab, CQP(a, pattern=PATTERNS[p]), s, b)

        yield Trial(facts, run)


def sensitivity(settings: Settings) -> Iterator[Trial]:
    """Prune one layer alone, in one shot."""
    for layer, method, sparsity in product(("fc1", "fc2", "fc3"), ("magnitude", "cqp"), settings.sensitivity):
        facts = {"part": "sensitivity", "layer": layer, "method": method, "sparsity": sparsity}

        def run(lab: Lab, n: str = layer, m: str = method, s: float = sparsity) -> Mapping[str, Any]:
            return lab.one_shot(build(m, "unstructured", lab.recipe.seed), s, n).facts

        yield Trial(facts, run)


READINGS = {
    "per weight, by the largest": CQP(),
    "per weight, by the mean": CQP(normalize=by_mean),
    "per weight, by rank": CQP(normalize=by_rank),
    "per input neuron, by the largest": CQP(criticality=per_input),
    "per input neuron, by rank": CQP(criticality=per_input, normalize=by_rank),
    "per output neuron, by the largest": CQP(criticality=per_output),
    "per weight, by the largest, jointly": CQP(joint=True),
    "no criticality": CQP(alpha=0.0),
}
assert {reading.criticality for reading in READINGS.values()} == {per_weight, per_input, per_output}
assert {reading.normalize for reading in READINGS.values()} == {unit, by_mean, by_rank}


def readings(settings: Settings) -> Iterator[Trial]:
    """Prune to 90 % in one shot by every reading of the criticality, the first layer alone and all layers together."""
    for name, layers in product(READINGS, (LAYER, "*")):
        facts = {"part": "readings", "reading": name, "layers": layers}

        def run(lab: Lab, n: str = name, chosen: str = layers) -> Mapping[str, Any]:
            return lab.one_shot(READINGS[n], 0.9, chosen).facts

        yield Trial(facts, run)
    for count, noisy in product(settings.calibrations, (False, True)):
        measured_over = {"part": "calibration", "batches": count, "noisy": noisy}

        def tried(lab: Lab, c: int = count, n: bool = noisy) -> Mapping[str, Any]:
            return fewer_batches(lab, c, n)

        yield Trial(measured_over, tried)


def fewer_batches(lab: Lab, count: int, noisy: bool) -> Mapping[str, Any]:
    """Measure criticality over the first `count` batches, if `noisy` with dropout and input noise on as the author does.

    `overlap` is the share of kept weights that all batches without noise would keep as well.
    """
    bench = lab.copy()
    stats = with_noise(lab, bench, count) if noisy else lab.measured(bench, lab.calibration[:count])
    pruned = lab.one_shot(CQP(), 0.9, LAYER, stats)
    whole = lab.one_shot(CQP(), 0.9, LAYER).masks[LAYER]
    mask = pruned.masks[LAYER]
    return {**pruned.facts, "overlap": float((mask & whole).sum() / mask.sum())}


def with_noise(lab: Lab, bench: Bench, count: int) -> Stats:
    """Measure with the network in training mode: a view whose forward switches it on; measure() puts the mode back."""

    def forward(net: nn.Module, x: Tensor) -> Any:
        return net.train()(x)

    view = model_view(bench.net, lab.calibration[0][0][:2], forward=forward)
    return measure(view, lab.calibration[:count], {Need.WEIGHT_GRADIENT}, loss_fn=loss_fn, seed=lab.recipe.seed)


def cliff(settings: Settings) -> Iterator[Trial]:
    """Sweep the threshold of the hard constraint: columns above it are never removed (alpha = 1, as in the notebooks)."""
    for tau in (*TAUS, 1.0):
        facts = {"part": "cliff", "form": "constraint", "tau": tau, "sparsity": settings.cliff}

        def run(lab: Lab, t: float = tau) -> Mapping[str, Any]:
            return protected(lab, t, settings.cliff)

        yield Trial(facts, run)


def protected(lab: Lab, tau: float, sparsity: float) -> Mapping[str, Any]:
    """Remove the lowest scores but no protected column: all that were asked for, or all that may go, if that is less.

    `critical_removed` is the share of the layer's criticality that was removed: what the threshold lets go of.
    """
    critical = column_criticality(lab)
    safe = int((critical >= tau).sum())
    target = sparsity if kept(critical.numel(), sparsity) >= safe else reachable(critical.numel(), safe)
    pruned = lab.one_shot(CQP(1.0, protect=tau, pattern=PATTERNS["column"]), target, LAYER)
    alive = pruned.masks[LAYER][0]
    removed = float(critical[~alive].sum() / critical.sum())
    return {**pruned.facts, "protected": safe, "columns": critical.numel(), "critical_removed": removed}


def column_criticality(lab: Lab) -> Tensor:
    """Give the criticality of the first layer's input columns, in [0, 1]."""
    layers = lab.copy().view.select(LAYER)
    return CQP(pattern=PATTERNS["column"]).critical(layers, lab.stats)[0]
