"""Redundant timesteps: what the divergence tests keep, beside the accuracy at every timestep."""

from collections.abc import Callable
from statistics import mean
from typing import Any

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp.sections.words import TEST, Told, by_share
from spikeprune.studies.rows import Rows
from spikeprune.temporal import Course

CLOSE = 0.5  # points of accuracy that count as none lost
Pair = tuple[Course, dict[str, Any]]  # a network's course on the test set, and its row


def timesteps(told: Told) -> Section:
    """Hold the KL test's timestep against the accuracy at every timestep."""
    rows = told.rows.where(part="time")
    found = {name: pairs(rows, name) for name in rows.distinct("network")}
    total = found["dense"][0][0].timesteps
    if total == 1:
        return Section(
            "timesteps", "Redundant timesteps", text=["With a single timestep there is none to spare, and no divergence."]
        )
    text = [
        f"With T = {total} there are {total - 1} divergence terms, so the paper's index can never be {total}: {100 / total:.0f} % saved is its floor, "
        "even for a network that uses every timestep. And a term is the change between two timesteps, so index r needs r + 1 of them. The "
        "estimator averages the outputs of all samples before it compares, so it can settle while single samples still change their answer.",
    ]  # fmt: skip
    return Section(
        "timesteps",
        "Redundant timesteps",
        claims=_claims(found["dense"], total),
        text=text,
        tables=[_decisions(found), _accuracies(found)],
        plots=_plots(told, found),
    )


def pairs(rows: Rows, name: str) -> list[Pair]:
    """Give each seed's course of a network, with its row."""
    return [(Course.from_dict(row["course"]), row) for row in rows.where(network=name)]


def each(found: list[Pair], fact: str) -> str:
    """List a whole number, one a seed."""
    return ", ".join(str(int(row[fact])) for _, row in found)


def _accuracy(course: Course) -> tuple[float, ...]:
    assert course.accuracy is not None
    return course.accuracy


def _needed(course: Course) -> int:
    """Give the fewest timesteps that lose no more than CLOSE points."""
    accuracy = _accuracy(course)
    return next(t for t, value in enumerate(accuracy, start=1) if 100 * (accuracy[-1] - value) <= CLOSE)


def _claims(dense: list[Pair], total: int) -> list[Claim]:
    last = Spread.of(100 * (_accuracy(c)[-1] - _accuracy(c)[-2]) for c, _ in dense)
    needed = ", ".join(str(_needed(course)) for course, _ in dense)
    rule = f"it keeps what is needed, or one more; needed: the fewest that lose at most {CLOSE} points ({needed})"
    return [
        Claim(
            f"One timestep of {total} is redundant",
            "10 % (t* = 9 of 10)",
            f"the last timestep adds {last:+.2f} points; needed: {needed}",
            by_share([last.mean <= CLOSE]),
            f"it adds at most {CLOSE} points",
        ),
        Claim(
            "The KL test on batch means tells how many are needed",
            "t* = 9; the notebooks log 1 and 3",
            f"t* = {each(dense, 'paper_term')}: {_lost(dense, 'paper_term')}; read as timesteps, t* + 1: {_lost(dense, 'paper_steps')}",
            by_share([_tells(dense, fact) for fact in ("paper_term", "paper_steps")]),
            rule,
        ),
        Claim(
            "A KL test sample by sample, on running outputs, does",
            "not in the paper",
            f"{each(dense, 'steps')}: {_lost(dense, 'steps')}",
            by_share([_tells(dense, "steps")]),
            rule,
        ),
    ]


def _lost(found: list[Pair], fact: str) -> str:
    lost = Spread.of(100 * (_accuracy(course)[-1] - _accuracy(course)[int(row[fact]) - 1]) for course, row in found)
    return f"{lost:.1f} points lost"


def _tells(found: list[Pair], fact: str) -> bool:
    return all(0 <= int(row[fact]) - _needed(course) <= 1 for course, row in found)


def _at(found: list[Pair], fact: str) -> str:
    return f"{Spread.of(100 * _accuracy(course)[int(row[fact]) - 1] for course, row in found):.2f}"


def _decisions(found: dict[str, list[Pair]]) -> Table:
    table = []
    for name, these in found.items():
        exits = [next(point for point in c.exits if point.confidence == row["confidence"]) for c, row in these]
        cells = [text for fact in ("paper_term", "paper_steps", "steps") for text in (each(these, fact), _at(these, fact))]
        sure = Spread.of(100 * (point.accuracy or 0.0) for point in exits)
        whole = Spread.of(100 * _accuracy(course)[-1] for course, _ in these)
        needed = ", ".join(str(_needed(course)) for course, _ in these)
        table.append((name, f"{whole:.2f}", needed, *cells, f"{Spread.of(point.steps for point in exits):.2f}", f"{sure:.2f}"))
    titles = ("network", "all T, %", "needed", "paper's t*", "accuracy %", "t* + 1", "accuracy %", "per sample", "accuracy %", "early exit, mean T", "accuracy %")  # fmt: skip
    caption = (
        f"{TEST} Needed: the fewest timesteps that lose at most {CLOSE} points on the test set, for comparison; the tests decide on the validation split. "
        "One value a seed. Early exit: a sample stops once the largest softmax probability of its running output reaches a confidence, the least "
        "that costs no more than half a point on the validation split."
    )
    return Table(titles, table, caption, "How many timesteps, and what they give")


def _accuracies(found: dict[str, list[Pair]]) -> Table:
    total = next(iter(found.values()))[0][0].timesteps
    table = [
        (name, *(f"{Spread.of(100 * _accuracy(course)[t] for course, _ in these):.1f}" for t in range(total)))
        for name, these in found.items()
    ]
    titles = ("network", *(f"T = {t + 1}" for t in range(total)))
    return Table(titles, table, f"{TEST} All timesteps from one pass.", "Accuracy after each timestep, %")


def _plots(told: Told, found: dict[str, list[Pair]]) -> list[Plot]:
    term = mean(int(row["paper_term"]) for _, row in found["dense"])
    accuracy = _lines(found, _accuracy, 1, 100)
    energy = _lines(found, lambda course: course.energy_pj, 1, 1e-3)
    batch = _lines(found, lambda course: _floored(course.batch_mean or ()), 2, 1)
    single = _lines(found, lambda course: _floored(course.per_sample), 2, 1)
    exits = [Line(name, _exits([course for course, _ in these])) for name, these in found.items()]
    marks = {round(term, 2): "paper's t*, dense"}
    return [
        Plot(
            curves("time-kl", "Divergence over timesteps", [
                Panel(batch, "timestep", "KL, nats", "Batch means, each timestep alone (paper)", scale="log"),
                Panel(single, "timestep", "KL, nats", "Sample by sample, running output", scale="log"),
            ]),
            "Divergence of each timestep from the one before it, by both estimators, on the test set.",
        ),
        Plot(
            curves("time-accuracy", "Accuracy and energy after each timestep", [
                Panel(accuracy, "timesteps run", "accuracy %", "Accuracy", level=told.level, marks=marks),
                Panel(energy, "timesteps run", "nJ a sample", "Energy, exact"),
            ]),
            "Accuracy and energy of a sample stopped after each timestep. The first layer's constant current is computed once, before the first.",
        ),
        Plot(
            curves("time-exit", "Early exit", [Panel(exits, "mean timesteps run", "accuracy %", level=told.level)]),
            "Early exit: accuracy against the mean number of timesteps, a point a confidence.",
        ),
    ]  # fmt: skip


def _lines(found: dict[str, list[Pair]], value: Callable[[Course], tuple[float, ...]], start: int, factor: float) -> list[Line]:
    lines = []
    for name, these in found.items():
        values = [value(course) for course, _ in these]
        lines.append(Line(name, {float(start + i): [factor * v[i] for v in values] for i in range(len(values[0]))}))
    return lines


def _floored(terms: tuple[float, ...]) -> tuple[float, ...]:
    """Keep a term of exactly 0 on a logarithmic axis."""
    return tuple(max(term, 1e-12) for term in terms)


def _exits(courses: list[Course]) -> dict[float, list[float]]:
    """Give mean timesteps -> accuracies, a point a confidence."""
    points: dict[float, list[float]] = {}
    for same in zip(*(course.exits for course in courses), strict=True):
        points[round(mean(point.steps for point in same), 3)] = [100 * (point.accuracy or 0.0) for point in same]
    return dict(sorted(points.items()))
