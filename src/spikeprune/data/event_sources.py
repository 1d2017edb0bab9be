"""The event sets we know, as values: what was published, how much of it, and where to get it.

None is fetched: some hosts ask for a visit by hand, and for the others no lasting address with a sum could be verified.
What lies on disk is checked by its counts, and each recording as it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spikeprune.data import event_layouts
from spikeprune.data.event_layouts import Layout

SIMULATED = "cifar10-dvs-sim"
"""The stand-in for CIFAR10-DVS that is made from CIFAR-10, not read: see simulated.py."""


@dataclass(frozen=True)
class EventSource:
    """An event set as it is published.

    Args:
        name: the name it is loaded by, and the name of its folder.
        classes: the names of its classes, in the order of their labels.
        size: height and width of the sensor, in pixels.
        train: training recordings of each class, or of all together when that is one number.
        test: test recordings, likewise.
        layout: finds its recordings in a folder.
        licence: the terms in one line.
        obtain: where to get it and how to lay it out, in a sentence.
        archive: a .tar.gz that is unpacked into the cache when the folder has nothing else.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    train: tuple[int, ...]
    test: tuple[int, ...]
    layout: Layout
    licence: str
    obtain: str
    archive: str = ""


_DIGITS = tuple(map(str, range(10)))
_ORCHARD = "CC BY-SA 4.0; Orchard, Jayawant, Cohen and Thakor, doi:10.3389/fnins.2015.00437"

# One recording for each image of MNIST, so its classes are as frequent as MNIST's.
NMNIST = EventSource(
    name="nmnist",
    classes=_DIGITS,
    size=(34, 34),
    train=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    test=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    layout=event_layouts.digits,
    licence=_ORCHARD,
    obtain="Get Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and unpack them, so that the "
    "folder holds Train/0 to Train/9 and Test/0 to Test/9",
)

# The recordings of the first 1,000 training and the first 100 test images of MNIST.
NMNIST_1K = EventSource(
    name="nmnist-1k",
    classes=_DIGITS,
    size=(34, 34),
    train=(97, 116, 99, 93, 105, 92, 94, 117, 87, 100),
    test=(8, 14, 8, 11, 14, 7, 10, 15, 2, 11),
    layout=event_layouts.digits,
    licence=_ORCHARD,
    obtain="Copy the recordings 00001 to 01000 of Train and 00001 to 00100 of Test out of N-MNIST "
    "(https://www.garrickorchard.com/datasets/n-mnist), each in the folder of its label",
)

CIFAR10_DVS = EventSource(
    name="cifar10-dvs",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    size=(128, 128),
    train=(900,) * 10,
    test=(100,) * 10,
    layout=event_layouts.classes_of_aedat,
    licence="CC BY 4.0 as given on figshare; Li, Liu, Ji, Li and Shi, doi:10.3389/fnins.2017.00309",
    obtain="Get the ten files airplane.zip to truck.zip from https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 and put them into "
    "the folder, as they are or unpacked, so that it holds airplane/cifar10_airplane_0.aedat and so on",
)

# 98 and 24 trials of about 12 gestures each: as many as SpikingJelly and snnTorch find; the paper counts 1,342.
DVS_GESTURE = EventSource(
    name="dvs-gesture",
    classes=(
        "hand clapping",
        "right hand wave",
        "left hand wave",
        "right arm clockwise",
        "right arm counter clockwise",
        "left arm clockwise",
        "left arm counter clockwise",
        "arm roll",
        "air drums",
        "air guitar",
        "other gestures",
    ),
    size=(128, 128),
    train=(1176,),
    test=(288,),
    layout=event_layouts.trials,
    licence="CC BY 4.0; Amir et al., A Low Power, Fully Event-Based Gesture Recognition System, CVPR 2017",
    obtain="Get DvsGesture.tar.gz from https://research.ibm.com/interactive/dvsgesture/ and put it into the folder, as it is "
    "or unpacked, so that it holds trials_to_train.txt, trials_to_test.txt and the trials; unpacking takes 5 GB",
    archive="DvsGesture.tar.gz",
)

EVENT_SOURCES: Mapping[str, EventSource] = MappingProxyType(
    {source.name: source for source in (NMNIST, NMNIST_1K, CIFAR10_DVS, DVS_GESTURE)}
)
