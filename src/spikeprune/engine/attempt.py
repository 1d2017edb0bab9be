"""One layer on one kernel, added to a program of its own: tried on what its inputs hold, and kept if it wins."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from spikeprune.engine.choice import Choice, microseconds
from spikeprune.engine.held import Held
from spikeprune.engine.kernels import GIGAHERTZ, KERNELS, Kernel, Layer, Work, dense_cycles
from spikeprune.engine.stock import Fused, Stock
from spikeprune.errors import PlanError
from spikeprune.runtime import planes, spikes
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import SpikeMaps, SpikeRows

DENSE = "dense"
TRIED = 2  # candidates that are measured at most
CLOSE = 3.0  # times the best by its law, beyond which a candidate is not


@dataclass(frozen=True, eq=False)
class Attempt:
    """A layer on a kernel.

    Attributes:
        program: what runs it, and what brings its input into the kernel's form.
        source: its input, with that form.
        result: its spikes, or its currents.
        membrane: what it keeps from run to run, and that at the start; None for nothing.
    """

    program: Program
    source: Held
    result: SpikeRows | SpikeMaps | Tensor
    membrane: tuple[Tensor, Tensor] | None


def attempt(stock: Stock, number: int, held: Held, kernel: Kernel, *, keeps: bool) -> Attempt:
    """Put a layer on a kernel, and run it once.

    Args:
        stock: with the layer.
        number: of its operation.
        held: its input.
        kernel: which takes it.
        keeps: whether membranes are kept from run to run.
    """
    fused = stock.layer(number)
    assert isinstance(fused, Fused)
    program, source = Program(), replace(held)
    split = kernel.splits and _halved(fused.layer, source.maps)
    if kernel.reads is SpikeRows:
        x: SpikeRows | SpikeMaps = source.as_rows(program)
    else:
        x = source.as_halves(program) if split else source.as_maps(program, flat=fused.layer.weight.dim() == 2)
    packed = stock.packed(number, kernel, split=split)
    if fused.layer.neurons is None:
        result: SpikeRows | SpikeMaps | Tensor = kernel.currents(program, x, packed)
        membrane = None
    else:
        start = kernel.rest(x, packed) if keeps else None
        membrane = None if start is None else (start, start.clone())
        result = kernel.spikes(program, x, packed, start)
    program.run_each()
    return Attempt(program, source, result, membrane)


def choose(
    stock: Stock, number: int, held: Held, work: Work, wanted: str | None, dense: Callable[[], Callable[[], None]], *, keeps: bool
) -> tuple[Choice, Attempt | None]:
    """Choose a layer's kernel: by the laws, then by the clock among the best of them.

    Args:
        stock: with the layer.
        number: of its operation.
        held: its input.
        work: what it has to do.
        wanted: a kernel that it must have, or None.
        dense: gives what runs the layer densely, for the clock.
        keeps: whether membranes are kept from run to run.

    Returns:
        what was chosen, and the layer on it; None for dense.

    Raises:
        PlanError: the kernel that it must have does not take it.
    """
    fused = stock.layer(number)
    assert isinstance(fused, Fused)
    refused = {name: kernel.refuses(fused.layer) for name, kernel in KERNELS.items()}
    laws = {name: kernel.predicted(fused.layer, work) for name, kernel in KERNELS.items() if not refused[name]}
    laws[DENSE] = dense_cycles(fused.layer, work) / (1000 * GIGAHERTZ)
    choice = Choice(number, fused.name, "", work.rate, fused.layer.density, laws)
    if wanted is not None and wanted not in laws:
        why = refused.get(wanted) or "no kernel has that name"
        raise PlanError(f"layer {fused.name!r} cannot run by {wanted!r}: {why}. It can by {', '.join(sorted(laws))}.")
    names = [wanted] if wanted is not None else _worth_trying(laws)
    tried = {name: attempt(stock, number, held, KERNELS[name], keeps=keeps) for name in names if name != DENSE}
    if len(names) > 1:
        for name in names:
            choice.measured[name] = microseconds(dense() if name == DENSE else tried[name].program.run)
    choice.kernel = min(names, key=lambda name: choice.measured.get(name, 0.0))
    stock.keep(number, choice.kernel)
    return choice, tried.get(choice.kernel)


def _halved(layer: Layer, maps: SpikeMaps | None) -> bool:
    """Whether a convolution makes maps of half the size, so that it can have a stride of 1 on maps that are split."""
    if maps is None or layer.stride != 2 or layer.weight.dim() != 4:
        return False
    kernel = planes.Kernel(layer.weight.shape[2], layer.weight.shape[3], layer.stride, layer.padding)
    return (
        not maps.height % 2
        and not maps.width % 2
        and kernel.output(maps.height, maps.width) == (maps.height // 2, maps.width // 2)
    )


def _worth_trying(laws: dict[str, float]) -> list[str]:
    """Give the best by their laws, as far as they lie close to each other."""
    names = sorted(laws, key=lambda name: laws[name])[:TRIED]
    return [name for name in names if laws[name] <= CLOSE * laws[names[0]]]


def rate(held: Held, entries: int) -> float:
    """Give the share of a value's entries that are spikes."""
    assert held.bits is not None
    return int(spikes.counts(held.bits).sum()) / entries
