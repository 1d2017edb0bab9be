"""The study of SpikeNM in its quick form, made quicker: from untrained network to report, killed and gone on with."""

import json
from dataclasses import replace

import pytest

from spikeprune.errors import RecipeError
from spikeprune.studies.spikenm import study
from spikeprune.studies.spikenm.settings import EVENTS, FULL, QUICK, settings_of

pytestmark = pytest.mark.timeout(900)
SMALL = (
    "data.validation=3500",
    "net.name=vgg9",
    "net.width=0.0625",
    "net.timesteps=2",
    "train.epochs=1",
    "train.batch=32",
    "train.lr=0.01",
)
FEW = replace(QUICK, overrides=SMALL, contenders=("spikenm", "no distillation", "sr-ste", "asp", "unstructured", "random"))


def numbers(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_it_runs_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "settings_of", lambda *_: FEW)
    folder = tmp_path / "spikenm"
    done = study.run("fashion-sample", folder, seeds=1, quick=True)
    assert [section.anchor for section in done.sections] == ["accuracy", "search", "cost"]
    data = json.loads((folder / "report.json").read_text())
    assert data["facts"]["command"].endswith("spikeprune study spikenm --data fashion-sample --seeds 1 --quick")
    assert "retraining" not in data["facts"]
    assert "</html>" in (folder / "report.html").read_text()
    masked = {row["name"]: row for row in done.rows if row["part"] == "masks"}
    assert set(masked) == set(FEW.contenders)
    for name, row in masked.items():
        assert row["density"] == pytest.approx(0.5, abs=1e-4)
        assert (row["fullest"] <= 2) == (name != "unstructured")
        assert len(row["search"]) == (len(FEW.moments) if name in ("spikenm", "no distillation") else 0)
    assert next(row for row in done.rows if row["part"] == "dense")["pruned"].keys() == {"2:4"}
    assert len({row["accuracy"] for row in masked.values()}) > 2  # they are not one network

    ledger = folder / "trials.jsonl"
    lines = ledger.read_text().splitlines()
    kept = [line for line in lines if '"spikenm"' not in line and '"random"' not in line]
    assert len(kept) == len(lines) - 2
    ledger.write_text("\n".join(kept) + "\n" + lines[-1][:30])
    again = study.run("fashion-sample", folder, seeds=1, quick=True)
    assert numbers(again.rows) == numbers(done.rows)


def test_the_mlp_has_no_place_in_it(tmp_path):
    with pytest.raises(RecipeError):
        study.run("fashion-sample", tmp_path / "x", seeds=1, quick=True, overrides=["net.name=mlp"])


def test_settings_suit_the_data():
    assert settings_of("fashion-mnist", quick=False) == FULL
    assert settings_of("nmnist-1k", quick=False) == EVENTS
    assert settings_of("cifar10", quick=True) == QUICK
    tried = FULL.tried()
    assert len(tried) == len(set(tried)) == len(FULL.contenders) + 2 * 3 + 3
