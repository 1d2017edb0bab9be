"""What the rows of the study say: a section a question, each with its claims, tables and figures."""

from spikeprune.studies.sca.sections.accuracy import accuracy
from spikeprune.studies.sca.sections.cost import cost
from spikeprune.studies.sca.sections.scratch import scratch
from spikeprune.studies.sca.sections.structure import structure
from spikeprune.studies.sca.sections.words import Told as Told

SECTIONS = (accuracy, structure, cost, scratch)
"""In the order of the report; each turns a `Told` into a section, or into None if its trials were not asked for."""
