"""Where a convolution's spikes add their weights: a plane of sums, and one offset for each tap of the kernel.

With a stride s, input y meets tap ky in output (y + padding - ky) / s, where that is whole. So inputs fall into s phases,
(y + padding) mod s, and those of one phase meet every s-th tap, with a stride of one. A plane has a border, so that no spike need ask
whether it lies at the edge::

    phase r       taps r, r + s, r + 2 s ..., the j-th of them is r + s j
    input y       begins at row base(y) and adds its j-th tap to row base(y) + last - j
    output o      is row o + origin
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from spikeprune.errors import LayoutError

WIDEST = 7  # kernel; each tap is an instruction of its own


@dataclass(frozen=True)
class Kernel:
    """The shape of a convolution.

    Attributes:
        height: of the kernel, 1 to WIDEST.
        width: alike.
        stride: 1 or more.
        padding: zeros on each side of the input.

    Raises:
        LayoutError: one of them is out of range.

    Example:
        >>> Kernel(3, 3, stride=2, padding=1).output(16, 16)
        (8, 8)
    """

    height: int
    width: int
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.height <= WIDEST and 1 <= self.width <= WIDEST and self.stride >= 1 and self.padding >= 0):
            raise LayoutError(
                f"{self} is no convolution that native code has; kernels are 1 to {WIDEST} wide, strides 1 or more."
            )

    @property
    def taps(self) -> int:
        """How many weights it has for each channel."""
        return self.height * self.width

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Give the size of what it makes of a map.

        Raises:
            LayoutError: the map is smaller than the kernel.
        """
        down, across = ((m + 2 * self.padding - k) // self.stride + 1 for m, k in ((height, self.height), (width, self.width)))
        if down < 1 or across < 1:
            raise LayoutError(f"maps of {height} x {width} are too small for {self}.")
        return down, across

    def phases(self) -> list[list[tuple[int, int]]]:
        """Give, for each phase that has any, its taps as (row, column) of the kernel.

        Example:
            >>> Kernel(3, 1, stride=2).phases()
            [[(0, 0), (2, 0)], [(1, 0)]]
        """
        s, sides = self.stride, (range(self.height), range(self.width))
        both = [[(y, x) for y in sides[0][a::s] for x in sides[1][b::s]] for a in range(s) for b in range(s)]
        return [taps for taps in both if taps]


@dataclass(frozen=True, eq=False)
class Plane:
    """The sums of one sample and timestep.

    Attributes:
        starts: int32 (phases, H W), where a spike of this place begins; -1 if it is of another phase.
        size: places of the plane.
        pitch: places of a row.
        origin: the place of the first output.
        height: of the output.
        width: of the output.
    """

    starts: Tensor
    size: int
    pitch: int
    origin: int
    height: int
    width: int


@lru_cache(maxsize=256)
def plane(kernel: Kernel, height: int, width: int) -> Plane:
    """Lay out the plane for maps of a size.

    Raises:
        LayoutError: the map is smaller than the kernel.

    Example:
        >>> found = plane(Kernel(3, 3, padding=1), 2, 2)
        >>> found.starts, found.size, found.origin
        (tensor([[0, 1, 4, 5]], dtype=torch.int32), 16, 5)
    """
    down, across = kernel.output(height, width)
    phase_y, base_y, origin_y, rows = _axis(height, kernel.height, kernel, down)
    phase_x, base_x, origin_x, pitch = _axis(width, kernel.width, kernel, across)
    base = base_y[:, None] * pitch + base_x
    starts = []
    for taps in kernel.phases():
        mine = (phase_y == taps[0][0])[:, None] & (phase_x == taps[0][1])
        starts.append(torch.where(mine, base, -1).flatten())
    return Plane(torch.stack(starts).int(), rows * pitch, pitch, origin_y * pitch + origin_x, down, across)


def _axis(side: int, taps: int, kernel: Kernel, outputs: int) -> tuple[Tensor, Tensor, int, int]:
    """Give, for one axis, the phase and base of each input, where the outputs begin, and how long it is."""
    last = reach(taps, kernel.stride)
    spare = min(kernel.padding // kernel.stride, last)  # rows that no input begins at
    place = torch.arange(side) + kernel.padding
    base = place // kernel.stride - spare
    origin = last - spare
    return place % kernel.stride, base, origin, max(int(base.max()) + last + 1, outputs + origin)


def reach(taps: int, stride: int) -> int:
    """Say how many rows a spike reaches beyond the one that it begins at.

    Example:
        >>> reach(3, 1), reach(3, 2), reach(1, 2)
        (2, 1, 0)
    """
    return -(-taps // stride) - 1
