"""How batches of one size are run: whole, perhaps with layers that threads share, or cut into samples for each thread."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor

from spikeprune.engine.build import Build
from spikeprune.engine.crew import GAIN, Crew, usual
from spikeprune.engine.plain import Plain
from spikeprune.errors import LayoutError

Builder = Callable[[Tensor, Crew | None], Build | Plain]


@final
class Way:
    """Builds for batches of one size, one for each chunk of the samples.

    Attributes:
        builds: one, or as many as there are chunks.
        note: what sharing was measured to be worth, or "".

    Args:
        builds: as above.
        binary: whether the input is nothing but spikes.
        axes: of the samples in the input, and in each output.
        crew: the threads that chunks run on; one chunk needs none.
    """

    def __init__(self, builds: Sequence[Build | Plain], binary: bool, axes: Sequence[int], crew: Crew | None = None) -> None:
        self.builds, self.note = builds, ""
        self._binary, self._axes, self._crew = binary, axes, crew

    def run(self, x: Tensor) -> list[Tensor]:
        """Answer a batch.

        Raises:
            LayoutError: it is to be spikes, and is not.
        """
        if self._crew is None or len(self.builds) == 1:
            return answer(self.builds[0], x, self._binary)
        chunks = zip(self.builds, x.tensor_split(len(self.builds), self._axes[0]), strict=True)
        parts = self._crew.each(lambda one: answer(*one, self._binary), chunks)
        return [torch.cat(found, axis) for axis, found in zip(self._axes[1:], zip(*parts, strict=True), strict=True)]


def fastest(x: Tensor, alone: Build | Plain, build: Builder, binary: bool, axes: Sequence[int], crew: Crew | None) -> Way:
    """Find how batches like one are run fastest.

    Args:
        x: the batch, as the plan's value 0.
        alone: the build for it on one thread.
        build: makes builds for a chunk of it; threads share layers if it is given a crew.
        binary: whether the input is nothing but spikes.
        axes: of the samples in the input, and in each output.
        crew: the threads; None for the caller's alone.
    """
    ways = {"one thread": Way([alone], binary, axes)}
    if crew is None:
        return ways["one thread"]
    chunks = x.tensor_split(min(crew.threads, x.shape[axes[0]]), axes[0])
    if len(chunks) > 1:
        ways["by samples"] = Way([build(chunk, None) for chunk in chunks], binary, axes, crew)
    if (shared := build(x, crew)).shared:
        ways["by outputs"] = Way([shared], binary, axes)
    best, told = _best({name: partial(way.run, x) for name, way in ways.items()})
    ways[best].note = told
    return ways[best]


def streaming(x: Tensor, build: Builder, crew: Crew | None) -> Build | Plain:
    """Give what runs timesteps like one fastest.

    Args:
        x: a timestep, as the plan's value 0.
        build: makes what runs one and keeps membranes; threads share layers if it is given a crew.
        crew: the threads; None for the caller's alone.
    """
    builds = {"one thread": build(x, None)}
    if crew is not None and (shared := build(x, crew)).shared:
        builds["by outputs"] = shared
    best = builds[_best({name: one.run for name, one in builds.items()})[0]]
    best.reset()
    return best


def _best(runs: Mapping[str, Callable[[], object]]) -> tuple[str, str]:
    """Give the name of the fastest, threads only if they gain enough; and what was measured, or "" for one alone."""
    if len(runs) == 1:
        return next(iter(runs)), ""
    took = dict(zip(runs, usual(list(runs.values())), strict=True))
    best = min(took, key=lambda name: took[name] * (GAIN if name == "one thread" else 1))
    return best, best + " (" + ", ".join(f"{name} {time:,.0f} us" for name, time in took.items()) + ")"


def answer(build: Build | Plain, x: Tensor, binary: bool) -> list[Tensor]:
    """Run a build on a batch, or, if it streams, on a timestep.

    Raises:
        LayoutError: it is to be spikes, and is not.
    """
    build.input.copy_(x)
    build.run()
    if binary:
        refuse_odd(int(build.odd), x)
    return [out.clone() for out in build.outputs]


def refuse_odd(count: int, x: Tensor) -> None:
    """Refuse an input of which so many entries are no spikes.

    Raises:
        LayoutError: there is one.
    """
    if count:
        raise LayoutError(
            f"{count} of {x.numel()} entries are neither 0 nor 1, but the engine was compiled for spikes. Compile it with an example like "
            "this batch."
        )
