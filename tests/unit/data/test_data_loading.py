import gzip
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spikeprune.data import DataSet, Images, event_names, load, names
from spikeprune.data.cifar import CIFARS
from spikeprune.data.find import places
from spikeprune.data.loading import read
from spikeprune.data.sources import SOURCES
from spikeprune.errors import DataError


def test_names_are_sorted_and_loadable():
    assert names() == ("cifar10", "cifar100", "fashion-mnist", "fashion-sample", "mnist")
    assert all({**SOURCES, **CIFARS}[name].name == name for name in names())


@pytest.mark.parametrize("name", event_names())
def test_an_event_set_is_not_an_image_set(name):
    assert name not in names()
    with pytest.raises(DataError, match=rf"'{name}' holds events, not images: load it with load_events\('{name}'\)"):
        load(name)


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(DataError, match=r"'fashion_mnist'\. Did you mean 'fashion-mnist'.* There are: cifar10, "):
        load("fashion_mnist")


def test_a_name_like_no_other_offers_all():
    with pytest.raises(DataError, match=r"'x'\. There are: cifar10, cifar100, fashion-mnist, fashion-sample, mnist\.$"):
        load("x")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_what_is_fetched_has_sums_and_two_mirrors(name):
    source = SOURCES[name]

    assert len({file.name for file in source.files}) == 4
    assert len(source.mirrors) >= 2
    for file in source.files:
        algorithm, _, published = file.published.partition(":")
        assert len(bytes.fromhex(published)) == {"md5": 16, "sha256": 32}[algorithm]
        assert len(bytes.fromhex(file.content)) == 32


def test_the_embedded_sample_needs_no_folder_and_no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEPRUNE_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("SPIKEPRUNE_CACHE", str(tmp_path / "nowhere"))

    sample = load("fashion-sample")

    assert isinstance(sample, DataSet)
    assert isinstance(sample.train, Images)
    assert (sample.name, sample.classes, sample.source) == ("fashion-sample", 10, "package")
    assert "MIT" in sample.licence
    assert (sample.train.x.shape, sample.train.x.dtype) == ((5000, 1, 28, 28), torch.uint8)
    assert (sample.test.y.shape, sample.test.y.dtype) == ((1000,), torch.int64)
    assert sample.train.y.bincount().tolist() == [500] * 10
    assert sample.test.y.bincount().tolist() == [100] * 10
    assert list(tmp_path.iterdir()) == []


def test_the_own_folder_comes_first(tiny, folders, put):
    own, cache = folders
    put(own / "tiny", tiny.packed)
    put(cache / "tiny", dict.fromkeys(tiny.packed, b"not read"))

    data = read(tiny.source())

    assert data.source == str(own / "tiny")
    assert data.train.y.tolist() == [0, 1, 2, 0]
    assert data.test.y.tolist() == [2, 1]
    assert len(data.train) == len(data.train.x) == 4


def test_then_the_cache(tiny, folders, put, monkeypatch):
    monkeypatch.delenv("SPIKEPRUNE_DATA")
    put(folders[1] / "tiny", tiny.packed)

    assert read(tiny.source()).source == str(folders[1] / "tiny")


@pytest.mark.parametrize("level", [1, 9])
def test_files_compressed_anew_are_the_same_data(tiny, folders, put, level):
    put(folders[0] / "tiny", {f"{name}.gz": gzip.compress(content, level) for name, content in tiny.plain.items()})

    assert len(read(tiny.source()).test) == 2


def test_plain_files_are_read_under_their_plain_names(tiny, folders, put):
    put(folders[0] / "tiny", tiny.plain)

    assert len(read(tiny.source()).test) == 2


def test_plain_content_under_a_gz_name_is_read_by_its_content(tiny, folders, put):
    put(folders[0] / "tiny", {f"{name}.gz": content for name, content in tiny.plain.items()})

    assert len(read(tiny.source()).test) == 2


def test_files_missing_from_the_own_folder_are_named_and_taken_from_the_cache(tiny, folders, put, caplog):
    own, cache = folders
    put(own / "tiny", {"test-images.gz": tiny.packed["test-images.gz"]})
    put(cache / "tiny", tiny.packed)

    with caplog.at_level(logging.WARNING):
        data = read(tiny.source())

    assert data.source == f"{cache / 'tiny'}, {own / 'tiny'}"
    assert f"{own / 'tiny'} lacks train-images.gz, train-labels.gz, test-labels.gz" in caplog.text


def test_an_own_folder_that_does_not_exist_is_said(tiny, folders, put, caplog, monkeypatch):
    monkeypatch.setenv("SPIKEPRUNE_DATA", str(folders[0] / "typo"))
    put(folders[1] / "tiny", tiny.packed)

    with caplog.at_level(logging.WARNING):
        read(tiny.source())

    assert f"{folders[0] / 'typo' / 'tiny'} lacks train-images.gz" in caplog.text


def test_an_own_folder_with_other_data_sets_only_is_no_news(tiny, folders, put, caplog):
    put(folders[1] / "tiny", tiny.packed)

    with caplog.at_level(logging.WARNING):
        read(tiny.source())

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["~/.cache/spikeprune/mnist"]),
        ({"SPIKEPRUNE_DATA": "", "SPIKEPRUNE_CACHE": "", "XDG_CACHE_HOME": ""}, ["~/.cache/spikeprune/mnist"]),
        ({"XDG_CACHE_HOME": "/x"}, ["/x/spikeprune/mnist"]),
        ({"XDG_CACHE_HOME": "/x", "SPIKEPRUNE_CACHE": "~/c"}, ["~/c/mnist"]),
        ({"SPIKEPRUNE_DATA": "~/d", "SPIKEPRUNE_CACHE": "/c"}, ["~/d/mnist", "/c/mnist"]),
    ],
)
def test_places_follow_the_environment(variables, expected, monkeypatch):
    for name in ("SPIKEPRUNE_DATA", "SPIKEPRUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert places("mnist") == tuple(Path(os.path.expanduser(path)) for path in expected)


def test_a_whole_file_of_other_data_is_refused_with_both_sums(tiny, folders, put):
    source = tiny.source()
    put(folders[0] / "tiny", tiny.plain)
    changed = bytearray(tiny.plain["test-images"])
    changed[500] ^= 1
    put(folders[0] / "tiny", {"test-images": bytes(changed)})

    with pytest.raises(DataError, match=r"is not the published test-images\.gz: sha256") as caught:
        read(source)

    assert str(folders[0] / "tiny" / "test-images") in str(caught.value)
    assert source.test[0].content in str(caught.value)


def test_images_and_labels_must_be_as_many(tiny, folders, put):
    put(folders[0] / "tiny", {**tiny.plain, "train-labels": tiny.plain["test-labels"]})

    with pytest.raises(DataError, match=r"train-images holds 4 images, .*train-labels holds 2 labels\. Delete both"):
        read(tiny.source())


@pytest.mark.parametrize("name", ["train-images", "train-labels", "test-images", "test-labels"])
def test_a_cut_file_is_named_with_its_folder(tiny, folders, put, name):
    packed = tiny.packed[f"{name}.gz"]
    put(folders[0] / "tiny", {**tiny.packed, f"{name}.gz": packed[:-3]})

    with pytest.raises(DataError, match=f"{folders[0] / 'tiny' / name}.gz .* is not a whole gzip file"):
        read(tiny.source())


def test_a_label_beyond_the_classes_is_refused_before_the_sum_is(tiny, folders, put):
    put(folders[0] / "tiny", {**tiny.plain, "test-labels": tiny.plain["test-labels"][:-1] + b"\3"})

    with pytest.raises(DataError, match="label 3 at index 1; labels go from 0 to 2"):
        read(tiny.source())


def test_a_file_that_cannot_be_read_is_named(tiny):
    with pytest.raises(DataError, match=r"cannot read .*sample/train-images\.gz: No such file"):
        read(replace(tiny.source(), embedded=True))
