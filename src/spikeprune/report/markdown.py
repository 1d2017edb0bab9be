"""The sections of a page as Markdown: their words, claims and tables, without the figures."""

from collections.abc import Mapping, Sequence

from spikeprune.report.cost import table
from spikeprune.report.page import Section


def markdown(title: str, sections: Sequence[Section], *, intro: str = "", footer: Mapping[str, str] | None = None) -> str:
    """Lay out sections as `render` does, as text that reads well by itself.

    Example:
        >>> print(markdown("Study", [Section("a", "Part", text=["Words."])]))
        # Study
        <BLANKLINE>
        ## Part
        <BLANKLINE>
        Words.
        <BLANKLINE>
    """
    parts = [f"# {title}", intro]
    for section in sections:
        parts += [f"## {section.title}", *section.text]
        if section.claims:
            rows = [
                (f"{c.text}. Rule: {c.rule}" if c.rule else c.text, c.paper, c.here, f"**{c.verdict}**") for c in section.claims
            ]
            parts.append(table(("claim", "paper", "here", "verdict"), rows))
        for each in [*section.tables, *section.details]:
            parts += [f"### {each.name}", table(each.titles, each.rows), each.caption]
        parts += [*section.remarks, *(f"{key}: {value}" for key, value in section.notes.items())]
    parts.append("\n".join(f"- {key}: {value}" for key, value in (footer or {}).items()))
    return "\n\n".join(part for part in parts if part) + "\n"
