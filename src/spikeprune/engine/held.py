"""One value in the forms that its readers take."""

from dataclasses import dataclass

from torch import Tensor

from spikeprune.runtime import moves, spikes, turns
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import SpikeMaps, SpikeRows


@dataclass
class Held:
    """Where a value lies after a run.

    Attributes:
        real: float32 (T, N, *shape) or, of a value that is the same at all timesteps, (N, *shape).
        rows: bits of features, of any shape read flat.
        maps: bits of maps; of features, of one place each.
        halves: bits of maps that are split into four.
        lanes: bits of maps read flat, each feature a channel of one place.
    """

    real: Tensor | None = None
    rows: SpikeRows | None = None
    maps: SpikeMaps | None = None
    lanes: SpikeMaps | None = None
    halves: SpikeMaps | None = None

    @property
    def bits(self) -> SpikeRows | SpikeMaps | None:
        """Bits in any layout."""
        return self.rows or self.maps

    def as_rows(self, program: Program) -> SpikeRows:
        """Give bits as features; what turns them so is added to a program."""
        if self.rows is None:
            assert self.maps is not None
            self.rows = turns.prepare_flatten(program, self.maps)
        return self.rows

    def as_maps(self, program: Program, *, flat: bool) -> SpikeMaps:
        """Give bits as maps, or, flat, as channels of one place."""
        if not flat:
            if self.maps is None:
                assert self.rows is not None
                self.maps = turns.prepare_spread(program, self.rows)
            return self.maps
        if self.maps is not None and self.maps.height == self.maps.width == 1:
            return self.maps
        if self.lanes is None:
            self.lanes = turns.prepare_spread(program, self.as_rows(program))
        return self.lanes

    def as_halves(self, program: Program) -> SpikeMaps:
        """Give maps split into four."""
        if self.halves is None:
            self.halves = moves.prepare_split(program, self.as_maps(program, flat=False))
        return self.halves

    def as_real(self, program: Program) -> Tensor:
        """Give bits as float32, (T, N, C, H, W) or (T, N, F)."""
        if self.rows is not None and self.maps is None:
            return spikes.prepare_unpack_rows(program, self.rows)
        assert self.maps is not None
        return spikes.prepare_unpack_maps(program, self.maps)
