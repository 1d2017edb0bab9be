"""What studies of deep networks share: their recipes and dense networks, what a user may change, and the facts of a report."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spikeprune.errors import RecipeError
from spikeprune.recipes.config import Recipe, load_recipe
from spikeprune.recipes.nets import MLP
from spikeprune.recipes.phase import Watch
from spikeprune.recipes.run import Silent
from spikeprune.recipes.rundir import environment
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import Ledger, Row
from spikeprune.studies.retrain import SMALL
from spikeprune.studies.rows import Rows
from spikeprune.studies.study import training_minutes
from spikeprune.studies.trial import Trial, conduct_all

# data set -> the recipe of its dense network and of retraining
RECIPES = {
    "fashion-mnist": "slamp-fashion",
    "fashion-sample": "slamp-fashion",
    "nmnist-1k": "slamp-nmnist",
    "nmnist": "slamp-nmnist",
    "cifar10": "slamp-cifar10",
}
EVENTS = "slamp-nmnist"
# A smaller network on little data, for the quick form of a study.
QUICK = (
    "data.validation=500",
    "net.width=0.0625",
    "net.timesteps=2",
    "train.epochs=3",
    "train.warmup=0",
    "train.batch=32",
    "prune.batch=32",
    "prune.calibration=2",
)
DECIDED = (
    "seed", "data.name", "method", "baselines",
    "prune.layers", "prune.pattern", "prune.stages", "prune.epochs", "prune.decay", "prune.warmup",
)  # fmt: skip
"""Keys of a recipe that a study sets itself, or does not read."""


class Settings(Protocol):
    """What a study's settings say to all."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Of the data's recipe."""
        ...

    def fixed(self) -> dict[str, Any]:
        """Give what every trial rests on."""
        ...


def recipe_of(settings: Settings, data: str, seed: int, extra: Sequence[str]) -> Recipe:
    """Give the recipe of one seed's dense network; `extra` are overrides on top."""
    return load_recipe(RECIPES[data], [*settings.overrides, *extra, f"data.name={data}", f"seed={seed}"])


@dataclass(frozen=True)
class Asked:
    """Which study was asked for.

    Attributes:
        study: its name.
        data: name of the data set.
        quick: whether in its quick form.
        overrides: of the recipe, by the user.

    Raises:
        RecipeError: data without a recipe, or an override that is not the user's to make.
    """

    study: str
    data: str
    quick: bool
    overrides: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.data not in RECIPES:
            raise RecipeError(f"the study runs on {', '.join(RECIPES)}, not on {self.data!r}.")
        for override in self.overrides:
            key = override.partition("=")[0].strip()
            if key in DECIDED or key.startswith("method."):
                raise RecipeError(
                    f"the study decides {key} itself, so {override!r} would change nothing or make contenders unequal. Leave it out; "
                    "net.*, train.* and the optimizer and batches of prune.* are yours."
                )

    def command(self, threads: str, seeds: int) -> str:
        """Give the command that makes the same report."""
        options = "".join(f" {shlex.quote(text)}" for text in self.overrides) + " --quick" * self.quick
        return f"OMP_NUM_THREADS={threads} spikeprune study {self.study} --data {self.data} --seeds {seeds}{options}"


def conducted(
    asked: Asked, path: Path, settings: Settings, trials: Sequence[Trial], *, seeds: int, watch: Watch | None, fresh: bool
) -> tuple[list[Lab], list[Row]]:
    """Train the dense networks of all seeds and run every trial that is not done yet.

    Raises:
        RecipeError: an override is impossible.
        StorageError: the folder holds another study, or cannot be written.
        MeasureError: trials failed; told once all others are done, and tried again the next time.
    """
    labs, ledger = prepared(asked, path, settings, seeds=seeds, watch=watch, fresh=fresh)
    for lab in labs:
        lab.train()
    return labs, conduct_all(trials, labs, ledger, watch or Silent())


def prepared(
    asked: Asked, path: Path, settings: Settings, *, seeds: int, watch: Watch | None, fresh: bool
) -> tuple[list[Lab], Ledger]:
    """Open the folder of a study, and the ground of every seed; nothing is trained yet.

    Raises:
        RecipeError: an override is impossible.
        StorageError: the folder holds another study, or cannot be written.
    """
    watch = watch or Silent()
    rests = {**vars(asked), "overrides": list(asked.overrides), **settings.fixed()}
    recipes = [recipe_of(settings, asked.data, seed, asked.overrides) for seed in range(seeds)]  # fail before the folder is made
    if recipes[0].net.name == MLP:
        raise RecipeError(
            "the study is of deep networks, not of the LIF MLP; leave net.name out or name a network of the zoo, such as vgg11."
        )
    ledger = Ledger.open(path, rests, fresh=fresh)
    return [Lab(recipe, path / f"seed-{recipe.seed}", watch) for recipe in recipes], ledger


def facts(asked: Asked, batches: int | None, calibration: int, labs: Sequence[Lab], rows: Sequence[Row]) -> dict[str, str]:
    """Say what a report rests on.

    Args:
        asked: which study.
        batches: of retraining after each stop; None if nothing is retrained, and no dense network trained before.
        calibration: batches that methods measure; told if there is retraining.
        labs: of all seeds.
        rows: all trials.
    """
    recipe, splits = labs[0].recipe, labs[0].splits
    env = environment(recipe, "")
    train, tune = recipe.train, recipe.prune
    small = len(splits.test.y) < SMALL
    minutes = f"{sum(row['seconds'] for row in rows) / 60:.0f} minutes"
    retraining = {
        "retraining": f"{batches} batches of {tune.batch} after each stop, {tune.optimizer}, learning rate {tune.lr:g}, warm-up, then cosine",
        "calibration": f"{calibration} batches of {tune.calibration_batch} training samples",
    }
    return {
        "data": f"{asked.data}: {len(splits.train.y):,} training, {len(splits.validation.y):,} validation, {len(splits.test.y):,} test samples; accuracy is that on the "
        + ("validation and test samples together" if small else "test samples")
        + "; held-out samples are the same for all seeds, so deviations hold nothing of their draw",
        "network": f"{recipe.net.title}; dense accuracy {Rows(rows).where(part='dense').percent('accuracy'):.2f} %",
        "dense training": f"{train.epochs} epochs, {train.optimizer}, learning rate {train.lr:g} ({train.decay}), batch {train.batch}",
        **({} if batches is None else retraining),
        "seeds": ", ".join(str(lab.recipe.seed) for lab in labs),
        "trials": f"{len(rows):,}, {minutes}"
        + (f", besides {training_minutes(labs):.0f} minutes of dense training" if batches is not None else ""),
        "versions": ", ".join(f"{name} {version}" for name, version in env["versions"].items()),
        "machine": f"{env['machine']['cpu']}, {env['machine']['threads']} threads",
        "command": asked.command(env["machine"]["threads"], len(labs)),
    }
