"""Redundant timesteps, and what pruning and fewer timesteps save together."""

from collections.abc import Callable
from statistics import mean
from typing import Any

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp.sections.words import TEST, Told, by_share
from spikeprune.studies.rows import Rows
from spikeprune.temporal import Course, relative_energy

CLOSE = 0.5  # points of accuracy that count as none lost


def timesteps(told: Told) -> Section:
    """Hold the KL test's timestep against the accuracy at every timestep."""
    rows = told.rows.where(part="time")
    names = rows.distinct("network")
    dense = _courses(rows.where(network="dense"))
    steps = dense[0].timesteps
    last = Spread.of(100 * (c.accuracy[-1] - c.accuracy[-2]) for c in dense if c.accuracy and steps > 1)
    lost = {
        which: Spread.of(100 * (course.accuracy[-1] - course.accuracy[int(row[which]) - 1]) for course, row in _with(rows, "dense") if course.accuracy)
        for which in ("paper_term", "paper_steps", "steps")
    }  # fmt: skip
    terms = _each(rows, "dense", "paper_term")
    claims = [
        Claim(
            "One timestep of ten is redundant",
            "10 % (t* = 9 of 10)",
            f"the last timestep adds {last:+.2f} points of accuracy",
            "reproduced" if abs(last.mean) <= CLOSE else "refuted",
        ),
        Claim(
            "The KL test on batch means finds how many are needed",
            "t* = 9; the notebooks log 1 and 3",
            f"t* = {terms}, where accuracy is {lost['paper_term']:.1f} points below that of all {steps}; "
            f"read as timesteps, t* + 1, {lost['paper_steps']:.1f} points below",
            "reproduced" if max(lost["paper_term"].mean, lost["paper_steps"].mean) <= CLOSE else "refuted",
        ),
        Claim(
            "A KL test sample by sample, on running outputs, does",
            "not in the paper",
            f"{_each(rows, 'dense', 'steps')} timesteps, {lost['steps']:.1f} points below",
            "reproduced" if lost["steps"].mean <= CLOSE else "refuted",
        ),
    ]
    text = [
        f"With T = {steps} there are {steps - 1} divergence terms, so the paper's index can never be {steps}: {100 / steps:.0f} % saved is its floor, "
        "even for a network that uses every timestep. And a term is the change between two timesteps, so index r needs r + 1 of them. The "
        "estimator averages the outputs of all samples before it compares: mean outputs settle long before each sample's own decision does."
    ]
    return Section(
        "timesteps", "Redundant timesteps", claims=claims, text=text,
        tables=[_decisions(rows, names), _accuracies(rows, names)], plots=_plots(told, rows, names),
    )  # fmt: skip


def _with(rows: Rows, name: str) -> list[tuple[Course, dict[str, Any]]]:
    return [(Course.from_dict(row["course"]), row) for row in rows.where(network=name)]


def _courses(rows: Rows) -> list[Course]:
    return [Course.from_dict(row["course"]) for row in rows]


def _each(rows: Rows, name: str, fact: str) -> str:
    return ", ".join(f"{int(value)}" for value in rows.where(network=name).by_seed(fact).values())


def _decisions(rows: Rows, names: list[str]) -> Table:
    found = []
    for name in names:
        pairs = _with(rows, name)
        whole = Spread.of(100 * c.accuracy[-1] for c, _ in pairs if c.accuracy)
        exits = [next(point for point in c.exits if point.confidence == row["confidence"]) for c, row in pairs]
        sure = Spread.of(100 * (point.accuracy or 0.0) for point in exits)
        found.append(
            (
                name, f"{whole:.2f}",
                _each(rows, name, "paper_term"), _at(pairs, "paper_term"),
                _each(rows, name, "paper_steps"), _at(pairs, "paper_steps"),
                _each(rows, name, "steps"), _at(pairs, "steps"),
                f"{Spread.of(point.steps for point in exits):.2f}", f"{sure:.2f}",
            )
        )  # fmt: skip
    titles = ("network", "all T, %", "paper's t*", "accuracy %", "t* + 1", "accuracy %", "per sample", "accuracy %", "early exit, mean T", "accuracy %")  # fmt: skip
    caption = (
        f"{TEST} Timesteps are decided on the validation split, one value a seed; the accuracy is measured after that many. Early exit: a sample "
        "stops once the largest softmax probability of its running output reaches a confidence, the least that cost no more than half a point "
        "on the validation split."
    )
    return Table(titles, found, caption, "How many timesteps, and what they give")


def _at(pairs: list[tuple[Course, dict[str, Any]]], fact: str) -> str:
    return f"{Spread.of(100 * course.accuracy[int(row[fact]) - 1] for course, row in pairs if course.accuracy):.2f}"


def _accuracies(rows: Rows, names: list[str]) -> Table:
    steps = range(1, _courses(rows)[0].timesteps + 1)
    found = []
    for name in names:
        courses = [c.accuracy for c in _courses(rows.where(network=name)) if c.accuracy]
        found.append((name, *(f"{Spread.of(100 * accuracy[t - 1] for accuracy in courses):.1f}" for t in steps)))
    return Table(
        ("network", *(f"T = {t}" for t in steps)), found, f"{TEST} All from one pass.", "Accuracy after each timestep, %"
    )


def _line(
    name: str, courses: list[Course], value: Callable[[Course], tuple[float, ...] | None], start: int, factor: float
) -> Line:
    found = [value(course) or () for course in courses]
    return Line(name, {float(start + i): [factor * v[i] for v in found] for i in range(len(found[0]))})


def _plots(told: Told, rows: Rows, names: list[str]) -> list[Plot]:
    courses = {name: _courses(rows.where(network=name)) for name in names}
    term = mean(rows.where(network="dense").by_seed("paper_term").values())
    accuracy = [_line(name, found, lambda c: c.accuracy, 1, 100) for name, found in courses.items()]
    energy = [_line(name, found, lambda c: c.energy_pj, 1, 1e-3) for name, found in courses.items()]
    exits = [Line(name, _exits(found)) for name, found in courses.items()]
    plots = [
        Plot(
            curves("time-accuracy", "Accuracy and energy after each timestep", [
                Panel(accuracy, "timesteps run", "accuracy %", "Accuracy", level=told.level, marks={term: "paper's t* (mean)"}),
                Panel(energy, "timesteps run", "nJ a sample", "Energy, exact"),
            ]),
            "Accuracy and energy of a sample stopped after each timestep. The first layer's constant current is computed once, before the first.",
        ),
        Plot(
            curves("time-exit", "Early exit", [Panel(exits, "mean timesteps run", "accuracy %", level=told.level)]),
            "Early exit: accuracy against the mean number of timesteps, for confidences from 0.5 to 0.999.",
        ),
    ]  # fmt: skip
    if courses["dense"][0].timesteps > 1:
        batch = [_line(name, found, lambda c: _floored(c.batch_mean), 2, 1) for name, found in courses.items()]
        single = [_line(name, found, lambda c: _floored(c.per_sample), 2, 1) for name, found in courses.items()]
        panels = [
            Panel(batch, "timestep", "KL, nats", "Batch means, each timestep alone (paper)", scale="log"),
            Panel(single, "timestep", "KL, nats", "Sample by sample, running output", scale="log"),
        ]
        words = "Divergence of each timestep from the one before it, by both estimators, on the test set."
        plots.insert(0, Plot(curves("time-kl", "Divergence over timesteps", panels), words))
    return plots


def _floored(terms: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Keep a term of exactly 0 on a logarithmic axis."""
    return None if terms is None else tuple(max(term, 1e-12) for term in terms)


def _exits(courses: list[Course]) -> dict[float, list[float]]:
    """Give mean timesteps -> accuracies, a point a confidence."""
    points: dict[float, list[float]] = {}
    for same in zip(*(course.exits for course in courses), strict=True):
        points[round(mean(point.steps for point in same), 3)] = [100 * (point.accuracy or 0.0) for point in same]
    return dict(sorted(points.items()))


def energy(told: Told) -> Section:
    """Hold the paper's arithmetic against exact counts."""
    rows = told.rows.where(part="time")
    names = [name for name in rows.distinct("network") if name != "dense"]
    dense = {row["seed"]: row for row in rows.where(network="dense")}
    found, savings = [], {}
    for name in names:
        rel = [_relative(row, dense[row["seed"]]) for row in rows.where(network=name)]
        cells = {key: Spread.of(100 * part[key] for part in rel) for key in rel[0]}
        savings[name] = cells
        found.append((name, _each(rows, name, "paper_term"), *(f"{cell:.1f}" for cell in cells.values())))
    chosen = next((name for name in names if "cqp, unstructured, 70%" in name), names[0])
    nine = [
        _relative(row, dense[row["seed"]], Course.from_dict(row["course"]).timesteps - 1) for row in rows.where(network=chosen)
    ]
    paper, exact = (Spread.of(100 * (1 - part[key]) for part in nine) for key in ("paper", "energy"))
    every = Spread.of(100 * (1 - part["every"]) for part in nine)
    claim = Claim(
        "70 % fewer weights and one timestep fewer save 73 % of the energy",
        "73 % by (1 − s)(t*/T)",
        f"the same arithmetic {paper:.0f} %; exact count {exact:.1f} %, or {every:.1f} % if the first layer is computed anew at each timestep",
        by_share([abs(paper.mean - exact.mean) <= 5, abs(paper.mean - every.mean) <= 5]),
    )
    titles = ("network", "paper's t*", "paper: (1 − s)(t*/T)", "density (t*/T)", "SynOps", "energy", "energy, first layer at each timestep")  # fmt: skip
    caption = (
        "Percent of the dense network at all T; smaller is cheaper. The arithmetic takes the sparsity of the first layer for that of the net, and "
        "energy for proportional to weights and timesteps. SynOps and energy are exact counts on the test set up to t*: non-zero inputs "
        "times non-zero weights, 4.6 pJ where an input is a real value, 0.9 pJ where it is a spike (Horowitz, 45 nm); memory traffic and "
        "neurons are left out."
    )
    text = [
        "They differ for four reasons. The first layer reads real values: each of its operations multiplies and costs five times an addition. Fed a "
        "constant image, it is computed once, so fewer timesteps save nothing of it. Which weights go matters: those that stay read "
        "the pixels that are on, so operations fall less than weights. And the other layers are not pruned, and their rates change."
    ]
    return Section(
        "energy", "Compound energy", claims=[claim], text=text, tables=[Table(titles, found, caption, "Relative energy at the paper's t*, %")],
    )  # fmt: skip


def _relative(row: dict[str, Any], dense: dict[str, Any], steps: int | None = None) -> dict[str, float]:
    """Give the energy of a pruned network at t* over that of the dense one at all T, by each account, as fractions."""
    ours, whole = Course.from_dict(row["course"]), Course.from_dict(dense["course"])
    t, total = steps or int(row["paper_term"]), whole.timesteps
    first, first_whole = (next(iter(part["layers"].values()))["energy_pj"] for part in (row, dense))
    return {
        "paper": relative_energy(row["sparsity"], t, total),
        "density": row["density"] * t / total,
        "synops": ours.synops[t - 1] / whole.synops[-1],
        "energy": ours.energy_pj[t - 1] / whole.energy_pj[-1],
        "every": (ours.energy_pj[t - 1] + (t - 1) * first) / (whole.energy_pj[-1] + (total - 1) * first_whole),
    }
