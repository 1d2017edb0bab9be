"""The methods, one paper a file, and what every paper is measured against."""

from spikeprune.methods.baselines import Magnitude, Random
from spikeprune.methods.cqp import CQP, GradientOnly

__all__ = ["CQP", "GradientOnly", "Magnitude", "Random"]
