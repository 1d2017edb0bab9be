"""The whole study: its trials in order, its report, and how it survives being killed."""

import os
from collections.abc import Sequence
from pathlib import Path

from spikeprune.errors import RecipeError
from spikeprune.recipes.phase import Watch
from spikeprune.studies.deep import Asked, conducted, facts, recipe_of
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import Row
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.sections import SECTIONS, Told
from spikeprune.studies.stprune.settings import Settings, settings_of
from spikeprune.studies.stprune.trials import trials
from spikeprune.studies.study import Study

TITLE = "STPrune: fewer channels, timesteps and bits"
PAPER = "Chowdhury, Garg, Roy, Spatio-Temporal Pruning and Quantization for Low-latency Spiking Neural Networks, IJCNN 2021, arXiv:2104.12528."


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
        quick: fewer levels and bits of a smaller network.
        watch: is told about progress.
        fresh: delete a study that is there and start anew.
        overrides: of the recipe: "net.name=vgg9", "net.width=0.5".

    Raises:
        RecipeError: a data set that the study has no recipe for, or an override that is impossible or not the user's to make.
        StorageError: the folder holds another study, or cannot be written.
        MeasureError: trials failed; told once all others are done, and tried again the next time.
    """
    asked, settings = Asked("stprune", data, quick, tuple(overrides)), settings_of(data, quick)
    recipe = recipe_of(settings, data, 0, overrides)
    _refuse_other(recipe.net.timesteps, settings)
    settings = settings.of(recipe)
    todo = list(trials(settings, events=recipe.data.events))
    labs, rows = conducted(asked, Path(path), settings, todo, seeds=seeds, watch=watch, fresh=fresh)
    study = told(asked, settings, labs, rows)
    study.write(Path(path))
    return study


def _refuse_other(timesteps: int, settings: Settings) -> None:
    """Refuse a network of another T than the first level."""
    if timesteps != settings.levels[0]:
        levels = ", ".join(map(str, settings.levels))
        raise RecipeError(
            f"the study's levels are T = {levels}, the first the dense network's, but net.timesteps is {timesteps}. Leave it out."
        )


def told(asked: Asked, settings: Settings, labs: Sequence[Lab], rows: Sequence[Row]) -> Study:
    """Turn rows into the report."""
    lab = labs[0]
    known = Told(Rows(rows), settings, lab.recipe.data.events)
    found = facts(asked, settings.batches, lab.recipe.prune.calibration, labs, rows)
    intro = (
        f"{PAPER} Measured on {asked.data} with {found['network']}; seeds {found['seeds']}. Not the paper's training: norms, direct coding or events, and "
        "surrogate gradients from the start, in few epochs, where the paper trains an ANN for hundreds and converts it; that way is in a section of its own."
    )
    sections = [section for make in SECTIONS if (section := make(known)) is not None]
    return Study(TITLE, intro, sections, found, Rows(rows))
