import json

import pytest

from spikeprune.errors import StorageError
from spikeprune.studies.ledger import Ledger

SETTINGS = {"study": "x", "data": "mnist", "taus": (0.1, 0.2)}


def test_a_trial_is_found_by_its_facts_in_any_order_and_after_reopening(tmp_path):
    ledger = Ledger.open(tmp_path / "s", SETTINGS)
    assert ledger.find({"part": "a", "seed": 0}) is None
    ledger.add({"part": "a", "seed": 0}, {"accuracy": 0.5})
    for same in (ledger, Ledger.open(tmp_path / "s", SETTINGS)):
        assert same.find({"seed": 0, "part": "a"}) == {"part": "a", "seed": 0, "accuracy": 0.5}
        assert same.find({"seed": 1, "part": "a"}) is None


@pytest.mark.parametrize("cut", ['{"facts": {"part": "b"}, "fou', "[1, 2]", '{"facts": {}}'])
def test_a_line_cut_short_is_dropped_and_the_next_one_is_whole(tmp_path, cut):
    Ledger.open(tmp_path, SETTINGS, fresh=False).add({"part": "a"}, {"n": 1})
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write(cut)
    ledger = Ledger.open(tmp_path, SETTINGS)
    assert ledger.find({"part": "b"}) is None
    ledger.add({"part": "b"}, {"n": 2})
    again = Ledger.open(tmp_path, SETTINGS)
    assert (again.find({"part": "a"})["n"], again.find({"part": "b"})["n"]) == (1, 2)
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 2


def test_other_settings_are_refused_by_name_and_fresh_starts_anew(tmp_path):
    Ledger.open(tmp_path / "s", SETTINGS).add({"part": "a"}, {"n": 1})
    for name in ("seed-0", "seed-mine"):
        (tmp_path / "s" / name).mkdir()
    (tmp_path / "s" / "seed-0" / "recipe.toml").write_text("")
    for name in ("notes.md", "thesis.json", "report.html"):
        (tmp_path / "s" / name).write_text("mine, but for the report")
    with pytest.raises(StorageError, match=r"other settings; they differ in data, seeds\. .*--fresh"):
        Ledger.open(tmp_path / "s", {**SETTINGS, "data": "fashion-mnist", "seeds": 3})
    assert Ledger.open(tmp_path / "s", SETTINGS).find({"part": "a"}) is not None  # a refusal deletes nothing
    ledger = Ledger.open(tmp_path / "s", {**SETTINGS, "data": "fashion-mnist"}, fresh=True)
    assert ledger.find({"part": "a"}) is None
    assert sorted(file.name for file in (tmp_path / "s").iterdir()) == ["notes.md", "seed-mine", "study.json", "thesis.json"]


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="is not empty and holds no study"):
        Ledger.open(tmp_path, SETTINGS, fresh=True)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_what_cannot_be_written_is_told(tmp_path):
    ledger = Ledger.open(tmp_path, SETTINGS)
    (tmp_path / "trials.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*trials\.jsonl: Is a directory\. Free some space"):
        ledger.add({"part": "a"}, {})


def test_the_ledger_is_readable_line_by_line(tmp_path):
    Ledger.open(tmp_path, SETTINGS).add({"part": "a"}, {"n": 1})
    assert json.loads((tmp_path / "trials.jsonl").read_text()) == {"facts": {"part": "a"}, "found": {"n": 1}}
