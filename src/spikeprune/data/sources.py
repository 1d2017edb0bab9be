"""The data sets we know, as values: their files, sums, mirrors and terms.

Every file has two sums. `published` is the one its publisher gives for the compressed file, and is what a download must
match. `content` is the SHA-256 of the file uncompressed, and is what every file must match that is read, wherever it
lies: copies are often compressed anew, which changes the compressed file and not one pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True)
class File:
    """One published file.

    Args:
        name: its name as published, ending in ".gz" or ".zip".
        content: SHA-256 of the uncompressed content, hexadecimal; empty for an archive, whose members have sums.
        published: "algorithm:hexadecimal" of the compressed file; empty for an embedded file, which is never fetched.
        path: where it lies under a mirror, when that is not its name.
    """

    name: str
    content: str
    published: str = ""
    path: str = ""


class Published(Protocol):
    """What can be fetched: named files, and the mirrors that have them."""

    @property
    def name(self) -> str:
        """The name it is loaded by, and the name of its folder."""

    @property
    def files(self) -> tuple[File, ...]:
        """Its files as published."""

    @property
    def mirrors(self) -> tuple[str, ...]:
        """Base URLs, tried in this order."""


@dataclass(frozen=True)
class Source:
    """A data set as it is published, in four IDX files.

    Args:
        name: the name it is loaded by, and the name of its folder.
        classes: how many classes it has.
        train: its training images and labels.
        test: its test images and labels.
        mirrors: base URLs, tried in this order.
        licence: the terms in one line.
        embedded: whether it lies in the package, which is then the only place it is read from.
    """

    name: str
    classes: int
    train: tuple[File, File]
    test: tuple[File, File]
    mirrors: tuple[str, ...]
    licence: str
    embedded: bool = False

    @property
    def files(self) -> tuple[File, ...]:
        """All four files: training images and labels, test images and labels."""
        return self.train + self.test


# Sums of the compressed files: as the mirrors have served them since the original site closed.
MNIST = Source(
    name="mnist",
    classes=10,
    train=(
        File(
            "train-images-idx3-ubyte.gz",
            content="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            published="sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        File(
            "train-labels-idx1-ubyte.gz",
            content="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            published="sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
    ),
    test=(
        File(
            "t10k-images-idx3-ubyte.gz",
            content="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            published="sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        File(
            "t10k-labels-idx1-ubyte.gz",
            content="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            published="sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    licence="Yann LeCun, Corinna Cortes and Christopher J. C. Burges; usually given as CC BY-SA 3.0",
)

# Sums of the compressed files: README of github.com/zalandoresearch/fashion-mnist. They are MD5, which guards against
# accidents only; the SHA-256 of the content guards against the rest.
FASHION_MNIST = Source(
    name="fashion-mnist",
    classes=10,
    train=(
        File(
            "train-images-idx3-ubyte.gz",
            content="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            published="md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        ),
        File(
            "train-labels-idx1-ubyte.gz",
            content="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            published="md5:25c81989df183df01b3e8a0aad5dffbe",
        ),
    ),
    test=(
        File(
            "t10k-images-idx3-ubyte.gz",
            content="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            published="md5:bef4ecab320f06d8554ea6380940ec79",
        ),
        File(
            "t10k-labels-idx1-ubyte.gz",
            content="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            published="md5:bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    licence="MIT, copyright (c) 2017 Zalando SE; Xiao, Rasul and Vollgraf, arXiv:1708.07747",
)

# Made by tools/make_sample.py, which prints these sums.
FASHION_SAMPLE = Source(
    name="fashion-sample",
    classes=10,
    train=(
        File("train-images-idx3-ubyte.gz", content="444ed5f7ce17397f236f5eba17dd507d3f6912f04edd3e4f1701cdf82f2cc0c5"),
        File("train-labels-idx1-ubyte.gz", content="35d691216f65485d010cc635af5574a9dc04aa5060de9be64ab6e5cb5ead38e9"),
    ),
    test=(
        File("t10k-images-idx3-ubyte.gz", content="7cee33c3c6414b1b86c25e665a6c4f41584269de3b7cc9768b1d351922845eef"),
        File("t10k-labels-idx1-ubyte.gz", content="3128d790775889812b73c4f13923559c8b9e281d112c6ea7862acf60a206a909"),
    ),
    mirrors=(),
    licence=FASHION_MNIST.licence,
    embedded=True,
)

SOURCES: Mapping[str, Source] = MappingProxyType({s.name: s for s in (MNIST, FASHION_MNIST, FASHION_SAMPLE)})
