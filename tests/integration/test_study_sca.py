"""The study of SCA in its quick form, with fewer contenders: from untrained network to report, killed and gone on with."""

import json
from dataclasses import replace

import pytest

from spikeprune.studies.sca import study
from spikeprune.studies.sca.settings import QUICK

pytestmark = pytest.mark.timeout(900)
FEW = replace(QUICK, overrides=(*QUICK.overrides, "train.epochs=1"), batches=6, contenders=("sca", "soft"), scratch=None, timed=1)


def numbers(rows):
    """What must be the same again: all but times."""
    stops = [stop for row in rows for stop in row.get("stops", ())]
    return [{key: value for key, value in stop.items() if not key.startswith("speedup")} for stop in stops]


def test_it_runs_and_goes_on_where_it_stood(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "settings_of", lambda *_: FEW)
    folder = tmp_path / "sca"
    done = study.run("fashion-sample", folder, seeds=1, quick=True)
    assert [section.anchor for section in done.sections] == ["accuracy", "structure", "cost"]
    assert len(done.rows) == 3
    data = json.loads((folder / "report.json").read_text())
    assert data["facts"]["command"].endswith("spikeprune study sca --data fashion-sample --seeds 1 --quick")
    assert "</html>" in (folder / "report.html").read_text()
    for section in done.sections:
        assert section.title in (folder / "report.md").read_text()

    ledger = folder / "trials.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(line for line in lines if '"soft"' not in line) + "\n" + lines[-1][:30])
    again = study.run("fashion-sample", folder, seeds=1, quick=True)
    assert numbers(again.rows) == numbers(done.rows)
