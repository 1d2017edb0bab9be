"""A network of the zoo as frameworks' own users run it: SpikingJelly's neurons, and snnTorch's and Norse's in a loop over time."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import MissingExtra
from spikeprune.zoo.fused import FusedIF, FusedLIF


def spikingjelly(net: nn.Module) -> nn.Module:
    """Copy a network, with SpikingJelly's own neurons in place of ours.

    Example:
        >>> net = spikingjelly(nn.Sequential(FusedLIF(step_mode="m")))
        >>> type(net[0]).__name__
        'LIFNode'
    """
    net = copied(net)
    for module in net.modules():
        if isinstance(module, FusedIF | FusedLIF):
            module.__class__ = type(module).__bases__[0]
    return net


def copied(net: nn.Module) -> nn.Module:
    """Copy a network at rest: a membrane may be part of a graph, which cannot be copied."""
    for neuron in neurons_of(net):
        neuron.reset()
    return copy.deepcopy(net)


Cell = tuple[nn.Module, Callable[[], Any]]
"""What is called with a current and a state and gives spikes and the next state; and what gives the first state."""


class Loop(nn.Module):
    """The parts of a `zoo.SpikingNet` with another framework's neurons, a timestep at a time; what no timestep changes is done once.

    Args:
        net: with LIF neurons whose input does not decay; it is copied.
        cell: makes the framework's neuron of one of ours, such as `leaky`.

    Raises:
        MissingExtra: the framework is not installed.
    """

    def __init__(self, net: nn.Module, cell: Callable[[Any], Cell]) -> None:
        super().__init__()
        self.timesteps, self.direct = int(net.timesteps), net.coding == "direct"  # type: ignore[arg-type]
        self.parts = nn.ModuleList(copied(net).children())
        self.starts: dict[int, Callable[[], Any]] = {}
        for place, part in enumerate(self.parts):
            if isinstance(part, FusedLIF):
                self.parts[place], self.starts[place] = cell(part)
        self.first = min(self.starts) if self.direct else 0

    def forward(self, batch: Tensor) -> Tensor:
        """Run all timesteps from rest."""
        states = {place: start() for place, start in self.starts.items()}
        current = batch
        for part in self.parts[: self.first]:
            current = part(current)
        total: Tensor | float = 0.0
        for step in range(self.timesteps):
            x = current if self.direct else batch[step]
            for place in range(self.first, len(self.parts)):
                if place in states:
                    x, states[place] = self.parts[place](x, states[place])
                else:
                    x = self.parts[place](x)
            total = total + x
        return total / self.timesteps  # type: ignore[return-value]


def leaky(part: FusedLIF) -> Cell:
    """Make snnTorch's neuron.

    Where a membrane stays above its threshold, it resets it once, SpikingJelly's at each spike: outputs may differ. The work is the
    same.

    Raises:
        MissingExtra: snnTorch is not installed.
    """
    try:
        from snntorch import Leaky
    except ImportError as error:
        raise MissingExtra.of("snntorch", "snntorch", "this row") from error
    reset = "subtract" if part.v_reset is None else "zero"
    made: Any = Leaky(beta=1 - 1 / part.tau, threshold=part.v_threshold, reset_mechanism=reset, reset_delay=False)
    return made, made.reset_mem


def lif_box(part: FusedLIF) -> Cell:
    """Make Norse's neuron: v += (x - v) / tau, so that its membrane is ours over tau.

    Raises:
        MissingExtra: Norse is not installed.
    """
    try:
        from norse.torch import LIFBoxCell
        from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters
        from norse.torch.functional.reset import reset_subtract, reset_value
    except ImportError as error:
        raise MissingExtra("this row needs norse: pip install --no-deps norse nir nirtorch") from error
    level = {"v_th": torch.tensor(part.v_threshold / part.tau), "v_reset": torch.tensor(0.0)}
    reset = reset_subtract if part.v_reset is None else reset_value
    made = LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.tensor(1 / part.tau), reset_method=reset, **level), dt=1.0)
    return made, lambda: LIFBoxFeedForwardState(v=torch.zeros(()))


def runnable(net: nn.Module) -> bool:
    """Whether a loop of another framework's neurons can run a network: leaky neurons in a row whose input does not decay, and that are reset softly or to 0."""
    return hasattr(net, "coding") and all(
        isinstance(one, FusedLIF) and not one.decay_input and one.v_reset in (None, 0.0) for one in neurons_of(net)
    )


def neurons_of(net: nn.Module) -> list[Any]:
    """Give SpikingJelly's neurons, ours among them: what has its step mode and keeps a state."""
    return [module for module in net.modules() if hasattr(module, "step_mode")]
