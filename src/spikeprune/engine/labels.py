"""What a tensor is labelled with while a network is followed, other than the addresses of its entries."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """It is drawn from the input by chance, before any layer."""


@dataclass(frozen=True)
class Lost:
    """It depends on values in a way that a plan has no word for.

    Attributes:
        why: what happened.
        behind: whether on values behind a layer, rather than on the input alone.
    """

    why: str
    behind: bool


Label = Tensor | Drawn | Lost
