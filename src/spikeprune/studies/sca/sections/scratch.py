"""The learned structure trained from scratch, beside the pruned network."""

from spikeprune.report.findings import gap
from spikeprune.report.page import Claim, Section
from spikeprune.report.tables import Table
from spikeprune.studies.sca.contenders import ABOUT
from spikeprune.studies.sca.sections.words import Told
from spikeprune.studies.sweep import at, cell, seeds
from spikeprune.studies.verdicts import BEYOND, ahead, by_share


def scratch(told: Told) -> Section | None:
    """Compare both at equal widths, and as many samples of training."""
    rows = told.rows.where(part="scratch")
    if not len(rows):
        return None
    body, claims = [], []
    for density in rows.distinct("density"):
        for name in rows.distinct("method"):
            fresh, pruned = at(rows, name, density), at(told.sweep, name, density)
            body.append((ABOUT[name], f"{100 * density:g} %", cell(pruned, "accuracy", ".2f"), cell(fresh, "accuracy", ".2f")))
            lead = gap(seeds(pruned, "accuracy", 100.0), seeds(fresh, "accuracy", 100.0))
            if lead is not None:
                claims.append(
                    Claim(
                        f"The weights matter, not the structure alone: pruned by {ABOUT[name]}, above the same widths from scratch",
                        "not measured",
                        f"{100 * density:g} %: {lead:+.2f}",
                        by_share([ahead(lead)]),
                        f"pruned less from scratch, in points, is above 0, and {BEYOND}",
                    )
                )
    titles = ("structure of", "channels", "pruned, top-1 %", "from scratch, top-1 %")
    caption = (
        "Mean ± sample standard deviation over seeds. From scratch: the widths that the contender left, weights drawn anew, trained by the dense "
        "network's recipe on as many samples as the dense network and the chain up to this stop together."
    )
    return Section("scratch", "The structure from scratch", claims=claims, tables=[Table(titles, body, caption, "From scratch")])
