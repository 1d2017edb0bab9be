"""What the rows of the study say: a section a question, each with its claims, tables and figures."""

from spikeprune.studies.spikenm.sections.accuracy import accuracy
from spikeprune.studies.spikenm.sections.cost import cost
from spikeprune.studies.spikenm.sections.search import search
from spikeprune.studies.spikenm.sections.words import Told as Told

SECTIONS = (accuracy, search, cost)
"""In the order of the report; each turns a `Told` into a section, or into None if its trials were not asked for."""
