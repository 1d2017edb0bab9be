"""Weights of a few bits: after training (`quantize_`), in training (`quantize_aware`), and as integers (`integer_twin`).

Weights become a step times integers; spikes are binary already, and membranes stay in floating point.
"""

from spikeprune.quantize.aware import Aware, quantize_aware
from spikeprune.quantize.fold import fold_norms, fold_steps, foldable
from spikeprune.quantize.integers import IntegerLayer, grid, integer_twin
from spikeprune.quantize.sweep import bit_sweep
from spikeprune.quantize.values import Quantization, Quantized
from spikeprune.quantize.weights import quantize_

__all__ = [
    "Aware",
    "IntegerLayer",
    "Quantization",
    "Quantized",
    "bit_sweep",
    "fold_norms",
    "fold_steps",
    "foldable",
    "grid",
    "integer_twin",
    "quantize_",
    "quantize_aware",
]
