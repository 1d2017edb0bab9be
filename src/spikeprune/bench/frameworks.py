"""A network of the zoo as its framework's own users run it: SpikingJelly's neurons, and snnTorch's in a loop over time."""

import copy
from typing import Any

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


class Loop(nn.Module):
    """The parts of a `zoo.SpikingNet` in snnTorch's way: its neurons, a timestep at a time; what no timestep changes is done once.

    Where a membrane stays above its threshold, snnTorch's Leaky resets it once, SpikingJelly's at each spike: outputs may differ. The
    work is the same.

    Args:
        net: with LIF neurons whose input does not decay; it is copied.

    Raises:
        MissingExtra: snnTorch is not installed.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        leaky = _leaky()
        self.timesteps, self.direct = int(net.timesteps), net.coding == "direct"  # type: ignore[arg-type]
        self.parts = nn.ModuleList(copied(net).children())
        self.spiking = [isinstance(part, FusedLIF) for part in self.parts]
        self.first = self.spiking.index(True) if self.direct else 0
        for place, part in enumerate(self.parts):
            if isinstance(part, FusedLIF):
                reset = "subtract" if part.v_reset is None else "zero"
                self.parts[place] = leaky(
                    beta=1 - 1 / part.tau, threshold=part.v_threshold, reset_mechanism=reset, reset_delay=False
                )

    def forward(self, batch: Tensor) -> Tensor:
        """Run all timesteps from rest."""
        membranes: dict[int, Tensor] = {
            place: self.parts[place].reset_mem()  # type: ignore[operator]
            for place, fires in enumerate(self.spiking)
            if fires
        }
        current = batch
        for part in self.parts[: self.first]:
            current = part(current)
        total: Tensor | float = 0.0
        for step in range(self.timesteps):
            x = current if self.direct else batch[step]
            for place in range(self.first, len(self.parts)):
                if self.spiking[place]:
                    x, membranes[place] = self.parts[place](x, membranes[place])
                else:
                    x = self.parts[place](x)
            total = total + x
        return total / self.timesteps  # type: ignore[return-value]


def _leaky() -> Any:
    try:
        import snntorch
    except ImportError as error:
        raise MissingExtra.of("snntorch", "snntorch", "this row") from error
    return snntorch.Leaky


def runnable(net: nn.Module) -> bool:
    """Whether snnTorch's loop can run a network: leaky neurons in a row whose input does not decay."""
    return hasattr(net, "coding") and all(isinstance(one, FusedLIF) and not one.decay_input for one in neurons_of(net))


def neurons_of(net: nn.Module) -> list[Any]:
    """Give SpikingJelly's neurons, ours among them: what has its step mode and keeps a state."""
    return [module for module in net.modules() if hasattr(module, "step_mode")]
