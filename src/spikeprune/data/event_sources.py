"""The event sets we know, as values: what was published, how much of it, and where to get it.

Fetched, from the addresses below, with MD5 sums, which guard against accidents only:

- N-MNIST: SpikingJelly 2.0.0 (datasets/n_mnist.py, to be fetched by hand from the authors' page) and Tonic 1.7.0
  (datasets/nmnist.py, from Mendeley Data, doi:10.17632/468j46mzdv) state the same two sums; the addresses are Tonic's.
- CIFAR10-DVS: SpikingJelly 2.0.0 (datasets/cifar10_dvs.py) states ten figshare files and their sums. Tonic's file is
  another release, converted to AEDAT 4.0; it is not this data set and is not read.

By hand: DVS128 Gesture, which lies behind a page for people; its archive must have the sum that SpikingJelly 2.0.0
(datasets/dvs128_gesture.py) states. Tonic's two files are another release, arrays cut into gestures at a precision of
milliseconds, and are not read. What lies on disk is checked by its counts, and each recording as it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from spikeprune.data import event_layouts
from spikeprune.data.event_layouts import Layout
from spikeprune.data.sources import File

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
        files: the archives that are fetched into the cache; none where they must be fetched by hand.
        mirrors: base URLs of the files, tried in this order.
        archive: a .tar.gz, fetched by hand, that is unpacked into the cache when the folder has nothing else.
    """

    name: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    train: tuple[int, ...]
    test: tuple[int, ...]
    layout: Layout
    licence: str
    obtain: str
    files: tuple[File, ...] = ()
    mirrors: tuple[str, ...] = ()
    archive: File | None = None


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
    obtain="Get Train.zip and Test.zip from https://www.garrickorchard.com/datasets/n-mnist and put them into the folder, as "
    "they are or unpacked, so that it holds Train/0 to Train/9 and Test/0 to Test/9",
    files=(
        File(
            "Train.zip",
            content="",
            published="md5:20959b8e626244a1b502305a9e6e2031",
            path="39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
        ),
        File(
            "Test.zip",
            content="",
            published="md5:69ca8762b2fe404d9b9bad1103e97832",
            path="05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
        ),
    ),
    mirrors=("https://data.mendeley.com/public-files/datasets/468j46mzdv/files/",),
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
    obtain="Get the ten files airplane.zip to truck.zip from "
    "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 and put them into the folder, as they are "
    "or unpacked, so that it holds airplane/cifar10_airplane_0.aedat and so on",
    files=(
        File("airplane.zip", content="", published="md5:0afd5c4bf9ae06af762a77b180354fdd", path="7712788"),
        File("automobile.zip", content="", published="md5:8438dfeba3bc970c94962d995b1b9bdd", path="7712791"),
        File("bird.zip", content="", published="md5:a9c207c91c55b9dc2002dc21c684d785", path="7712794"),
        File("cat.zip", content="", published="md5:52c63c677c2b15fa5146a8daf4d56687", path="7712812"),
        File("deer.zip", content="", published="md5:b6bf21f6c04d21ba4e23fc3e36c8a4a3", path="7712815"),
        File("dog.zip", content="", published="md5:f379ebdf6703d16e0a690782e62639c3", path="7712818"),
        File("frog.zip", content="", published="md5:cad6ed91214b1c7388a5f6ee56d08803", path="7712842"),
        File("horse.zip", content="", published="md5:e7cbbf77bec584ffbf913f00e682782a", path="7712851"),
        File("ship.zip", content="", published="md5:41c7bd7d6b251be82557c6cce9a7d5c9", path="7712836"),
        File("truck.zip", content="", published="md5:89f3922fd147d9aeff89e76a2b0b70a7", path="7712839"),
    ),
    mirrors=("https://ndownloader.figshare.com/files/",),
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
    archive=File("DvsGesture.tar.gz", content="", published="md5:8a5c71fb11e24e5ca5b11866ca6c00a1"),
)

EVENT_SOURCES: Mapping[str, EventSource] = MappingProxyType(
    {source.name: source for source in (NMNIST, NMNIST_1K, CIFAR10_DVS, DVS_GESTURE)}
)
