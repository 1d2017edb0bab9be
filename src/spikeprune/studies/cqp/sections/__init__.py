"""What the rows of the study say: a section a question, each with its claims, tables and figures."""

from spikeprune.studies.cqp.sections.budgets import budgets
from spikeprune.studies.cqp.sections.cliff import cliff
from spikeprune.studies.cqp.sections.criticality import exponent, readings, sensitivity
from spikeprune.studies.cqp.sections.energy import energy
from spikeprune.studies.cqp.sections.timesteps import timesteps
from spikeprune.studies.cqp.sections.trap import trap
from spikeprune.studies.cqp.sections.zombies import zombies

SECTIONS = (budgets, exponent, readings, sensitivity, trap, cliff, zombies, timesteps, energy)
"""In the order of the report; each turns a `Told` into a section."""
