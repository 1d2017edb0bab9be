"""What a method that learns its masks by gradients is, and what it knows while they are trained."""

from collections.abc import Sequence, Set
from typing import Any, Protocol

from torch import Tensor

from spikeprune.kernel.patterns import NM
from spikeprune.stats import LayerStats, Need
from spikeprune.view.layer import Layer


class Learner(Protocol):
    """What a learned method knows of the masks while they are trained; all tensors are of a weight's shape."""

    @property
    def every(self) -> int:
        """Steps from one measurement of its needs to the next; 0 for none."""
        ...

    def draw(self, name: str, weight: Tensor) -> Tensor:
        """Give the mask that a layer trains with at this step, bool; the same however often it is asked."""
        ...

    def best(self, name: str, weight: Tensor) -> Tensor:
        """Give the mask as far as it is learned, bool, without chance."""
        ...

    def learn(self, name: str, weight: Tensor, grad: Tensor) -> None:
        """Learn from dL/d(mask * weight), and make of it, in place, what the weight gets."""
        ...

    def note(self, name: str, weight: Tensor, stats: LayerStats) -> None:
        """Take what was measured of a layer."""
        ...

    def advance(self) -> None:
        """Go on to the next step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Give what resuming needs."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`."""
        ...


class LearnedMethod(Protocol):
    """A method whose masks are trained by gradients, along with the weights."""

    @property
    def pattern(self) -> NM:
        """What lives of a block."""
        ...

    @property
    def needs(self) -> Set[Need]:
        """The statistics it reads now and then."""
        ...

    def begin(self, layers: Sequence[Layer], steps: int) -> Learner:
        """Begin to learn the masks of layers, over so many steps of training."""
        ...
