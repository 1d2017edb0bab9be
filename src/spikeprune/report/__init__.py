"""What a network costs, and how networks compare: values that turn to JSON, Markdown and one self-contained page."""

from spikeprune.report.compare import Comparison
from spikeprune.report.cost import Report, profile, versions
from spikeprune.report.outcome import Outcome, Point

__all__ = ["Comparison", "Outcome", "Point", "Report", "profile", "versions"]
