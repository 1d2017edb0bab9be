"""Which taps of a convolution live, block by block of 32 outputs, in the order in which native code takes them.

An entry is the taps, MOST at most, of one input channel that live in one block, and that lie in one phase, so that they share their
events. The entries of a block are sorted by how many taps they have: code for each number, which holds that many weights and places
in registers, takes those of its own in a row.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.runtime.neurons import LANES
from spikeprune.runtime.scatter import flushes

MOST = 9  # taps of an entry


@dataclass(frozen=True, eq=False)
class Entries:
    """Living taps, entry by entry.

    Attributes:
        taps: int64 (living, 3), the block, the channel and the tap of each.
        counts: int64 (entries,), how many of them are each entry's.
    """

    taps: Tensor
    counts: Tensor

    @property
    def first(self) -> Tensor:
        """The first tap of each entry: int64 (entries, 3)."""
        return self.taps[self.counts.cumsum(0) - self.counts]

    def bounds(self, blocks: int) -> Tensor:
        """Say where, for each block and number of taps, its entries begin, and their taps: int32 (blocks * MOST + 1, 2).

        Example:
            >>> found = Entries(torch.tensor([[0, 0, 0], [0, 2, 0], [0, 2, 1], [1, 0, 1]]), torch.tensor([1, 2, 1]))
            >>> found.bounds(2)[:4].tolist(), found.bounds(2)[-1].tolist()
            ([[0, 0], [1, 1], [2, 3], [2, 3]], [3, 4])
        """
        kinds = torch.bincount(self.first[:, 0] * MOST + self.counts - 1, minlength=blocks * MOST)
        sizes = kinds * torch.arange(1, MOST + 1).repeat(blocks)
        return torch.stack([F.pad(one.cumsum(0), (1, 0)) for one in (kinds, sizes)], 1).int()

    def flushes(self, weights: Tensor) -> Tensor:
        """Say before which entries sums must be moved, so that 16 bits hold them whichever inputs fire: int8 (entries,).

        Args:
            weights: (living, 32), of the taps.
        """
        found = torch.zeros(len(self.counts), dtype=torch.int8)
        if weights.dtype != torch.int8 or not len(found):
            return found
        block, entry = self.first[:, 0], torch.arange(len(found)).repeat_interleave(self.counts)
        place = _within(block)
        rows = torch.zeros(int(block.max()) + 1, int(place.max()) + 1, MOST, LANES, dtype=torch.int8)
        rows[block[entry], place[entry], _within(entry)] = weights
        return flushes(rows)[block, place].contiguous()


def entries(alive: Tensor, phase: Tensor) -> Entries:
    """Sort the taps that live.

    Args:
        alive: bool (blocks, channels, taps phase by phase).
        phase: int64 (taps,), the phase of each tap.

    Example:
        >>> alive = torch.tensor([[[True, True, False], [False, False, False], [True, False, True]]])
        >>> found = entries(alive, torch.tensor([0, 0, 1]))
        >>> found.taps[:, 1:].tolist(), found.counts.tolist()  # channel and tap
        ([[2, 0], [2, 2], [0, 0], [0, 1]], [1, 1, 2])
    """
    taps = alive.nonzero()
    block, channel, tap = taps.T
    source = (block * alive.shape[1] + channel) * (int(phase.max()) + 1) + phase[tap]
    part = source * alive.shape[2] + _within(source) // MOST
    entry, counts = _runs(part)
    order = (block * (MOST + 1) + counts[entry]).argsort(stable=True)
    return Entries(taps[order], _runs(part[order])[1])


def _within(key: Tensor) -> Tensor:
    """Number those that are equal, in a row, from 0."""
    run, counts = _runs(key)
    return torch.arange(len(key)) - (counts.cumsum(0) - counts)[run]


def _runs(key: Tensor) -> tuple[Tensor, Tensor]:
    """Give, where equal ones in a row are a run, the run of each, and how long each run is."""
    _, run, counts = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    return run, counts
