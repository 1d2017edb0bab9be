"""A finished study writes itself in three forms that say the same."""

import json
from types import SimpleNamespace

import pytest

from spikeprune.report.page import Claim, Section
from spikeprune.studies.rows import Rows
from spikeprune.studies.study import RULE, Study, training_minutes

CLAIM = Claim("It holds", "9", "8", "partly", "both are 9")
ROWS = Rows([{"part": "dense", "seed": 0, "accuracy": 0.5}, {"part": "dense", "seed": 1, "accuracy": 0.25}])
STUDY = Study("A study", "A paper.", [Section("one", "Part one", claims=[CLAIM])], {"seeds": "0, 1"}, ROWS)


def test_it_is_written_in_three_forms(tmp_path):
    STUDY.write(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert text == STUDY.to_markdown()
    for part in ("A study", "A paper.", "Part one", "It holds", "both are 9", "partly", "0, 1"):
        assert part in text
        assert part in page
    assert RULE in text
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "facts": {"seeds": "0, 1"},
        "claims": [{"section": "one", **vars(CLAIM)}],
        "rows": list(ROWS),
    }


def test_json_has_a_trial_a_line():
    assert sum('"part": "dense"' in line for line in STUDY.to_json().splitlines()) == 2


def test_minutes_of_all_seeds_are_added():
    assert training_minutes([SimpleNamespace(seconds=90.0), SimpleNamespace(seconds=30.0)]) == pytest.approx(2.0)
