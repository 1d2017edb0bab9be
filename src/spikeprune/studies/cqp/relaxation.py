"""The convex relaxations of column pruning that fail when they are rounded: predicted in closed form, then solved.

`solve_norm` is the paper's program; `solve_retained` asks the better question and rounds badly too; `predict_` says why.

Muhammad Hamza. Criticality-Constrained Iterative Pruning for Energy-Efficient Spiking Neural Networks via Combined
Importance Scoring. 2026. arXiv:2606.30676

Reading of the paper
  stated    a convex relaxation of the mask fails once it is rounded: it overshoots by up to 12 points and accuracy collapses.
  code      min sum (w_i m_i)^2 with 0 <= m_i <= 1, sum (1 - m_i) >= int(n s) and m_i >= 0.85 where criticality > protect;
            w_i are column norms; OSQP with 4000 iterations, then SCS; keep m_i > 0.5; a failed program leaves the mask at ones.
  inferred  the program that is not degenerate, min sum w_i^2 (1 - m_i)^2 under the same constraints.
  differs   norms are divided by the largest and tolerances are tightened, which moves no optimum. Clarabel follows SCS; where
            none ends, that is an error. The removed count is truncated in decimals: 0.29 of 100 is 29.
"""

import math
import warnings
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import MeasureError, MissingExtra, NonFinite, SparsityError
from spikeprune.kernel.allocate import kept
from spikeprune.kernel.scores import unit

_SOLVERS: dict[str, dict[str, float]] = {
    "OSQP": {"max_iter": 4000, "eps_abs": 1e-8, "eps_rel": 1e-8},
    "SCS": {"eps_abs": 1e-9, "eps_rel": 1e-9},
    "CLARABEL": {"tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12},
}


@dataclass(frozen=True, eq=False)
class Problem:
    """Ask for a share of n columns, given their `norms` w_i >= 0 and their criticality in [0, 1], both (n,), kept as float64.

    Columns more `critical` than `protect` are protected: all, some or none, for it may be any number.

    Raises:
        MeasureError: the tensors are not two vectors of one length, or are empty.
        NonFinite: NaN or infinity in them, or protect is NaN.
        SparsityError: a sparsity outside [0, 1), a negative norm, or a criticality outside [0, 1].

    Example:
        >>> problem = Problem(torch.ones(100), torch.linspace(0, 1, 100), sparsity=0.29, protect=0.9)
        >>> problem.columns, problem.removed, int(problem.protected.sum())
        (100, 29, 10)
    """

    norms: Tensor
    critical: Tensor
    sparsity: float
    protect: float

    def __post_init__(self) -> None:
        ours, theirs = tuple(self.norms.shape), tuple(self.critical.shape)
        if ours != theirs or len(ours) != 1 or not ours[0]:
            raise MeasureError(f"norms have shape {ours} and critical {theirs}, but both need one value a column: (n,), n >= 1.")
        for name, most in (("norms", math.inf), ("critical", 1.0)):
            given = getattr(self, name).detach().double().cpu()
            if wrong := int((~given.isfinite()).sum()):
                raise NonFinite(
                    f"{wrong} of {given.numel()} {name} are NaN or infinite. Check the weights and gradients behind them."
                )
            if given.min() < 0 or given.max() > most:
                raise SparsityError(f"{name} range from {given.min():g} to {given.max():g}, but must lie in [0, {most:g}].")
            object.__setattr__(self, name, given)
        if math.isnan(self.protect):
            raise NonFinite("protect is NaN, but must be a number; 1 protects nothing, -1 everything.")
        kept(self.columns, self.sparsity)  # for its check alone: it rounds where the author truncates

    @property
    def columns(self) -> int:
        """The number n of columns."""
        return self.norms.numel()

    @property
    def removed(self) -> int:
        """How many columns must go: n times the sparsity as written in decimals, truncated."""
        return int(self.columns * Decimal(repr(float(self.sparsity))))

    @property
    def protected(self) -> Tensor:
        """The columns of criticality above `protect`, (n,) bool."""
        return self.critical > self.protect


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Hold an answer: "solved" and its m, (n,) float64; or "infeasible" and ones, as the author's code leaves the mask."""

    status: str
    values: Tensor

    @property
    def keep(self) -> Tensor:
        """The rounded mask, m > 0.5, (n,) bool."""
        return self.values > 0.5

    @property
    def sparsity(self) -> float:
        """The share of columns that rounding removes."""
        return 1 - int(self.keep.sum()) / self.keep.numel()


def predict_norm(problem: Problem) -> Relaxed:
    """Say what the paper's program answers: 0.85 where protected, 0 elsewhere, however few columns were to go.

    The cost grows with every m_i and the sparsity constraint is one-sided, so each m_i sits at its lower bound. Just the p
    protected columns survive rounding: sparsity 1 - p / n for every s. Infeasible if even the lower bounds leave too much,
    p > (n - removed) / 0.85. A column of norm 0 may take any m at no cost; its lower bound is predicted.

    Example:
        >>> problem = Problem(torch.ones(4), torch.tensor([0.1, 0.2, 0.3, 0.9]), sparsity=0.25, protect=0.5)
        >>> relaxed = predict_norm(problem)
        >>> relaxed.values.tolist(), relaxed.sparsity, overshoot(problem, relaxed)
        ([0.0, 0.0, 0.0, 0.85], 0.75, 0.5)
    """
    if 85 * int(problem.protected.sum()) > 100 * (problem.columns - problem.removed):
        return Relaxed("infeasible", torch.ones_like(problem.norms))
    return Relaxed("solved", _bounds(problem)[0])


def predict_retained(problem: Problem) -> Relaxed:
    """Say what the program of retained importance answers: 1 - m_i = min(u_i, lam / w_i^2), from its KKT conditions.

    u_i is 1, or 0.15 if protected; lam >= 0 is the smallest with sum (1 - m_i) = removed. Rounding keeps the protected and
    those with lam / w_i^2 < 0.5: removal is spread thin, and its count misses s again. With equal norms all m_i are 1 - s:
    below s = 0.5 no column goes, from there on all do. A column of norm 0 goes as far as it may: 1 - m_i = u_i.

    Example:
        >>> problem = Problem(torch.tensor([1.0, 2.0]), torch.zeros(2), sparsity=0.5, protect=1)
        >>> [round(value, 6) for value in predict_retained(problem).values.tolist()]
        [0.2, 0.8]
    """
    if (lowest := predict_norm(problem)).status == "infeasible":
        return lowest
    gone, free = 1 - lowest.values, _bounds(problem)[1]
    missing = max(0.0, problem.removed - float(gone[free].sum()))
    gone[~free] = _shared(unit(problem.norms)[~free].square(), gone[~free], missing)
    return Relaxed("solved", 1 - gone)


def solve_norm(problem: Problem) -> Relaxed:
    """Solve the paper's program, min sum (w_i m_i)^2. Raises MissingExtra, or MeasureError if no solver ends."""
    # The optimum is every lower bound, whatever the positive weights are, so raising small ones does not move it. A norm
    # of 1e-3 would count 1e-6, below what solvers see at their own tolerances: they return any m for it, even 1.
    return _solve(problem, unit(problem.norms).clamp_min(0.05), torch.zeros_like(problem.norms))


def solve_retained(problem: Problem) -> Relaxed:
    """Solve the program of retained importance, min sum w_i^2 (1 - m_i)^2. Raises as `solve_norm` does."""
    # A free column may take any m; drawn to its lower bound, it takes the one that is predicted and spares the others.
    least, free = _bounds(problem)
    return _solve(problem, unit(problem.norms).masked_fill(free, 1), torch.where(free, least, 1.0))


def overshoot(problem: Problem, relaxed: Relaxed) -> float:
    """Return the achieved minus the requested sparsity, removed / n; negative when too few columns went."""
    return relaxed.sparsity - problem.removed / problem.columns


def solver() -> Any:
    """Import cvxpy. Raises MissingExtra."""
    try:
        return import_module("cvxpy")
    except ImportError as error:
        raise MissingExtra.of("cvxpy", "relaxation", "the relaxation study") from error


def _solve(problem: Problem, weights: Tensor, target: Tensor) -> Relaxed:
    """Minimise sum weights^2 (m - target)^2 under the constraints, by the first solver that comes to an end."""
    cvxpy = solver()
    m = cvxpy.Variable(problem.columns)
    cost = cvxpy.sum_squares(cvxpy.multiply(weights.numpy(), m - target.numpy()))
    limits = [m >= _bounds(problem)[0].numpy(), m <= 1, cvxpy.sum(1 - m) >= problem.removed]
    program = cvxpy.Problem(cvxpy.Minimize(cost), limits)
    for name, options in _SOLVERS.items():
        with warnings.catch_warnings(action="ignore"), suppress(cvxpy.SolverError):  # the status tells
            program.solve(solver=name, **options)
        if program.status == "infeasible":
            return Relaxed("infeasible", torch.ones_like(problem.norms))
        if program.status == "optimal" or (program.status == "optimal_inaccurate" and abs(m.value - 0.5).min() > 0.05):
            return Relaxed("solved", torch.from_numpy(m.value).double().clamp(0, 1))
    raise MeasureError(f"none of {', '.join(_SOLVERS)} ended on {problem.columns} columns, {problem.removed} to remove.")


def _bounds(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the smallest m of each column, and which columns cost nothing in float64; both (n,)."""
    return 0.85 * problem.protected.double(), unit(problem.norms) < 1e-12


def _shared(squares: Tensor, room: Tensor, missing: float) -> Tensor:
    """Return min(room, lam / squares) of sum `missing`; that sum is linear in lam between the columns' breakpoints."""
    breaks, order = (room * squares).sort()
    before = room[order].cumsum(0) - room[order]  # columns below a breakpoint are full, the others grow with lam
    slopes = squares[order].reciprocal().flip(0).cumsum(0).flip(0)
    first = int((before + breaks * slopes < missing).sum())
    # Past the last breakpoint, which only rounding can pass, all of the room is taken.
    return room if first == len(breaks) else torch.minimum(room, (missing - before[first]) / slopes[first] / squares)
