"""The page of a benchmark: bars, goals and all figures."""

import pytest

from spikeprune.bench.cases import Case, Correctness, Row
from spikeprune.bench.goals import Goal, Under
from spikeprune.bench.page import bars, page
from spikeprune.bench.report import QUICK, Report
from spikeprune.bench.timing import Ratio

RIGHT = Correctness(1e-8, 0, 1, 64, 1.0, 0.9, 0.9)


def case(workload="mlp", title="90% pruned, batch 1", rows=None):
    spread = Ratio(3.0, 2.5, 4.0, 3.0, 3.0, 3.0)
    found = [Row("spikeprune", 0.5), Row("slow <peer>", 1.5, ratio=3.0, spread=spread, goal=Goal(2)), Row("fast", 0.4, ratio=0.8)]
    return Case(
        workload, title, "net", "not trained", 1, 8, [], {}, RIGHT, [*(rows or found), Row("absent", note="not installed")]
    )


def report(*cases, quick=False):
    facts = {"command": "spikeprune bench", "versions": {"torch": "2"}, "options": {"quick": quick, "rounds": 9}}
    return Report(facts, cases or (case(),))


def test_bars_show_every_ratio_the_slowest_first_and_the_goal():
    drawn = bars("x", case())
    assert drawn.index("slow &lt;peer&gt;") < drawn.index("fast")
    assert ">3<" in drawn
    assert ">0.8<" in drawn
    assert "absent" not in drawn
    without = bars("x", case(rows=[Row("spikeprune", 0.5), Row("slow <peer>", 1.5, ratio=3.0)]))
    assert drawn.count("<path") > without.count("<path")


def test_the_page_has_a_section_a_workload_and_all_figures():
    text = page(
        report(case(), case(title="95% pruned, batch 1"), case("size", "8 bit", [Row("compile", 2.0, "s", goal=Under(3, "s"))]))
    )
    assert text.count("<svg") == 2  # a case without ratios has no bars
    for words in (
        "MLP 784-512-512-10",
        "slow &lt;peer&gt;",
        "not installed",
        "x3.00 (2.50–4.00)",
        "spikeprune bench",
        "0 of 1 samples flipped",
        "met",
    ):
        assert words in text
    assert QUICK.strip("*") not in text


def test_the_quick_form_says_that_it_means_nothing():
    assert QUICK.strip("*") in page(report(quick=True))


def test_equal_reports_give_equal_pages():
    assert page(report()) == page(report())


@pytest.mark.parametrize("ratio", [0.01, 1.0, 4000.0])
def test_bars_of_any_ratio_can_be_drawn(ratio):
    assert f">{ratio:.3g}<" in bars("x", case(rows=[Row("spikeprune", 1.0), Row("other", ratio, ratio=ratio)])).replace("−", "-")
