"""What the channels of a tensor are: labels, and a function's call as its rule sees it.

A *space* is the output channels of one synaptic layer, by its name. While a model runs, every tensor that comes from a layer carries
a label that says on which axis those channels lie and in which order. A function either has a rule, or its output is *opaque*:
the spaces that it came from cannot lose channels, and the reason names the function. Nothing is guessed.

Channels are followed for one end: a channel that is silent, 0 at all times, can be left out. So a function that would turn silence
into something else (adding a constant) is a reason as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A run of one space's channels along an axis.

    Attributes:
        space: the layer whose output channels these are.
        channels: how many.
        repeat: entries along the axis that each takes: 1, or height x width after a flatten.
    """

    space: str
    channels: int
    repeat: int = 1


@dataclass(frozen=True)
class Carried:
    """The label of a tensor whose channels are known.

    Attributes:
        axis: where they lie.
        parts: what lies there, in order; several after a concatenation.
        bare: layers whose output reached this tensor through no norm with gain and shift.
    """

    axis: int
    parts: tuple[Part, ...]
    bare: frozenset[str] = frozenset()

    @property
    def spaces(self) -> frozenset[str]:
        """Whose channels they are."""
        return frozenset(part.space for part in self.parts)


@dataclass(frozen=True)
class Opaque:
    """The label of a tensor that depends on channels in a way that is not known here, and why."""

    spaces: frozenset[str]
    why: str


Label = Carried | Opaque | None


class Unknown(Exception):
    """A rule's word for what it cannot pass on; the text says what happened to the channels."""


@dataclass(frozen=True)
class Call:
    """One call of a tensor function.

    Attributes:
        name: of the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
        out: the first tensor that it returned.
        labels: its tensor arguments that carry channels, with their labels, in order.
        plain: its tensor arguments that come from no layer.
        tie: says that two runs of channels are one family.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Tensor
    labels: tuple[tuple[Tensor, Carried], ...]
    plain: tuple[Tensor, ...]
    tie: Callable[[Part, Part], None]

    @property
    def one(self) -> tuple[Tensor, Carried]:
        """The only labelled argument."""
        if len(self.labels) > 1:
            raise Unknown("joins channels of several layers")
        return self.labels[0]

    def option(self, place: int, *names: str, default: Any = None) -> Any:
        """Give an argument by its place, or by any of its names."""
        found = [self.kwargs[name] for name in names if name in self.kwargs]
        if found:
            return found[0]
        return self.args[place] if len(self.args) > place else default
