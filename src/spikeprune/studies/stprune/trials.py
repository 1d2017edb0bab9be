"""What is measured of the networks: each by itself, its widths, its weights at few bits, its answers to noise."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from spikeprune.masks import Masks
from spikeprune.measure import measure
from spikeprune.methods import STPrune, contraction
from spikeprune.methods.stprune import Reading
from spikeprune.norms import recalibrate
from spikeprune.quantize import fold_norms, quantize_, quantize_aware
from spikeprune.recipes.splits import Part
from spikeprune.recipes.train import Bench, accuracy, draw
from spikeprune.robustness import Deletion, Gaussian, Jitter, Noise, accuracy_under
from spikeprune.shrink import plan_shrink
from spikeprune.studies.lab import Lab
from spikeprune.studies.measured import measured
from spikeprune.studies.retrain import retrain
from spikeprune.studies.stprune.hybrid import converted
from spikeprune.studies.stprune.networks import network, parameters, places, scored
from spikeprune.studies.stprune.settings import Settings
from spikeprune.studies.trial import Trial
from spikeprune.temporal import truncate
from spikeprune.view.model_view import model_view

READINGS: tuple[Reading, ...] = ("current", "charge")
FALLING = {"slim": "short", "leading": "leading short", "dense": "dense short"}
# How weights are quantized after training: the paper's way, and two better ones.
SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "max, a layer": {},
    "least error, a layer": {"clip": "mse"},
    "least error, a channel": {"clip": "mse", "per_channel": True},
}
NOISY = ("ann on", "dense on", "slim", "short")
PAPER = 5  # bits
REPEATS = 3
TUNE_AWARE = 1_000_000  # number of the stop by which samples are drawn


def trials(settings: Settings, *, events: bool) -> Iterator[Trial]:
    """Give all trials of a seed, each network before what is measured of it."""
    for name in settings.networks:
        facts = {"part": "dense"} if name == "dense" else {"part": "network", "name": name}
        yield Trial(facts, partial(stage, settings=settings, name=name))
    yield Trial({"part": "widths"}, partial(widths, settings=settings))
    for name, short in FALLING.items():
        if short in settings.networks:
            yield Trial({"part": "cut", "name": name}, partial(cut, settings=settings, name=name))
    yield Trial({"part": "bits", "name": "short"}, partial(bits, settings=settings, name="short"))
    for k in settings.aware:
        yield Trial({"part": "aware", "name": "short", "bits": k}, partial(aware, settings=settings, k=k))
    for name in NOISY:
        if name in settings.networks:
            yield Trial({"part": "noise", "name": name}, partial(noise, settings=settings, name=name, events=events))
    if settings.hybrid:
        yield Trial({"part": "hybrid"}, partial(converted, settings=settings))


def stage(lab: Lab, settings: Settings, name: str) -> Mapping[str, Any]:
    """Measure a network, and tell how it came about."""
    bench, facts = network(lab, settings, name)
    return {**facts, **measured(lab, bench, scored(lab))}


def widths(lab: Lab, settings: Settings) -> Mapping[str, Any]:
    """Count the significant dimensions of the dense network's layers, by both readings and at every variance."""
    view = lab.copy().view
    layers = view.channel_layers()
    stats = measure(
        view, places(lab, settings), frozenset[Any]().union(*(STPrune(reading=reading).needs for reading in READINGS))
    )
    rows = []
    for reading in READINGS:
        for variance in settings.variances:
            method = STPrune(variance, reading)
            found = method.widths(layers, stats)
            left = parameters(view.net, plan_shrink(view, method(layers, stats, Masks({}))))
            rows.append(
                {"reading": reading, "variance": variance, "widths": found, "parameters": left, "contraction": contraction(found)}
            )
    return {"rows": rows, "channels": {layer.name: layer.weight.shape[0] for layer in layers}, "samples": stats.samples}


def cut(lab: Lab, settings: Settings, name: str) -> Mapping[str, Any]:
    """Run a network at fewer timesteps than it was trained for; only its norms are measured anew."""
    bench, _ = network(lab, settings, name)
    full, rows = bench.view, []
    for steps in settings.levels:
        bench.view = truncate(full, steps, rebin=lab.recipe.data.events)
        recalibrate(bench.view, lab.for_norms)
        rows.append({"timesteps": steps, "accuracy": accuracy(bench, scored(lab))})
    return {"rows": rows}


def folded(lab: Lab, settings: Settings, name: str) -> Bench:
    """Give a network with its norms folded into its weights."""
    bench, _ = network(lab, settings, name)
    net = fold_norms(bench.view)
    twin = Bench(net, bench.view.example, lab.recipe.machine)
    twin.view = model_view(net, bench.view.example, forward=bench.view.forward)
    return twin


def bits(lab: Lab, settings: Settings, name: str) -> Mapping[str, Any]:
    """Quantize weights after training, at all bits and by every scheme."""
    part, rows = scored(lab), []
    whole = accuracy(folded(lab, settings, name), part)
    for scheme, options in SCHEMES.items():
        for k in settings.bits:
            bench = folded(lab, settings, name)
            size = quantize_(bench.view, k, **options).bytes
            rows.append({"scheme": scheme, "bits": k, "accuracy": accuracy(bench, part), "bytes": size})
    return {"accuracy": whole, "rows": rows}


def aware(lab: Lab, settings: Settings, k: int) -> Mapping[str, Any]:
    """Train the short network on with weights of few bits, by both kinds of step; and, for comparison, with whole weights."""
    found: dict[str, float] = {}
    for step in ("max", "learned"):
        bench, _ = network(lab, settings, "short")
        optimizer = bench.optimizer(lab.recipe.prune)
        with quantize_aware(optimizer, bench.view, k, step=step):
            retrain(lab, bench, optimizer, TUNE_AWARE, settings.batches)
        found[step] = accuracy(bench, scored(lab))
    bench, _ = network(lab, settings, "short")
    retrain(lab, bench, bench.optimizer(lab.recipe.prune), TUNE_AWARE, settings.batches)
    return {**found, "whole": accuracy(bench, scored(lab))}


def noises(settings: Settings, *, events: bool) -> dict[str, list[tuple[float, Noise]]]:
    """Give the noises by kind, each with its strength, rising."""
    if not events:
        return {"gaussian": [(sigma, Gaussian(sigma)) for sigma in settings.sigmas]}
    return {
        "deleted": [(share, Deletion(share)) for share in settings.lost],
        "moved": [(float(steps), Jitter(steps)) for steps in settings.moved],
    }


def noise(lab: Lab, settings: Settings, name: str, *, events: bool) -> Mapping[str, Any]:
    """Disturb the inputs, several times at each strength."""
    bench, _ = network(lab, settings, name)
    some = first(scored(lab), settings.noisy)
    batches, seed, rows = list(some.batches(bench.evaluate)), draw(lab.recipe.seed, "noise"), []
    for kind, found in noises(settings, events=events).items():
        for strength, each in found:
            values = accuracy_under(bench.view, batches, each, repeats=REPEATS, seed=seed)
            rows.append({"kind": kind, "strength": strength, "accuracy": sum(values) / len(values), "repeats": list(values)})
    return {"accuracy": accuracy(bench, some), "rows": rows}


def first(part: Part, samples: int) -> Part:
    """Take the first samples of a part, or all if there are no more."""
    return Part(part.x[:samples], part.y[:samples])
