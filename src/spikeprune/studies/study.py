"""A finished study as a value: what its report says, what it rests on, and every trial; to HTML, Markdown and JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spikeprune.files import write_text
from spikeprune.report.markdown import markdown
from spikeprune.report.page import Section, render
from spikeprune.studies.lab import Lab
from spikeprune.studies.ledger import REPORTS
from spikeprune.studies.rows import Rows

RULE = (
    "Verdicts hold for this network and these data, and follow from the trials by the rule that each claim states. A claim is partly reproduced "
    "where some of its tests hold, and refuted where none does: that says that it does not show here, not that the opposite is true. No verdict "
    "is a test of significance."
)


@dataclass(frozen=True)
class Study:
    """A finished study.

    Attributes:
        title: of the report.
        intro: the paper, and what was measured.
        sections: what the report says.
        facts: data, seeds, versions, machine, the command, and how long the trials took.
        rows: all trials.
    """

    title: str
    intro: str
    sections: Sequence[Section]
    facts: dict[str, str]
    rows: Rows

    def to_html(self) -> str:
        """Give one self-contained page."""
        return render(self.title, self.sections, intro=f"{self.intro}\n\n{RULE}", footer=self.facts)

    def to_markdown(self) -> str:
        """Give claims and tables as text."""
        return markdown(self.title, self.sections, intro=f"{self.intro}\n\n{RULE}", footer=self.facts)

    def to_json(self) -> str:
        """Give the facts, the verdicts and every trial, a trial a line."""
        claims = [{"section": s.anchor, **vars(claim)} for s in self.sections for claim in s.claims]
        head = json.dumps({"facts": self.facts, "claims": claims}, indent=2)[:-2]
        return head + ',\n  "rows": [\n' + ",\n".join(f"    {json.dumps(row)}" for row in self.rows) + "\n  ]\n}\n"

    def write(self, folder: Path) -> None:
        """Write the report into a folder, in all three forms."""
        for name, content in zip(REPORTS, (self.to_html(), self.to_markdown(), self.to_json()), strict=True):
            write_text(folder / name, content)


def training_minutes(labs: Sequence[Lab]) -> float:
    """Give how long the dense trainings of all seeds took, in minutes."""
    return sum(lab.seconds for lab in labs) / 60
