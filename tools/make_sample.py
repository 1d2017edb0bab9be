"""Make the embedded sample of Fashion-MNIST: the first images of each class, as gzipped IDX files.

    python tools/make_sample.py src/spikeprune/data/sample

The same data gives the same bytes under the same zlib; the sums it prints are of the uncompressed content, and hold
everywhere. They belong into src/spikeprune/data/sources.py.
"""

import argparse
import gzip
import hashlib
import io
import struct
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spikeprune.data import Images, load
from spikeprune.files import write_bytes

TRAIN_PER_CLASS, TEST_PER_CLASS = 500, 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the four files of the sample into a folder and print their sums."""
    parser = argparse.ArgumentParser(description="Make the embedded sample of Fashion-MNIST.")
    parser.add_argument("folder", type=Path, help="where to write the four files")
    folder: Path = parser.parse_args(arguments).folder
    whole = load("fashion-mnist")
    for prefix, images, per_class in (("train", whole.train, TRAIN_PER_CLASS), ("t10k", whole.test, TEST_PER_CLASS)):
        part = first_of_each_class(images, whole.classes, per_class)
        for name, values in ((f"{prefix}-images-idx3-ubyte.gz", part.x.squeeze(1)), (f"{prefix}-labels-idx1-ubyte.gz", part.y)):
            content = encode(values)
            write_bytes(folder / name, compress(content))
            print(f"{hashlib.sha256(content).hexdigest()}  {name}")


def first_of_each_class(images: Images, classes: int, count: int) -> Images:
    """The first `count` images of each class, in the order of `images`."""
    chosen = torch.cat([(images.y == label).nonzero().flatten()[:count] for label in range(classes)]).sort().values
    return Images(images.x[chosen], images.y[chosen])


def encode(values: Tensor) -> bytes:
    """IDX: the magic number of unsigned bytes, the dimensions, the values."""
    header = struct.pack(f">{1 + values.dim()}I", 0x0800 | values.dim(), *values.shape)
    return header + values.to(torch.uint8).numpy().tobytes()


def compress(content: bytes) -> bytes:
    """Gzip without a time stamp or a file name, so that the same content gives the same bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(content)
    return packed.getvalue()


if __name__ == "__main__":
    main()
