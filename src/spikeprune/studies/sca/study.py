"""The whole study: its trials in order, its report, and how it survives being killed."""

import os
from collections.abc import Sequence
from pathlib import Path

from spikeprune.recipes.phase import Watch
from spikeprune.studies.deep import Asked, conducted, facts
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import Row
from spikeprune.studies.measured import whole
from spikeprune.studies.rows import Rows
from spikeprune.studies.sca.chain import chains
from spikeprune.studies.sca.scratch import scratch
from spikeprune.studies.sca.sections import SECTIONS, Told
from spikeprune.studies.sca.settings import Settings, settings_of
from spikeprune.studies.study import Study
from spikeprune.studies.sweep import flat
from spikeprune.studies.trial import Trial

TITLE = "SCA, channels by spiking activity"
PAPER = (
    "Li, Xu, Shen, Xu, Chen, Pan, Towards Efficient Deep Spiking Neural Networks Construction with Spiking Activity based Pruning, ICML 2024, "
    "arXiv:2406.01072."
)


def run(
    data: str,
    path: str | os.PathLike[str],
    *,
    seeds: int = 3,
    quick: bool = False,
    watch: Watch | None = None,
    fresh: bool = False,
    overrides: Sequence[str] = (),
) -> Study:
    """Train the dense networks, run every trial that is not done yet, and write the report.

    Args:
        data: one of `deep.RECIPES`.
        path: the folder of the study; a study that is there is gone on with, for more seeds as well.
        seeds: how many, from 0 on.
        quick: fewer contenders on a smaller network.
        watch: is told about progress.
        fresh: delete a study that is there and start anew.
        overrides: of the recipe: "net.name=vgg16", "net.width=0.25".

    Raises:
        RecipeError: a data set that the study has no recipe for, or an override that is impossible or not the user's to make.
        StorageError: the folder holds another study, or cannot be written.
        MeasureError: trials failed; told once all others are done, and tried again the next time.
    """
    asked, settings = Asked("sca", data, quick, tuple(overrides)), settings_of(data, quick)
    labs, rows = conducted(asked, Path(path), settings, trials(settings), seeds=seeds, watch=watch, fresh=fresh)
    study = told(asked, settings, labs, rows)
    study.write(Path(path))
    return study


def trials(settings: Settings) -> list[Trial]:
    """Give all trials of a seed."""
    return [Trial({"part": "dense"}, whole), *chains(settings), *scratch(settings)]


def told(asked: Asked, settings: Settings, labs: Sequence[Lab], rows: Sequence[Row]) -> Study:
    """Turn rows into the report."""
    view = labs[0].copy().view
    known = Told(flat(rows), settings.densities, tuple(layer.name for layer in view.channel_layers()), settings.batches)
    found = facts(asked, settings.batches, min(settings.calibration, labs[0].recipe.prune.calibration), labs, rows)
    intro = (
        f"{PAPER} Measured on {asked.data} with {found['network']}; seeds {found['seeds']}. Not the paper's training: channels are pruned from a trained "
        "network with short retraining, all contenders alike, where the paper prunes over 300 epochs from the first on."
    )
    sections = [section for make in SECTIONS if (section := make(known)) is not None]
    return Study(TITLE, intro, sections, found, Rows(rows))
