"""Studies: the claims of a paper, measured anew over seeds; a folder a paper.

`STUDIES` is the table behind `spikeprune study`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A study that the command line can name.

    Attributes:
        module: that holds its `run(data, path, *, seeds, quick, watch, fresh)`.
        about: one line.
        data: the data sets that it runs on.
        sample: the one that comes with the package, which the quick form uses if none is named.
        open: whether its `run` takes `overrides` of the recipe, and so another network.
    """

    module: str
    about: str
    data: tuple[str, ...]
    sample: str
    open: bool = False

    @property
    def run(self) -> Callable[..., Any]:
        """The function that runs it; imported when it is asked for."""
        found: Callable[..., Any] = import_module(self.module).run
        return found


STUDIES = {
    "cqp": Entry(
        "spikeprune.studies.cqp.study",
        "CQP (Hamza 2026, arXiv:2606.30676): accuracy at equal budgets, the relaxation trap, the cliff, zombies, timesteps, energy",
        ("mnist", "fashion-mnist", "fashion-sample"),
        "fashion-sample",
    ),
    "sca": Entry(
        "spikeprune.studies.sca.study",
        "SCA (Li et al. 2024, arXiv:2406.01072): channels by activity against other scores, the structure over time, size and time after shrink",
        ("fashion-mnist", "nmnist-1k", "nmnist", "cifar10", "fashion-sample"),
        "fashion-sample",
        open=True,
    ),
    "slamp": Entry(
        "spikeprune.studies.slamp.study",
        "SLAMP (Wang, Ye, Ouyang 2026, arXiv:2603.14946): every allocation at one budget, the gains, what makes them, operations",
        ("fashion-mnist", "nmnist-1k", "nmnist", "cifar10", "fashion-sample"),
        "fashion-sample",
        open=True,
    ),
    "spikenm": Entry(
        "spikeprune.studies.spikenm.study",
        "SpikeNM (Ye et al. 2025, arXiv:2511.12097): learned N:M masks against the largest weights, chance, and no distillation, in one training",
        ("fashion-mnist", "nmnist-1k", "nmnist", "cifar10", "fashion-sample"),
        "fashion-sample",
        open=True,
    ),
    "stprune": Entry(
        "spikeprune.studies.stprune.study",
        "STPrune (Chowdhury, Garg, Roy 2021, arXiv:2104.12528): widths by principal components, fewer timesteps, fewer bits, energy, noise",
        ("fashion-mnist", "nmnist-1k", "nmnist", "cifar10", "fashion-sample"),
        "fashion-sample",
        open=True,
    ),
}
