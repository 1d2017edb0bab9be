"""What the rows of the study say: a section a question, each with its claims, tables and figures."""

from spikeprune.studies.slamp.sections.accuracy import accuracy
from spikeprune.studies.slamp.sections.causes import causes
from spikeprune.studies.slamp.sections.cost import cost
from spikeprune.studies.slamp.sections.gains import gains
from spikeprune.studies.slamp.sections.layers import layers
from spikeprune.studies.slamp.sections.scratch import scratch

SECTIONS = (accuracy, gains, causes, cost, layers, scratch)
"""In the order of the report; each turns a `Told` into a section, or into None if its trials were not asked for."""
