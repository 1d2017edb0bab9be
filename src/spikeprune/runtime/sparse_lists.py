"""Where the living weights of a convolution lie, as the native code of sparse training wants it: lanes, tiles, lists.

Forward, the sum at each place of the output goes over inputs. Backward, that at each place of the input goes over outputs, and which
weights it takes depends on the place modulo the stride: a pass for each remainder.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from spikeprune.runtime.sparse_code import LANES, REGISTERS, Tile

Pair = tuple[int, int]
CACHE = 6144  # numbers that a tile may read of a block of channels: half of a small first-level cache
FEW = 8  # living weights that a sum takes of a block at least, on average


@dataclass(frozen=True)
class Convolution:
    """The sizes of one; a linear layer is one of 1 x 1 on one place.

    Attributes:
        channels: C_in.
        outputs: C_out.
        size: height and width of the input.
        kernel: height and width.
        stride: down and across.
        padding: rows and columns of zeros on either side.
    """

    channels: int
    outputs: int
    size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    @property
    def out(self) -> Pair:
        """Height and width of the output.

        Example:
            >>> Convolution(3, 8, size=(9, 8), kernel=(3, 3), stride=(2, 2), padding=(1, 1)).out
            (5, 4)
        """
        y, x = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(self.size, self.kernel, self.stride, self.padding, strict=True))
        return y, x

    def vectors(self, samples: int) -> int:
        """Say how many vectors of samples to take at once: enough to fill a tile, where places alone do not."""
        places = min(self.out[0] * self.out[1], self.size[0] * self.size[1])
        return max(1, min(REGISTERS // places, ceil(samples / LANES)))


@dataclass(frozen=True)
class Grid:
    """Room for the lanes of one tensor, around it a margin of zeros or of nothing that counts."""

    channels: int
    rows: int
    columns: int
    vectors: int

    @property
    def plane(self) -> int:
        """How many numbers a channel takes."""
        return self.place(self.rows, 0)

    @property
    def numel(self) -> int:
        """How many numbers there are."""
        return self.channels * self.plane

    def place(self, y: int, x: int) -> int:
        """Say where in a plane the lanes of a place begin."""
        return (y * self.columns + x) * self.vectors * LANES

    def places(self, size: Pair, first: Pair = (0, 0)) -> Tensor:
        """Say where the lanes of a tensor's numbers begin: int32 (channels * height * width,)."""
        c, y, x = (torch.arange(n) for n in (self.channels, *size))
        inner = ((y[:, None] + first[0]) * self.columns + x + first[1]) * (self.vectors * LANES)
        return (c[:, None, None] * self.plane + inner).flatten().int()


@dataclass(frozen=True, eq=False)
class Lists:
    """Living weights in the order in which sums take them: block by block, sum by sum.

    Attributes:
        index: int64 (weights,), which of the weight's entries each is.
        offsets: int32 (weights,), where its input lies.
        ends: int32 (blocks * sums + 1,), where those of each block and sum begin.
        sums: how many sums there are at a place.
        blocks: of what is summed over.
    """

    index: Tensor
    offsets: Tensor
    ends: Tensor
    sums: int
    blocks: int

    @classmethod
    def of(cls, index: Tensor, offsets: Tensor, to: Tensor, block: Tensor, sums: int, blocks: int) -> "Lists":
        """Order weights, given for each its sum and its block."""
        key, order = (block * sums + to).sort(stable=True)
        ends = torch.searchsorted(key, torch.arange(blocks * sums + 1))
        return cls(index[order], offsets[order].int(), ends.int(), sums, blocks)


@dataclass(frozen=True, eq=False)
class Pass:
    """One run over living weights, which gives all sums at some of the target's places.

    Attributes:
        tile: what is done at once.
        tiles: how many, down and across.
        lists: the weights.
        row: numbers from what a row of sums reads to what the next one reads.
        start: of the target, where the first sum lies.
        target: numbers from a row of sums to the next, and from a column to the next.
    """

    tile: Tile
    tiles: Pair
    lists: Lists
    row: int
    start: int
    target: Pair


@dataclass(frozen=True, eq=False)
class Living:
    """The weights of a mask that live: all their coordinates, int64 (weights,) each."""

    output: Tensor
    channel: Tensor
    y: Tensor
    x: Tensor
    index: Tensor
    density: float

    @classmethod
    def of(cls, mask: Tensor) -> "Living":
        """Take a mask (C_out, C_in, height, width)."""
        output, channel, y, x = mask.nonzero().unbind(1)
        return cls(output, channel, y, x, mask.flatten().nonzero()[:, 0], len(output) / mask.numel())

    def __getitem__(self, chosen: Tensor) -> "Living":
        output, channel, y, x, index = (part[chosen] for part in (self.output, self.channel, self.y, self.x, self.index))
        return Living(output, channel, y, x, index, self.density)


class Packing:
    """All that depends on the mask and the sizes, and not on the weights.

    Args:
        living: the weights that live.
        sizes: of the convolution.
        vectors: of samples at once.
    """

    def __init__(self, living: Living, sizes: Convolution, vectors: int) -> None:
        self.living, self.sizes, self.vectors = living, sizes, vectors
        self.margin: Pair = tuple((k - 1) // s for k, s in zip(sizes.kernel, sizes.stride, strict=True))  # type: ignore[assignment]
        self.tile = _tile(sizes.out, vectors, sizes.stride[1])
        self._back = _tile((ceil(sizes.size[0] / sizes.stride[0]), ceil(sizes.size[1] / sizes.stride[1])), vectors, 1)
        self.tiles = _tiles(self.tile, sizes.out)
        full = self.tiles[0] * self.tile.rows, self.tiles[1] * self.tile.columns
        self.y = Grid(sizes.outputs, full[0], full[1], vectors)
        self.x = Grid(sizes.channels, self._read(0, full[0]), self._read(1, full[1]), vectors)
        self.dy, self.dx = self._back_grids(full)

    @property
    def fits(self) -> bool:
        """Whether native code takes these sizes: 16 numbers of input and of output a sample, and addresses of 32 bits."""
        sizes = self.sizes
        given, made = sizes.channels * sizes.size[0] * sizes.size[1], sizes.outputs * sizes.out[0] * sizes.out[1]
        return min(given, made) >= LANES and max(grid.numel for grid in (self.x, self.y, self.dx, self.dy)) < 1 << 31

    def chunks(self, samples: int) -> range:
        """Say where the samples begin that are taken at once."""
        return range(0, samples, self.vectors * LANES)

    @cached_property
    def x_places(self) -> Tensor:
        """Where the input lies in `x`."""
        return self.x.places(self.sizes.size, self.sizes.padding)

    @cached_property
    def y_places(self) -> Tensor:
        """Where the output lies in `y`."""
        return self.y.places(self.sizes.out)

    @cached_property
    def dy_places(self) -> Tensor:
        """Where the gradient of the output lies in `dy`."""
        return self.dy.places(self.sizes.out, self.margin)

    @cached_property
    def dx_places(self) -> Tensor:
        """Where the gradient of the input lies in `dx`."""
        return self.dx.places(self.sizes.size)

    @cached_property
    def forward(self) -> Pass:
        """The pass that gives the output."""
        living, sizes, tile = self.living, self.sizes, self.tile
        reach = (tile.rows - 1) * sizes.stride[0] + sizes.kernel[0], (tile.columns - 1) * sizes.stride[1] + sizes.kernel[1]
        each = self._block(sizes.channels, reach, sizes.kernel)
        offsets = living.channel * self.x.plane + living.y * self.x.place(1, 0) + living.x * self.x.place(0, 1)
        blocks = ceil(sizes.channels / each)
        lists = Lists.of(living.index, offsets, living.output, living.channel // each, sizes.outputs, blocks)
        return Pass(tile, self.tiles, lists, self.x.place(sizes.stride[0], 0), 0, (self.y.place(1, 0), self.y.place(0, 1)))

    @cached_property
    def backward(self) -> tuple[Pass, ...]:
        """The passes that give the gradient of the input."""
        return tuple(self._backward(rest) for rest in self._rests())

    def _backward(self, rest: Pair) -> Pass:
        """Make the pass over input places (y, x) at which y + padding leaves `rest` divided by the stride."""
        sizes, tile, (sy, sx) = self.sizes, self._back, self.sizes.stride
        living = self.living[(self.living.y % sy == rest[0]) & (self.living.x % sx == rest[1])]
        first = self._first(rest)
        at = [(f + p) // s + m for f, p, s, m in zip(first, sizes.padding, sizes.stride, self.margin, strict=True)]
        taps: Pair = tuple(max(1, ceil((k - r) / s)) for k, r, s in zip(sizes.kernel, rest, sizes.stride, strict=True))  # type: ignore[assignment]
        each = self._block(sizes.outputs, (tile.rows + taps[0] - 1, tile.columns + taps[1] - 1), taps)
        inner = (at[0] - living.y // sy) * self.dy.place(1, 0) + (at[1] - living.x // sx) * self.dy.place(0, 1)
        offsets = living.output * self.dy.plane + inner
        blocks = ceil(sizes.outputs / each)
        lists = Lists.of(living.index, offsets, living.channel, living.output // each, sizes.channels, blocks)
        target = self.dx.place(sy, 0), self.dx.place(0, sx)
        return Pass(tile, _tiles(tile, self._count(rest)), lists, self.dy.place(1, 0), self.dx.place(*first), target)

    def _rests(self) -> Iterator[Pair]:
        """Give the remainders that some place of the input has."""
        sy, sx = self.sizes.stride
        for rest in ((y, x) for y in range(sy) for x in range(sx)):
            if min(self._count(rest)) > 0:
                yield rest

    def _first(self, rest: Pair) -> Pair:
        y, x = ((r - p) % s for r, p, s in zip(rest, self.sizes.padding, self.sizes.stride, strict=True))
        return y, x

    def _count(self, rest: Pair) -> Pair:
        y, x = (ceil((n - f) / s) for n, f, s in zip(self.sizes.size, self._first(rest), self.sizes.stride, strict=True))
        return y, x

    def _read(self, axis: int, full: int) -> int:
        """Say how many rows or columns of input there must be for so many of sums."""
        sizes = self.sizes
        return max(sizes.padding[axis] + sizes.size[axis], (full - 1) * sizes.stride[axis] + sizes.kernel[axis])

    def _back_grids(self, full: Pair) -> tuple[Grid, Grid]:
        """Make room for the gradients of output and input, and for what the last tiles read and write beyond."""
        sizes, tile = self.sizes, (self._back.rows, self._back.columns)
        read = [m + f for m, f in zip(self.margin, full, strict=True)]
        written = list(sizes.size)
        for rest in self._rests():
            for i, (first, count) in enumerate(zip(self._first(rest), self._count(rest), strict=True)):
                whole = ceil(count / tile[i]) * tile[i]
                read[i] = max(read[i], (first + sizes.padding[i]) // sizes.stride[i] + self.margin[i] + whole)
                written[i] = max(written[i], first + sizes.stride[i] * (whole - 1) + 1)
        return Grid(sizes.outputs, read[0], read[1], self.vectors), Grid(sizes.channels, written[0], written[1], self.vectors)

    def _block(self, channels: int, reach: Pair, taps: Pair) -> int:
        """Say how many channels make a block: as many as fit into the cache, but some weights a sum."""
        fit = CACHE // (reach[0] * reach[1] * self.vectors * LANES)
        few = ceil(FEW / max(self.living.density * taps[0] * taps[1], 1e-9))
        return max(1, min(max(fit, few), channels))


def _tile(size: Pair, vectors: int, step: int) -> Tile:
    """Choose the tile that takes the least work: a vector for each sum, the last tiles' idle ones included, and three a weight."""
    rows, columns = (range(1, min(n, REGISTERS) + 1) for n in size)
    found = [(r, c) for r in rows for c in columns if r * c * vectors <= REGISTERS]
    work = {(r, c): ceil(size[0] / r) * ceil(size[1] / c) * (r * c * vectors + 3) for r, c in found}
    best = min(work, key=lambda sides: (work[sides], sides))
    return Tile(*best, vectors, step)


def _tiles(tile: Tile, size: Pair) -> Pair:
    return ceil(size[0] / tile.rows), ceil(size[1] / tile.columns)
