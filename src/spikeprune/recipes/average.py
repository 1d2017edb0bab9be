"""A running average of a network: of its weights and of its norms' statistics, which often does better than where training ends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of all that a network's state holds; what is no float is as in the network.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the first weights, which are chance, are soon forgotten.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> average = Average(net, 0.999)
        >>> _ = nn.init.ones_(net.weight)
        >>> average.update(0)
        >>> with average.lent():
        ...     round(net.weight.item(), 6)
        0.9
        >>> net.weight.item()
        1.0
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay = net, decay
        self.state: dict[str, Tensor] = _copy(net.state_dict())

    @torch.no_grad()
    def update(self, done: int) -> None:
        """Take in the network as it is now, after `done` earlier updates."""
        weight = 1 - min(self.decay, (1 + done) / (10 + done))
        for name, value in self.net.state_dict().items():
            if value.is_floating_point():
                # Not a sum of products: what is constant stays as it is, to the bit.
                self.state[name].lerp_(value, weight)
            else:
                self.state[name].copy_(value)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an average that was kept; KeyError if it is of another network."""
        self.state = {name: state[name].to(value.device) for name, value in self.state.items()}

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the network have the average for a while."""
        own = _copy(self.net.state_dict())
        self.net.load_state_dict(self.state)
        try:
            yield
        finally:
            self.net.load_state_dict(own)

    def keep(self) -> None:
        """Let the network have the average for good."""
        self.net.load_state_dict(self.state)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
