"""The whole study: its trials in order, its report, and how it survives being killed."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from spikeprune.errors import RecipeError
from spikeprune.recipes.nets import Net
from spikeprune.recipes.phase import Watch
from spikeprune.recipes.run import Silent
from spikeprune.recipes.rundir import environment
from spikeprune.studies.cqp.pruning import alphas, budgets, cliff, readings, sensitivity
from spikeprune.studies.cqp.relaxation import solver
from spikeprune.studies.cqp.sections import SECTIONS
from spikeprune.studies.cqp.sections.words import Told
from spikeprune.studies.cqp.settings import FULL, QUICK, Settings
from spikeprune.studies.cqp.timesteps import timesteps
from spikeprune.studies.cqp.trap import trap
from spikeprune.studies.cqp.zombies import zombies
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import Ledger
from spikeprune.studies.rows import Rows
from spikeprune.studies.study import Study, training_minutes
from spikeprune.studies.trial import Trial, conduct_all

TITLE = "CQP, every claim measured"
SAMPLE = "fashion-sample"
DATA = ("mnist", "fashion-mnist", SAMPLE)
CLASSES = 10


def run(
    data: str,
    path: str | os.PathLike[str],
    *,
    seeds: int = 3,
    quick: bool = False,
    watch: Watch | None = None,
    fresh: bool = False,
) -> Study:
    """Train the dense networks, run every trial that is not done yet, and write the report.

    Args:
        data: "mnist", "fashion-mnist" or "fashion-sample".
        path: the folder of the study; a study that is there is gone on with, for more seeds as well.
        seeds: how many, from 0 on.
        quick: fewer trials on a smaller network.
        watch: is told about progress.
        fresh: delete a study that is there and start anew.

    Raises:
        RecipeError: a data set that the paper's network does not fit.
        StorageError: the folder holds another study, or cannot be written.
        MissingExtra: the extras `recipes` or `relaxation` are not installed; known before any training.
        MeasureError: trials failed; told once all others are done, and tried again the next time.
    """
    if data not in DATA:
        raise RecipeError(f"the study runs on {', '.join(DATA)}, not on {data!r}.")
    solver()  # fail before the training rather than after it
    settings, folder, watch = QUICK if quick else FULL, Path(path), watch or Silent()
    ledger = Ledger.open(folder, {"study": "cqp", "data": data, "quick": quick, **asdict(settings)}, fresh=fresh)
    labs = [Lab(settings.recipe(data, seed), folder / f"seed-{seed}", watch) for seed in range(seeds)]
    for lab in labs:
        lab.train()
    rows = conduct_all(trials(settings), labs, ledger, watch)
    study = told(data, quick, labs, Rows(rows))
    study.write(folder)
    return study


def trials(settings: Settings) -> list[Trial]:
    """Give all trials of a seed, those of one part together."""
    parts = (budgets, alphas, readings, sensitivity, trap, cliff, zombies, timesteps)
    dense = Trial({"part": "dense"}, lambda lab: {"accuracy": lab.dense})
    return [dense, *(trial for part in parts for trial in part(settings))]


def told(data: str, quick: bool, labs: Sequence[Lab], rows: Rows) -> Study:
    """Turn rows into the report."""
    images, net = labs[0].splits.train.x, _mlp(labs[0])
    known = Told(data, rows, rows.where(part="dense").by_seed("accuracy"), (images[0].numel(), *net.hidden, CLASSES))
    facts = _facts(known, quick, labs)
    return Study(TITLE, _intro(facts), [section(known) for section in SECTIONS], facts, rows)


def _mlp(lab: Lab) -> Net:
    """Give the network, which the paper and thus its recipe has as an MLP."""
    net = lab.recipe.net
    assert isinstance(net, Net)
    return net


def _facts(known: Told, quick: bool, labs: Sequence[Lab]) -> dict[str, str]:
    env = environment(labs[0].recipe, "")
    train, tune, splits = labs[0].recipe.train, labs[0].recipe.prune, labs[0].splits
    net, rows = _mlp(labs[0]), known.rows
    accuracy = rows.where(part="dense").percent("accuracy")
    return {
        "command": f"OMP_NUM_THREADS={env['machine']['threads']} spikeprune study cqp --data {known.data} --seeds {len(labs)}{' --quick' * quick}",
        "data": f"{known.data}: {len(splits.train.y):,} training, {len(splits.validation.y):,} validation, {len(splits.test.y):,} test images; no setting "
        "is chosen by the test set",
        "network": f"{known.network}, LIF, T = {net.timesteps}, beta {net.beta:g}, dropout {net.dropout:g}, input noise {net.noise:g} in training; "
        f"dense accuracy {accuracy:.2f} %",
        "dense training": f"{train.epochs} epochs, {train.optimizer}, learning rate {train.lr:g} ({train.decay}), batch {train.batch}, weight decay "
        f"{train.weight_decay:g}",
        "fine-tuning": f"{tune.optimizer}, learning rate {tune.lr:g}, batch {tune.batch}, weight decay {tune.weight_decay:g}",
        "calibration": f"{tune.calibration} batches of {tune.calibration_batch} training images",
        "seeds": ", ".join(str(lab.recipe.seed) for lab in labs),
        "trials": f"{len(rows):,}, {sum(row['seconds'] for row in rows) / 60:.0f} minutes, besides {training_minutes(labs):.0f} minutes of dense training",
        "versions": ", ".join(f"{name} {version}" for name, version in env["versions"].items()),
        "machine": f"{env['machine']['cpu']}, {env['machine']['threads']} threads",
    }


def _intro(facts: dict[str, str]) -> str:
    return (
        "Muhammad Hamza, Criticality-Constrained Iterative Pruning for Energy-Efficient Spiking Neural Networks via Combined Importance Scoring, "
        f"2026, arXiv:2606.30676. Measured on {facts['data'].split(':')[0]} with {facts['network']}; seeds {facts['seeds']}."
    )
