"""Accuracy at equal budgets, the exponent, the readings of criticality, and the sensitivity of the layers."""

from collections.abc import Sequence
from itertools import pairwise, product
from statistics import mean

from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.cqp import published
from spikeprune.studies.cqp.sections.words import NAMES, PATTERNS, TEST, Told, accuracy_line, ahead, budget, by_share, difference
from spikeprune.studies.cqp.settings import LAYER, ROUNDS
from spikeprune.studies.lab import WHOLE_EPOCH
from spikeprune.studies.rows import Rows

CAPTION = (
    f"{TEST} Mean ± sample standard deviation over seeds; differences are taken seed by seed. Within a row all methods have the same "
    "dense networks, the same rounds, and the same batches of fine-tuning. SynOps: effective, mean of the first test images."
)


def budgets(told: Told) -> Section:
    """Compare the methods at each budget, pattern and sparsity."""
    rows = told.rows.where(part="budgets")
    return Section(
        "budgets",
        "Accuracy at equal budgets",
        claims=[*_headlines(told, rows), _alone(rows), _chance(rows), _unequal(rows)],
        text=[
            f"The first layer of {told.network} is pruned by weight or by input column: in one shot, or in {ROUNDS} rounds with fine-tuning "
            "after each, under hold and with a fresh optimizer, the same for every method. Criticality is measured anew in every round."
        ],
        tables=[_table(rows)],
        plots=[_plot(told, rows, pattern) for pattern in PATTERNS],
    )


def _pick(rows: Rows, pattern: str, method: str, sparsity: float, batches: int) -> Rows:
    return rows.where(pattern=pattern, method=method, sparsity=sparsity, batches=batches)


def _headlines(told: Told, rows: Rows) -> list[Claim]:
    """Hold CQP's lead over magnitude against the paper's, at each sparsity that the paper names."""
    claims = []
    for sparsity, theirs, magnitude in published.HEADLINES.get(told.data, ()):
        tried = [b for b in rows.distinct("batches") if len(_pick(rows, "unstructured", "cqp", sparsity, b))]
        cqp = {b: _pick(rows, "unstructured", "cqp", sparsity, b) for b in tried}
        gaps = {b: difference(cqp[b], _pick(rows, "unstructured", "magnitude", sparsity, b)) for b in tried}
        here = "; ".join(f"{budget(b)} {cqp[b].percent('accuracy'):.1f}, {gaps[b]:+.2f} to magnitude" for b in tried)
        claims.append(
            Claim(
                f"At {sparsity:.0%}, CQP is above magnitude (weights, equal budgets)",
                f"{theirs} against {magnitude}",
                here,
                by_share([ahead(found) for found in gaps.values()]),
            )
        )
        best = max(cqp.values(), key=lambda found: found.percent("accuracy").mean).percent("accuracy")
        claims.append(
            Claim(
                f"At {sparsity:.0%}, CQP reaches the paper's accuracy",
                f"{theirs}",
                f"{best:.2f} at the best budget",
                "reproduced" if best.mean >= theirs else "refuted",
            )
        )
    return claims


def _alone(rows: Rows) -> Claim:
    """Say what criticality without magnitude is worth at 90 %, weight by weight and in one shot, and with the largest budget."""
    tried = [b for b in rows.distinct("batches") if len(_pick(rows, "unstructured", "gradient", 0.9, b))]
    gaps = {
        b: difference(_pick(rows, "unstructured", "cqp", 0.9, b), _pick(rows, "unstructured", "gradient", 0.9, b)) for b in tried
    }
    return Claim(
        "Criticality alone is not enough: gradient-only falls far behind CQP at 90 %",
        "76.1 points behind (synthetic data)",
        "; ".join(f"{budget(b)} {found:.1f} points behind" for b, found in gaps.items()),
        by_share([ahead(found) for found in gaps.values()]),
    )


def _chance(rows: Rows) -> Claim:
    """Compare CQP with chance at 70 and 90 %, by pattern and budget."""
    ahead_of = {}
    for pattern in PATTERNS:
        pairs = [
            difference(_pick(rows, pattern, "cqp", s, b), _pick(rows, pattern, "random", s, b))
            for s, b in product((0.7, 0.9), rows.distinct("batches"))
            if len(_pick(rows, pattern, "cqp", s, b))
        ]
        ahead_of[pattern] = ([ahead(found) for found in pairs], min(found.mean for found in pairs))
    return Claim(
        "CQP is above random at 70 and 90 %",
        "in all notebooks",
        "; ".join(
            f"{PATTERNS[pattern]}: in {sum(held)} of {len(held)}, at worst {worst:+.1f} points"
            for pattern, (held, worst) in ahead_of.items()
        ),
        by_share([held for found, _ in ahead_of.values() for held in found]),
    )


def _unequal(rows: Rows) -> Claim:
    """Repeat the author's comparison, in which CQP alone is fine-tuned, and beside it the one at equal budgets."""
    batches = max((b for b in rows.distinct("batches") if b), key=lambda b: (b == WHOLE_EPOCH, b))
    cqp = _pick(rows, "column", "cqp", 0.9, batches)
    untuned = difference(cqp, _pick(rows, "unstructured", "magnitude", 0.9, 0))
    columns = difference(cqp, _pick(rows, "column", "magnitude", 0.9, batches))
    weights = difference(cqp, _pick(rows, "unstructured", "magnitude", 0.9, batches))
    return Claim(
        "The notebooks' comparison: columns by CQP, fine-tuned, against weights by magnitude, not fine-tuned (90 %)",
        "-18.3 (MNIST), +14.7 (Fashion-MNIST)",
        f"{untuned:+.1f}; both fine-tuned ({budget(batches)}): {columns:+.1f} to columns by magnitude, {weights:+.1f} to weights by magnitude",
        by_share([ahead(untuned), ahead(columns), ahead(weights)]),
    )


def _table(rows: Rows) -> Table:
    found = []
    for pattern, sparsity, batches in product(PATTERNS, (0.7, 0.9), rows.distinct("batches")):
        cells = {method: _pick(rows, pattern, method, sparsity, batches) for method in NAMES}
        if all(map(len, cells.values())):
            cost = mean(cells["cqp"].by_seed("synops").values()) / mean(cells["magnitude"].by_seed("synops").values())
            accuracies = [f"{cells[method].percent('accuracy'):.2f}" for method in NAMES]
            gained = f"{difference(cells['cqp'], cells['magnitude']):+.2f}"
            found.append((f"{PATTERNS[pattern]}, {sparsity:.0%}, {budget(batches)}", *accuracies, gained, f"{cost:.2f}"))
    titles = ("first layer", *(f"{name} %" for name in NAMES.values()), "CQP − magnitude", "SynOps, CQP / magnitude")
    return Table(titles, found, CAPTION, "At 70 % and 90 %")


def _plot(told: Told, rows: Rows, pattern: str) -> Plot:
    panels = []
    for batches in rows.distinct("batches"):
        chosen = rows.where(pattern=pattern, batches=batches)
        lines = [accuracy_line(NAMES[m], chosen.where(method=m), "sparsity", x_factor=100) for m in NAMES]
        if (reference := _notebook(told.data, pattern, batches)) is not None:
            lines.append(reference)
        panels.append(Panel(lines, "sparsity of the first layer, %", "accuracy %", budget(batches), level=told.level))
    name = PATTERNS[pattern]
    words = (
        f"Accuracy against sparsity, {name} of the first layer, at each budget. Grey: the author's notebook, of its own training."
    )
    return Plot(curves(f"budgets-{pattern}", f"Accuracy against sparsity, {name}", panels), words)


def _notebook(data: str, pattern: str, batches: int) -> Line | None:
    values: Sequence[float] | None = None
    if (pattern, batches) == ("unstructured", 0):
        values, label = published.NOTEBOOK_MAGNITUDE.get(data), "magnitude, notebook"
    elif pattern == "column" and data in published.NOTEBOOK_CQP and published.NOTEBOOK_CQP[data][0] == batches:
        values, label = published.NOTEBOOK_CQP[data][1], "CQP, notebook"
    if values is None:
        return None
    return Line(label, {100 * s: [v] for s, v in zip(published.SPARSITIES, values, strict=True)}, reference=True)


def exponent(told: Told) -> Section:
    """Sweep alpha."""
    rows = told.rows.where(part="alpha")
    sweeps = [
        (p, s, b) for b, p, s in product(rows.distinct("batches"), PATTERNS, (0.7, 0.9)) if len(rows.where(pattern=p, sparsity=s, batches=b))
    ]  # fmt: skip
    table, best, held = [], [], []
    for p, s, b in sweeps:
        found = rows.where(pattern=p, sparsity=s, batches=b)
        ours = {alpha: found.where(alpha=alpha) for alpha in rows.distinct("alpha")}
        top = max(ours, key=lambda alpha: ours[alpha].percent("accuracy").mean)
        best.append(top)
        behind = difference(ours[top], ours[0.5])
        held.append(not ahead(behind))
        cells = [f"{ours[alpha].percent('accuracy'):.2f}" for alpha in ours]
        table.append((f"{PATTERNS[p]}, {s:.0%}, {budget(b)}", *cells, f"{top:g}", f"{behind:.2f}"))
    titles = ("first layer", *(f"α = {alpha:g}" for alpha in rows.distinct("alpha")), "best α", "best − (α = 0.5)")
    claim = Claim(
        "α = 0.5 is best",
        "85.9 at 0.5 against 81.3 at 0 and 83.3 at 1 (Fashion-MNIST, columns, 70 %)",
        f"best mean in {len(sweeps)} sweeps at {', '.join(f'{alpha:g}' for alpha in best)}; 0.5 is beaten beyond the spread in {held.count(False)}",
        by_share(held),
    )
    panels = []
    for b in rows.distinct("batches"):
        lines = [
            accuracy_line(f"{PATTERNS[p]}, {s:.0%}", rows.where(pattern=p, sparsity=s, batches=b), "alpha")
            for p, s, c in sweeps
            if c == b
        ]
        panels.append(Panel(lines, "exponent α", "accuracy %", budget(b), marks={0.5: "paper's best"}, level=told.level))
    if told.data == "fashion-mnist":
        reference = Line("notebook, input columns, 70%", {a: [v] for a, v in zip(*published.ALPHA, strict=True)}, reference=True)
        last = panels[-1]
        panels[-1] = Panel([*last.lines, reference], last.x, last.y, last.title, last.marks, last.level)
    words = "Accuracy against the exponent of criticality; 0 is magnitude."
    plot = Plot(curves("alpha", "Accuracy against the exponent", panels), words)
    caption = f"{TEST} α = 0 is magnitude. No α is chosen by this table: everywhere else α is 0.5, the paper's."
    return Section("alpha", "The exponent", claims=[claim], tables=[Table(titles, table, caption, "Sweeps")], plots=[plot])


def readings(told: Told) -> Section:
    """Compare the readings of criticality, and how many batches it takes to measure it."""
    rows, batches = told.rows.where(part="readings"), told.rows.where(part="calibration")
    table = [
        (name, *(f"{rows.where(reading=name, layers=layers).percent('accuracy'):.2f}" for layers in (LAYER, "*")))
        for name in rows.distinct("reading")
    ]
    tried = []
    for count, noisy in product(batches.distinct("batches"), (False, True)):
        found = batches.where(batches=count, noisy=noisy)
        how = "training mode: dropout and input noise" if noisy else "evaluation mode"
        tried.append((f"{count}, {how}", f"{found.percent('accuracy'):.2f}", f"{found.percent('overlap'):.1f}"))
    return Section(
        "readings",
        "Readings of criticality",
        text=[
            "The final paper does not say whose gradient a weight is judged by, nor what it is divided by. Each reading is a switch of CQP; "
            "here they prune to 90 % in one shot, by weight. The notebooks measure in training mode; the library in evaluation mode, so that the "
            "same weights and data give the same masks."
        ],
        tables=[
            Table(("criticality", "first layer, accuracy %", "all layers, accuracy %"), table, TEST, "Whose criticality, divided by what"),
            Table(
                ("batches of calibration, and how", "accuracy %", "kept weights in common %"),
                tried,
                f"{TEST} First layer. In common: with the mask of all batches in evaluation mode.",
                "Over how many batches",
            ),
        ],
    )  # fmt: skip


def sensitivity(told: Told) -> Section:
    """Prune one layer alone."""
    rows = told.rows.where(part="sensitivity")
    layers, sparsities = rows.distinct("layer"), rows.distinct("sparsity")
    table = [
        (
            f"{layer}, {NAMES[m]}",
            *(f"{rows.where(layer=layer, method=m, sparsity=s).percent('accuracy'):.2f}" for s in sparsities),
        )
        for layer, m in product(layers, rows.distinct("method"))
    ]
    panels = [
        Panel(
            [accuracy_line(layer, rows.where(layer=layer, method=m), "sparsity", x_factor=100) for layer in layers],
            "sparsity of the layer, %", "accuracy %", NAMES[m], level=told.level,
        )
        for m in rows.distinct("method")
    ]  # fmt: skip
    claims = [_last_layer(rows, 0.7 if 0.7 in sparsities else sparsities[-1]), _every_layer(rows, sparsities[-1])]
    titles = ("layer pruned, by", *(f"{s:.0%}" for s in sparsities))
    weights = [a * b for a, b in pairwise(told.sizes)]
    shares = ", ".join(f"{layer} {100 * n / sum(weights):.1f} %" for layer, n in zip(layers, weights, strict=True))
    words = f"Accuracy when one layer alone is pruned in one shot, by weight. Of all weights they hold: {shares}."
    return Section(
        "sensitivity", "Sensitivity of the layers", claims=claims, tables=[Table(titles, table, TEST, "One layer alone")],
        plots=[Plot(curves("sensitivity", "Accuracy when one layer is pruned", panels), words)],
    )  # fmt: skip


def _last_layer(rows: Rows, sparsity: float) -> Claim:
    at = {layer: rows.where(layer=layer, method="magnitude", sparsity=sparsity) for layer in rows.distinct("layer")}
    lost = difference(at["fc1"], at["fc3"])
    return Claim(
        f"The last layer is the most sensitive (magnitude, one shot, {sparsity:.0%})",
        "MNIST: fc1 98.0, fc2 97.9, fc3 94.8; Fashion-MNIST: 86.9, 87.4, 78.2",
        ", ".join(f"{layer} {found.percent('accuracy'):.1f}" for layer, found in at.items())
        + f"; {lost:.1f} points from fc1 to fc3",
        "reproduced" if ahead(lost) else "refuted",
    )


def _every_layer(rows: Rows, sparsity: float) -> Claim:
    """Say whether CQP's lead holds where the paper does not look: in the layers that read spikes."""
    at = rows.where(sparsity=sparsity)
    tried = {layer: at.where(layer=layer) for layer in rows.distinct("layer")}
    gaps = {layer: difference(found.where(method="cqp"), found.where(method="magnitude")) for layer, found in tried.items()}
    return Claim(
        f"CQP is above magnitude in every layer (one shot, {sparsity:.0%})",
        "the first layer alone is tried",
        ", ".join(f"{layer} {found:+.1f}" for layer, found in gaps.items()),
        by_share([ahead(found) for found in gaps.values()]),
    )
