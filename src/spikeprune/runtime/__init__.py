"""Native code for what torch is slow at: tensors in, tensors out, compiled in the process and without a compiler."""

from spikeprune.runtime.equations import SLOPES, IntegrateAndFire
from spikeprune.runtime.lif import integrate_and_fire

__all__ = ["SLOPES", "IntegrateAndFire", "integrate_and_fire"]
