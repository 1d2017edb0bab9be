"""Quantiles of more numbers than fit into memory: a histogram that widens as larger ones come."""

import math
from typing import final

import torch
from torch import Tensor

from spikeprune.errors import MeasureError, NonFinite

BINS = 2**16
CHUNK = 2**18  # values that are looked at together
LOWEST = -1000  # the smallest top is 2 ** LOWEST: bins must not underflow


@final
class Histogram:
    """Counts positive values in equal bins over (0, top], and all others as 0; `top` is a power of two.

    A value above the top doubles it as often as needed, and pairs of bins are merged; so the counts do not depend on the order or
    grouping in which values came. Memory is that of the bins.

    Attributes:
        counts: int64 (bins,) of positive values; bin i holds those in (i width, (i + 1) width].
        zeros: how many values were 0 or less.
        top: the least power of two that no value exceeds, or 0.

    Example:
        >>> found = Histogram()
        >>> found.add(torch.arange(1.0, 101.0))
        >>> round(found.quantile(0.5), 2), found.width
        (50.5, 0.001953125)
    """

    def __init__(self, bins: int = BINS) -> None:
        if bins < 2 or bins & (bins - 1):
            raise MeasureError(f"a histogram needs a power of two as its number of bins, 2 or more; got {bins}.")
        self.counts = torch.zeros(bins, dtype=torch.int64)
        self.zeros, self.top = 0, 0.0

    @property
    def count(self) -> int:
        """How many values were added."""
        return self.zeros + int(self.counts.sum())

    @property
    def width(self) -> float:
        """The width of a bin: at most the largest value times 2 / bins; 0 while no value was positive."""
        return self.top / self.counts.numel()

    def add(self, values: Tensor) -> None:
        """Count values, of any shape.

        Raises:
            NonFinite: one is NaN, infinite, or above 2 ** 1023; then none was added.
        """
        values = values.detach().flatten()
        chunks = torch.split(values, CHUNK)
        bad = sum(int((~torch.isfinite(chunk)).sum()) for chunk in chunks)
        largest = float(values.max()) if values.numel() else 0.0
        if bad or largest > 2.0**1023:
            raise NonFinite(f"{bad} of {values.numel()} values to count are NaN or infinite; the largest is {largest}.")
        self._reach(largest)
        for chunk in chunks:
            self._add(chunk)

    def quantile(self, q: float) -> float:
        """Give the value below which a share q of all values lies, as torch.quantile does with `interpolation="linear"`.

        Values of 0 or less count as 0; a positive one is told to half a bin's width.

        Raises:
            MeasureError: q lies outside [0, 1], or nothing was added.
        """
        if not 0 <= q <= 1:
            raise MeasureError(f"a quantile lies in [0, 1]; got {q}.")
        if not (count := self.count):
            raise MeasureError("no value was counted, so there is no quantile. Add some first.")
        place = q * (count - 1)
        low, high = self._at(math.floor(place)), self._at(math.ceil(place))
        return low + (high - low) * (place - math.floor(place))

    def _add(self, values: Tensor) -> None:
        # The width is a power of two, so that the division is exact and merged bins are those of a wider histogram.
        places = (values.double() / (self.width or 1.0)).ceil_().clamp_(min=0).int()
        found = places.bincount(minlength=self.counts.numel() + 1).cpu()
        self.zeros += int(found[0])
        self.counts += found[1:]

    def _reach(self, largest: float) -> None:
        """Widen the range, if need be."""
        if largest <= self.top or largest <= 0:
            return
        fraction, exponent = math.frexp(largest)
        top = 2.0 ** max(exponent - (fraction == 0.5), LOWEST)
        doublings = round(math.log2(top / self.top)) if self.top else 0
        merged = min(2**doublings, self.counts.numel())
        sums = self.counts.view(-1, merged).sum(1)
        self.counts = torch.cat([sums, self.counts.new_zeros(self.counts.numel() - sums.numel())])
        self.top = top

    def _at(self, place: int) -> float:
        """Give the value at a place of the sorted values, counted from 0: the middle of its bin."""
        if place < self.zeros:
            return 0.0
        at = int(torch.searchsorted(self.counts.cumsum(0), place - self.zeros, right=True))
        return (at + 0.5) * self.width
