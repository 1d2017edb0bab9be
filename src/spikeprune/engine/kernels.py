"""The native kernels that a layer can have: what each takes, what it costs by its law, and how it joins a program."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import PlanError
from spikeprune.runtime import block_scatter, event_rows, gather, patches, scatter, sliced
from spikeprune.runtime.gather_code import Tiling
from spikeprune.runtime.neurons import LANES, Neurons
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import SpikeMaps, SpikeRows

BLOCKS = 0.75
"""The share of living blocks up to which block scatter is thought of; from there on plain scatter is faster."""

SOME = 1 << 16  # weights that tell how many digits there are

GIGAHERTZ = 2.4
"""Cycles of a nanosecond on the processor whose costs the laws below were fitted to; only their order matters."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Weights that spikes are multiplied by, and the neurons behind them.

    Attributes:
        weight: int8 or float32, (C_out, C_in, height, width) or (C_out, features).
        scale: float32 (C_out,), by which sums are multiplied.
        bias: float32 (C_out,), which is added then.
        neurons: of C_out channels; None if currents are asked for.
        stride: of a convolution.
        padding: of a convolution.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor
    neurons: Neurons | None
    stride: int = 1
    padding: int = 0

    @property
    def integer(self) -> bool:
        """Whether weights are whole numbers."""
        return self.weight.dtype == torch.int8

    def split(self) -> "Layer | None":
        """Give this convolution of stride 2 as one of stride 1 on maps that are `moves.split`; None if there is none as large.

        Input row 2 o - padding + k is row o + (k - padding) // 2 of those of phase (k - padding) % 2.
        """
        if self.stride != 2 or self.weight.dim() != 4:
            return None
        places = [[divmod(k - self.padding, 2) for k in range(side)] for side in self.weight.shape[2:]]
        reach = max(abs(place) for axis in places for place, _ in axis)
        side = 2 * reach + 1
        whole = self.weight.new_zeros(self.weight.shape[0], self.weight.shape[1], 4, side, side)
        for ky, (y, odd_y) in enumerate(places[0]):
            for kx, (x, odd_x) in enumerate(places[1]):
                whole[:, :, 2 * odd_y + odd_x, y + reach, x + reach] = self.weight[:, :, ky, kx]
        return replace(self, weight=whole.flatten(1, 2), stride=1, padding=reach)

    def part(self, first: int, last: int) -> "Layer":
        """Give the layer of outputs first, ..., last - 1."""
        weight, scale, bias = (x[first:last].contiguous() for x in (self.weight, self.scale, self.bias))
        neurons = None if self.neurons is None else self.neurons.part(first, last)
        return replace(self, weight=weight, scale=scale, bias=bias, neurons=neurons)

    @cached_property
    def density(self) -> float:
        """Share of the weights that are not 0."""
        return int((self.weight != 0).sum()) / self.weight.numel()

    @cached_property
    def digits(self) -> float:
        """Signed digits of the whole numbers, from some of them."""
        some = self.weight.flatten()[:: max(1, self.weight.numel() // SOME)]
        return sliced.digits(some) * self.weight.numel() / some.numel()

    @cached_property
    def living(self) -> float:
        """Share of the blocks of 32 outputs by one input that are not all 0."""
        return block_scatter.living(self.weight)


@dataclass(frozen=True)
class Work:
    """What a layer has to do in one run.

    Attributes:
        samples: N.
        timesteps: T.
        places: of an output map; 1 of a linear layer.
        rate: share of the inputs that fire, of all timesteps.
    """

    samples: int
    timesteps: int
    places: int
    rate: float

    def macs(self, layer: Layer) -> float:
        """Multiply-accumulates of a dense layer."""
        return float(self.samples * self.timesteps * self.places * layer.weight.numel())

    @property
    def lanes(self) -> int:
        """Places of all samples at one timestep."""
        return self.samples * self.places


@dataclass(frozen=True, eq=False)
class Kernel:
    """A way to run a layer natively.

    Attributes:
        name: for users.
        reads: what it takes spikes as.
        refuses: says why a layer is none for it, or "".
        cycles: its law.
        pack: lays a layer out.
        spikes: adds it to a program: program, x, packed layer, kept membranes or None.
        currents: the same without neurons; gives float32 of shape (T, N, C_out) or (T, N, C_out, H, W), not always contiguous.
        rest: gives membranes to keep.
        splits: whether it is faster on maps that are split than with a stride of 2.
    """

    name: str
    reads: type[SpikeRows] | type[SpikeMaps]
    refuses: Callable[[Layer], str]
    cycles: Callable[[Layer, Work], float]
    pack: Callable[[Layer], Any]
    spikes: Callable[[Program, Any, Any, Tensor | None], SpikeRows | SpikeMaps]
    currents: Callable[[Program, Any, Any], Tensor]
    rest: Callable[[Any, Any], Tensor]
    splits: bool = False

    def predicted(self, layer: Layer, work: Work) -> float:
        """Microseconds by its law; a guess, for the order."""
        return self.cycles(layer, work) / (1000 * GIGAHERTZ)


def dense_cycles(layer: Layer, work: Work) -> float:
    """The law of PyTorch's own layers, in float32, with what turns bits into numbers and back."""
    return 0.08 * work.macs(layer) + 2.0 * work.timesteps * work.lanes * (layer.weight.shape[0] + layer.weight.shape[1]) + 50_000


def _linear_only(layer: Layer) -> str:
    return "" if layer.weight.dim() == 2 else "it is for linear layers"


def _any(layer: Layer) -> str:
    return ""


def _rows_cycles(layer: Layer, work: Work) -> float:
    return work.rate * work.macs(layer) * (0.05 if layer.integer else 0.1) + 60 * work.samples * work.timesteps


def _scatter_cycles(layer: Layer, work: Work) -> float:
    sums = work.samples * work.timesteps * work.places * _filled(layer)
    added = work.rate * sums * layer.weight[0].numel() * (0.10 if layer.integer else 0.2)
    return added + 0.5 * sums + 0.05 * layer.weight.numel() + 15 * _lists(layer, work)


def _filled(layer: Layer) -> int:
    """Count the outputs, filled up to whole blocks of LANES."""
    return math.ceil(len(layer.weight) / LANES) * LANES


def _lists(layer: Layer, work: Work) -> int:
    """Count the lists of events of a linear layer, one for each input, timestep and sample; those of maps are few and long."""
    return work.samples * work.timesteps * layer.weight.shape[1] if layer.weight.dim() == 2 else 0


def _gather_refuses(layer: Layer) -> str:
    few = not layer.integer or layer.weight[0].numel() <= gather.TERMS
    return "" if few else f"an output has more than {gather.TERMS:,} weights"


def _gather_cycles(layer: Layer, work: Work) -> float:
    """By living weights, each for all tiles; tiles are as wide as lanes and timesteps fill them."""
    to = Tiling.of(work.lanes, work.timesteps)
    vectors = to.lanes / 32 * (1 if layer.integer else 2)
    sums = work.samples * work.timesteps * work.places * layer.weight.shape[0]
    each = layer.density * layer.weight.numel() * (0.8 + 1.2 * vectors) + 6 * layer.weight[0].numel()
    return to.groups * to.tiles * each + 0.5 * sums


def _blocks_cycles(layer: Layer, work: Work) -> float:
    """Like scatter, but what it adds falls with the blocks of 32 outputs that are dead; lists of blocks cost some more."""
    sums = work.samples * work.timesteps * work.places * _filled(layer)
    added = work.rate * sums * layer.weight[0].numel() * layer.living * (0.12 if layer.integer else 0.24)
    return added + 0.5 * sums + 0.05 * layer.weight.numel() + 6 * _lists(layer, work)


def _fires(layer: Layer) -> str:
    return "" if layer.neurons is not None else "no neurons follow it at once"


def _patches_refuses(layer: Layer) -> str:
    return _fires(layer) if layer.weight.dim() == 4 else "it is for convolutions"


def _patches_cycles(layer: Layer, work: Work) -> float:
    """Like scatter, but sums are written once; rows of fewer outputs than a block are filled up."""
    patches = work.samples * work.timesteps * work.places
    each = 0.5 * len(layer.weight) + 60 + 4 * layer.weight[0].numel() / max(1, layer.weight.shape[1])
    added = work.rate * patches * _filled(layer) * layer.weight[0].numel() * (0.045 if layer.integer else 0.1)
    return added + patches * each


def _patches_pack(layer: Layer) -> Any:
    return patches.pack(layer.weight, layer.neurons, layer.scale, layer.bias, stride=layer.stride, padding=layer.padding)


def _sliced_refuses(layer: Layer) -> str:
    if not layer.integer:
        return "its weights are no whole numbers"
    return _fires(layer)


def _sliced_cycles(layer: Layer, work: Work) -> float:
    """By digits, of which a weight has some, for tiles of 512 lanes, of all timesteps where maps are small."""
    tiles = math.ceil(work.lanes * work.timesteps / 512)
    outputs, inputs = layer.weight.shape[0], layer.weight[0].numel()
    return tiles * (290 * outputs + 2.0 * layer.digits + 12 * inputs)


def _scatter_pack(layer: Layer) -> Any:
    weight = layer.weight if layer.weight.dim() == 4 else layer.weight[..., None, None]
    return scatter.pack(weight, layer.neurons, layer.scale, layer.bias, stride=layer.stride, padding=layer.padding)


def _blocks_refuses(layer: Layer) -> str:
    return "" if layer.living <= BLOCKS else "its weights are not zero in blocks of 32 outputs"


def _blocks_pack(layer: Layer) -> Any:
    return block_scatter.pack(layer.weight, layer.neurons, layer.scale, layer.bias, stride=layer.stride, padding=layer.padding)


def _gather_pack(layer: Layer) -> Any:
    return gather.pack(layer.weight, layer.neurons, layer.scale, layer.bias, stride=layer.stride, padding=layer.padding)


def _sliced_pack(layer: Layer) -> Any:
    assert layer.neurons is not None
    return sliced.pack(layer.weight, layer.neurons, layer.scale, layer.bias, stride=layer.stride, padding=layer.padding)


def _no_currents(program: Program, x: Any, layer: Any) -> Tensor:
    raise PlanError("this kernel has no currents.")


def _rows_currents(program: Program, x: SpikeRows, layer: Any) -> Tensor:
    return event_rows.prepare_currents(program, x, layer)[..., : layer.outputs].transpose(0, 1)


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            "event rows", SpikeRows, _linear_only, _rows_cycles, lambda x: event_rows.pack(x.weight, x.neurons, x.scale, x.bias),
            event_rows.prepare, _rows_currents, event_rows.rest,
        ),
        Kernel(
            "scatter", SpikeMaps, _any, _scatter_cycles, _scatter_pack, scatter.prepare, scatter.prepare_currents, scatter.rest
        ),
        Kernel("event patches", SpikeMaps, _patches_refuses, _patches_cycles, _patches_pack, patches.prepare, _no_currents, patches.rest),
        Kernel(
            "block scatter", SpikeMaps, _blocks_refuses, _blocks_cycles, _blocks_pack,
            block_scatter.prepare, block_scatter.prepare_currents, block_scatter.rest,
        ),
        Kernel("gather", SpikeMaps, _gather_refuses, _gather_cycles, _gather_pack, gather.prepare, gather.prepare_currents, gather.rest, splits=True),
        Kernel("bit-sliced gather", SpikeMaps, _sliced_refuses, _sliced_cycles, _sliced_pack, sliced.prepare, _no_currents, sliced.rest, splits=True),
    )
}  # fmt: skip
