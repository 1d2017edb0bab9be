"""Outcomes made by hand, for the tests of what is written about them: a net of three layers, T = 4."""

from spikeprune.metrics import LayerCost
from spikeprune.report import Comparison, Outcome, Point, Report

SIZES = {"fc1": 2000, "fc2": 400, "fc3": 40}


def report(density=1.0, rates=None):
    """A report whose layers all have one density; fc1 multiplies."""
    layers = tuple(
        LayerCost(name, "linear", size, int(size * density), 0.25, name != "fc1", size * density, 1.0 * size, 4.0 * size,
                  size * density * (4.6 if name == "fc1" else 0.9))
        for name, size in SIZES.items()
    )  # fmt: skip
    rates = {"lif1": [0.1, 0.2, 0.3, 0.4], "lif2": [0.0, 0.1, 0.1, 0.2]} if rates is None else rates
    return Report(4, 100, layers, rates, (), "a made-up table", {"python": "3.12.0"})


def outcome(label, seed=0, accuracy=0.9, group="a budget", **changed):
    """One network; "dense" has no curve."""
    dense = label == "dense"
    curve = () if dense else (Point(0.5, accuracy - 0.1, accuracy + 0.01), Point(0.9, accuracy - 0.4, accuracy))
    size = {"sparsity": 0.0 if dense else 0.9, "weights": 2440, "kept": 2440 if dense else 244, "revived": 0}
    rest = {"validation": accuracy, "curve": curve, "seconds": 2.0, "report": report(1.0 if dense else 0.1)}
    return Outcome(**{"group": group, "label": label, "seed": seed, "accuracy": accuracy, **size, **rest, **changed})


def comparison(labels=("dense", "cqp", "magnitude"), seeds=(0, 1, 2), groups=("a budget",), **changed):
    """Networks whose accuracy falls by a point from label to label, and by a tenth from seed to seed."""
    found = [
        outcome(label, seed, 0.95 - 0.01 * i - 0.001 * j, group, **changed)
        for group in groups
        for j, seed in enumerate(seeds)
        for i, label in enumerate(labels)
    ]
    return Comparison(tuple(found), {group: {"data": "made by hand"} for group in groups})
