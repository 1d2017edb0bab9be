"""What a report says, in words, of how its numbers came about."""

import torch

from spikeprune.data import DataSet, EventSet
from spikeprune.recipes.config import Prune, Recipe, Train
from spikeprune.recipes.rundir import environment
from spikeprune.recipes.splits import Splits
from spikeprune.recipes.tables import Data


def notes(recipe: Recipe, found: DataSet | EventSet, splits: Splits) -> dict[str, str]:
    """Say in words what the numbers of the run rest on."""
    train, tune = recipe.train, recipe.prune
    env = environment(recipe, found.source)
    samples = "recordings" if recipe.data.events else "images"
    stages = f"{' '.join(tune.layers)} ({tune.pattern}) to {', '.join(f'{s:.0%}' for s in tune.stages)}"
    tuning = f"{tune.epochs} epochs of fine-tuning after each ({tune.optimizer}, learning rate {tune.lr:g}, batch {tune.batch}{_more(tune)}, fresh optimizer each)"
    return {
        "data": f"{recipe.data.name}: {len(splits.train.y):,} training, {len(splits.validation.y):,} validation (held out of the training "
        f"set, used for every choice and curve), {len(splits.test.y):,} test {samples} (used once, at the end){_input(recipe.data)}; "
        f"licence: {found.licence}",
        "dense training": f"{train.epochs} epochs, {train.optimizer}, learning rate {train.lr:g} ({train.decay}), batch {train.batch}, "
        f"weight decay {train.weight_decay:g}{_more(train)}",
        "pruning": f"{stages}, {tuning if tune.epochs else 'no fine-tuning'}, the same for every method",
        "calibration": f"{tune.calibration} batches of {tune.calibration_batch} training {samples}",
        "versions": ", ".join(f"{name} {version}" for name, version in env["versions"].items()),
        "machine": f"{env['machine']['cpu']}, {torch.get_num_threads()} threads, device {recipe.machine.device}, precision {recipe.machine.precision}",
    }


def _input(table: Data) -> str:
    """How samples become the network's input, where it is not pixels in [0, 1] alone."""
    told = [f"frames by {table.by or 'count'}"] if table.events else []
    told += [f"resized to {table.side} pixels"] if table.side else []
    told += [f"padded by {table.pad} pixels"] if table.pad else []
    told += ["channels normalized by the training part"] if table.normalize == "channel" else []
    told += [f"training batches augmented by {', '.join(table.augment)}"] if table.augment else []
    return "".join(f"; {words}" for words in told)


def _more(table: Train | Prune) -> str:
    """What of training is not as it always was."""
    told = [f"TET loss with lambda {table.tet_lambda:g}"] if table.loss == "tet" else []
    told += [f"label smoothing {table.smoothing:g}"] if table.smoothing else []
    told += [f"gradients clipped to norm {table.clip:g}"] if table.clip else []
    told += [f"warmup {table.warmup} epochs"] if table.warmup else []
    told += ["cosine decay in each stage"] if isinstance(table, Prune) and table.decay == "cosine" else []
    told += [f"average of the network with decay {table.ema:g}"] if isinstance(table, Train) and table.ema else []
    return "".join(f", {words}" for words in told)
