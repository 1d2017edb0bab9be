"""What the rows of the study say: a section a stage, each with its claims, tables and figures."""

from spikeprune.studies.stprune.sections.bits import bits
from spikeprune.studies.stprune.sections.hybrid import hybrid
from spikeprune.studies.stprune.sections.noise import noise
from spikeprune.studies.stprune.sections.stages import stages
from spikeprune.studies.stprune.sections.time import time
from spikeprune.studies.stprune.sections.widths import widths
from spikeprune.studies.stprune.sections.words import Told as Told

SECTIONS = (stages, widths, time, bits, noise, hybrid)
"""In the order of the report; each turns a `Told` into a section, or into None if its trials were not asked for."""
