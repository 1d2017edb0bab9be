"""The study of STPrune in its quick form, made quicker: from untrained network to report, killed and gone on with."""

import json
import shutil
from dataclasses import replace

import pytest

from spikeprune.studies.stprune import study
from spikeprune.studies.stprune.settings import QUICK, Hybrid

pytestmark = pytest.mark.timeout(900)
SMALL = (
    "data.validation=3500",
    "net.name=vgg9",
    "net.width=0.03125",
    "net.timesteps=2",
    "train.epochs=1",
    "train.batch=32",
    "train.lr=0.01",
    "prune.batch=32",
)
FEW = replace(QUICK, overrides=SMALL, samples=64, batches=4, bits=(5,), noisy=50, hybrid=Hybrid((2,), width=0.03125, tested=50))


def numbers(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_it_runs_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "settings_of", lambda *_: FEW)
    folder = tmp_path / "stprune"
    done = study.run("fashion-sample", folder, seeds=1, quick=True)
    assert [section.anchor for section in done.sections] == ["stages", "widths", "time", "bits", "noise", "hybrid"]
    data = json.loads((folder / "report.json").read_text())
    assert data["facts"]["command"].endswith("spikeprune study stprune --data fashion-sample --seeds 1 --quick")
    assert "</html>" in (folder / "report.html").read_text()
    for section in done.sections:
        assert section.title in (folder / "report.md").read_text()
    slim = next(row for row in done.rows if row.get("name") == "slim")
    dense = next(row for row in done.rows if row["part"] == "dense")
    assert slim["parameters"] * FEW.compress <= dense["parameters"]

    ledger = folder / "trials.jsonl"
    lines = ledger.read_text().splitlines()
    kept = [line for line in lines if '"slim"' not in line and '"sudden"' not in line and '"bits"' not in line]
    ledger.write_text("\n".join(kept) + "\n" + lines[-1][:30])
    shutil.rmtree(folder / "seed-0" / "stprune")  # every network is made anew, and is the same
    again = study.run("fashion-sample", folder, seeds=1, quick=True)
    assert numbers(again.rows) == numbers(done.rows)
