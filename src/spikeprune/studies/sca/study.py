"""The whole study: its trials in order, its report, and how it survives being killed."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from spikeprune.errors import RecipeError
from spikeprune.recipes.nets import MLP
from spikeprune.recipes.phase import Watch
from spikeprune.recipes.run import Silent
from spikeprune.recipes.rundir import environment
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import Ledger, Row
from spikeprune.studies.retrain import SMALL
from spikeprune.studies.rows import Rows
from spikeprune.studies.sca.chain import chains, whole
from spikeprune.studies.sca.scratch import scratch
from spikeprune.studies.sca.sections import SECTIONS, Told
from spikeprune.studies.sca.settings import RECIPES, Settings, settings_of
from spikeprune.studies.study import Study, training_minutes
from spikeprune.studies.sweep import flat
from spikeprune.studies.trial import Trial, conduct_all

TITLE = "SCA, channels by spiking activity"
DECIDED = (
    "seed", "data.name", "method", "baselines",
    "prune.layers", "prune.pattern", "prune.stages", "prune.epochs", "prune.decay", "prune.warmup",
)  # fmt: skip
"""Keys of a recipe that the study sets itself, or does not read."""
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
        data: one of `settings.RECIPES`.
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
    if data not in RECIPES:
        raise RecipeError(f"the study runs on {', '.join(RECIPES)}, not on {data!r}.")
    _refuse_decided(overrides)
    settings, folder, watch = settings_of(data, quick), Path(path), watch or Silent()
    asked = {"study": "sca", "data": data, "quick": quick, "overrides": list(overrides), **settings.fixed()}
    recipes = [settings.recipe(data, seed, tuple(overrides)) for seed in range(seeds)]  # fail before the folder is made
    if recipes[0].net.name == MLP:
        raise RecipeError(
            "the study is of deep networks, not of the LIF MLP; leave net.name out or name a network of the zoo, such as vgg11."
        )
    ledger = Ledger.open(folder, asked, fresh=fresh)
    labs = [Lab(recipe, folder / f"seed-{recipe.seed}", watch) for recipe in recipes]
    for lab in labs:
        lab.train()
    rows = conduct_all(trials(settings), labs, ledger, watch)
    study = told(data, settings, labs, rows, quick=quick, overrides=overrides)
    study.write(folder)
    return study


def _refuse_decided(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in DECIDED or key.startswith("method."):
            raise RecipeError(
                f"the study decides {key} itself, so {override!r} would change nothing or make contenders unequal. Leave it out; "
                "net.*, train.* and the optimizer and batches of prune.* are yours."
            )


def trials(settings: Settings) -> list[Trial]:
    """Give all trials of a seed."""
    return [Trial({"part": "dense"}, whole), *chains(settings), *scratch(settings)]


def told(
    data: str, settings: Settings, labs: Sequence[Lab], rows: Sequence[Row], *, quick: bool, overrides: Sequence[str]
) -> Study:
    """Turn rows into the report."""
    view = labs[0].copy().view
    known = Told(flat(rows), settings.densities, tuple(layer.name for layer in view.channel_layers()), settings.batches)
    facts = _facts(data, settings, labs, rows)
    options = "".join(f" {shlex.quote(text)}" for text in overrides) + " --quick" * quick
    facts["command"] = f"OMP_NUM_THREADS={facts.pop('threads')} spikeprune study sca --data {data} --seeds {len(labs)}{options}"
    intro = (
        f"{PAPER} Measured on {data} with {facts['network']}; seeds {facts['seeds']}. Not the paper's training: channels are pruned from a trained "
        "network with short retraining, all contenders alike, where the paper prunes over 300 epochs from the first on."
    )
    sections = [section for make in SECTIONS if (section := make(known)) is not None]
    return Study(TITLE, intro, sections, facts, Rows(rows))


def _facts(data: str, settings: Settings, labs: Sequence[Lab], rows: Sequence[Row]) -> dict[str, str]:
    recipe, splits = labs[0].recipe, labs[0].splits
    env = environment(recipe, "")
    train, tune = recipe.train, recipe.prune
    small = len(splits.test.y) < SMALL
    return {
        "threads": str(env["machine"]["threads"]),
        "data": f"{data}: {len(splits.train.y):,} training, {len(splits.validation.y):,} validation, {len(splits.test.y):,} test samples; accuracy is that on the "
        + ("validation and test samples together" if small else "test samples")
        + "; held-out samples are the same for all seeds, so deviations hold nothing of their draw",
        "network": f"{recipe.net.title}; dense accuracy {Rows(rows).where(part='dense').percent('accuracy'):.2f} %",
        "dense training": f"{train.epochs} epochs, {train.optimizer}, learning rate {train.lr:g} ({train.decay}), batch {train.batch}",
        "retraining": f"{settings.batches} batches of {tune.batch} at each stop, {tune.optimizer}, learning rate {tune.lr:g}, warm-up, then cosine",
        "calibration": f"{min(settings.calibration, tune.calibration)} batches of {tune.calibration_batch} training samples",
        "seeds": ", ".join(str(lab.recipe.seed) for lab in labs),
        "trials": f"{len(rows):,}, {sum(row['seconds'] for row in rows) / 60:.0f} minutes, besides {training_minutes(labs):.0f} minutes of dense training",
        "versions": ", ".join(f"{name} {version}" for name, version in env["versions"].items()),
        "machine": f"{env['machine']['cpu']}, {env['machine']['threads']} threads",
    }
