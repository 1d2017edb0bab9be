"""Weights of few bits: after training, by every scheme, and trained with."""

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import gap
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.stprune.sections.words import ABOUT, SPREAD, Told, percents
from spikeprune.studies.stprune.trials import PAPER, SCHEMES
from spikeprune.studies.sweep import cell, drawn
from spikeprune.studies.verdicts import by_share

POINT = 0.5  # that few bits may cost


def bits(told: Told) -> Section:
    """Show accuracy against bits."""
    return Section(
        "bits",
        "Weights of few bits",
        claims=[_claim(told, "short")],
        text=[
            "Weights after training are a step times whole numbers; norms were folded into them before. A step for each layer or each output channel; so that the "
            "largest weight fits (max), or of least squared error. Biases, thresholds and membranes are not quantized; spikes have a bit each."
        ],
        tables=[_table(told, "short"), *_aware(told)],
        plots=_plot(told, "short"),
    )


def _whole(told: Told, name: str) -> dict[int, float]:
    return percents(told.rows.where(part="bits", name=name))


def _claim(told: Told, name: str) -> Claim:
    rows = told.inner({"part": "bits", "name": name})
    found = {}
    for scheme in SCHEMES:
        own = percents(rows.where(scheme=scheme, bits=PAPER))
        if (below := gap(_whole(told, name), own)) is not None:
            found[scheme] = below
    return Claim(
        f"{PAPER} bits keep the accuracy after training: {ABOUT[name]}",
        "stable to 5 bits (CIFAR-10, VGG9)",
        "; ".join(f"{scheme}: {below:.2f} points lost" for scheme, below in found.items()),
        by_share([below.mean <= POINT for below in found.values()]),
        f"at most {POINT:g} point lost on average, by each scheme",
    )


def _table(told: Told, name: str) -> Table:
    rows = told.inner({"part": "bits", "name": name})
    body = [("32, float", *[cell(told.rows.where(part="bits", name=name), "accuracy", ".2f")] * len(SCHEMES), "")]
    for k in told.settings.bits:
        cells = [cell(rows.where(scheme=scheme, bits=k), "accuracy", ".2f") for scheme in SCHEMES]
        body.append((str(k), *cells, cell(rows.where(scheme=next(iter(SCHEMES)), bits=k), "bytes", ",.0f", 1.0)))
    return Table(("bits", *SCHEMES, "bytes, a step a layer"), body, f"Top-1 in percent. {SPREAD}", f"Bits: {ABOUT[name]}")


def _aware(told: Told) -> list[Table]:
    body = []
    for k in told.settings.aware:
        rows = told.rows.where(part="aware", bits=k)
        if len(rows):
            body.append((str(k), *(cell(rows, key, ".2f") for key in ("max", "learned", "whole"))))
    caption = (
        f"Top-1 in percent of the small and short network after {told.settings.batches} more batches with quantized weights, a step a layer, norms not "
        f"folded; whole: with float weights. {SPREAD}"
    )
    return (
        [Table(("bits", "step by the largest weight", "step learned", "whole"), body, caption, "Trained with few bits")]
        if body
        else []
    )


def _plot(told: Told, name: str) -> list[Plot]:
    rows, lines = told.inner({"part": "bits", "name": name}), []
    for scheme in SCHEMES:
        points = {float(k): list(percents(rows.where(scheme=scheme, bits=k)).values()) for k in told.settings.bits}
        lines.append(Line(scheme, {k: values for k, values in points.items() if values}))
    for key, words in (("max", "trained, max"), ("learned", "trained, step learned")):
        points = {float(k): list(percents(told.rows.where(part="aware", bits=k), key).values()) for k in told.settings.aware}
        lines.append(Line(words, {k: values for k, values in points.items() if values}))
    level = (("float", list(_whole(told, name).values()))) if _whole(told, name) else None
    panel = Panel([line for line in lines if line.points], "bits", "top-1 accuracy %", level=level, title=ABOUT[name])
    return drawn("bits", "Accuracy against bits", panel, f"Top-1 accuracy by bits: {ABOUT[name]}.")
