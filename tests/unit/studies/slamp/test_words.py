"""What the sections share: rows of stops, differences seed by seed, and verdicts that follow from them."""

import pytest

from spikeprune.report.curves import Line, Panel
from spikeprune.report.findings import Spread
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.sections.words import Told, above, ahead, at, by_share, cell, drawn, leads, line, seeds
from spikeprune.studies.sweep import flat

CHAIN = [
    {"part": "dense", "seed": 0, "accuracy": 0.9, "seconds": 1.0},
    {
        "part": "sweep", "method": "slamp", "seed": 0, "seconds": 2.0, "ended": "too few",
        "stops": [{"density": 0.5, "accuracy": 0.8}, {"density": 0.1, "accuracy": 0.7}],
    },
    {"part": "sweep", "method": "lamp", "seed": 0, "seconds": 2.0, "stops": [{"density": 0.1, "accuracy": 0.75}]},
    {"part": "sweep", "method": "erk", "seed": 0, "seconds": 2.0, "stops": [], "ended": "at once"},
]  # fmt: skip
TOLD = Told(flat(CHAIN), (0.5, 0.1), ("conv",), ("lif",), 2)


def test_a_chain_becomes_a_row_a_stop():
    assert list(flat(CHAIN)) == [
        CHAIN[0],
        {"part": "sweep", "method": "slamp", "seed": 0, "ended": "too few", "density": 0.5, "accuracy": 0.8},
        {"part": "sweep", "method": "slamp", "seed": 0, "ended": "too few", "density": 0.1, "accuracy": 0.7},
        {"part": "sweep", "method": "lamp", "seed": 0, "density": 0.1, "accuracy": 0.75},
    ]


def test_only_contenders_with_a_stop_are_asked_for_in_the_given_order():
    assert TOLD.asked(("lamp", "erk", "slamp", "global")) == ["lamp", "slamp"]
    assert [len(TOLD.dense), len(TOLD.sweep)] == [1, 3]


def test_stops_have_places_and_names():
    assert Told(Rows([]), (0.5, 0.025), (), (), 1).stops == {0.0: "50 %", 1.0: "2.5 %"}


def test_a_cell_is_a_number_or_a_dash():
    assert cell(at(TOLD.sweep, "slamp", 0.5), "accuracy") == "80.0"
    assert cell(at(TOLD.sweep, "lamp", 0.5), "accuracy") == "–"
    assert seeds(at(TOLD.sweep, "lamp", 0.5), "accuracy") == {}
    assert seeds(TOLD.dense, "accuracy", 100.0) == {0: 90.0}


def test_leads_are_differences_in_points_where_both_are():
    found = leads(TOLD, "slamp", "lamp")
    assert {density: round(lead.mean, 9) for density, lead in found.items()} == {0.1: -5.0}
    assert leads(TOLD, "slamp", "erk") == {}


def test_a_claim_says_its_numbers_and_its_rule():
    claim = above(TOLD, "lamp", "slamp", "it is", "unknown")
    assert (claim.text, claim.paper, claim.here, claim.verdict) == ("it is", "unknown", "10 %: +5.00", "reproduced")
    assert claim.rule.startswith("LAMP less SLAMP, in points, is above 0")
    assert above(TOLD, "slamp", "erk", "it is", "unknown").verdict == "not tested"


@pytest.mark.parametrize(
    ("values", "found"),
    [([2.0, 3.0], True), ([1.0, -3.0], False), ([5.0, -4.0], False), ([0.1], True), ([0.0], False), ([-0.1], False)],
)
def test_ahead_is_positive_beyond_the_spread(values, found):
    assert ahead(Spread.of(values)) is found


def test_verdicts_follow_from_the_tests_that_hold():
    held = ([True, True], [True, False], [False, False], [])
    assert [by_share(tests) for tests in held] == ["reproduced", "partly", "refuted", "not tested"]


def test_a_line_has_a_point_a_stop_that_was_reached():
    assert line(TOLD, "slamp", "accuracy") == Line("SLAMP", {0.0: [80.0], 1.0: [70.0]})
    assert line(TOLD, "lamp", "accuracy") == Line("LAMP", {1.0: [75.0]})
    assert line(TOLD, "erk", "accuracy") is None


def test_a_panel_without_lines_is_not_drawn():
    assert drawn("a", "t", Panel([], "x", "y"), "words") == []
    (plot,) = drawn("a", "t", Panel([Line("l", {0.0: [1.0]})], "x", "y"), "words")
    assert plot.caption == "words"
