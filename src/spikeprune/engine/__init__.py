"""Networks as plans: a flat list of operations on spikes and currents, free of frameworks, and the native kernels that run it."""

from spikeprune.engine.compiling import compile
from spikeprune.engine.cuda import CudaEngine
from spikeprune.engine.engine import Agreement, Engine
from spikeprune.engine.file import load_engine, save_engine
from spikeprune.engine.follow import make_plan
from spikeprune.engine.plan import Plan
from spikeprune.engine.reference import Reference

__all__ = ["Agreement", "CudaEngine", "Engine", "Plan", "Reference", "compile", "load_engine", "make_plan", "save_engine"]
