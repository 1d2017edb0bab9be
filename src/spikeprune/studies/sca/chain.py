"""One contender on its way down the densities: prune channels, retrain, shrink, measure, go on from there."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from spikeprune.errors import NonFinite, SparsityError
from spikeprune.kernel.schedules import every, once
from spikeprune.methods import Slimming
from spikeprune.norms import recalibrate
from spikeprune.pruner import Pruner
from spikeprune.recipes.losses import loss_fn
from spikeprune.recipes.train import Bench, accuracy, draw, seeded
from spikeprune.shrink import channel_masks, shrink
from spikeprune.studies.lab import Lab
from spikeprune.studies.measured import measured
from spikeprune.studies.retrain import held_out, retrain
from spikeprune.studies.sca.contenders import OURS, PENALTY, build
from spikeprune.studies.sca.latency import ratios
from spikeprune.studies.sca.settings import Settings
from spikeprune.studies.trial import Trial

COMPARED = 32  # training samples on which the smaller network must emit the same spikes, besides the view's example
TIMED = ("sca", "l1 uniform")


def chains(settings: Settings) -> Iterator[Trial]:
    """Prune a copy of the trained network down all densities, once for each contender."""
    for name in settings.contenders:

        def run(lab: Lab, contender: str = name) -> Mapping[str, Any]:
            return chain(lab, contender, settings)

        yield Trial({"part": "sweep", "method": name}, run)


def chain(lab: Lab, name: str, settings: Settings) -> Mapping[str, Any]:
    """Go down the densities as far as the contender can."""
    found: list[dict[str, Any]] = []
    try:
        for density, pruner, told in stops(lab, name, settings):
            small = smaller(lab, pruner)
            timed = ratios(lab, small, settings.timed) if name in TIMED else {}
            found.append({"density": density, **told, **measured(lab, small), **timed})
    except (SparsityError, NonFinite) as error:
        return {"stops": found, "ended": str(error)}
    return {"stops": found}


def stops(lab: Lab, name: str, settings: Settings) -> Iterator[tuple[float, Pruner, dict[str, Any]]]:
    """Yield each stop's pruner once the network is retrained; and, after every update, how many channels each layer has."""
    bench, state = lab.copy(), None
    for stop, density in enumerate(settings.densities):
        # What soft pruning sets to zero trains on, so its last update comes after the last batch.
        settled = settings.batches // (1 if name == "soft" else 2)
        method = build(name, density, settled, draw(lab.recipe.seed, "random"))
        again = every(1 - density, max(1, settings.batches // 2 // settings.updates), stop=settled)
        schedule = again if name in OURS else once(1 - density)
        pruner = Pruner(bench.view, method, schedule, calibration=lab.calibration[: settings.calibration], loss_fn=loss_fn)
        if state is not None:
            pruner.load_state_dict({**state, "steps": 0})
        told: dict[str, Any] = {"history": train(lab, bench, pruner, stop, settings.batches)}
        if name == "soft":
            told |= masked(lab, bench, pruner)
        state = pruner.state_dict()
        yield density, pruner, told


def masked(lab: Lab, bench: Bench, pruner: Pruner) -> dict[str, Any]:
    """Set what trained on to zero, after measuring what it still added."""
    before = accuracy(bench, held_out(lab))
    pruner.step()
    recalibrate(bench.view, lab.for_norms)
    bench.view.reset()
    return {"unmasked": before}


def train(lab: Lab, bench: Bench, pruner: Pruner, stop: int, batches: int) -> list[list[int]]:
    """Retrain under the pruner; returns how many channels each layer had after every update."""
    optimizer, history = bench.optimizer(lab.recipe.prune), list[list[int]]()
    pruner.attach(optimizer)
    layers = bench.view.channel_layers()
    norms = {norm.name: norm for layer in layers for norm in layer.norms}

    def before(_: int) -> None:
        if pruner.step():
            history.append([int(pruner.masks[layer.name].flatten(1).any(1).sum()) for layer in layers])

    def after() -> None:
        with torch.no_grad():
            for norm in norms.values():
                norm.gain.sub_(optimizer.param_groups[0]["lr"] * PENALTY * norm.gain.sign())

    penalized = isinstance(pruner.method, Slimming)
    retrain(lab, bench, optimizer, stop, batches, before=before, **({"after": after} if penalized else {}))
    pruner.detach()
    return history


def smaller(lab: Lab, pruner: Pruner) -> Bench:
    """Cut dead channels out of the network; refused if the result does not emit the same spikes."""
    view = pruner.view
    small = shrink(view, pruner.masks, calibration=lab.some(COMPARED, "compared").batches(COMPARED))
    return Bench(small, view.example, lab.recipe.machine)


def structure(lab: Lab, name: str, settings: Settings, density: float) -> Bench:
    """Give an untrained network whose layers are as wide as a contender left them."""
    for kept, pruner, _ in stops(lab, name, settings):
        if kept == density:
            fresh = lab.untrained()
            masks = {layer: pruner.masks[layer].flatten(1).any(1) for layer in pruner.masks.gates}
            with seeded(draw(lab.recipe.seed, "scratch", "weights")):
                net = shrink(fresh.view, channel_masks(fresh.view, masks), reinit=True)
            return Bench(net, fresh.view.example, lab.recipe.machine)
    raise SparsityError(f"{name} has no stop at {density}.")
