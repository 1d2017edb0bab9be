"""A trial: what is tried, as flat facts that name it, and how to measure it on one seed's ground."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeprune.errors import MeasureError, NonFinite, SparsityError
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


def conduct_all(trials: Sequence[Trial], labs: Sequence[Lab], ledger: Ledger, watch: Watch) -> list[Row]:
    """Run the trials of all seeds.

    Raises:
        MeasureError: trials failed. All others, of all seeds, are done by then.
    """
    rows, failures = [], []
    for lab in labs:
        try:
            rows += conduct(trials, lab, ledger, watch)
        except MeasureError as error:
            failures.append(str(error))
    if failures:
        raise MeasureError(" ".join(failures))
    return rows


def conduct(trials: Sequence[Trial], lab: Lab, ledger: Ledger, watch: Watch) -> list[Row]:
    """Run the trials of one seed that the ledger does not hold yet; returns the rows of all of them.

    Raises:
        MeasureError: trials failed. All others are done by then, and only the failed ones are tried again the next time.
    """
    seed = lab.recipe.seed
    asked = [{**trial.facts, "seed": seed} for trial in trials]
    watch.phase(f"seed {seed}", len(trials), sum(ledger.find(facts) is not None for facts in asked))
    failures = []
    for trial, facts in zip(trials, asked, strict=True):
        if ledger.find(facts) is None:
            try:
                _run(trial, facts, lab, ledger)
            except (MeasureError, NonFinite, SparsityError) as error:
                failures.append(f"{', '.join(f'{key} {value}' for key, value in facts.items())}: {error}")
            watch.advance()
    if failures:
        raise MeasureError(
            f"{len(failures)} of {len(trials)} trials of seed {seed} failed; the others are kept. First, {failures[0]}"
        )
    return [row for facts in asked if (row := ledger.find(facts)) is not None]


def _run(trial: Trial, facts: Mapping[str, Any], lab: Lab, ledger: Ledger) -> None:
    start = time.perf_counter()
    found = trial.run(lab)
    ledger.add(facts, {**found, "seconds": round(time.perf_counter() - start, 3)})
