"""Redundant timesteps found, measured and removed.

`course` tells what each timestep adds and costs, `decision` how many are needed, `truncate` runs only those, `early_exit`
stops sample by sample, and `shorten` trains at ever fewer. `rebin` makes fewer event frames of many.
"""

from spikeprune.temporal.course import CONFIDENCES, Course, ExitPoint, course
from spikeprune.temporal.divergence import Decision, batch_mean, decision, per_sample, relative_energy
from spikeprune.temporal.exits import early_exit
from spikeprune.temporal.readout import Readout, find_readout
from spikeprune.temporal.rebin import rebin
from spikeprune.temporal.shorten import Descent, Level, Shortened, shorten
from spikeprune.temporal.truncate import truncate

__all__ = [
    "CONFIDENCES",
    "Course",
    "Decision",
    "Descent",
    "ExitPoint",
    "Level",
    "Readout",
    "Shortened",
    "batch_mean",
    "course",
    "decision",
    "early_exit",
    "find_readout",
    "per_sample",
    "rebin",
    "relative_energy",
    "shorten",
    "truncate",
]
