"""Make trained spiking neural networks small, sparse, short in time and measurably fast.

Pruning = score x pattern x allocation, decided on a schedule from one measured pass, and held at zero by the optimizer's
own hooks. Start with `model_view`, then `prune` or `Pruner`, then `profile`.
"""

from spikeprune import methods, metrics, quantize, robustness, temporal
from spikeprune.balance import balance_
from spikeprune.coverage import Coverage, coverage
from spikeprune.engine import CudaEngine, Engine, compile, load_engine, save_engine
from spikeprune.errors import SpikepruneError
from spikeprune.hold import hold
from spikeprune.kernel import allocate, patterns, schedules, scores
from spikeprune.learn import learn_masks
from spikeprune.masks import Masks
from spikeprune.measure import measure
from spikeprune.norms import recalibrate
from spikeprune.packing import PackedNM, pack_nm
from spikeprune.plan import ShrinkPlan
from spikeprune.pruner import Pruner, prune
from spikeprune.quantize import Quantization, fold_norms, quantize_, quantize_aware
from spikeprune.report import Report, profile
from spikeprune.saved import load, save
from spikeprune.shrink import channel_masks, plan_shrink, shrink
from spikeprune.sparse_training import sparse_training
from spikeprune.stats import Need
from spikeprune.version import __version__ as __version__
from spikeprune.view.model_view import ModelView, model_view

__all__ = [
    "Coverage",
    "CudaEngine",
    "Engine",
    "Masks",
    "ModelView",
    "Need",
    "PackedNM",
    "Pruner",
    "Quantization",
    "Report",
    "ShrinkPlan",
    "SpikepruneError",
    "allocate",
    "balance_",
    "channel_masks",
    "compile",
    "coverage",
    "fold_norms",
    "hold",
    "learn_masks",
    "load",
    "load_engine",
    "measure",
    "methods",
    "metrics",
    "model_view",
    "pack_nm",
    "patterns",
    "plan_shrink",
    "profile",
    "prune",
    "quantize",
    "quantize_",
    "quantize_aware",
    "recalibrate",
    "robustness",
    "save",
    "save_engine",
    "schedules",
    "scores",
    "shrink",
    "sparse_training",
    "temporal",
]
