"""The paper's own training: ANN, conversion with balanced thresholds, training on as an SNN."""

from spikeprune.report.page import Section
from spikeprune.report.tables import Table
from spikeprune.studies.stprune.sections.words import SPREAD, Told
from spikeprune.studies.sweep import cell


def hybrid(told: Told) -> Section | None:
    """Show the accuracy after each step of the path."""
    rows = told.rows.where(part="hybrid")
    how = told.settings.hybrid
    if not len(rows) or how is None:
        return None
    steps = how.timesteps
    named = {"ann": "ANN"}
    named |= {f"{kind}, T = {t}": f"converted, {kind}, T = {t}" for kind in ("without leak", "with leak") for t in steps}
    named |= {"trained on": f"trained on for {told.settings.batches} batches, with leak, T = {steps[0]}"}
    body = [(words, cell(rows, key, ".2f")) for key, words in named.items()]
    return Section(
        "hybrid",
        "The paper's way to an SNN",
        text=[
            f"The same network at width {how.width:g} without norms, average pools and dropout {how.dropout:g}, as an ANN with ReLU on pixels in [-1, 1], by the recipe's training; its "
            f"thresholds are then balanced, neuron by neuron, at the 99.9th percentile of the current over {how.balanced} samples with Poisson input and no leak, at T = {steps[-1]}; "
            f"then trained on with leak 0.99, soft reset and the triangular surrogate. Accuracies are of the first {how.tested:,} held-out samples, those of spiking networks a mean "
            f"over {how.draws} draws of the input. The other sections take the way of today: norms, direct coding, surrogate gradients from the start."
        ],
        tables=[Table(("network", "top-1 %"), body, SPREAD, "Steps")],
    )
