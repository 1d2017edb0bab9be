"""The methods, one paper a file, and what every paper is measured against."""

from spikeprune.methods.baselines import Magnitude, Random
from spikeprune.methods.cqp import CQP, GradientOnly
from spikeprune.methods.sca import SCA, Activity
from spikeprune.methods.slamp import SLAMP
from spikeprune.methods.slimming import Slimming, gain_penalty
from spikeprune.methods.snip import SNIP
from spikeprune.methods.sparse_training import SET, RigL
from spikeprune.methods.spikenm import SpikeNM
from spikeprune.methods.sr_ste import SRSTE
from spikeprune.methods.stprune import STPrune, contraction

__all__ = [
    "CQP",
    "SCA",
    "SET",
    "SLAMP",
    "SNIP",
    "SRSTE",
    "Activity",
    "GradientOnly",
    "Magnitude",
    "Random",
    "RigL",
    "STPrune",
    "Slimming",
    "SpikeNM",
    "contraction",
    "gain_penalty",
]
