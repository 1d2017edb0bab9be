"""The Triton kernel of neurons: all timesteps of a block of them in one program, membranes in registers.

A module of its own, since Triton is imported the first time that a device asks for it, and need not be installed. The kernel's types
are words for Triton, which reads them from the source.
"""

from __future__ import annotations

from typing import Any

try:
    import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError:
    triton = tl = None

DECAY, GAIN, REST, THRESHOLD, RESET_TO, START = range(6)
"""Rows of the table of constants, a channel a column."""


def _fire(  # noqa: PLR0913  # a kernel has no objects
    x: tl.tensor,
    out: tl.tensor,
    table: tl.tensor,
    size: tl.tensor,
    x_step: tl.tensor,
    inner: tl.tensor,
    channels: tl.tensor,
    steps: tl.constexpr,
    unrolled: tl.constexpr,
    alike: tl.constexpr,
    hard: tl.constexpr,
    soft: tl.constexpr,
    delayed: tl.constexpr,
    strict: tl.constexpr,
    charges: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Run `steps` timesteps of `block` neurons.

    x (steps, size), its timesteps x_step entries apart; out (steps, size), one after the other. The channel of an entry is its place
    within a timestep over `inner`, modulo `channels`; if constants are `alike` in all channels, the first column is everyone's.
    """
    place = tl.program_id(0) * block + tl.arange(0, block)
    inside = place < size
    column = 0 if alike else (place // inner) % channels
    decay = tl.load(table + column)
    gain = tl.load(table + channels + column)
    rest = tl.load(table + 2 * channels + column)
    level = tl.load(table + 3 * channels + column)
    low = tl.load(table + 4 * channels + column)
    v = tl.full([block], 0.0, tl.float32) + tl.load(table + 5 * channels + column)
    due = place < 0  # who fired before, of a reset that waits
    read, write = x + place, out + place
    for _ in range(0, steps, unrolled):
        for _ in tl.static_range(unrolled):
            current = tl.load(read, mask=inside, other=0.0).to(tl.float32)
            h = rest + decay * (v - rest) + gain * current
            if delayed:
                h = tl.where(due, h - level, h)
            fires = h > level if strict else h >= level
            tl.store(write, h if charges else tl.where(fires, 1.0, 0.0), mask=inside)
            v = h
            if hard:
                v = tl.where(fires, low, h)
            if soft and not delayed:
                v = tl.where(fires, h - level, h)
            due = fires
            read += x_step
            write += size


fire: Any = None if triton is None else triton.jit(_fire)
