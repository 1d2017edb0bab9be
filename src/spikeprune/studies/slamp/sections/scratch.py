"""Networks that are sparse from the start, beside those that were pruned."""

from spikeprune.report.page import Section
from spikeprune.report.tables import Table
from spikeprune.studies.slamp.sections.words import Told, at, cell

NAMES = {"snip": "SNIP, at initialisation", "set": "SET, sparse training", "rigl": "RigL, sparse training"}


def scratch(told: Told) -> Section | None:
    """Compare them at equal density, and as many samples of training."""
    rows = told.rows.where(part="scratch")
    if not len(rows):
        return None
    body = []
    for density in rows.distinct("density"):
        pruned = [(f"{name.upper()}, pruned", at(told.sweep, name, density)) for name in told.asked(("slamp", "lamp"))]
        sparse = [(NAMES[name], at(rows, name, density)) for name in rows.distinct("method")]
        for label, found in [*pruned, *sparse]:
            body.append((f"{100 * density:g} %", label, *(cell(found, key, ".2f") for key in ("accuracy", "top5", "unrolled"))))
    titles = ("density", "contender", "top-1 %", "top-5 %", "unrolled %")
    caption = (
        "Mean ± sample standard deviation over seeds. Those that start sparse begin where the dense network began, and train on as many samples as it and "
        "a whole chain of stops together, so more than a chain that has only come to this density. All recalibrate their norms alike. "
        "SNIP and RigL take gradients of one batch; RigL another one at every exchange."
    )
    return Section("scratch", "Sparse from the start", tables=[Table(titles, body, caption, "Sparse from the start")])
