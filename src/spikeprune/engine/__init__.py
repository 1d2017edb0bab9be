"""Networks as plans: a flat list of operations on spikes and currents, free of frameworks, from which fast kernels are chosen."""

from spikeprune.engine.follow import make_plan
from spikeprune.engine.plan import Plan
from spikeprune.engine.reference import Reference

__all__ = ["Plan", "Reference", "make_plan"]
