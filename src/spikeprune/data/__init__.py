"""Data sets by name: found on disk, fetched with a checked sum, or embedded in the package.

A data set is loaded whole, as tensors. Either its content is the published content, to the byte, or it is an error.
"""

from spikeprune.data.images import DataSet, Images, holdout
from spikeprune.data.loading import load, names

__all__ = ["DataSet", "Images", "holdout", "load", "names"]
