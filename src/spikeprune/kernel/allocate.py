"""Allocations: how many units each layer keeps.

An allocation is a function `(scores, sparsity) -> keep`: scores of every layer, a mapping from layer name to one score
a unit; the sparsity asked of all of them together; and the integer count that each layer keeps. A fraction becomes a
count in `kept` and nowhere else. Units that score minus infinity are dead already: none is counted on again.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import overload

import torch
from torch import Tensor

from spikeprune.errors import MethodError, SparsityError

Scores = Mapping[str, Tensor]
Keep = dict[str, int]
Allocation = Callable[[Scores, float], Keep]


def kept(units: int, sparsity: float) -> int:
    """Return how many of `units` survive: the removed ones are `sparsity * units`, rounded to nearest, half up.

    Raises:
        SparsityError: the sparsity is not a number in [0, 1).

    Example:
        >>> kept(784, 0.9)
        78
    """
    given: object = sparsity
    number = not isinstance(given, bool) and isinstance(given, Real)
    if not (number and 0 <= sparsity < 1):
        hint = f" Did you mean {sparsity / 100:g}?" if number and 1 < sparsity < 100 else ""
        raise SparsityError(f"sparsity is {sparsity!r}, but must be a fraction in [0, 1): the share that is removed.{hint}")
    return units - math.floor(float(sparsity) * units + 0.5)  # NumPy's float32 cannot count beyond 2**24


def check_allocation(allocation: object) -> None:
    """Raise MethodError if it is no allocation, but perhaps the name of one."""
    if not callable(allocation):
        raise MethodError(
            f"allocation is {allocation!r}, but must be a function, such as allocate.lamp or allocate.global_top_k "
            "(from spikeprune import allocate)."
        )


def reachable(units: int, needed: int) -> float:
    """Return the highest sparsity, in as few digits as make it exact, that leaves `needed` of `units`.

    Example:
        >>> reachable(1000, 3), kept(1000, 0.997)
        (0.997, 3)
    """
    return round((units - needed) / units, len(str(units)))


def uniform(scores: Scores, sparsity: float, *, floor: int = 1) -> Keep:
    """Give every layer the same sparsity; no layer falls below `floor` units.

    Example:
        >>> uniform({"a": torch.ones(10), "b": torch.ones(100)}, 0.9)
        {'a': 1, 'b': 10}
    """
    return {name: max(kept(score.numel(), sparsity), min(floor, _alive(score))) for name, score in scores.items()}


def uniform_plus(scores: Scores, sparsity: float, *, floor: int = 1) -> Keep:
    """Give every layer the same sparsity, but leave a first convolution dense and the last layer at least 20 %.

    First and last are those of the layers given. A linear first layer is pruned like the rest; a lone layer is both, and
    counts as the first if it is a convolution. The 20 % are rounded as in `kept`. What the two do not take is spread over
    the others so that the total is met exactly, by largest remainder. Scores must be weight-shaped.

    Source: Gale et al. 2019, arXiv:1902.09574 (the two exceptions); Lee et al. 2021, arXiv:2010.07611 (as a baseline).

    Raises:
        SparsityError: the first convolution, a fifth of the last layer and the floors are more than the sparsity leaves;
            a score is not weight-shaped; else as `global_top_k`.

    Example:
        >>> uniform_plus({"a": torch.ones(30, 10), "b": torch.ones(20, 10), "c": torch.ones(10, 10)}, 0.9)
        {'a': 24, 'b': 16, 'c': 20}
    """
    _refuse_reduced("uniform_plus", scores)
    (first, *_), (*_, last) = scores, scores
    size = {name: score.numel() for name, score in scores.items()}
    room = {name: _alive(score) for name, score in scores.items()}
    least = {name: min(floor, alive) for name, alive in room.items()}
    least[last] = max(least[last], min(kept(size[last], 0.8), room[last]))
    fixed = set()
    if scores[first].dim() > 2:
        least[first] = room[first]
        fixed.add(first)
    why = "so that a first convolution stays dense, the last layer keeps a fifth, and no other is emptied"
    budget = _budget(sum(size.values()), sparsity, sum(least.values()), sum(room.values()), why)
    quota = _spread(size, room, {name: least[name] for name in fixed}, budget)
    if quota[last] < least[last]:
        quota = _spread(size, room, {name: least[name] for name in (*fixed, last)}, budget)
    return _apportion(quota, room, least, budget)


def global_top_k(scores: Scores, sparsity: float, *, floor: int = 1) -> Keep:
    """Rank the units of all layers in one list and keep the best; no layer loses its best `floor` units.

    Ties go to the earlier layer, then to the lower index.

    Raises:
        SparsityError: the floors alone are more than the sparsity leaves, or more is dead already than it removes.

    Example:
        >>> global_top_k({"a": torch.tensor([5.0, 4.0, 3.0]), "b": torch.tensor([1.0])}, 0.5)
        {'a': 1, 'b': 1}
    """
    owner = torch.cat([torch.full((score.numel(),), i) for i, score in enumerate(scores.values())])
    flat = torch.cat([score.detach().flatten().double().cpu() for score in scores.values()])
    alive = [_alive(score) for score in scores.values()]
    floors = [min(floor, count) for count in alive]
    budget = _budget(len(flat), sparsity, sum(floors), sum(alive))
    order = flat.argsort(descending=True, stable=True)
    keep = torch.tensor(floors)
    # The best `floor` units of a layer are its first in the ranking: they are taken already, the rest compete.
    place = torch.empty_like(order)
    ranked = owner[order]
    for i in range(len(floors)):
        mine = ranked == i
        place[mine] = torch.arange(int(mine.sum()))
    free = ranked[place >= keep[ranked]][: budget - sum(floors)]
    keep += torch.bincount(free, minlength=len(floors))
    return dict(zip(scores, keep.tolist(), strict=True))


def erdos_renyi(scores: Scores, sparsity: float, *, kernel: bool = True, floor: int = 1) -> Keep:
    """Give layers densities in proportion to (C_in + C_out + k_h + k_w) / (C_in C_out k_h k_w).

    Layers whose share would pass 1 stay dense and the rest is spread again. Counts meet the total exactly, by largest
    remainder. Scores must be weight-shaped; `kernel=False` leaves the kernel's size out (the plain Erdős-Rényi form).

    Source: Mocanu et al. 2018 (Erdős-Rényi); Evci et al. 2020, arXiv:1911.11134 (the kernel form).

    Raises:
        SparsityError: a score is not weight-shaped; else as `global_top_k`.

    Example:
        >>> erdos_renyi({"a": torch.ones(10, 10), "b": torch.ones(30, 30)}, 0.8)
        {'a': 50, 'b': 150}
    """
    _refuse_reduced("erdos_renyi", scores)
    weight = {}
    for name, score in scores.items():
        axes = score.shape if kernel else score.shape[:2]
        weight[name] = score.numel() * sum(axes) / math.prod(axes)
    room = {name: _alive(score) for name, score in scores.items()}
    floors = {name: min(floor, alive) for name, alive in room.items()}
    units = sum(score.numel() for score in scores.values())
    budget = _budget(units, sparsity, sum(floors.values()), sum(room.values()))
    return _apportion(_capped(weight, room, budget), room, floors, budget)


@overload
def lamp(scores: Tensor) -> Tensor: ...
@overload
def lamp(scores: Scores, sparsity: float) -> Keep: ...
def lamp(scores: Tensor | Scores, sparsity: float | None = None) -> Tensor | Keep:
    """Divide each squared score by the sum of those in its layer that are not smaller (LAMP).

    Given one layer's scores it returns its LAMP scores (float64, same shape); given the scores of all layers and a
    sparsity it is an allocation: `global_top_k` over the LAMP scores. Scores of minus infinity (dead units) stay so
    and weigh nothing. Among equal scores the lower index counts as the larger, so that every layer's best scores 1.

    Source: Lee et al. 2021, arXiv:2010.07611, equation 2.

    Example:
        >>> lamp(torch.tensor([1.0, 2.0]))
        tensor([0.2000, 1.0000], dtype=torch.float64)
        >>> lamp({"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([0.1, 0.2])}, 0.5)
        {'a': 2, 'b': 1}
    """
    if isinstance(scores, Tensor):
        return _lamp(scores)
    if sparsity is None:
        raise SparsityError("lamp as an allocation needs a sparsity: lamp(scores, sparsity).")
    return global_top_k({name: _lamp(score) for name, score in scores.items()}, sparsity)


def _lamp(score: Tensor) -> Tensor:
    dead = score.flatten() == -torch.inf
    squares = score.flatten().double().masked_fill(dead, 0).square()
    order = squares.argsort(descending=True, stable=True)
    # Descending, so the running sum is the reversed cumulative sum: total minus prefix would lose the tail.
    out = torch.empty_like(squares)
    out[order] = squares[order] / squares[order].cumsum(0).clamp_min(torch.finfo(squares.dtype).tiny)
    return out.masked_fill(dead, -torch.inf).view_as(score)


def _alive(score: Tensor) -> int:
    return int((score != -torch.inf).sum())


def _refuse_reduced(allocation: str, scores: Scores) -> None:
    for name, score in scores.items():
        if score.dim() < 2:
            raise SparsityError(
                f"{allocation} needs weight-shaped scores, but those of layer {name!r} have shape {tuple(score.shape)}. Use it with "
                "the pattern Unstructured()."
            )


def _budget(units: int, sparsity: float, floors: int, alive: int, why: str = "so that none is emptied") -> int:
    budget = kept(units, sparsity)
    if budget < floors:
        raise SparsityError(
            f"sparsity {sparsity} keeps {budget} of {units} units, but the layers must keep {floors} together "
            f"{why}. Ask for at most {reachable(units, floors)}."
        )
    if budget > alive:
        raise SparsityError(
            f"sparsity {sparsity} keeps {budget} of {units} units, but earlier masks left only {alive} alive, and what is removed "
            f"stays removed. Ask for at least {reachable(units, alive)}."
        )
    return budget


def _capped(weight: Mapping[str, float], room: Mapping[str, int], budget: int) -> dict[str, float]:
    """Share the budget out by weight; a layer that would pass its room gets that, and the rest is shared again."""
    full: set[str] = set()
    while True:
        rest = [name for name in room if name not in full]
        left = budget - sum(room[name] for name in full)
        scale = left / sum(weight[name] for name in rest) if rest else 0.0
        over = {name for name in rest if scale * weight[name] > room[name]}
        if not over:
            return {name: float(room[name]) if name in full else scale * weight[name] for name in room}
        full |= over


def _spread(size: Mapping[str, int], room: Mapping[str, int], fixed: Keep, budget: int) -> dict[str, float]:
    """Share out by size, among the other layers, what the layers of fixed count leave."""
    free = {name: alive for name, alive in room.items() if name not in fixed}
    quota = {**fixed, **_capped(size, free, budget - sum(fixed.values()))}
    return {name: quota[name] for name in room}


def _apportion(quota: Mapping[str, float], room: Mapping[str, int], floors: Mapping[str, int], budget: int) -> Keep:
    """Round quotas to whole units that sum to the budget: largest remainders first, earlier layers on ties."""
    keep = {name: max(min(math.floor(q), room[name]), floors[name]) for name, q in quota.items()}
    by_remainder = sorted(quota, key=lambda name: keep[name] - quota[name])
    while (missing := budget - sum(keep.values())) != 0:
        step = 1 if missing > 0 else -1
        for name in by_remainder if step > 0 else reversed(by_remainder):
            free = keep[name] < room[name] if step > 0 else keep[name] > floors[name]
            if free and missing:
                keep[name] += step
                missing -= step
    return keep
