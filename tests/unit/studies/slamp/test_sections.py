"""What sections say of rows made by hand: each verdict once held and once not, and rows of which some are missing."""

from dataclasses import replace
from itertools import combinations

import pytest

from spikeprune.report import curves
from spikeprune.report.markdown import markdown
from spikeprune.report.page import render
from spikeprune.studies import sweep as sweep_rows
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp.contenders import ABOUT, CONTROLS, MAIN, READINGS
from spikeprune.studies.slamp.sections import SECTIONS, accuracy, causes, cost, gains, layers, scratch
from spikeprune.studies.slamp.sections.gains import spread
from spikeprune.studies.slamp.sections.words import Told

SEEDS = (0, 1, 2)
NOISE = (-0.001, 0.0, 0.001)
DENSITIES = (0.5, 0.2, 0.05)
SYNOPS = {1.0: 1000.0, 0.5: 800.0, 0.2: 450.0, 0.05: 100.0}


@pytest.fixture
def undrawn(monkeypatch):
    """Check figures without the time that drawing takes."""

    def check(name, title, panels):
        curves._check(panels)
        return f"<svg>{name}</svg>"

    monkeypatch.setattr(sweep_rows, "curves", check)


def row(method, density, value, seed=0, **more):
    """A stop of a chain, as it is measured; SLAMP's with gains."""
    found = {
        "part": "sweep", "method": method, "density": density, "seed": seed, "accuracy": value, "top5": 0.99, "achieved": 1 - density,
        "revived": 0, "weights": density, "unrolled": density, "conv": density, "synops": SYNOPS[density], "energy_pj": 5.0,
        "layers": [density, density], "rates": [0.1],
    }  # fmt: skip
    if method == "slamp":
        found |= {"gains": [1.5, 1.0], "steps": [[0.25, 0.75], [0.5, 0.5]]}
    return {**found, **more}


def sweep(method, value, densities=DENSITIES, seeds=SEEDS, **more):
    """A chain a seed, of one accuracy; that of other methods than SLAMP is noisy, so that differences spread."""
    noise = NOISE if method != "slamp" else (0.0, 0.0, 0.0)
    return [row(method, density, value + noise[seed], seed, **more) for density in densities for seed in seeds]


def dense(value=0.9, seeds=SEEDS):
    made = [row("", 1.0, value, seed) for seed in seeds]
    return [{key: found[key] for key in found if key not in ("method", "density")} | {"part": "dense"} for found in made]


def sparse(method, value, density=0.05, seeds=SEEDS):
    return [{**row(method, density, value, seed), "part": "scratch"} for seed in seeds]


def told(*made, densities=DENSITIES):
    return Told(Rows(found for part in made for found in part), densities, ("conv", "fc"), ("lif",), 2)


def verdict(section, start):
    (claim,) = [claim for claim in section.claims if claim.text.startswith(start)]
    return claim.verdict


def claim_of(section, start):
    (claim,) = [claim for claim in section.claims if claim.text.startswith(start)]
    return claim


@pytest.mark.parametrize(
    ("lamp", "found"),
    [
        (sweep("lamp", 0.80), "reproduced"),
        (sweep("lamp", 0.95), "refuted"),
        (sweep("lamp", 0.90), "refuted"),  # no difference on average
        (sweep("lamp", 0.8995), "refuted"),  # above, but within the spread
        (sweep("lamp", 0.80, [0.5, 0.2]) + sweep("lamp", 0.95, [0.05]), "partly"),
        (sweep("lamp", 0.95, [0.5]) + sweep("lamp", 0.80, [0.2, 0.05]), "reproduced"),  # 50 % is none of the claim's densities
        (sweep("lamp", 0.80, [0.5]), "not tested"),
        (sweep("lamp", 0.80, [0.5, 0.2]), "reproduced"),  # it ended early
        (sweep("lamp", 0.80, seeds=(1,)), "reproduced"),  # the one seed that both have
        (sweep("lamp", 0.80, seeds=(1,)) + sweep("lamp", 0.95, [], seeds=(2,)), "reproduced"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_slamp_is_above_where_it_is_beyond_the_spread_at_every_density(lamp, found):
    section = accuracy(told(dense(), sweep("slamp", 0.9), lamp))
    assert verdict(section, "SLAMP is above LAMP") == found


@pytest.mark.usefixtures("undrawn")
def test_of_one_seed_any_lead_counts():
    section = accuracy(told(dense(), sweep("slamp", 0.9, seeds=(1,)), sweep("lamp", 0.8999, seeds=(1,))))
    assert verdict(section, "SLAMP is above LAMP") == "reproduced"


@pytest.mark.usefixtures("undrawn")
def test_seeds_that_are_not_shared_give_no_verdict():
    section = accuracy(told(dense(), sweep("slamp", 0.9, seeds=(0,)), sweep("lamp", 0.8, seeds=(1, 2))))
    claim = claim_of(section, "SLAMP is above LAMP")
    assert (claim.verdict, claim.here) == ("not tested", "no density that both reached")


@pytest.mark.usefixtures("undrawn")
def test_accuracy_says_each_contender_each_density_and_who_ended():
    why = "sparsity 0.95 keeps 5 of 100 units"
    section = accuracy(told(dense(), sweep("slamp", 0.8), sweep("uniform+", 0.7, [0.5, 0.2], ended=why)))
    top, differences = section.tables
    assert top.titles == ("density", "SLAMP", "uniform+")
    assert [line[0] for line in top.rows] == ["100 %", "50 %", "20 %", "5 %"]
    assert top.rows[0][1:] == ("90.00 ± 0.00", "90.00 ± 0.00")
    assert top.rows[-1][1:] == ("80.00 ± 0.00", "–")
    assert differences.rows[0] == ("50 %", "+10.00 ± 0.10", "99.00 ± 0.00")
    assert differences.rows[-1][1] == "–"
    assert section.remarks == [f"uniform+ ended early: {why}"]
    assert claim_of(section, "SLAMP is above uniform+").here == "20 %: +10.00 ± 0.10"


@pytest.mark.parametrize(
    ("start", "ours", "theirs"),
    [
        ("The direction of the gain matters", "slamp", "inverted"),
        ("SLAMP is more than LAMP with the first layer protected", "slamp", "first alone"),
        ("A gain of 1 for the readout costs accuracy", "readout alike", "slamp"),
        ("SLAMP, timesteps even: above LAMP", "even", "lamp"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_causes_hold_what_they_name_against_each_other(start, ours, theirs):
    names = {"slamp", "lamp", *CONTROLS, *READINGS}
    level = dict.fromkeys(names, 0.8)
    better = causes(told(dense(), *(sweep(name, value) for name, value in (level | {ours: 0.9}).items())))
    worse = causes(told(dense(), *(sweep(name, value) for name, value in (level | {theirs: 0.9}).items())))
    assert (verdict(better, start), verdict(worse, start)) == ("reproduced", "refuted")
    assert ABOUT[ours] in claim_of(better, start).rule
    assert ABOUT[theirs] in claim_of(better, start).rule


@pytest.mark.usefixtures("undrawn")
def test_causes_have_a_claim_for_every_reading_and_none_without_controls_or_readings():
    section = causes(told(dense(), *(sweep(name, 0.8) for name in ("slamp", "lamp", *CONTROLS, *READINGS))))
    assert len(section.claims) == 3 + len(READINGS)
    assert len(section.plots) == 2
    assert [line[0] for line in section.tables[0].rows] == [ABOUT[name] for name in ("slamp", "lamp", *CONTROLS, *READINGS)]
    assert causes(told(dense(), sweep("slamp", 0.8), sweep("lamp", 0.8))) is None


@pytest.mark.parametrize(
    ("slamp", "found"),
    [
        (sweep("slamp", 0.895, [0.5, 0.2]) + sweep("slamp", 0.7, [0.05]), "reproduced"),  # 20 %: 45 % of the SynOps
        (sweep("slamp", 0.895, [0.5]) + sweep("slamp", 0.7, [0.2, 0.05]), "refuted"),  # 50 %: 80 % of them
        (sweep("slamp", 0.7), "refuted"),  # not preserved at any
        (sweep("slamp", 0.7, [0.5]) + sweep("slamp", 0.9, [0.2]), "reproduced"),  # the lowest, whatever is above it
        ([], "not tested"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_operations_are_judged_at_the_lowest_density_that_preserves_accuracy(slamp, found):
    section = cost(told(dense(), slamp, sweep("lamp", 0.8)))
    assert [claim.verdict for claim in section.claims] == [found]


@pytest.mark.usefixtures("undrawn")
def test_cost_in_numbers():
    section = cost(told(dense(), sweep("slamp", 0.895, conv=0.0)))
    body = section.tables[0].rows
    assert body[0] == ("dense", "100 %", "90.00 ± 0.00", "100.00 ± 0.00", "100.00 ± 0.00", "1 ± 0", "100.0 ± 0.0", "0.0 ± 0.0")
    assert body[2][:4] == ("SLAMP", "20 %", "89.50 ± 0.00", "–")  # no convolution in the network
    assert body[2][6] == "45.0 ± 0.0"
    assert "20 %: -0.50 ± 0.00 points with 45.0 ± 0.0 % of its SynOps" in section.claims[0].here
    assert len(section.claims) == 1


def test_accuracy_is_also_held_against_a_network_retrained_alike():
    """Retraining alone may cost accuracy: pruning is not to be charged with that."""
    section = cost(told(dense(), sweep("slamp", 0.86), sweep("unpruned", 0.865, synops=2 * SYNOPS[1.0])))
    beside = section.claims[1]
    assert [claim.verdict for claim in section.claims] == ["refuted", "reproduced"]
    assert "unpruned: " in beside.here
    assert "20 %: -0.50 ± 0.10 points with 22.5 ± 0.0 % of its SynOps" in beside.here


@pytest.mark.parametrize(
    ("found", "said"), [([1.5, 1.0], "reproduced"), ([1.04, 1.0], "refuted"), ([1.05 + 1e-9, 1.0], "reproduced")]
)
@pytest.mark.usefixtures("undrawn")
def test_gains_must_differ(found, said):
    section = gains(told(dense(), sweep("slamp", 0.9, gains=found)))
    assert [claim.verdict for claim in section.claims] == [said]


@pytest.mark.usefixtures("undrawn")
def test_gains_must_differ_for_every_seed_at_every_stop():
    made = sweep("slamp", 0.9)
    made[0]["gains"] = [1.0, 1.0]
    section = gains(told(dense(), made))
    assert section.claims[0].verdict == "partly"
    assert "50 %: 0.33 ± 0.29 (0.33 ± 0.29)" in section.claims[0].here


@pytest.mark.usefixtures("undrawn")
def test_a_readout_whose_gain_is_one_by_definition_makes_no_difference():
    found = told(dense(), sweep("slamp", 0.9, gains=[1.5, 1.5, 1.0], steps=[[0.5, 0.5]] * 3))
    found = replace(found, layers=("conv1", "conv2", "fc"))
    assert gains(found).claims[0].verdict == "refuted"
    assert "50 %: 0.50 ± 0.00 (0.00 ± 0.00)" in gains(found).claims[0].here
    driving = replace(found, readout=False)  # its gain is measured like any other
    assert gains(driving).claims[0].verdict == "reproduced"


@pytest.mark.usefixtures("undrawn")
def test_a_last_layer_that_drives_a_neuron_is_not_called_a_readout():
    made = told(dense(), *(sweep(name, 0.8) for name in ("slamp", "lamp", "readout alike")))
    assert any("readout" in claim.text for claim in causes(made).claims)
    other = causes(replace(made, readout=False))
    assert not any("readout" in text for text in (*(claim.text for claim in other.claims), *other.text))


@pytest.mark.usefixtures("undrawn")
def test_gains_by_layer_with_the_weights_of_timesteps():
    table = gains(told(dense(), sweep("slamp", 0.9))).tables[0]
    assert table.rows == [("conv", "1.50 ± 0.00", "1.50 ± 0.00", "0.25 0.75"), ("fc", "1.00 ± 0.00", "1.00 ± 0.00", "0.50 0.50")]
    assert spread([2.0, 1.0, 4.0]) == 3.0


def test_layers_draw_densities_and_rates_at_the_middle_and_the_last_stop():
    section = layers(told(dense(), sweep("slamp", 0.9), sweep("lamp", 0.8)))
    assert [plot.caption.split(" at ")[1].split()[0] for plot in section.plots] == ["20", "20", "5", "5"]
    assert all("conv" in plot.svg for plot in section.plots[::2])
    assert all("lif" in plot.svg for plot in section.plots[1::2])


def test_scratch_stands_beside_what_was_pruned_to_the_same_density():
    section = scratch(told(dense(), sweep("slamp", 0.8), sweep("lamp", 0.7), sparse("rigl", 0.6), sparse("set", 0.5)))
    body = section.tables[0].rows
    assert [line[1] for line in body] == ["SLAMP, pruned", "LAMP, pruned", "RigL, sparse training", "SET, sparse training"]
    assert {line[0] for line in body} == {"5 %"}
    assert [line[2].split()[0] for line in body] == ["80.00", "70.00", "60.00", "50.00"]
    assert scratch(told(dense(), sweep("slamp", 0.8))) is None


PARTS = {
    "dense": dense(),
    "slamp": sweep("slamp", 0.8),
    "lamp": sweep("lamp", 0.7, seeds=(1,)),
    "uniform+": sweep("uniform+", 0.7, [0.5]),
    "controls": sweep("inverted", 0.6, [0.2]) + sweep("even", 0.6, seeds=(2,)),
    "scratch": sparse("snip", 0.5, seeds=(0, 2)),
}


@pytest.mark.parametrize("some", [some for count in range(len(PARTS) + 1) for some in combinations(PARTS, count)])
@pytest.mark.usefixtures("undrawn")
def test_whatever_is_missing_the_report_is_made(some):
    known = told(*(PARTS[name] for name in some))
    sections = [found for make in SECTIONS if (found := make(known)) is not None]
    assert markdown("t", sections).startswith("# t")
    if len(some) in (0, 1, len(PARTS)):
        assert render("t", sections).endswith("</html>\n")
    for section in sections:
        for table in section.tables:
            assert {len(line) for line in table.rows} <= {len(table.titles)}
        for claim in section.claims:
            assert claim.here
            assert claim.rule


@pytest.mark.usefixtures("undrawn")
def test_slamp_that_ended_early_or_only_at_the_end_is_told_as_far_as_it_went():
    for densities in ([0.5], [0.05]):
        known = told(dense(), sweep("slamp", 0.9, densities), sweep("lamp", 0.8))
        sections = [found for make in SECTIONS if (found := make(known)) is not None]
        assert "gains" in [section.anchor for section in sections]


def test_every_section_of_a_whole_study():
    names = (*MAIN, *CONTROLS, *READINGS)
    known = told(dense(), *(sweep(name, 0.8) for name in names), sparse("rigl", 0.5))
    assert [make(known).anchor for make in SECTIONS] == ["accuracy", "gains", "causes", "cost", "layers", "scratch"]
