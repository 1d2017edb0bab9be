"""A compiled network: its plan on the kernels that are fastest for it, for inputs of any batch size."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, final

import torch
from torch import Tensor

from spikeprune.engine.attempt import DENSE
from spikeprune.engine.build import Build
from spikeprune.engine.choice import Choice, table
from spikeprune.engine.crew import Crew
from spikeprune.engine.firing import spiking
from spikeprune.engine.kernels import KERNELS
from spikeprune.engine.plain import Plain
from spikeprune.engine.plan import Plan, Readout
from spikeprune.engine.reference import Output, Reference, given
from spikeprune.engine.sharing import Way, answer, fastest, refuse_odd, streaming
from spikeprune.engine.stock import EMPTY, Fused, Stock
from spikeprune.engine.stored import Stored
from spikeprune.errors import LayoutError, MissingExtra, PlanError
from spikeprune.runtime import jit

KEPT = 4  # batch sizes whose buffers are kept
NONE: tuple[None, None] = (None, None)
TIE = 1e-3
"""Outputs that differ by more than this share of the largest do so by a spike that one of them has, not by rounding."""


@dataclass(frozen=True)
class Agreement:
    """How far an engine is from its plan, run in float64 by torch.

    Attributes:
        difference: the largest of any output of the other samples, as a share of the largest output, or of 1 if that is larger.
        flipped: samples of which some output differs by more than a thousandth of the largest: by a spike, where a charge lies at its
            threshold and rounding decides.
        samples: how many there were.
    """

    difference: float
    flipped: int
    samples: int


@final
class Engine:
    """A network that runs natively; made by `compile`, or read by `load_engine`.

    Call it with batches like the example, of any number of samples, or `step` it timestep by timestep. One call runs at a time;
    others wait.

    Attributes:
        spikes: numbers of the values that are nothing but spikes; 0 is the input.
        threads: over how many a batch is shared: by its samples, or layer by layer by outputs, whichever was faster for its size.
        choices: which kernel each layer has, and why.

    Args:
        plan: what to compute.
        spikes: numbers of the values that are nothing but spikes, as `firing.spiking` tells.
        choices: a kernel for each layer, as an earlier engine of this plan chose them; none to choose with the first batch.
        threads: how many may share a batch.
        stored: weights that only native layers need, by the number of their synapse; the plan need have their shapes alone.

    Raises:
        LayoutError: `threads` is no number of threads.
    """

    def __init__(
        self,
        plan: Plan,
        spikes: Set[int],
        choices: Iterable[Choice] = (),
        threads: int = 1,
        *,
        stored: Mapping[int, Stored] = EMPTY,
    ) -> None:
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise LayoutError(f"threads is {threads!r}, but must be how many share a batch, 1 or more.")
        self.spikes, self.threads, self.choices, self._stock = frozenset(spikes), threads, list(choices), Stock(plan, stored)
        self._plan = self._stock.plan  # of stored weights it has the shapes
        self._kernels: dict[int, str | Choice] = {choice.number: choice for choice in self.choices}
        self._lock, self._crew = threading.Lock(), Crew(threads) if threads > 1 else None
        axes = [self._plan.operations[number].over_time for number in (0, *self._plan.outputs)]
        self._axes = [1 if over_time else 0 for over_time in axes]  # of the samples in the input, and in each output
        self._ways: OrderedDict[int, Way] = OrderedDict()  # by number of samples
        self._last: tuple[object, Way | None] = NONE  # the form of the last batch, if it was as the plan takes it
        self._stream: Build | Plain | None = None
        self._next = 0

    @property
    def plan(self) -> Plan:
        """What it computes; weights that an engine from a file keeps packed are unpacked for as long as somebody holds it."""
        return self._stock.whole()

    @staticmethod
    def tuned(plan: Plan, x: Tensor, kernel: str | Mapping[str, str] | None = None, threads: int = 1) -> "Engine":
        """Make the engine of a plan, each layer on the kernel that is fastest on an example.

        Args:
            plan: what to compute.
            x: the example, as the plan's input says.
            kernel: one for all layers that it takes, or by layer name; layers that are not named are measured.
            threads: how many may share a batch.

        Raises:
            PlanError: there is no such kernel or layer, or the layer is none for it.
            LayoutError: the example is not what the plan takes, or `threads` is no number of threads.
        """
        value = given(plan, x)
        engine = Engine(plan, spiking(plan, value), (), threads)
        engine._kernels = dict(wanted(engine._stock, kernel))
        engine._way(value)
        return engine

    def __call__(self, x: Tensor) -> Output:
        """Run all timesteps from rest.

        Args:
            x: as the plan's input says: (T, N, *shape), (N, T, *shape) or (N, *shape).

        Returns:
            What the network returns, float32; several outputs as a tuple. A value over time is (T, N, ...).

        Raises:
            LayoutError: x has another shape or T; or the engine was compiled for spikes, all 0 or 1, and x is no such.
        """
        form, way = self._last  # small networks feel every microsecond
        if way is not None and type(x) is Tensor and _form(x) == form:
            with self._lock:
                outputs = way.run(x)
        else:
            value = given(self._plan, x)
            with self._lock:
                outputs = (way := self._way(value)).run(value)
                self._last = (_form(x), way) if value is x else NONE
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def step(self, x: Tensor) -> Output:
        """Run the next timestep; `reset` comes before the first of another batch.

        Args:
            x: (N, *shape), of this timestep; of an input that is the same at all timesteps, that input again.

        Returns:
            What this timestep adds to each output, (N, ...), so that the sum of T steps is the whole; of an output over time, its value
            at this timestep.

        Raises:
            LayoutError: x has another shape than the last step's, or all T timesteps have been.
            PlanError: the network goes on with its readout, so that no timestep has a share in what it returns.
        """
        operations, source = self._plan.operations, self._plan.input
        if any(isinstance(operations[i], Readout) for op in operations for i in op.inputs):
            raise PlanError("the network goes on with a sum over timesteps, so it cannot be run step by step; run it whole.")
        if tuple(x.shape[1:]) != source.shape or x.dim() != 1 + len(source.shape):
            raise LayoutError(f"a step takes (N, {', '.join(map(str, source.shape))}), but was given {tuple(x.shape)}.")
        value = (x if source.time_axis is None else x.unsqueeze(0)).detach().to("cpu", torch.float32)
        if 0 in self.spikes:
            refuse_odd(int(((value != 0) & (value != 1)).sum()), value)
        with self._lock:
            if self._stream is None or (self._next == 0 and self._stream.input.shape != value.shape):
                self._stream = streaming(value, partial(self._built, streams=True), self._crew)
            if self._next == self._plan.timesteps:
                raise LayoutError(f"all {self._next} timesteps have been; call reset() before the next batch.")
            if self._stream.input.shape != value.shape:
                raise LayoutError(
                    f"this step has {len(x)} samples, and those before {self._size(self._stream.input)}; call reset() before another batch."
                )
            outputs = self._stepped(self._stream, value)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def reset(self) -> None:
        """Forget the timesteps that `step` has seen."""
        with self._lock:
            self._next = 0
            if self._stream is not None:
                self._stream.reset()

    def explain(self) -> str:
        """Tell each layer's kernel, how many of its inputs fired in the example, how many weights live, and what was predicted and measured."""
        return "\n".join(
            [
                table(self.choices),
                *self._told(),
                *(f"{op.name} runs in torch: {op.reason}" for op in self._plan.outside),
                *self._plan.notes,
            ]
        )

    def agreement(self, x: Tensor) -> Agreement:
        """Compare this engine with its plan in float64, sample by sample.

        Args:
            x: a batch, as for a call.
        """
        return compared(self.plan, self(x), x)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise PlanError("an engine holds machine code, so it is not copied or pickled; save it by save_engine, or compile again.")

    def _told(self) -> list[str]:
        """Tell what was measured of sharing, by batch size."""
        with self._lock:
            return [f"{size} samples at a time: {way.note}" for size, way in self._ways.items() if way.note]

    def _built(self, x: Tensor, crew: Crew | None = None, *, streams: bool = False) -> Build | Plain:
        with torch.inference_mode(False):  # other threads, and later calls, write into what is made here
            if not jit.available():
                return Plain(self._plan, x, streams=streams)
            return Build(self._stock, x, self.spikes, self._kernels, streams=streams, crew=crew)

    def _way(self, x: Tensor) -> Way:
        """Give how batches like one are run; the first that there is chooses kernels for all."""
        size = self._size(x)
        if size not in self._ways:
            alone = self._built(x)
            if alone.choices.keys() != {choice.number for choice in self.choices}:
                self.choices = sorted(alone.choices.values(), key=lambda choice: choice.number)
                self._kernels = {choice.number: choice for choice in self.choices}
            self._ways[size] = fastest(x, alone, self._built, 0 in self.spikes, self._axes, self._crew)
            while len(self._ways) > KEPT:
                self._ways.popitem(last=False)
        self._ways.move_to_end(size)
        return self._ways[size]

    def _stepped(self, build: Build | Plain, x: Tensor) -> list[Tensor]:
        outputs = answer(build, x, 0 in self.spikes)
        first, self._next = self._next == 0, self._next + 1
        found = []
        for number, out in zip(self._plan.outputs, outputs, strict=True):
            op = self._plan.operations[number]
            share = out if first or isinstance(op, Readout) else torch.zeros_like(out)
            found.append(out[0] if op.over_time else share)
        return found

    def _size(self, x: Tensor) -> int:
        return x.shape[self._axes[0]]


def compared(plan: Plan, ours: Output, x: Tensor) -> Agreement:
    """Compare what an engine returned for a batch with its plan in float64, sample by sample.

    Args:
        plan: what the engine computes.
        ours: what it returned.
        x: the batch, on any device.
    """
    gaps = []
    for number, one, other in zip(plan.outputs, _all(ours), _all(Reference(plan, torch.double, x.device)(x)), strict=True):
        gap = (one.to(other.device, torch.double) - other).abs() / max(1.0, float(other.abs().max()))
        gaps.append((gap.transpose(0, 1) if plan.operations[number].over_time else gap).flatten(1).amax(1))
    worst = torch.stack(gaps).amax(0)
    flipped = worst > TIE
    return Agreement(float(worst[~flipped].max()) if not bool(flipped.all()) else 0.0, int(flipped.sum()), len(worst))


def wanted(stock: Stock, kernel: str | Mapping[str, str] | None) -> dict[int, str]:
    """Give the kernels that were asked for, by the number of the operation.

    Raises:
        PlanError: there is no such kernel or layer, or a layer that is named has no native kernel at all.
        MissingExtra: a kernel is asked for, and llvmlite is not installed.
    """
    if kernel is None:
        return {}
    if not jit.available():
        raise MissingExtra.of("llvmlite", "runtime", "a native kernel")
    layers = {number: stock.layer(number) for number in range(len(stock.plan.operations))}
    fused = {number: found for number, found in layers.items() if isinstance(found, Fused)}
    if not isinstance(kernel, str | Mapping):
        raise PlanError(f"kernel is {kernel!r}, but must be the name of one, or names by layer name.")
    named = {"*": kernel} if isinstance(kernel, str) else dict(kernel)
    for name, asked in named.items():
        if asked not in (*KERNELS, DENSE):
            raise PlanError(f"there is no kernel {asked!r}; there are {', '.join(KERNELS)} and {DENSE}.")
        if name != "*" and name not in {found.name for found in fused.values()}:
            raise PlanError(
                f"no native layer is named {name!r}; there are {', '.join(sorted({f.name for f in fused.values()}))}."
            )
    found: dict[int, str] = {}
    for name, asked in sorted(named.items()):  # "*" is first, and gives way to names
        numbers = [number for number, one in fused.items() if name in ("*", one.name)]
        takes = [number for number in numbers if asked == DENSE or not KERNELS[asked].refuses(fused[number].layer)]
        found |= dict.fromkeys(takes if takes or name == "*" else numbers, asked)
    return found


def _form(x: Tensor) -> object:
    return x.shape, x.dtype, x.layout, x.device, x.requires_grad


def _all(outputs: Output) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
