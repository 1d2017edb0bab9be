"""A seed of a study on very little: a small convolutional network, trained for an epoch on embedded images."""

from dataclasses import replace

import pytest
import torch

from spikeprune.recipes.config import load_recipe
from spikeprune.recipes.run import Silent
from spikeprune.recipes.splits import Part, Splits
from spikeprune.studies.lab import Lab

OVERRIDES = (
    "data.name=fashion-sample", "data.validation=500", "net.name=vgg9", "net.width=0.03125", "net.timesteps=2",
    "train.epochs=1", "train.batch=32", "train.lr=0.01", "prune.batch=8", "prune.calibration=2", "prune.calibration_batch=16",
)  # fmt: skip


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """Not to be changed: every test takes copies of its network."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Lab(load_recipe("slamp-fashion", OVERRIDES), tmp_path_factory.mktemp("lab") / "seed-0", Silent())
    few = lambda part, count: Part(part.x[:count], part.y[:count], part.augment)  # noqa: E731
    splits = Splits(few(made.splits.train, 400), few(made.splits.validation, 30), few(made.splits.test, 50))
    made._run = replace(made._run, splits=splits)
    made.train()
    yield made
    torch.set_num_threads(threads)
