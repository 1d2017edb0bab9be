"""The paper's own training: ANN, conversion with balanced thresholds, training on as an SNN."""

from spikeprune.report.page import Section
from spikeprune.report.tables import Table
from spikeprune.studies.stprune.hybrid import BALANCED, NARROW, REPEATS, TESTED
from spikeprune.studies.stprune.sections.words import SPREAD, Told
from spikeprune.studies.sweep import cell


def hybrid(told: Told) -> Section | None:
    """Show the accuracy after each step of the path."""
    rows = told.rows.where(part="hybrid")
    if not len(rows):
        return None
    steps = told.settings.hybrid
    named = {"ann": "ANN"}
    named |= {f"{kind}, T = {t}": f"converted, {kind}, T = {t}" for kind in ("without leak", "with leak") for t in steps}
    named |= {"trained on": f"trained on for {told.settings.batches} batches, with leak, T = {steps[0]}"}
    body = [(words, cell(rows, key, ".2f")) for key, words in named.items()]
    return Section(
        "hybrid",
        "The paper's way to an SNN",
        text=[
            f"The same network at width {NARROW:g} without norms, average pools, as an ANN with ReLU on pixels in [-1, 1], by the recipe's training; its thresholds are then balanced, neuron by "
            f"neuron, at the 99.9th percentile of the current over {BALANCED} samples with Poisson input and no leak, at T = {steps[-1]}; then trained on with leak 0.99, soft reset and the "
            f"triangular surrogate. Spiking accuracies: of the first {TESTED:,} test samples, a mean over {REPEATS} draws of the input. "
            "The other sections take the way of today: norms, direct coding, surrogate gradients from the start."
        ],
        tables=[Table(("network", "top-1 %"), body, SPREAD, "Steps")],
    )
