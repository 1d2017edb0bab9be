"""What is compared: SCA in its two forms, and other ways to choose channels."""

from collections.abc import Callable

from spikeprune.kernel.allocate import uniform
from spikeprune.kernel.patterns import Channel
from spikeprune.methods import SCA, Activity, Magnitude, Random, Slimming
from spikeprune.pruner import Method

REGROW = 1 / 3  # at most this share of the channels that are kept comes back at an update
BETA = 0.1  # and at most this share of all channels: the authors' default
PENALTY = 1e-4  # of network slimming, on the gains
CONTENDERS = ("sca", "l1", "soft", "slimming", "l1 uniform", "activity", "random")
OURS = ("sca", "soft")
ABOUT = {
    "sca": "SCA",
    "soft": "SCA as its authors zero",
    "l1": "L1 norm, global",
    "l1 uniform": "L1 norm, uniform",
    "slimming": "network slimming",
    "activity": "activity, one shot",
    "random": "random, uniform",
}


def build(name: str, density: float, stop: int, seed: int) -> Method:
    """Build a contender for one stop.

    Args:
        name: one of `CONTENDERS`.
        density: share of channels to keep.
        stop: step of the retraining from which SCA regrows none.
        seed: of what draws.
    """
    regrow = min(BETA, REGROW * density)
    made: dict[str, Callable[[], Method]] = {
        "sca": lambda: SCA(regrow, stop),
        "soft": lambda: SCA(regrow, soft=True),
        "l1": lambda: Magnitude(pattern=Channel()),
        "l1 uniform": lambda: Magnitude(uniform, Channel()),
        "slimming": lambda: Slimming(),
        "activity": lambda: Activity(),
        "random": lambda: Random(seed, uniform, Channel()),
    }
    return made[name]()
