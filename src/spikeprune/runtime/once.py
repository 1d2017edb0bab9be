"""A part of a program as a function: called alone, it makes a program of its own, runs it, and gives what it holds then."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from spikeprune.runtime.program import Program

P = ParamSpec("P")
R = TypeVar("R")


def once(prepare: Callable[Concatenate[Program, P], R], *arguments: P.args, **options: P.kwargs) -> R:
    """Run once what a function puts at the end of a program.

    Args:
        prepare: puts calls at the end of the program that it is given, and returns what holds their result after a run.
        arguments: what it is given besides.
        options: alike, by name.

    Example:
        >>> import torch
        >>> from spikeprune.runtime import bits
        >>> def prepare(program, words):
        ...     counts = torch.empty(len(words), dtype=torch.int64)
        ...     program.add(bits.count(), words, counts, len(words), 1)
        ...     return counts
        >>> once(prepare, torch.tensor([5, 1]))
        tensor([2, 1])
    """
    program = Program()
    found = prepare(program, *arguments, **options)
    program.run_each()
    return found
