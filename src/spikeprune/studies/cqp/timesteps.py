"""Redundant timesteps and compound energy: what each network knows, and has spent, after each timestep."""

from collections.abc import Iterator, Mapping
from typing import Any

from spikeprune.recipes.train import EVALUATE, Bench
from spikeprune.report import profile
from spikeprune.studies.cqp.pruning import build
from spikeprune.studies.cqp.settings import LAYER, ROUNDS, Settings
from spikeprune.studies.lab import Lab
from spikeprune.studies.trial import Trial
from spikeprune.temporal import Course, course

TUNING = 10  # batches of fine-tuning a round: the paper's first budget
LOSS = 0.005  # validation accuracy that an early exit may cost


def timesteps(settings: Settings) -> Iterator[Trial]:
    """Follow the dense network and pruned ones over their timesteps."""
    yield Trial({"part": "time", "network": "dense", "sparsity": 0.0}, lambda lab: over_time(lab, lab.copy()))
    for method, pattern, sparsity in settings.networks:
        name = f"{method}, {pattern}, {sparsity:.0%}"
        facts = {"part": "time", "network": name, "sparsity": sparsity}

        def run(lab: Lab, m: str = method, p: str = pattern, s: float = sparsity) -> Mapping[str, Any]:
            chosen = build(m, p, lab.recipe.seed)
            return over_time(lab, lab.in_rounds(chosen, s, LAYER, rounds=ROUNDS, batches=TUNING).bench)

        yield Trial(facts, run)


def over_time(lab: Lab, bench: Bench) -> Mapping[str, Any]:
    """Measure the test set over time; decide on the validation split how few timesteps will do."""
    chosen = course(bench.view, lab.splits.validation.batches(EVALUATE))
    tested = course(bench.view, lab.splits.test.batches(EVALUATE))
    report = profile(bench.view, [x for x, _ in lab.splits.test.batches(EVALUATE)])
    paper = chosen.paper_decision
    assert paper is not None
    return {
        "course": tested.to_dict(),
        "paper_term": paper.term,
        "paper_steps": paper.steps,
        "steps": chosen.decision.steps,
        "confidence": confidence(chosen),
        "density": report.density,
        "layers": {
            x.name: {"energy_pj": x.energy_pj, "synops": x.synops_effective, "binary": x.binary_input} for x in report.layers
        },
    }


def confidence(chosen: Course) -> float:
    """Pick the least confidence that costs no more than `LOSS` of accuracy; the highest if none does."""
    assert chosen.accuracy is not None
    enough = chosen.accuracy[-1] - LOSS
    fit = [point.confidence for point in chosen.exits if point.accuracy is not None and point.accuracy >= enough]
    return min(fit, default=max(point.confidence for point in chosen.exits))
