"""The papers' networks, by name, on the frameworks' own neurons."""

from spikeprune.zoo.mlp import SpikingMLP

__all__ = ["SpikingMLP"]
