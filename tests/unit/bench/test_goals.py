import json

import pytest

from spikeprune.bench import goals
from spikeprune.bench.cases import Case, Correctness, Row, timed_row
from spikeprune.bench.goals import Goal, Under, verdict
from spikeprune.bench.peers import PEERS
from spikeprune.bench.report import Report, cells
from spikeprune.bench.timing import Times

RIGHT = Correctness(1e-8, 0, 4, 64, 1.0, 0.875, 0.875)
OPTIONS = {"quick": False}


def case(*rows, correctness=RIGHT):
    layers = [{"kernel": "gather", "rate": 0.1}, {"kernel": "dense", "rate": None}]
    return Case("vgg", "90% pruned, batch 1", "a net", "trained", 1, 8, layers, {"conv1": 0.1}, correctness, list(rows))


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(None, "not measured"), (0.5, "missed"), (2.99, "missed"), (3.0, "met"), (5.99, "met"), (6.0, "stretch met")],
)
def test_a_ratio_is_judged_by_its_goal(ratio, expected):
    assert verdict(Goal(3, 6), ratio) == expected


def test_without_a_stretch_a_high_ratio_is_met_and_without_a_goal_nothing_is_judged():
    assert Goal(3).verdict(100) == "met"
    assert verdict(None, 0.1) == "no goal"


@pytest.mark.parametrize(("amount", "expected"), [(None, "not measured"), (0.49, "met"), (0.5, "missed"), (2.0, "missed")])
def test_a_goal_in_seconds_is_judged_by_the_amount_whatever_the_ratio(amount, expected):
    row = Row("read", amount, "s", ratio=100.0, goal=Under(0.5, "s"))
    assert row.verdict == expected
    assert cells(row)[3:5] == ("< 0.5 s", expected)
    told = json.loads(Report({"options": OPTIONS}, [case(row)]).to_json())["cases"][0]["rows"][0]
    assert (told["goal"], told["verdict"]) == ({"most": 0.5, "unit": "s"}, expected)


def test_goals_name_peers_that_there_are():
    own = {goals.UNPRUNED, goals.SCATTER, goals.LONGER, goals.DENSE}
    tables = [*goals.MLP.values(), *goals.VGG.values(), *goals.FEW_BITS.values(), *goals.CHANNELS.values()]
    tables += [*goals.BLOCKS.values(), *goals.TIMESTEPS.values(), goals.EVENTS, goals.TOGETHER]
    assert {name for table in tables for name in table} <= {*PEERS, *own}
    assert all(goal.stretch is None or goal.stretch > goal.must for table in tables for goal in table.values())


def test_a_loss_is_told_as_plainly_as_a_win():
    ours, slow, fast = Times((1.0, 1.0), (1.0, 1.0)), Times((4.0, 4.0), (4.0, 4.0)), Times((0.5, 0.5), (0.5, 0.5))
    win, loss = timed_row("slow", slow, ours, Goal(3)), timed_row("fast", fast, ours, Goal(3))
    assert cells(win)[2:5] == ("x4.00 (4.00–4.00)", "x3", "met")
    assert cells(loss)[2:5] == ("x0.50 (0.50–0.50)", "x3", "missed")
    text = Report({"options": OPTIONS}, [case(win, loss)]).to_markdown()
    assert "x0.50" in text
    assert "missed" in text


def test_a_row_without_figures_says_why():
    row = Row("OpenVINO", goal=Goal(2), note="not installed: openvino")
    assert cells(row) == ("OpenVINO", "–", "", "x2", "not measured", "", "", "not installed: openvino")


def test_clocks_that_differ_are_told():
    row = timed_row("a", Times((2.0,), (9.0,)), Times((1.0,), (1.0,)))
    assert "wall clock tells otherwise" in cells(row)[-1]
    assert "wall clock" not in cells(timed_row("a", Times((2.0,), (2.0,)), Times((1.0,), (1.0,))))[-1]


@pytest.mark.parametrize(("wrong", "told"), [({"difference": 1e-3}, "1.0e-03"), ({"flipped": 2}, "2 of 4 samples flipped")])
def test_wrong_answers_are_told_and_make_the_report_wrong(wrong, told):
    bad = Correctness(**{**vars(RIGHT), **wrong})
    report = Report({"options": OPTIONS}, [case(), case(correctness=bad)])
    assert not report.right
    assert "WRONG" in str(bad)
    assert told in str(bad)
    good = Report({"options": OPTIONS}, [case()])
    assert good.right
    assert "WRONG" not in good.to_markdown()


def test_json_holds_what_the_figures_rest_on():
    row = timed_row("peer", Times((2.0, 4.0), (2.0, 4.0)), Times((1.0, 1.0), (1.0, 1.0)), Goal(2, 9))
    told = json.loads(Report({"options": OPTIONS, "threads": 1}, [case(row)]).to_json())["cases"][0]
    assert told["rows"][0]["verdict"] == "met"
    assert told["rows"][0]["spread"] == {
        "median": 3.0, "least": 2.0, "most": 4.0, "of_minima": 2.0, "of_medians": 3.0, "wall": 3.0
    }  # fmt: skip
    assert told["correctness"]["right"] is True
    assert told["mean_rate"] == 0.1


def test_the_quick_form_says_that_its_figures_mean_nothing():
    assert "mean nothing" in Report({"options": {"quick": True}}, []).to_markdown()
    assert "mean nothing" not in Report({"options": OPTIONS}, []).to_markdown()
