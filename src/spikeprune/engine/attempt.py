"""One layer on one kernel, added to a program of its own: tried on what its inputs hold, and kept if it wins."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from spikeprune.engine.choice import Choice, microseconds
from spikeprune.engine.crew import Crew
from spikeprune.engine.held import Held
from spikeprune.engine.kernels import GIGAHERTZ, KERNELS, Kernel, Layer, Work, dense_cycles
from spikeprune.engine.steps import Steps
from spikeprune.engine.stock import Fused, Stock
from spikeprune.errors import PlanError
from spikeprune.runtime import moves, planes, spikes
from spikeprune.runtime.neurons import LANES
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import SpikeMaps, SpikeRows

DENSE = "dense"
TRIED = 3  # candidates that are measured at most
WORTH = 15.0  # microseconds of a layer that threads share: they wait for each other twice, and put together what they made
CLOSE = (3.0, 1.75)  # times the best by its law, beyond which a second candidate is not, and further ones are not


@dataclass(frozen=True, eq=False)
class Attempt:
    """A layer on a kernel.

    Attributes:
        steps: what runs it, and what brings its input into the kernel's form.
        source: its input, with that form.
        result: its spikes, or its currents.
        membranes: what it keeps from run to run, and that at the start.
    """

    steps: Steps
    source: Held
    result: SpikeRows | SpikeMaps | Tensor
    membranes: list[tuple[Tensor, Tensor]]


def attempt(stock: Stock, number: int, held: Held, kernel: Kernel, *, keeps: bool, crew: Crew | None = None) -> Attempt:
    """Put a layer on a kernel, and run it once.

    Args:
        stock: with the layer.
        number: of its operation.
        held: its input.
        kernel: which takes it.
        keeps: whether membranes are kept from run to run.
        crew: the threads that share its outputs, of a layer that `shareable` allows; None for one.
    """
    fused = stock.layer(number)
    assert isinstance(fused, Fused)
    before, source = Program(), replace(held)
    split = kernel.splits and _halved(fused.layer, source.maps)
    if kernel.reads is SpikeRows:
        x: SpikeRows | SpikeMaps = source.as_rows(before)
    else:
        x = source.as_halves(before) if split else source.as_maps(before, flat=fused.layer.weight.dim() == 2)
    if crew is None:
        parts = [_part(kernel, x, stock.packed(number, kernel, split=split), fused.layer, keeps=keeps)]
    else:
        parts = [_part(kernel, x, kernel.pack(one), one, keeps=keeps) for one in stock.parts(number, crew.threads, split=split)]
    steps = Steps(crew)
    steps.then(before)
    result = _together(steps, parts)
    steps.run()
    return Attempt(steps, source, result, [one.membrane for one in parts if one.membrane is not None])


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of a layer's outputs."""

    program: Program
    result: SpikeRows | SpikeMaps | Tensor
    membrane: tuple[Tensor, Tensor] | None


def _part(kernel: Kernel, x: SpikeRows | SpikeMaps, packed: Any, layer: Layer, *, keeps: bool) -> _Part:
    program = Program()
    if layer.neurons is None:
        return _Part(program, kernel.currents(program, x, packed), None)
    start = kernel.rest(x, packed) if keeps else None
    return _Part(program, kernel.spikes(program, x, packed, start), None if start is None else (start, start.clone()))


def _together(steps: Steps, parts: list[_Part]) -> SpikeRows | SpikeMaps | Tensor:
    """Add the parts of a layer, several at once; give where their results lie side by side."""
    if len(parts) == 1:
        steps.then(parts[0].program)
        return parts[0].result
    after = Program()
    result = moves.prepare_join(after, [one.result for one in parts if isinstance(one.result, SpikeMaps)])
    steps.then(tuple(one.program for one in parts), after)
    return result


def shareable(layer: Layer, kernel: Kernel, alone: Attempt) -> bool:
    """Whether threads may share a layer's outputs: it makes maps of two blocks of channels at least, and takes long enough."""
    able = kernel.reads is SpikeMaps and layer.neurons is not None and len(layer.weight) >= 2 * LANES
    return able and microseconds(alone.steps.run) >= WORTH


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
            choice.measured[name] = microseconds(dense() if name == DENSE else tried[name].steps.run)
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
    return [name for place, name in enumerate(names) if not place or laws[name] <= CLOSE[place > 1] * laws[names[0]]]


def rate(held: Held, entries: int) -> float:
    """Give the share of a value's entries that are spikes."""
    assert held.bits is not None
    return int(spikes.counts(held.bits).sum()) / entries
