"""Runs are put together only where they hold the same network; what is read back is whole or refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from outcomes import comparison, outcome, report
from spikeprune.errors import StorageError
from spikeprune.report import Comparison
from spikeprune.report.compare import TITLES

RESULTS = Path(__file__).parents[2] / "results"
WHOLE = json.loads(comparison().to_json())


def one(**changed):
    return Comparison((outcome("cqp", **changed),), {"a budget": {}})


def without(key, place):
    data = json.loads(comparison().to_json())
    where = data
    for step in place:
        where = where[step]
    del where[key]
    return data


def test_a_network_of_two_runs_is_taken_once_and_the_first_is_kept():
    joined = Comparison.joined([one(seconds=1.0), one(seconds=2.0), one(seed=1)])
    assert [(found.seed, found.seconds) for found in joined.outcomes] == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize(
    "changed",
    [
        {"accuracy": 0.8},
        {"kept": 243},
        {"report": report(0.2)},
        {"report": replace(report(0.1), layers=tuple(replace(x, synops_dense=x.synops_dense + 1) for x in report(0.1).layers))},
    ],
    ids=["accuracy", "kept", "effective SynOps", "dense SynOps"],
)
def test_two_networks_of_one_name_are_refused(changed):
    with pytest.raises(StorageError, match="compare them apart"):
        Comparison.joined([one(), one(**changed)])


def test_the_refusal_names_both_networks_and_both_accuracies():
    with pytest.raises(StorageError) as caught:
        Comparison.joined([one(seed=3), one(seed=3, accuracy=0.8125)])
    message = str(caught.value)
    assert message.count("group 'a budget', label 'cqp', seed 3") == 2
    assert "90.0000%" in message
    assert "81.2500%" in message


@pytest.mark.parametrize("changed", [{"accuracy": 0.8, "seed": 1}, {"accuracy": 0.8, "group": "another"}])
def test_another_seed_or_budget_is_another_network(changed):
    assert len(Comparison.joined([one(), one(**changed)]).outcomes) == 2


def test_a_comparison_survives_json():
    assert Comparison.from_dict(WHOLE) == comparison()


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        None,
        "report",
        {"outcomes": [], "notes": []},
        {"outcomes": [], "notes": {"a budget": "text"}},
        {"outcomes": [[]], "notes": {}},
        {"outcomes": [WHOLE["outcomes"][0] | {"novelty": 1}], "notes": {}},
        without("notes", ()),
        without("outcomes", ()),
        without("accuracy", ("outcomes", 0)),
        without("curve", ("outcomes", 0)),
        without("tuned", ("outcomes", 1, "curve", 0)),
        without("rates", ("outcomes", 0, "report")),
        without("kind", ("outcomes", 0, "report", "layers", 0)),
    ],
)
def test_what_is_not_a_whole_report_is_refused(data):
    with pytest.raises(StorageError, match=r"damaged, or of another version.*anew"):
        Comparison.from_dict(data)


def test_a_report_of_before_speed_and_memory_were_taken_is_read():
    old = json.loads(comparison().to_json())
    for found in old["outcomes"]:
        for key in ("throughput", "memory_mb", "memory"):
            del found[key]
    assert Comparison.from_dict(old) == comparison()
    row = dict(zip(TITLES, comparison().rows("a budget")[0], strict=True))
    assert (row["samples/s"], row["peak MB"]) == ("-", "-")


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_published_reports_are_read(file):
    data = json.loads(file.read_text(encoding="utf-8"))
    if "outcomes" in data:
        assert Comparison.from_dict(data).outcomes


def test_speed_and_memory_are_told_with_their_spread_and_their_kind():
    found = [
        outcome("cqp", seed, throughput=speed, memory_mb=peak, memory=kind)
        for seed, speed, peak, kind in ((0, 100.0, 1500.0, "RSS"), (1, 300.0, 2500.0, "RSS"), (2, None, 40.0, "CUDA"))
    ]
    row = dict(zip(TITLES, Comparison(tuple(found), {}).rows("a budget")[0], strict=True))
    assert row["samples/s"] == "200 ± 141"
    assert row["peak MB"] == "40 CUDA or 2,000 ± 707 RSS"
