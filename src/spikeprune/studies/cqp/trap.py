"""The relaxation trap: both quadratic programs, predicted in closed form first, then solved, rounded and measured."""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from torch import Tensor

from spikeprune.masks import Masks
from spikeprune.studies.cqp.pruning import column_criticality
from spikeprune.studies.cqp.relaxation import (
    Problem,
    Relaxed,
    overshoot,
    predict_norm,
    predict_retained,
    solve_norm,
    solve_retained,
)
from spikeprune.studies.cqp.settings import LAYER, TAUS, Settings
from spikeprune.studies.lab import Lab
from spikeprune.studies.trial import Trial

Answer = Callable[[Problem], Relaxed]
PROGRAMS: Mapping[str, tuple[Answer, Answer]] = {
    "paper": (predict_norm, solve_norm),
    "retained": (predict_retained, solve_retained),
}


def trap(settings: Settings) -> Iterator[Trial]:
    """Solve both programs over sparsities, and over thresholds at the sparsity of the cliff."""
    grid = sorted({*product(settings.trap, settings.trap_taus), *product([settings.cliff], TAUS)})
    for program, (sparsity, tau) in product(PROGRAMS, grid):
        facts = {"part": "trap", "program": program, "sparsity": sparsity, "tau": tau}

        def run(lab: Lab, name: str = program, s: float = sparsity, t: float = tau) -> Mapping[str, Any]:
            return relaxed(lab, name, s, t)

        yield Trial(facts, run)


def relaxed(lab: Lab, program: str, sparsity: float, tau: float) -> Mapping[str, Any]:
    """Predict, solve, round and measure one program on the first layer's columns.

    `requested` is the share that the program was asked to remove, `predicted` and `achieved` what rounding removes of the
    closed form and of the solution, `worst` their largest difference in a column before rounding.
    """
    weight = lab.copy().view.select(LAYER)[0].weight.detach()
    problem = Problem(weight.double().norm(dim=0), column_criticality(lab), sparsity, tau)
    predict, solve = PROGRAMS[program]
    predicted, solved = predict(problem), solve(problem)
    return {
        "status": solved.status,
        "predicted_status": predicted.status,
        "protected": int(problem.protected.sum()),
        "columns": problem.columns,
        "requested": problem.removed / problem.columns,
        "predicted": predicted.sparsity,
        "achieved": solved.sparsity,
        "overshoot": overshoot(problem, solved),
        "worst": float((solved.values - predicted.values).abs().max()),
        "differing_columns": int((solved.keep != predicted.keep).sum()),
        "accuracy": keep_columns(lab, solved.keep),
        "predicted_accuracy": keep_columns(lab, predicted.keep),
    }


def keep_columns(lab: Lab, columns: Tensor) -> float:
    """Keep the given input columns of the first layer, be it all or none, and measure the test accuracy."""
    bench = lab.copy()
    weight = bench.view.select(LAYER)[0].weight
    return lab.masked(bench, Masks({LAYER: columns.to(weight.device).expand_as(weight).clone()})).accuracy
