"""A plan on native kernels, for inputs of one shape: buffers are made once, and each layer gets the kernel that it is fastest with.

Values are made on demand, from the outputs back, in the form that whoever reads them takes: bits in one of two layouts, or float32.
Every step runs at once on the example, so that the next layer's candidates are measured on what really reaches them.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from math import prod
from typing import TypeVar, final

import torch
from torch import Tensor

from spikeprune.engine import firing
from spikeprune.engine import plan as p
from spikeprune.engine.attempt import DENSE, Attempt, attempt, choose, rate, shareable
from spikeprune.engine.choice import Choice, microseconds
from spikeprune.engine.connect import directly
from spikeprune.engine.crew import Crew
from spikeprune.engine.held import Held
from spikeprune.engine.kernels import KERNELS, Work
from spikeprune.engine.reference import Reference
from spikeprune.engine.steps import Steps
from spikeprune.engine.stock import Fused, Stock, current
from spikeprune.errors import PlanError
from spikeprune.runtime import add, encode, moves, readout, spikes
from spikeprune.runtime.odd import prepare_count_odd
from spikeprune.runtime.program import Program
from spikeprune.runtime.spikes import SpikeMaps, SpikeRows

DIRECT = "direct"  # what is chosen for convolutions of real numbers in native code
ALONE = "neurons"  # what is chosen for neurons that are no part of a layer
Made = TypeVar("Made")


@final
class Build:
    """A plan's steps for one shape of input.

    Attributes:
        steps: what runs.
        input: where the input goes, float32, as the plan's value 0.
        odd: int64 (1,), how many entries of an input of spikes were neither 0 nor 1 in the last run.
        outputs: what the plan returns, after a run.
        choices: for each layer, by the number of its operation.
        shared: names of the layers whose outputs threads share.

    Args:
        stock: layers of the plan.
        x: the example, float32 as the plan's value 0: (T, N, *shape) or (N, *shape).
        spikes: numbers of the values that are nothing but spikes.
        kernels: by the number of an operation, which kernel it must have, or what was chosen before; the others are chosen.
        streams: whether a run is one timestep, and membranes are kept from run to run.
        crew: threads that share layers' outputs; None for one thread.
    """

    @torch.no_grad()
    def __init__(
        self,
        stock: Stock,
        x: Tensor,
        spikes: Set[int],
        kernels: Mapping[int, str | Choice],
        *,
        streams: bool = False,
        crew: Crew | None = None,
    ) -> None:
        self.plan, self._stock, self._kernels, self._streams, self._crew = stock.plan, stock, kernels, streams, crew
        self.steps = Steps(crew)
        self.choices: dict[int, Choice] = {}
        self.shared: list[str] = []
        self.odd = torch.zeros(1, dtype=torch.int64)
        self.input = x.clone(memory_format=torch.contiguous_format)
        self._torch = Reference(self.plan)
        self._timesteps = 1 if streams else self.plan.timesteps
        self._samples = x.shape[1 if self.plan.input.over_time else 0]
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._held = {0: Held(real=self.input)}
        self._firing = spikes
        if 0 in spikes:
            self.odd = self._now(lambda program: prepare_count_odd(program, self.input))
        self.outputs = [self.real(number) for number in self.plan.outputs]
        self.reset()

    def run(self) -> None:
        """Run all timesteps from rest, or, if it streams, the next one."""
        if self.steps.torch == 0 and not self._streams:
            self.steps.run()  # small networks feel every microsecond
            return
        if not self._streams:
            self._torch.reset()
        with torch.no_grad():
            self.steps.run()
        if self._streams:
            self._torch.advance(1)

    def reset(self) -> None:
        """Forget the timesteps before."""
        self._torch.reset()
        for membrane, start in self._kept:
            membrane.copy_(start)

    def real(self, number: int) -> Tensor:
        """Give a value as float32; what makes it so is added."""
        held = self._held.setdefault(number, Held())
        if held.real is None and firing.as_bits(self.plan, self._firing, number):
            found = self._now(self._bits(number).as_real)
            held.real = found.view(*found.shape[:2], *self.plan.operations[number].shape)
        elif held.real is None:
            held.real = self._computed(number)
        return held.real

    def _bits(self, number: int) -> Held:
        """Give a value of spikes in some layout of bits."""
        held = self._held.setdefault(number, Held())
        op = self.plan.operations[number]
        if held.bits is not None:
            return held
        if not firing.as_bits(self.plan, self._firing, number):
            x = self.real(number)
            if len(op.shape) == 1 or firing.read_flat(self.plan, number):
                held.rows = self._now(lambda program: spikes.prepare_pack_rows(program, x.view(*x.shape[:2], -1)))
            else:
                held.maps = self._now(lambda program: spikes.prepare_pack_maps(program, x))
        elif isinstance(op, p.Neuron):
            self._fire(number, op, held)
        elif isinstance(op, p.Pool):
            source, sizes = self._bits(op.inputs[0]), (op.kernel[0], op.stride[0], op.padding[0])
            held.maps = self._now(lambda program: moves.prepare_max_pool(program, source.as_maps(program, flat=False), *sizes))
        elif isinstance(op, p.Concatenate):
            parts, flat = [self._bits(i) for i in op.inputs], len(op.shape) == 1
            held.maps = self._now(lambda program: moves.prepare_join(program, [one.as_maps(program, flat=flat) for one in parts]))
        elif isinstance(op, p.Crop):
            whole = self._bits(op.inputs[0])
            held.maps = self._now(lambda program: moves.prepare_crop(program, whole.as_maps(program, flat=False), *op.shape[1:]))
        else:
            held.rows = self._now(self._bits(op.inputs[0]).as_rows)
        return held

    def _fire(self, number: int, op: p.Neuron, held: Held) -> None:
        """Make the spikes of neurons: with the layer that feeds them, or of currents."""
        fused = self._stock.layer(number)
        fed = isinstance(fused, Fused) and fused.source in self._firing
        if isinstance(fused, Fused) and fed:
            won = self._layer(number, fused)
            if won is not None:
                assert not isinstance(won.result, Tensor)
                held.rows, held.maps = (won.result, None) if isinstance(won.result, SpikeRows) else (None, won.result)
                return
        below, asked = current(self.plan.operations, number)[0], self._asked(number)
        if asked in (DENSE, DIRECT):
            self._stock.direct.setdefault(below, asked == DIRECT)
        currents = self._currents(number)
        if not fed:
            name, why = (fused.name, "its input is no spikes") if isinstance(fused, Fused) else (op.name, fused)
            layer = DIRECT if self._stock.direct.get(below) else DENSE
            synapse = isinstance(self.plan.operations[below], p.Synapse)
            self.choices[number] = Choice(number, name, layer if synapse else ALONE, note=why)
        program, held.maps, membrane = self._encoded(number, op, currents)
        self._kept += [] if membrane is None else [(membrane, membrane.clone())]
        program.run_each()
        self.steps.then(program)

    def _currents(self, number: int) -> Tensor:
        """Give what neurons are fed with, before gain and shift, contiguous."""
        x = self.real(current(self.plan.operations, number)[0])
        if x.is_contiguous():
            return x
        copy = x.contiguous()
        self.steps.then(lambda: void(copy.copy_(x)))
        return copy

    def _encoded(self, number: int, op: p.Neuron, x: Tensor) -> tuple[Program, SpikeMaps, Tensor | None]:
        """Give what turns currents into spikes, these, and the membranes that are kept."""
        neurons = firing.native(op)
        assert not isinstance(neurons, str)
        below, gain, shift = current(self.plan.operations, number)
        if not self.plan.operations[below].over_time:
            x = x.unsqueeze(0).expand(self._timesteps, *x.shape)
        program = Program()
        membrane = encode.rest(x, neurons) if self._streams else None
        found = encode.prepare(program, x, neurons, gain.float().contiguous(), shift.float().contiguous(), membrane)
        return program, found, membrane

    def _layer(self, number: int, fused: Fused) -> Attempt | None:
        """Add a layer that spikes feed, on the kernel of choice; None if that is no native one."""
        held, made = self._bits(fused.source), self._kernels.get(number)
        won: Attempt | None
        if isinstance(made, Choice) and made.kernel in KERNELS:
            choice, won = made, attempt(self._stock, number, held, KERNELS[made.kernel], keeps=self._streams)
        else:
            choice, won = self._chosen(number, fused, held)
        self.choices[number] = choice
        if won is not None:
            kernel = KERNELS[choice.kernel]
            if self._crew is not None and shareable(fused.layer, kernel, won):
                won = attempt(self._stock, number, held, kernel, keeps=self._streams, crew=self._crew)
                self.shared.append(fused.name)
            self._held[fused.source] = replace(won.source, real=held.real)
            self.steps.join(won.steps)
            self._kept += won.membranes
        return won

    def _asked(self, number: int) -> str | None:
        """Give the kernel that a layer must have, or that was chosen before."""
        found = self._kernels.get(number)
        return found.kernel if isinstance(found, Choice) else found

    def _chosen(self, number: int, fused: Fused, held: Held) -> tuple[Choice, Attempt | None]:
        operations = self.plan.operations
        entries = self._timesteps * self._samples * prod(operations[fused.source].shape)
        work = Work(self._samples, self._timesteps, prod(operations[number].shape[1:]), rate(held, entries))
        return choose(
            self._stock, number, held, work, self._asked(number), lambda: self._dense(number, fused), keeps=self._streams
        )

    def _dense(self, number: int, fused: Fused) -> Callable[[], None]:
        """Give what runs a layer densely, without adding it."""
        op, path = self.plan.operations[number], [current(self.plan.operations, number)[0]]
        while path[0] != fused.source:
            path.insert(0, self.plan.operations[path[0]].inputs[0])
        before = Program()
        x = self._bits(fused.source).as_real(before)
        before.run_each()

        def through() -> Tensor:
            value = x
            for one in path[1:]:
                value = self._torch.one(one, [value], self._timesteps)
            return value

        found = through().contiguous()
        after = self._encoded(number, op, found)[0] if isinstance(op, p.Neuron) else Program()

        def run() -> None:
            before.run()
            found.copy_(through())
            after.run()

        return run

    def _computed(self, number: int) -> Tensor:
        """Add what makes a value that is no bits: currents and readouts natively where it can be, anything else in torch."""
        op = self.plan.operations[number]
        fused = self._stock.layer(number) if isinstance(op, p.Synapse | p.Scale) else ""
        if isinstance(fused, Fused) and fused.source in self._firing:
            won = self._layer(number, fused)
            if won is not None:
                assert isinstance(won.result, Tensor)
                return won.result[..., 0, 0] if won.result.dim() > 2 + len(op.shape) else won.result
        if (
            isinstance(op, p.Readout)
            and not self._streams
            and len(op.shape) == 1
            and firing.as_bits(self.plan, self._firing, op.inputs[0])
        ):
            held = self._bits(op.inputs[0])
            return self._now(lambda program: readout.prepare(program, held.as_rows(program), op.weights))
        if isinstance(op, p.Neuron) and isinstance(why := firing.native(op), str):
            self.choices[number] = Choice(number, op.name, "torch", note=why)
        given = [self.real(i) for i in op.inputs]
        if isinstance(op, p.Readout) and not self._streams and len(op.shape) == 1 and given[0].stride(2) == 1:
            return self._now(lambda program: readout.prepare_currents(program, given[0], op.weights))
        if isinstance(op, p.Add) and all(add.mapped(x) for x in given) and given[0].shape == given[1].shape:
            return self._now(lambda program: add.prepare(program, given[0], given[1]))
        if isinstance(op, p.Reshape) and given[0].is_contiguous():
            return given[0].view(*given[0].shape[: 1 + op.over_time], *op.shape)
        if self._stock.stores(number):
            raise PlanError(f"operation {number} was saved for a native kernel, but has none here. Compile the network again.")
        found, run = self._in_torch(number, given)
        native = directly(op, given[0]) if isinstance(op, p.Synapse) else None
        if native is not None:
            if number not in self._stock.direct:  # all builds have the first one's
                self._stock.direct[number] = microseconds(native[0].run) < microseconds(run)
            if self._stock.direct[number]:
                native[0].run()
                self.steps.then(native[0])
                return native[1].view(found.shape)
        self.steps.then(run)
        return found

    def _in_torch(self, number: int, given: list[Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Give what torch makes of values, and what makes it again; nothing is added."""
        found = self._torch.one(number, given, self._timesteps).clone(memory_format=torch.contiguous_format)
        return found, lambda: void(found.copy_(self._torch.one(number, given, self._timesteps)))

    def _now(self, make: Callable[[Program], Made]) -> Made:
        """Add native calls, and run them once."""
        program = Program()
        found = make(program)
        program.run_each()
        self.steps.then(program)
        return found


def void(_: object) -> None:
    """Give nothing of what a call gave."""
