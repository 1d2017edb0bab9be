"""Rows of contenders that go down densities one stop after the other, and how the sections of a report write them."""

from collections.abc import Mapping, Sequence
from typing import Any

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.findings import Spread, gap
from spikeprune.report.page import Plot
from spikeprune.studies.rows import Rows

SAME = (
    "Mean ± sample standard deviation over seeds; differences are taken seed by seed. All contenders have the same dense networks, stops, "
    "batches of retraining and recalibration of norms."
)


def flat(rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Turn a chain's row into a row for each of its stops."""
    found: list[dict[str, Any]] = []
    for row in rows:
        stops = row.get("stops")
        if stops is None:
            found.append(dict(row))
        else:
            facts = {key: value for key, value in row.items() if key not in ("stops", "seconds")}
            found += [{**facts, **stop} for stop in stops]
    return Rows(found)


def at(rows: Rows, method: str, density: float) -> Rows:
    """Pick a contender's rows at a density; none if it could not be pruned so far."""
    return rows.where(method=method, density=density)


def cell(rows: Rows, name: str, spec: str = ".1f", factor: float = 100.0) -> str:
    """Write mean and spread of what was measured, or say that there is nothing."""
    return f"{rows.spread(name, factor):{spec}}" if len(rows) else "–"


def seeds(rows: Rows, name: str, factor: float = 1.0) -> dict[int, float]:
    """Give one number a seed; none where nothing was measured."""
    return rows.by_seed(name, factor) if len(rows) else {}


def gaps(rows: Rows, ours: str, theirs: str, densities: Sequence[float]) -> dict[float, Spread]:
    """Take the difference of two contenders' accuracies in points, seed by seed, at every density where they share a seed."""
    found = {}
    for density in densities:
        own, other = (seeds(at(rows, name, density), "accuracy", 100.0) for name in (ours, theirs))
        if (difference := gap(own, other)) is not None:
            found[density] = difference
    return found


def line(rows: Rows, label: str, method: str, name: str, densities: Sequence[float], factor: float = 100.0) -> Line | None:
    """Draw what was measured of a contender over the stops, a place each; None if nothing was."""
    points = {}
    for place, density in enumerate(densities):
        if len(found := at(rows, method, density)):
            points[float(place)] = list(found.by_seed(name, factor).values())
    return Line(label, points) if points else None


def drawn(name: str, title: str, panel: Panel, caption: str) -> list[Plot]:
    """Draw a panel of its own, unless it has no line."""
    return [Plot(curves(name, title, [panel]), caption)] if panel.lines else []
