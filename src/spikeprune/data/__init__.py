"""Data sets by name: found on disk, fetched with a checked sum, or embedded in the package.

An image set is loaded whole, as tensors; an event set is a list of recordings, read one at a time and made into frames.
Either the content is the published content, as far as its publisher lets us check, or it is an error.
"""

from spikeprune.data.event_loading import event_names, load_events
from spikeprune.data.event_set import EventSet, Frames, Recording
from spikeprune.data.events import Events
from spikeprune.data.framing import Framing, frames, resize
from spikeprune.data.images import DataSet, Images, holdout
from spikeprune.data.loading import load, names

__all__ = [
    "DataSet",
    "EventSet",
    "Events",
    "Frames",
    "Framing",
    "Images",
    "Recording",
    "event_names",
    "frames",
    "holdout",
    "load",
    "load_events",
    "names",
    "resize",
]
