"""A weight as files hold it: the values that live, and a bit for each weight that tells which do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeprune.engine.grid import on_grid
from spikeprune.errors import PlanError
from spikeprune.kernel.packing import BYTE, pack_bits, unpack_bits


@dataclass(frozen=True, eq=False)
class Stored:
    """A weight in little memory; whoever computes with it unpacks it first.

    Attributes:
        shape: of the weight, (C_out, ...).
        bits: 2 to 8 of each whole number; 0 for a weight of real numbers.
        alive: uint8, a bit for each weight, the first in the lowest.
        values: of the weights that live: packed whole numbers, uint8, or float32.
        step: float64 (C_out,), what whole numbers are multiplied by; None for real numbers.

    Example:
        >>> one = Stored.of(torch.tensor([[0.5, 0.0, -0.25]], dtype=torch.double))
        >>> one.bits, one.numbers(), one.whole()
        (3, tensor([[ 2,  0, -1]], dtype=torch.int8), tensor([[ 0.5000,  0.0000, -0.2500]], dtype=torch.float64))
    """

    shape: torch.Size
    bits: int
    alive: Tensor
    values: Tensor
    step: Tensor | None = None

    @staticmethod
    def of(weight: Tensor) -> "Stored":
        """Store a weight: on a grid with as many bits as its whole numbers need, else as float32.

        Args:
            weight: (C_out, ...), float64.
        """
        found = on_grid(weight)
        numbers = weight.float() if found is None else found[0]
        alive = numbers != 0
        values, packed = numbers[alive], pack_bits(alive.flatten().long(), 1)
        if found is None:
            return Stored(weight.shape, 0, packed, values)
        bits = max(2, int(values.abs().max()).bit_length() + 1) if len(values) else 2
        return Stored(weight.shape, bits, packed, pack_bits(values.long() + (1 << (bits - 1)), bits), found[1])

    @staticmethod
    def read(prefix: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Stored":
        """Give the weight of this name.

        Raises:
            PlanError: its parts do not fit each other.
            LookupError: a part is missing.
        """
        shape, bits = torch.Size(int(side) for side in entry["shape"]), int(entry["bits"])
        step = tensors[prefix + "step"] if bits else None
        found = Stored(shape, bits, tensors[prefix + "alive"], tensors[prefix + "values"], step)
        if why := found._fault():
            raise PlanError(f"the weight {prefix!r} of shape {tuple(shape)} and {bits} bits is none: {why}")
        return found

    def write(self, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Put the parts among tensors, under this name; give the rest."""
        parts = {"values": self.values, "alive": self.alive} | ({} if self.step is None else {"step": self.step})
        tensors.update({prefix + name: part for name, part in parts.items()})
        return {"shape": list(self.shape), "bits": self.bits}

    def numbers(self) -> Tensor:
        """Give the whole numbers, int8, or the real ones, float32; the dead are 0."""
        alive, values = self._living(), self.values
        if self.bits:
            numbers = values if self.bits == BYTE else unpack_bits(values, self.bits, int(alive.count_nonzero()))
            values = (numbers ^ 0x80).view(torch.int8) if self.bits == BYTE else numbers.view(torch.int8) - (1 << (self.bits - 1))
        return torch.zeros(self.shape, dtype=values.dtype).masked_scatter_(alive, values)

    def whole(self) -> Tensor:
        """Give the weight in float64."""
        found = self.numbers().double()
        return found if self.step is None else found * self.step.view(-1, *[1] * (len(self.shape) - 1))

    def outline(self, dtype: torch.dtype) -> Tensor:
        """Give a tensor of its shape that holds nothing."""
        return torch.empty(self.shape, dtype=dtype, device="meta")

    def _living(self) -> Tensor:
        bits = np.unpackbits(self.alive.numpy(), count=self.shape.numel(), bitorder="little")
        return torch.from_numpy(bits).view(torch.bool).view(self.shape)

    def _fault(self) -> str:
        """Say why the parts do not fit, or ""."""
        if self.bits not in (0, *range(2, BYTE + 1)) or len(self.shape) < 2 or min(self.shape) < 0:
            return "there is none of that shape, or of those bits"
        if self.alive.dtype != torch.uint8 or tuple(self.alive.shape) != (-(-self.shape.numel() // BYTE),):
            return f"which weights live is told in {self.alive.dtype} {tuple(self.alive.shape)}"
        kind, count = (torch.uint8, self.bits) if self.bits else (torch.float32, BYTE)
        living = int(self._living().count_nonzero())  # a sum would make each of them 64 bits
        size = -(-living * count // BYTE)
        if self.values.dtype != kind or tuple(self.values.shape) != (size,):
            return f"{size} values are needed, and there are {self.values.dtype} {tuple(self.values.shape)}"
        wrong = self.step is not None and (self.step.dtype != torch.double or tuple(self.step.shape) != self.shape[:1])
        return "its steps are not one for each output" if wrong else ""
