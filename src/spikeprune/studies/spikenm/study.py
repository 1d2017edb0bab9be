"""The whole study: its trials in order, its report, and how it survives being killed."""

import os
from collections.abc import Sequence
from pathlib import Path

from spikeprune.decide import in_blocks
from spikeprune.kernel.patterns import NM
from spikeprune.recipes.phase import Watch
from spikeprune.recipes.run import Silent
from spikeprune.studies.deep import Asked, facts, prepared
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import Row
from spikeprune.studies.rows import Rows
from spikeprune.studies.spikenm.sections import SECTIONS, Told
from spikeprune.studies.spikenm.settings import Settings, settings_of
from spikeprune.studies.spikenm.trials import trials
from spikeprune.studies.study import Study
from spikeprune.studies.trial import conduct_all

TITLE = "SpikeNM, N:M masks learned from scratch"
PAPER = "Ye, Yu, Zhang et al., Sparse by Rule: Probability-Based N:M Pruning for Spiking Neural Networks, 2025, arXiv:2511.12097."


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
    """Run every trial that is not done yet, and write the report.

    Args:
        data: one of `deep.RECIPES`.
        path: the folder of the study; a study that is there is gone on with, for more seeds as well.
        seeds: how many, from 0 on.
        quick: one pattern on a smaller network.
        watch: is told about progress.
        fresh: delete a study that is there and start anew.
        overrides: of the recipe: "net.name=vgg16", "net.width=0.5".

    Raises:
        RecipeError: a data set that the study has no recipe for, or an override that is impossible or not the user's to make.
        StorageError: the folder holds another study, or cannot be written.
        MeasureError: trials failed; told once all others are done, and tried again the next time.
    """
    asked, settings = Asked("spikenm", data, quick, tuple(overrides)), settings_of(data, quick)
    labs, ledger = prepared(asked, Path(path), settings, seeds=seeds, watch=watch, fresh=fresh)
    for lab in labs:
        lab.note()
    rows = conduct_all(list(trials(settings)), labs, ledger, watch or Silent())
    study = told(asked, settings, labs, rows)
    study.write(Path(path))
    return study


def told(asked: Asked, settings: Settings, labs: Sequence[Lab], rows: Sequence[Row]) -> Study:
    """Turn rows into the report."""
    view = labs[0].untrained().view
    left_out = {}
    for n, m in settings.pairs:
        covered = [layer.name for layer in in_blocks(view, NM(n, m))]
        left_out[f"{n}:{m}"] = ", ".join(layer.name for layer in view.layers if layer.name not in covered)
    known = Told(Rows(rows), settings, left_out)
    found = facts(asked, None, 0, labs, rows)
    found["credits"] = f"{settings.credits} batches of training samples, one in turn"
    intro = (
        f"{PAPER} Measured on {asked.data} with {found['network']}; seeds {found['seeds']}. Not the paper's training: small networks and few epochs, where papers "
        "of its kind train for hundreds."
    )
    sections = [section for make in SECTIONS if (section := make(known)) is not None]
    return Study(TITLE, intro, sections, found, Rows(rows))
