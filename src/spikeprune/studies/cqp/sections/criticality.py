"""The exponent, the readings of criticality, and the sensitivity of the layers."""

from collections import Counter
from itertools import pairwise, product

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp import published
from spikeprune.studies.cqp.sections.words import (
    BEYOND,
    NAMES,
    PATTERNS,
    TEST,
    Told,
    accuracy_line,
    ahead,
    budget,
    by_share,
    difference,
    percent,
)
from spikeprune.studies.cqp.settings import LAYER
from spikeprune.studies.rows import Rows

Sweep = tuple[str, float, int]  # pattern, sparsity, batches of fine-tuning a round


def exponent(told: Told) -> Section:
    """Sweep alpha."""
    rows = told.rows.where(part="alpha")
    sweeps = {(row["pattern"], row["sparsity"], row["batches"]): None for row in rows}
    found = {sweep: rows.where(pattern=sweep[0], sparsity=sweep[1], batches=sweep[2]) for sweep in sweeps}
    best = {
        sweep: max(each.distinct("alpha"), key=lambda a: each.where(alpha=a).percent("accuracy").mean)
        for sweep, each in found.items()
    }
    held = [all(ahead(difference(each.where(alpha=0.5), each.where(alpha=a))) for a in (0.0, 1.0)) for each in found.values()]
    tops = ", ".join(f"{alpha:g} in {n}" for alpha, n in sorted(Counter(best.values()).items()))
    claim = Claim(
        "α = 0.5 is better than magnitude (0) and than the full criticality (1)",
        "85.9 against 81.3 and 83.3 (Fashion-MNIST, columns, 70 %)",
        f"better than both in {sum(held)} of {len(held)} sweeps; highest mean at {tops}",
        by_share(held),
        f"both differences > 0, and {BEYOND}, in every sweep",
    )  # fmt: skip
    titles = ("first layer", *(f"α = {alpha:g}" for alpha in rows.distinct("alpha")), "highest at")
    table = [(_name(sweep), *_accuracies(each), f"{best[sweep]:g}") for sweep, each in found.items()]
    caption = f"{TEST} α = 0 is magnitude. No α is chosen by this table: where nothing else is said, α is 0.5, the paper's."
    plot = Plot(
        curves("alpha", "Accuracy against the exponent", _panels(told, found)), "Accuracy against the exponent of criticality."
    )
    return Section(
        "alpha", "The exponent", claims=[claim, _smaller(found)], tables=[Table(titles, table, caption, "Sweeps")], plots=[plot]
    )


def _smaller(found: dict[Sweep, Rows]) -> Claim:
    """Say whether half of the paper's exponent does better, where it was tried."""
    gaps = [
        [difference(each.where(alpha=0.25), each.where(alpha=a)) for a in (0.0, 0.5)] for each in found.values() if len(each.where(alpha=0.25))
    ]  # fmt: skip
    held = [all(map(ahead, pair)) for pair in gaps]
    once = found.get(("unstructured", 0.9, 0))
    gain = (
        f"; weights, 90 %, one shot: {difference(once.where(alpha=0.25), once.where(alpha=0.0)):+.2f} to magnitude"
        if once and held
        else ""
    )
    return Claim(
        "A smaller exponent, α = 0.25, is better than magnitude and than 0.5",
        "85.2 against 81.3 and 85.9 (Fashion-MNIST, columns, 70 %)",
        f"better than both in {sum(held)} of {len(held)} sweeps{gain}",
        by_share(held),
        f"both differences > 0, and {BEYOND}, in every sweep",
    )


def _name(sweep: Sweep) -> str:
    return f"{PATTERNS[sweep[0]]}, {percent(sweep[1])}, {budget(sweep[2])}"


def _accuracies(rows: Rows) -> list[str]:
    return [f"{rows.where(alpha=alpha).percent('accuracy'):.2f}" for alpha in rows.distinct("alpha")]


def _panels(told: Told, found: dict[Sweep, Rows]) -> list[Panel]:
    panels = []
    for batches in dict.fromkeys(sweep[2] for sweep in found):
        lines = [
            accuracy_line(f"{PATTERNS[p]}, {percent(s)}", rows, "alpha") for (p, s, b), rows in found.items() if b == batches
        ]
        if batches and told.data == "fashion-mnist":
            points = {alpha: [value] for alpha, value in zip(*published.ALPHA, strict=True)}
            lines.append(Line("input columns, 70 %, notebook", points, reference=True))
        panels.append(Panel(lines, "exponent α", "accuracy %", budget(batches), marks={0.5: "paper's best"}, level=told.level))
    return panels


def readings(told: Told) -> Section:
    """Compare the readings of criticality, and how many batches it takes to measure it."""
    return Section(
        "readings",
        "Readings of criticality",
        text=[
            "The final paper does not say whose gradient a weight is judged by, nor what it is divided by. Each reading is a switch of CQP; "
            "here they prune to 90 % in one shot, by weight. The notebooks measure in training mode; the library in evaluation mode, so that the "
            "same weights and data give the same masks."
        ],
        tables=[_readings(told.rows.where(part="readings")), _batches(told.rows.where(part="calibration"))],
    )


def _readings(rows: Rows) -> Table:
    table = [
        (name, *(f"{rows.where(reading=name, layers=layers).percent('accuracy'):.2f}" for layers in (LAYER, "*")))
        for name in rows.distinct("reading")
    ]
    titles = ("criticality", "first layer, accuracy %", "all layers, accuracy %")
    return Table(titles, table, TEST, "Whose criticality, divided by what")


def _batches(rows: Rows) -> Table:
    tried = []
    for count, noisy in product(rows.distinct("batches"), (False, True)):
        found = rows.where(batches=count, noisy=noisy)
        how = "training mode: dropout and input noise" if noisy else "evaluation mode"
        tried.append((f"{count}, {how}", f"{found.percent('accuracy'):.2f}", f"{found.percent('overlap'):.1f}"))
    titles = ("batches of calibration, and how", "accuracy %", "kept weights in common %")
    caption = f"{TEST} First layer. In common: with the mask of all batches in evaluation mode."
    return Table(titles, tried, caption, "Over how many batches")


def sensitivity(told: Told) -> Section:
    """Prune one layer alone."""
    rows = told.rows.where(part="sensitivity")
    layers, sparsities, methods = (rows.distinct(fact) for fact in ("layer", "sparsity", "method"))
    table = [
        (
            f"{layer}, {NAMES[m]}",
            *(f"{rows.where(layer=layer, method=m, sparsity=s).percent('accuracy'):.2f}" for s in sparsities),
        )
        for layer, m in product(layers, methods)
    ]
    panels = [
        Panel(
            [accuracy_line(layer, rows.where(layer=layer, method=m), "sparsity", x_factor=100) for layer in layers],
            "sparsity of the layer, %", "accuracy %", NAMES[m], level=told.level,
        )
        for m in methods
    ]  # fmt: skip
    weights = [a * b for a, b in pairwise(told.sizes)]
    shares = ", ".join(f"{layer} {100 * n / sum(weights):.1f} %" for layer, n in zip(layers, weights, strict=True))
    words = f"Accuracy when one layer alone is pruned in one shot, by weight. Of all weights they hold: {shares}."
    titles = ("layer pruned, by", *map(percent, sparsities))
    return Section(
        "sensitivity", "Sensitivity of the layers", claims=[_last_layer(rows, 0.7), _every_layer(rows, sparsities[-1])],
        tables=[Table(titles, table, TEST, "One layer alone")],
        plots=[Plot(curves("sensitivity", "Accuracy when one layer is pruned", panels), words)],
    )  # fmt: skip


def _last_layer(rows: Rows, sparsity: float) -> Claim:
    *others, last = rows.distinct("layer")
    at = {layer: rows.where(layer=layer, method="magnitude", sparsity=sparsity) for layer in (*others, last)}
    lost = {layer: difference(at[layer], at[last]) for layer in others}
    return Claim(
        f"The last layer is the most sensitive (magnitude, one shot, {percent(sparsity)})",
        "MNIST: fc1 98.0, fc2 97.9, fc3 94.8; Fashion-MNIST: 86.9, 87.4, 78.2",
        ", ".join(f"{layer} {found.percent('accuracy'):.1f}" for layer, found in at.items()),
        by_share([ahead(found) for found in lost.values()]),
        f"every other layer − {last} > 0, and {BEYOND}",
    )


def _every_layer(rows: Rows, sparsity: float) -> Claim:
    """Say whether CQP's lead holds where the paper does not look: in the layers that read spikes."""
    tried = {layer: rows.where(sparsity=sparsity, layer=layer) for layer in rows.distinct("layer")}
    gaps = {layer: difference(found.where(method="cqp"), found.where(method="magnitude")) for layer, found in tried.items()}
    return Claim(
        f"CQP is above magnitude in every layer (one shot, {percent(sparsity)})",
        "the first layer alone is tried",
        ", ".join(f"{layer} {found:+.1f}" for layer, found in gaps.items()),
        by_share([ahead(found) for found in gaps.values()]),
        f"CQP − magnitude > 0, and {BEYOND}, in each layer",
    )
