"""The methods, one paper a file, and what every paper is measured against."""

from spikeprune.methods.baselines import Magnitude, Random
from spikeprune.methods.cqp import CQP

__all__ = ["CQP", "Magnitude", "Random"]
