"""What a study has measured so far: one line a trial, so that a killed study goes on where it stood.

::

    study.json      what was asked: equal settings continue the study, others are refused
    trials.jsonl    a line for each finished trial
    seed-S/         the run directory of each seed's dense network
    report.html, report.md, report.json
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikeprune.errors import StorageError
from spikeprune.files import read_json, write_json, write_text

Row = dict[str, Any]
FORMAT = 1  # of the rows: what older code wrote is not read as if it were today's
REPORTS = ("report.html", "report.md", "report.json")


class Ledger:
    """The finished trials of a study, by what was tried.

    A trial is named by its facts, a flat mapping such as `{"part": "alpha", "seed": 0, "alpha": 0.5}`; its row holds the
    facts and what was measured.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = {_key(row["facts"]): row for row in _lines(path / "trials.jsonl")}

    @classmethod
    def open(cls, path: str | os.PathLike[str], settings: Mapping[str, Any], *, fresh: bool = False) -> "Ledger":
        """Open a new or unfinished study; `fresh` deletes what the one that is there wrote, and nothing else.

        Raises:
            StorageError: the folder holds a study with other settings, or something that is no study.
        """
        folder, file = Path(path), Path(path) / "study.json"
        settings = {"format": FORMAT, **settings}
        if file.exists() and fresh:
            for name in ("trials.jsonl", *REPORTS):
                (folder / name).unlink(missing_ok=True)
            for run in folder.glob("seed-*"):
                if (run / "recipe.toml").exists():
                    shutil.rmtree(run)
        elif file.exists():
            _refuse_other(folder, dict(read_json(file)), settings)
        elif folder.exists() and any(folder.iterdir()):
            raise StorageError(f"{folder} is not empty and holds no study; choose another folder with --out.")
        write_json(file, dict(settings))
        return cls(folder)

    def find(self, facts: Mapping[str, Any]) -> Row | None:
        """Return what a finished trial measured, with its facts; None if it is still to do."""
        row = self._rows.get(_key(facts))
        return None if row is None else {**row["facts"], **row["found"]}

    def add(self, facts: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Keep what a trial measured.

        Raises:
            StorageError: it cannot be written.
        """
        row = {"facts": dict(facts), "found": dict(found)}
        try:
            with (self.path / "trials.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path / 'trials.jsonl'}: {error.strerror or error}. Free some space and run again."
            ) from error
        self._rows[_key(facts)] = row


def _refuse_other(folder: Path, there: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    asked = json.loads(json.dumps(dict(settings)))
    if there != asked:
        keys = sorted(key for key in there.keys() | asked.keys() if there.get(key) != asked.get(key))
        raise StorageError(
            f"{folder} holds a study with other settings; they differ in {', '.join(keys)}. Choose another folder with --out, or start "
            "anew with --fresh, which deletes that study."
        )


def _key(facts: Mapping[str, Any]) -> str:
    return json.dumps(dict(facts), sort_keys=True)


def _lines(file: Path) -> list[Row]:
    """Read the rows; a line cut short by a kill is dropped from the file, so that the next one starts afresh."""
    if not file.exists():
        return []
    rows, whole = [], []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and {"facts", "found"} <= row.keys():
            rows.append(row)
            whole.append(line)
    text = "".join(f"{line}\n" for line in whole)
    if text != file.read_text(encoding="utf-8", errors="replace"):
        write_text(file, text)
    return rows
