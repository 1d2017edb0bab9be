"""The data sets as published; run where SPIKEPRUNE_DATA names a folder that has them."""

import hashlib
import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikeprune.data import load
from spikeprune.data.loading import read
from spikeprune.data.sources import FASHION_SAMPLE, SOURCES

FOLDER = Path(os.environ.get("SPIKEPRUNE_DATA", ""))
TOOL = Path(__file__).parents[3] / "tools" / "make_sample.py"

pytestmark = pytest.mark.skipif(
    not os.environ.get("SPIKEPRUNE_DATA") or not all((FOLDER / name).is_dir() for name in ("mnist", "fashion-mnist")),
    reason="SPIKEPRUNE_DATA names no folder with mnist and fashion-mnist",
)

# Digits are not equally frequent in MNIST; articles are in Fashion-MNIST.
HISTOGRAMS = {
    "mnist": (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    "fashion-mnist": ([6000] * 10, [1000] * 10),
}


@pytest.fixture(scope="module")
def fashion():
    return load("fashion-mnist")


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_counts_and_content(name):
    data = load(name)

    assert data.source == str(FOLDER / name)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert (data.train.y.bincount().tolist(), data.test.y.bincount().tolist()) == HISTOGRAMS[name]
    # 16 and 8 header bytes come before the pixels and the labels; the sums are those of the whole content.
    header = bytes.fromhex("00000803 00002710 0000001c 0000001c")
    assert hashlib.sha256(header + data.test.x.numpy().tobytes()).hexdigest() == SOURCES[name].test[0].content
    labels = bytes.fromhex("00000801 00002710") + data.test.y.to(torch.uint8).numpy().tobytes()
    assert hashlib.sha256(labels).hexdigest() == SOURCES[name].test[1].content


@pytest.mark.parametrize(("part", "count"), [("train", 500), ("test", 100)])
def test_the_sample_is_the_first_images_of_each_class_in_order(fashion, part, count):
    whole, sample = getattr(fashion, part), getattr(load("fashion-sample"), part)

    seen, chosen = [0] * 10, []
    for index, label in enumerate(whole.y.tolist()):
        if seen[label] < count:
            seen[label] += 1
            chosen.append(index)

    assert torch.equal(sample.x, whole.x[chosen])
    assert torch.equal(sample.y, whole.y[chosen])


@pytest.mark.skipif(not TOOL.exists(), reason="the tool that makes the sample is not here")
def test_the_tool_makes_the_sample(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("make_sample", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    tool.main([str(tmp_path / "own" / "tiny")])

    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed == [[file.content, file.name] for file in FASHION_SAMPLE.files]
    monkeypatch.setenv("SPIKEPRUNE_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("SPIKEPRUNE_CACHE", str(tmp_path / "cache"))
    made = read(replace(FASHION_SAMPLE, name="tiny", embedded=False))
    assert (len(made.train), len(made.test)) == (5000, 1000)
