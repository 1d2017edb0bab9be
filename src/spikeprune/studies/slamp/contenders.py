"""What is compared: SLAMP and its readings, what it must beat, and controls that take its gain apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

import torch

from spikeprune.decide import decide
from spikeprune.kernel.allocate import erdos_renyi, global_top_k, lamp, uniform, uniform_plus
from spikeprune.kernel.patterns import Unstructured
from spikeprune.kernel.scores import held_down, magnitude
from spikeprune.masks import Masks
from spikeprune.methods import SLAMP, Magnitude, Random
from spikeprune.methods.slamp import by_nearness, evenly, input_gain, peak_gain
from spikeprune.pruner import Method
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer

Gains = Mapping[str, float]


@dataclass(frozen=True)
class Control:
    """Allocate as SLAMP does, by gains made from its own.

    Attributes:
        change: SLAMP's gain^2 by layer, in call order, to those that are used.
    """

    change: Callable[[Gains], Gains]
    needs: ClassVar[frozenset[Need]] = SLAMP().needs

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Allocate by LAMP score times the changed gain, keep the largest of each layer."""
        gains = self.change(SLAMP().gains(layers, stats))
        sizes = {layer.name: held_down(magnitude(layer.weight), masks.get(layer.name)) for layer in layers}
        scores = {name: lamp(size) * gains[name] for name, size in sizes.items()}
        return decide(layers, sizes, global_top_k(scores, sparsity), Unstructured())


@dataclass(frozen=True)
class Unpruned:
    """Keep everything: what retraining does by itself."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Give masks of which nothing is dead."""
        return Masks({layer.name: torch.ones_like(layer.weight, dtype=torch.bool) for layer in layers})


def inverted(gains: Gains) -> Gains:
    """Turn every gain over: what helped must now hurt."""
    return {name: 1 / gain for name, gain in gains.items()}


def first_alone(gains: Gains) -> Gains:
    """Leave the gain to the first layer: LAMP with the first layer protected."""
    first = next(iter(gains))
    return {name: gain if name == first else 1.0 for name, gain in gains.items()}


def all_but_first(gains: Gains) -> Gains:
    """Take the gain from the first layer and leave it to the others."""
    first = next(iter(gains))
    return {name: 1.0 if name == first else gain for name, gain in gains.items()}


def readout_alike(gains: Gains) -> Gains:
    """Give the last layer, mostly a readout that keeps no trace, the median gain of the others."""
    *others, last = gains
    return {**gains, last: median(gains[name] for name in others)}


MAIN = ("slamp", "lamp", "erk", "uniform+", "uniform", "global", "random")
READINGS = ("nearness", "even", "input", "peak", "exponent", "per input")
CONTROLS = ("unpruned", "inverted", "first alone", "all but first", "readout alike")

ABOUT = {
    "slamp": "SLAMP",
    "lamp": "LAMP",
    "erk": "ERK",
    "uniform+": "uniform+",
    "uniform": "uniform",
    "global": "global magnitude",
    "random": "random",
    "nearness": "SLAMP, timesteps by nearness to the threshold",
    "even": "SLAMP, timesteps even",
    "input": "SLAMP, gain without the leak (a)",
    "peak": "SLAMP, gain at the peak (b)",
    "exponent": "SLAMP, gain as an exponent (c)",
    "per input": "SLAMP, a gain for each input (d)",
    "unpruned": "control: nothing pruned, retrained alike",
    "inverted": "control: SLAMP's gain inverted",
    "first alone": "control: the gain in the first layer alone",
    "all but first": "control: the gain in all layers but the first",
    "readout alike": "control: the last layer with the median gain of the others",
}


def build(name: str, seed: int) -> Method:
    """Build a contender by name; `seed` is that of what draws."""
    made: Mapping[str, Method] = {
        "slamp": SLAMP(),
        "lamp": Magnitude(lamp),
        "erk": Magnitude(erdos_renyi),
        "uniform+": Magnitude(uniform_plus),
        "uniform": Magnitude(uniform),
        "global": Magnitude(global_top_k),
        "random": Random(seed, erdos_renyi),
        "nearness": SLAMP(by_nearness),
        "even": SLAMP(evenly),
        "input": SLAMP(gain=input_gain),
        "peak": SLAMP(gain=peak_gain),
        "exponent": SLAMP(exponent=True),
        "per input": SLAMP(per_input=True),
        "unpruned": Unpruned(),
        "inverted": Control(inverted),
        "first alone": Control(first_alone),
        "all but first": Control(all_but_first),
        "readout alike": Control(readout_alike),
    }
    return made[name]
