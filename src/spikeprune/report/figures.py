"""Figures over steps: accuracy along the targets of a run, spikes along the timesteps of a sample."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from spikeprune.report.cost import Report
from spikeprune.report.drawing import (
    Look,
    draw,
    folded,
    key,
    legend,
    legend_height,
    level_line,
    mean_deviation,
    order,
    spread_line,
)
from spikeprune.report.findings import DENSE
from spikeprune.report.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_curve(name: str, group: Mapping[str, Sequence[Outcome]], styles: Mapping[str, Look]) -> str:
    """Draw validation accuracy against sparsity: after fine-tuning above, right after pruning below.

    Each panel has its own scale, since what fine-tuning wins back would hide what is left between the methods.
    """
    methods = [label for label in order(group) if any(outcome.curve for outcome in group[label])]
    shown = [DENSE] * (DENSE in group) + methods
    dense = [100 * outcome.validation for outcome in group.get(DENSE, ())]

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(2, 1, sharex=True)
        stops = sorted({100 * point.sparsity for label in methods for outcome in group[label] for point in outcome.curve})
        step = 0.012 * ((stops[-1] - stops[0]) or 1.0)
        titles = ("after fine-tuning", "right after pruning, before fine-tuning")
        for axes, title, moment in zip(panels, titles, ("tuned", "pruned"), strict=True):
            if dense:
                level_line(axes, dense)
            for i, label in enumerate(methods):
                _curve(axes, group[label], styles[label], moment, (i - (len(methods) - 1) / 2) * step)
            axes.set(title=title, ylabel="accuracy %")
            axes.grid(axis="y")
        panels[1].set_xlabel("sparsity of the pruned layers, %")
        if len(stops) == 1:
            panels[1].set_xlim(stops[0] - 0.1, stops[0] + 0.1)
        if _wide_enough(stops):
            panels[1].set_xticks(stops, [f"{stop:g}" for stop in stops])
        legend(figure, [key(styles[label], "-", label != DENSE) for label in shown], shown)

    return draw(name, "Validation accuracy against sparsity", 4.4 + legend_height(shown), paint)


def spike_rates(name: str, group: Mapping[str, Sequence[Report]], styles: Mapping[str, Look]) -> str:
    """Draw the spike rate at each timestep, a panel a neuron layer, a line a network."""
    neurons = list(dict.fromkeys(neuron for found in group.values() for report in found for neuron in report.rates))
    labels = order(group)
    columns = 1 if len(neurons) <= 3 else 2
    rows = -(-len(neurons) // columns)

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for axes in panels[len(neurons) :]:
            axes.set_visible(False)
        for axes, neuron in zip(panels, neurons, strict=False):
            for label in labels:
                _rate(axes, [report.rates[neuron] for report in group[label] if neuron in report.rates], styles[label])
            axes.set_title(folded(neuron, 44 // columns))
            axes.set_ylim(0, max(axes.get_ylim()[1], 1e-6))
            axes.grid(axis="y")
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.supxlabel("timestep", fontsize=10)
        figure.supylabel("spikes a neuron", fontsize=10)
        if len(labels) > 1:
            legend(figure, [key(styles[label], styles[label].line) for label in labels], labels)

    return draw(name, "Spike rate of each neuron layer at each timestep", 0.5 + legend_height(labels) + 1.35 * rows, paint)


def _curve(axes: "Axes", found: Sequence[Outcome], look: Look, moment: str, shift: float) -> None:
    stops = sorted({point.sparsity for outcome in found for point in outcome.curve})
    at = [[100 * getattr(p, moment) for outcome in found for p in outcome.curve if p.sparsity == stop] for stop in stops]
    tuned = moment == "tuned"
    style: dict[str, Any] = {"linestyle": "-", "alpha": 1.0} if tuned else {"linestyle": (0, (4, 2)), "alpha": 0.75}
    face = look.color if tuned else "white"
    spread_line(axes, [100 * stop + shift for stop in stops], at, look, markerfacecolor=face, **style)


def _rate(axes: "Axes", found: Sequence[Sequence[float]], look: Look) -> None:
    if found:
        steps = range(1, min(map(len, found)) + 1)
        means, deviations = zip(*(mean_deviation([rates[t - 1] for rates in found]) for t in steps), strict=True)
        marker = look.marker if len(steps) <= 20 else ""
        axes.plot(steps, means, color=look.color, linestyle=look.line, marker=marker, markersize=3.5, linewidth=1.3)
        low, high = zip(*((m - d, m + d) for m, d in zip(means, deviations, strict=True)), strict=True)
        axes.fill_between(steps, low, high, color=look.color, alpha=0.15, linewidth=0)


def _wide_enough(stops: Sequence[float]) -> bool:
    gaps = [b - a for a, b in pairwise(stops)]
    return not gaps or min(gaps) >= 0.06 * (stops[-1] - stops[0])
