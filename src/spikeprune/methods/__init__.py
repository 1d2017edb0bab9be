"""The methods, one paper a file, and what every paper is measured against."""

from spikeprune.methods.baselines import Magnitude, Random
from spikeprune.methods.cqp import CQP, GradientOnly
from spikeprune.methods.slamp import SLAMP
from spikeprune.methods.snip import SNIP
from spikeprune.methods.sparse_training import SET, RigL

__all__ = ["CQP", "SET", "SLAMP", "SNIP", "GradientOnly", "Magnitude", "Random", "RigL"]
