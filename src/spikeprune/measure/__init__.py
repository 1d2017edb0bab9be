"""One instrumented pass over calibration data: running sums only, nothing kept per sample.

The model is lent, not taken: it runs in evaluation mode, and its mode, neuron state, gradients, attributes and random
state are found afterwards as they were (`left_as_found` says what that leaves out). Sums are float64, since they decide
what is pruned. Each statistic is gathered by a probe of its own.
"""

from spikeprune.measure.batches import LossFn, check_batches, parts, refuse_empty, run_batch
from spikeprune.measure.run import measure
from spikeprune.stats import Need, Stats

__all__ = ["LossFn", "Need", "Stats", "check_batches", "measure", "parts", "refuse_empty", "run_batch"]
