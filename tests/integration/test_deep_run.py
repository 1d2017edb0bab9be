"""Deep networks by recipe, on images and on events, broken off and resumed."""

import json
import math
from dataclasses import replace

import pytest

from run_facts import facts
from spikeprune import data
from spikeprune.data import DataSet, Images
from spikeprune.data.event_sources import NMNIST_1K
from spikeprune.kernel.allocate import kept
from spikeprune.recipes.average import Average
from spikeprune.recipes.config import check
from spikeprune.recipes.run import run
from spikeprune.recipes.rundir import RunDir

SHARED = {
    "train": {"epochs": 2, "batch": 32, "lr": 5e-3, "warmup": 1, "ema": 0.9, "clip": 5.0, "smoothing": 0.1, "loss": "tet"},
    "prune": {"stages": [0.5, 0.8], "batch": 32, "decay": "cosine", "calibration": 1, "calibration_batch": 16},
    "method": "magnitude",
    "machine": {"device": "cpu"},
}
IMAGES = {
    "name": "images",
    "data": {"name": "fashion-sample", "validation": 32, "augment": ["crop", "flip"]},
    "net": {"name": "vgg9", "width": 0.03125, "timesteps": 2, "neuron": {"kind": "lif", "tau": 2.0, "threshold": 0.5}},
    "baselines": ["lamp"],
}
EVENTS = {
    "name": "events",
    "data": {"name": "nmnist-1k", "validation": 20, "by": "time", "augment": ["roll_frames"]},
    "net": {"name": "sca_dvs", "width": 0.03125, "timesteps": 2},
}


class Killed(Exception):
    pass


class KillAt:
    """Ends the run after so many steps, without a chance to tidy up."""

    def __init__(self, steps):
        self.left = steps

    def phase(self, label, steps, done):
        pass

    def advance(self):
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.fixture
def images(monkeypatch):
    """A recipe on 96 training and 40 test images of the embedded sample: 2 steps an epoch."""
    whole = data.load("fashion-sample")
    train, test = (Images(part.x[:size], part.y[:size]) for part, size in ((whole.train, 96), (whole.test, 40)))
    monkeypatch.setattr("spikeprune.recipes.splits.load", lambda name: replace(whole, train=train, test=test))
    assert isinstance(whole, DataSet)
    return check({**SHARED, **IMAGES}, "images")


def recording(label, number):
    """Events in N-MNIST's format: a digit's own row of pixels, crossed from left to right."""
    times = [40 * (at + 1) + number for at in range(60)]
    return b"".join(
        bytes([(at + number) % 34, 3 * label + at % 3, (at % 2) << 7 | t >> 16, t >> 8 & 255, t & 255])
        for at, t in enumerate(times)
    )


@pytest.fixture
def events(tmp_path, monkeypatch):
    """A recipe on 60 training and 20 test recordings, made on the spot: 2 steps an epoch."""
    source = replace(NMNIST_1K, train=(6,) * 10, test=(2,) * 10, files=())
    for part, count in (("Train", 6), ("Test", 2)):
        for label in range(10):
            folder = tmp_path / "own" / "nmnist-1k" / part / str(label)
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:05d}.bin").write_bytes(recording(label, number))
    monkeypatch.setenv("SPIKEPRUNE_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("SPIKEPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spikeprune.data.event_loading.EVENT_SOURCES", {"nmnist-1k": source})
    return check({**SHARED, **EVENTS}, "events")


@pytest.mark.parametrize("kind", ["images", "events"])
def test_a_deep_run_trains_prunes_exactly_and_tells_speed_and_memory(kind, request, tmp_path):
    recipe = request.getfixturevalue(kind)
    comparison = run(recipe, tmp_path / "run")
    dense, *pruned = comparison.outcomes
    for outcome in pruned:
        assert outcome.kept == kept(dense.weights, 0.8)
        assert outcome.revived == 0
        assert outcome.report.samples == {"images": 40, "events": 20}[kind]
    for outcome in comparison.outcomes:
        assert outcome.throughput is not None
        assert 0 < outcome.throughput < math.inf
        assert outcome.memory == "RSS"
        assert outcome.memory_mb is not None
        assert outcome.memory_mb > 10
    markdown = (tmp_path / "run" / "report.md").read_text()
    assert "samples/s" in markdown
    assert f"{dense.memory_mb:,.0f} RSS" in markdown
    assert recipe.net.title in markdown
    if kind == "events":
        assert len(list((tmp_path / "cache" / "nmnist-1k" / "frames").glob("*.safetensors"))) == 2


@pytest.mark.parametrize(("kind", "step"), [("images", 3), ("images", 7), ("events", 3)])
def test_a_deep_run_broken_off_resumes_from_its_last_epoch(kind, step, request, tmp_path):
    recipe = request.getfixturevalue(kind)  # 2 steps an epoch: dense 4, then 4 a method
    run(recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        run(recipe, tmp_path / "broken", watch=KillAt(step))
    run(recipe, tmp_path / "broken")
    assert facts(tmp_path / "broken") == facts(tmp_path / "whole")


def test_without_the_checkpointed_average_the_resumed_run_would_differ(images, tmp_path, monkeypatch):
    """Negative twin: the equality above is no accident."""
    run(images, tmp_path / "whole")
    with pytest.raises(Killed):
        run(images, tmp_path / "broken", watch=KillAt(3))
    monkeypatch.setattr("spikeprune.recipes.average.Average.load", lambda self, state: None)
    run(images, tmp_path / "broken")
    assert facts(tmp_path / "broken") != facts(tmp_path / "whole")


def test_what_is_kept_of_the_dense_network_is_its_average(images, tmp_path):
    with_average = run(images, tmp_path / "average")
    without = run(images.model_copy(update={"train": images.train.model_copy(update={"ema": 0.0})}), tmp_path / "plain")
    assert with_average.outcomes[0].report != without.outcomes[0].report
    rows = [[row["loss"] for row in RunDir(tmp_path / name).rows() if row["phase"] == "dense"] for name in ("average", "plain")]
    assert rows[0] == rows[1]
    facts = json.loads((tmp_path / "average" / "networks" / "dense" / "training.json").read_text())
    assert facts["samples"] == 2 * 64


def test_the_learning_rate_runs_anew_in_every_stage_and_the_average_through_all_epochs(images, tmp_path, monkeypatch):
    asked, updated = [], []
    update = Average.update
    monkeypatch.setattr("spikeprune.recipes.phase.learning_rate", lambda table, step, steps: asked.append(step) or 1e-3)
    monkeypatch.setattr(Average, "update", lambda self, done: updated.append(done) or update(self, done))
    run(images, tmp_path / "run")
    dense, lamp, magnitude = [0, 1, 2, 3], [0, 1] * 2, [0, 1] * 2
    assert asked == dense + lamp + magnitude
    assert updated == [0, 1, 2, 3]


def test_every_phase_trains_by_the_loss_of_its_table(images, tmp_path):
    def losses(name, **changed):
        run(check({**SHARED, **IMAGES, "baselines": [], **changed}, name), tmp_path / name)
        rows = RunDir(tmp_path / name).rows()
        return [[row["loss"] for row in rows if row["phase"] == phase and "loss" in row] for phase in ("dense", "magnitude")]

    plain = losses("plain")
    tuned = losses("tuned", prune={**SHARED["prune"], "loss": "tet"})
    assert tuned[0] == plain[0]
    assert tuned[1] != plain[1]
    assert losses("trained", train={**SHARED["train"], "loss": "ce"})[0] != plain[0]


def test_the_report_tells_what_is_not_as_always(events, tmp_path):
    text = run(events, tmp_path / "run").to_markdown()
    for words in (
        "20 test recordings", "frames by time", "augmented by roll_frames", "TET loss with lambda 0.05", "label smoothing 0.1",
        "clipped to norm 5", "warmup 1 epochs", "decay 0.9", "cosine decay in each stage",
    ):  # fmt: skip
        assert words in text
