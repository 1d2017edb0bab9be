"""A plan without native code: PyTorch's dense layers, all timesteps in one batch."""

from typing import final

import torch
from torch import Tensor

from spikeprune.engine.choice import Choice
from spikeprune.engine.plan import Plan
from spikeprune.engine.reference import Reference


@final
class Plain:
    """What `build.Build` is, where llvmlite is not installed.

    Attributes:
        input: where the input goes, float32, as the plan's value 0.
        odd: int64 (1,), 0.
        outputs: what the plan returns, after a run.
        choices: that torch runs everything.
        shared: no layer's name.

    Args:
        plan: the plan.
        x: an example of the plan's value 0.
        streams: whether a run is one timestep, and membranes are kept from run to run.
    """

    def __init__(self, plan: Plan, x: Tensor, *, streams: bool = False) -> None:
        self.input, self.odd = x.clone(memory_format=torch.contiguous_format), torch.zeros(1, dtype=torch.int64)
        self._plan, self._run, self._streams = plan, Reference(plan), streams
        note = "llvmlite is not installed: pip install 'spikeprune[runtime]' for native kernels"
        self.choices = {0: Choice(0, "all layers", "torch", note=note)}
        self.outputs: list[Tensor] = []
        self.shared: list[str] = []

    def run(self) -> None:
        """Run all timesteps from rest, or, if it streams, the next one."""
        if not self._streams:
            self._run.reset()
        values = self._run.run(self.input, 1 if self._streams else self._plan.timesteps)
        self.outputs = [values[number] for number in self._plan.outputs]

    def reset(self) -> None:
        """Forget the timesteps before."""
        self._run.reset()
