"""`python -m spikeprune` is the command line."""

from spikeprune.cli import main

main()
