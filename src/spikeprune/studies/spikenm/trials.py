"""What is measured: networks trained with masks of every contender, and how much gradients of logits vary from draw to draw."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from spikeprune.decide import in_blocks
from spikeprune.hold import Holder
from spikeprune.kernel.blocks import blocks, fullest
from spikeprune.kernel.patterns import NM
from spikeprune.learn import Learning, learn_masks
from spikeprune.masks import Masks
from spikeprune.methods import Magnitude
from spikeprune.norms import recalibrate
from spikeprune.pruner import prune
from spikeprune.recipes.losses import loss_fn
from spikeprune.recipes.train import Bench, accuracy
from spikeprune.studies.lab import Batches, Lab
from spikeprune.studies.measured import measured
from spikeprune.studies.retrain import fit, held_out
from spikeprune.studies.spikenm.contenders import CONTENDERS, Contender
from spikeprune.studies.spikenm.search import looked_at
from spikeprune.studies.spikenm.settings import Settings
from spikeprune.studies.trial import Trial

CREDITED = 64  # samples of a batch that eligibilities are measured on


def trials(settings: Settings) -> Iterator[Trial]:
    """Give all trials of a seed."""
    yield Trial({"part": "dense"}, partial(dense, settings=settings))
    for (n, m), name in settings.tried():
        facts = {"part": "masks", "pattern": f"{n}:{m}", "name": name}
        yield Trial(facts, partial(trained, settings=settings, pattern=NM(n, m), name=name))


def dense(lab: Lab, settings: Settings) -> Mapping[str, Any]:
    """Train the dense network as all others, and measure it; and how it answers pruned by magnitude at the end, without retraining."""
    bench = lab.untrained()
    fit(lab, bench, total(lab), name="masks")
    pruned = {}
    for n, m in settings.pairs:
        twin = lab.untrained()
        twin.net.load_state_dict(bench.net.state_dict())
        prune(twin.view, Magnitude(pattern=NM(n, m)))
        recalibrate(twin.view, lab.for_norms)
        pruned[f"{n}:{m}"] = accuracy(twin, held_out(lab))
    return {"pruned": pruned, **measured(lab, bench)}


def total(lab: Lab) -> int:
    """Count the batches of every training."""
    return lab.recipe.train.epochs * lab.steps


def credits_of(lab: Lab, settings: Settings) -> Batches:
    """Give the training batches that eligibilities are measured on."""
    return list(lab.some(settings.credits * CREDITED, "credits").batches(CREDITED))


def trained(lab: Lab, settings: Settings, pattern: NM, name: str) -> Mapping[str, Any]:
    """Train a network with masks of a contender, and measure it."""
    bench = lab.untrained()
    names = [layer.name for layer in in_blocks(bench.view, pattern)]
    coming = _Coming(lab, settings, bench, pattern, CONTENDERS[name])
    fit(lab, bench, total(lab), name="masks", optimizer=coming.optimizer, before=coming.before)
    assert coming.masks is not None
    layers = [layer for layer in bench.view.layers if layer.name in names]
    found = {
        "fullest": max(fullest(layer.weight != 0, pattern.m) for layer in layers),
        "usage": _usage(coming.masks, pattern),
        "density": coming.masks.density,
        "covered": sum(layer.weight.numel() for layer in layers) / sum(x.weight.numel() for x in bench.view.layers),
        "alive": sum(int(x.weight.count_nonzero()) for x in bench.view.layers) / sum(x.weight.numel() for x in bench.view.layers),
        "search": coming.search,
    }
    return {**found, **measured(lab, bench)}


def _usage(masks: Masks, pattern: NM) -> list[float]:
    """Give the share of blocks with 0, 1, ... weights alive."""
    counts = torch.cat([blocks(mask.float(), pattern.m).sum(1).long() for mask in masks.values()])
    return [float(x) / len(counts) for x in torch.bincount(counts, minlength=pattern.m + 1)]


class _Coming:
    """Masks on their way within a training: what is to happen before which batch."""

    def __init__(self, lab: Lab, settings: Settings, bench: Bench, pattern: NM, contender: Contender) -> None:
        self._lab, self._settings, self._bench, self._pattern, self._contender = lab, settings, bench, pattern, contender
        self.optimizer = bench.optimizer(lab.recipe.train)
        self._end = round(settings.share * total(lab))
        self.masks: Masks | None = None
        self.search: list[dict[str, float]] = []
        self._learning: Learning | None = None
        if contender.learn is not None:
            method = contender.learn(pattern, lab.recipe.seed)
            batches = credits_of(lab, settings) if method.needs else ()
            self._learning = learn_masks(self.optimizer, bench.view, method, self._end, calibration=batches, loss_fn=loss_fn)

    def before(self, step: int) -> None:
        """Decide what is due before a batch."""
        if self._learning is not None and step in {round(share * self._end) for share in self._settings.moments}:
            self.search += looked_at(self._lab, self._learning, self._settings.draws)
        if step != (0 if self._contender.first else self._end):
            return
        if self._learning is not None:
            self._learning.release()
            self.masks, self._learning = self._learning.masks, None
        else:
            assert self._contender.once is not None
            self.masks = self._contender.once(self._bench.view, self._pattern, self._lab.recipe.seed)
        Holder(self.optimizer, self._bench.view, self.masks)
