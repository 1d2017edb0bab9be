"""Learned widths trained from scratch, with as many samples as the dense network and its chain together."""

from collections.abc import Iterator, Mapping
from typing import Any

from spikeprune.studies.lab import Lab
from spikeprune.studies.measured import measured
from spikeprune.studies.retrain import fit
from spikeprune.studies.sca.chain import structure
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
    bench, table = structure(lab, name, settings, density), lab.recipe.train
    stops = settings.densities.index(density) + 1
    batches = table.epochs * lab.steps + stops * settings.batches * lab.recipe.prune.batch // table.batch
    done = fit(lab, bench, batches, name="scratch")
    return {**measured(lab, bench), "batches": done}
