"""Figures over layers: what density each keeps, and where the energy of a sample goes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spikeprune.report.cost import Report
from spikeprune.report.drawing import Look, bar, draw, folded, legend_height, mean_deviation, order, patches, plain_ticks, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = ("#0b2c48", "#1f5a7a", "#3f8796", "#72afa8", "#a9cdb8", "#d3e2c4", "#efe9cf", "#c9c9c9")
Part = tuple[str, str, dict[str, float]]


def layer_densities(name: str, group: Mapping[str, Sequence[Report]], styles: Mapping[str, Look]) -> str:
    """Draw the density of each layer, a bar a network; the axis is linear or, where a bar would vanish, logarithmic."""
    layers = _layer_names(group)
    labels = order(group)
    thick = 0.8 / len(labels)

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        scale = density_scale(group)
        left = min(low / 2 for low in _densities(group) if low > 0) if scale == "log" else 0.0
        for i, label in enumerate(labels):
            for row, layer in enumerate(layers):
                found = [100 * x.density for report in group[label] for x in report.layers if x.name == layer]
                if found:
                    where = row - 0.4 + (i + 0.5) * thick
                    bar(axes, where, mean_deviation(found), thick * 0.86, styles[label], left)
        axes.set_yticks(range(len(layers)), [folded(layer) for layer in layers])
        axes.tick_params(axis="y", length=0)
        axes.set(xscale=scale, ylim=(len(layers) - 0.5, -0.5), xlabel=f"density, % ({scale} axis)")
        axes.set_xlim(left, 118 if scale == "linear" else 230)
        plain_ticks(axes)
        if len(labels) > 1:
            patches(figure, [(label, styles[label].color, styles[label].hatch) for label in labels])

    height = 0.6 + legend_height(labels) + len(layers) * (0.16 + 0.19 * len(labels))
    return draw(name, "Density of each layer", height, paint)


def density_scale(group: Mapping[str, Sequence[Report]]) -> str:
    """Choose the axis of the densities: logarithmic when the smallest bar would be under a fiftieth of the axis."""
    found = [density for density in _densities(group) if density > 0]
    return "log" if found and min(found) < 2 else "linear"


def energy_split(name: str, group: Mapping[str, Sequence[Report]]) -> str:
    """Draw the energy of a sample, a bar a network, split by layer; layers that multiply are hatched.

    Several networks are drawn twice, in nanojoule and as shares, since pruning leaves bars too short to see their parts.
    """
    labels = order(group)
    parts = _energy_parts(group)
    totals = [sum(energies.get(label, 0.0) for _, _, energies in parts) for label in labels]

    panels = 1 + (len(labels) > 1)
    texts = [text for text, _, _ in parts]
    height = 0.3 + panels * (0.5 + (0.38 if max(map(len, labels)) > 22 else 0.29) * len(labels)) + legend_height(texts)

    def paint(figure: "Figure") -> None:
        above, *below = figure.subplots(panels, 1, squeeze=False).ravel()
        _stack(above, labels, parts, [1.0] * len(labels))
        for row, total in enumerate(totals):
            above.annotate(f"{total:,.1f}", (total, row), (4, 0), textcoords="offset points", va="center", fontsize=9.5)
        above.set(title="energy of a sample, nJ", xlim=(0, 1.2 * max(totals) or 1))
        for axes in below:
            _stack(axes, labels, parts, [100 / total if total else 0.0 for total in totals])
            axes.set(title="share of the network's own energy, %", xlim=(0, 100))
        patches(figure, [(text, SHADES[i], hatch) for i, (text, hatch, _) in enumerate(parts)])

    return draw(name, "Energy of a sample, split by layer", height, paint)


def _stack(axes: "Axes", labels: Sequence[str], parts: "Sequence[Part]", factors: Sequence[float]) -> None:
    left = [0.0] * len(labels)
    for i, (_, hatch, energies) in enumerate(parts):
        values = [factor * energies.get(label, 0.0) for label, factor in zip(labels, factors, strict=True)]
        axes.barh(range(len(labels)), values, 0.66, left, color=SHADES[i], edgecolor="white", linewidth=0.5, hatch=hatch)
        left = [start + value for start, value in zip(left, values, strict=True)]
    axes.set_yticks(range(len(labels)), [folded(label) for label in labels])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    plain_ticks(axes)


def _energy_parts(group: Mapping[str, Sequence[Report]]) -> "list[Part]":
    """Give (text, hatch, label -> mean nJ) a layer; beyond what shades can tell apart, the small layers become one."""
    parts: dict[tuple[str, bool], dict[str, float]] = {}
    for label, found in group.items():
        for report in found:
            for x in report.layers:
                mine = parts.setdefault((x.name, x.binary_input), {})
                mine[label] = mine.get(label, 0.0) + x.energy_pj / 1000 / len(found)
    largest = sorted(parts, key=lambda part: -max(parts[part].values()))[: len(SHADES) - 1]
    if len(parts) <= len(SHADES):
        largest = list(parts)
    rows = [
        (f"{short(n, 40)} ({'AC' if ac else 'MAC'})", "" if ac else "////", parts[n, ac]) for n, ac in parts if (n, ac) in largest
    ]
    rest = [parts[part] for part in parts if part not in largest]
    if rest:
        rows.append((f"{len(rest)} smaller layers", "", {label: sum(x.get(label, 0.0) for x in rest) for label in group}))
    return rows


def _layer_names(group: Mapping[str, Sequence[Report]]) -> list[str]:
    return list(dict.fromkeys(x.name for found in group.values() for report in found for x in report.layers))


def _densities(group: Mapping[str, Sequence[Report]]) -> list[float]:
    return [100 * x.density for found in group.values() for report in found for x in report.layers]
