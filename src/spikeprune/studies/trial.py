"""A trial: what is tried, as flat facts that name it, and how to measure it on one seed's ground."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeprune.recipes.phase import Watch
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import Ledger, Row


@dataclass(frozen=True)
class Trial:
    """One measurement of a study.

    Attributes:
        facts: what is tried, without the seed: `{"part": "alpha", "alpha": 0.5}`.
        run: measures it; gives numbers and texts that JSON can hold.
    """

    facts: Mapping[str, Any]
    run: Callable[[Lab], Mapping[str, Any]]


def conduct(trials: Sequence[Trial], lab: Lab, ledger: Ledger, watch: Watch) -> list[Row]:
    """Run the trials of one seed that the ledger does not hold yet; returns the rows of all of them."""
    seed = lab.recipe.seed
    asked = [{**trial.facts, "seed": seed} for trial in trials]
    watch.phase(f"seed {seed}", len(trials), sum(ledger.find(facts) is not None for facts in asked))
    rows = []
    for trial, facts in zip(trials, asked, strict=True):
        if (row := ledger.find(facts)) is None:
            start = time.perf_counter()
            found = trial.run(lab)
            ledger.add(facts, {**found, "seconds": round(time.perf_counter() - start, 3)})
            row = ledger.find(facts)
            watch.advance()
        assert row is not None
        rows.append(row)
    return rows
