"""Regrowth: part of the kept units is chosen anew among the dead.

Two moves make an update: `survivors` drops the worst of the living, `revive` brings back the best of the dead. Both rank the
units of one tensor; to rank several layers together, join theirs. What the first has just dropped is dead to the second and
may come back at once, by its growth score like any other.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from spikeprune.errors import NonFinite, SparsityError
from spikeprune.kernel.patterns import top_k


def survivors(score: Tensor, alive: Tensor, keep: int) -> Tensor:
    """Keep the `keep` best of the living; ties go to the lower index.

    Args:
        score: any shape, larger stays; that of dead units is not looked at.
        alive: bool of the same shape.
        keep: how many live on.

    Returns:
        A bool mask of the same shape and device as the score, with exactly `keep` alive.

    Raises:
        SparsityError: fewer than `keep` are alive.
        NonFinite: the score of a living unit is NaN.

    Example:
        >>> survivors(torch.tensor([1.0, 2.0, 2.0, 9.0]), torch.tensor([True, True, True, False]), keep=1)
        tensor([False,  True, False, False])
    """
    alive = alive.to(score.device)
    if not 0 <= keep <= int(alive.sum()):
        raise SparsityError(f"cannot keep {keep} of {int(alive.sum())} living units; keep as many or fewer.")
    return _best(score, alive, keep)


def revive(alive: Tensor, growth: Tensor, grow: int) -> Tensor:
    """Bring the `grow` dead units of largest growth score back to life; ties go to the lower index.

    Args:
        alive: bool, any shape.
        growth: of the same shape, larger comes back; that of living units is not looked at.
        grow: how many come back.

    Returns:
        A bool mask of the same shape: the living and exactly `grow` more.

    Raises:
        SparsityError: fewer than `grow` are dead.
        NonFinite: the growth score of a dead unit is NaN.

    Example:
        >>> revive(torch.tensor([True, False, False, False]), torch.tensor([9.0, 1.0, 3.0, 3.0]), grow=1)
        tensor([ True, False,  True, False])
    """
    dead = ~alive.to(growth.device)
    if not 0 <= grow <= int(dead.sum()):
        raise SparsityError(f"cannot bring {grow} of {int(dead.sum())} dead units back to life; grow as many or fewer.")
    return ~dead | _best(growth, dead, grow)


def chance(shapes: Mapping[str, torch.Size], *seed: int) -> dict[str, Tensor]:
    """Draw scores in [0, 1) for the units of every layer, float64, fixed by the seed: one number, or several hashed into one.

    Example:
        >>> shapes = {"a": torch.Size([2, 2])}
        >>> first, later = chance(shapes, 0, 100), chance(shapes, 0, 200)
        >>> bool((first["a"] == later["a"]).any()), bool((first["a"] == chance(shapes, 0, 100)["a"]).all())
        (False, True)
    """
    text = ":".join(str(part) for part in seed)
    number = seed[0] if len(seed) == 1 else int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(number)
    # float64, so that ties, which would favour the lower index, practically do not occur
    return {name: torch.rand(shape, generator=generator, dtype=torch.double) for name, shape in shapes.items()}


def _best(score: Tensor, among: Tensor, count: int) -> Tensor:
    """Mark the `count` largest scores among some units; no other is marked, whatever its score."""
    candidates = score[among]
    if bool(candidates.isnan().any()):
        raise NonFinite(f"{int(candidates.isnan().sum())} of {candidates.numel()} scores to choose by are NaN.")
    best = torch.zeros_like(among)
    best[among] = top_k(candidates, count)
    return best
