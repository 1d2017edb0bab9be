"""The study of SCA as a whole: what it refuses, and what its sections say of rows made by hand."""

from dataclasses import replace

import pytest

from spikeprune.errors import RecipeError
from spikeprune.report.markdown import markdown
from spikeprune.report.page import render
from spikeprune.studies import STUDIES
from spikeprune.studies import sweep as sweep_rows
from spikeprune.studies.deep import RECIPES
from spikeprune.studies.rows import Rows
from spikeprune.studies.sca import study
from spikeprune.studies.sca.sections import SECTIONS, Told, accuracy, cost, scratch, structure
from spikeprune.studies.sca.settings import EVENTS, FULL, QUICK, settings_of

SEEDS = (0, 1, 2)
DENSITIES = (0.7, 0.3)


def row(method, density, value, seed, **more):
    found = {
        "part": "sweep", "method": method, "density": density, "seed": seed, "accuracy": value, "top5": 0.99, "parameters": 1000 * density,
        "macs": 5000 * density**2, "synops": 900 * density, "energy_pj": 5.0, "channels": [round(10 * density), round(20 * density), 10],
        "history": [[10, 20], [round(10 * density), round(20 * density)]], "rates": [0.1],
    }  # fmt: skip
    return {**found, **more}


def chain(method, value, **more):
    noise = (-0.001, 0.0, 0.001) if method != "sca" else (0.0, 0.0, 0.0)
    return [row(method, density, value + noise[seed], seed, **more) for density in DENSITIES for seed in SEEDS]


DENSE = [{**row("", 1.0, 0.9, seed), "part": "dense"} for seed in SEEDS]


def told(*made):
    rows = [found for part in (DENSE, *made) for found in part]
    return Told(Rows(rows), DENSITIES, ("conv1", "conv2"), 120)


def verdict(section, start):
    (claim,) = [claim for claim in section.claims if claim.text.startswith(start)]
    return claim.verdict


@pytest.mark.parametrize(("value", "found"), [(0.8, "reproduced"), (0.9, "refuted"), (0.95, "refuted")])
def test_sca_is_judged_against_each_other(value, found):
    section = accuracy(told(chain("sca", 0.9), chain("l1", value)))
    assert verdict(section, "SCA is above L1 norm, global") == found
    assert section.tables[0].rows[1][:2] == ("70 %", "90.00 ± 0.00")


@pytest.mark.parametrize(("unmasked", "found"), [(0.903, "reproduced"), (0.93, "refuted")])
def test_accuracy_before_masking_is_held_against_that_after(unmasked, found):
    rows = chain("soft", 0.9, unmasked=unmasked)
    assert verdict(accuracy(told(rows)), "Accuracy measured before channels") == found


@pytest.mark.parametrize(("speedup", "found"), [(1.5, "reproduced"), (1.3, "refuted")])
def test_time_is_held_against_macs(speedup, found):
    rows = chain("sca", 0.9, macs_ratio=2.0, speedup_1=1.9, speedup_64=speedup)
    section = cost(told(rows))
    assert verdict(section, "The smaller network is faster as its MACs fall, at batch 64") == found
    assert verdict(section, "The smaller network is faster as its MACs fall, at batch 1") in ("reproduced", "refuted")
    assert section.tables[1].rows[0][2] == "2.00 ± 0.00"


def test_shares_of_the_dense_network():
    rows = cost(told(chain("l1", 0.8))).tables[0].rows
    assert rows[1][4:6] == ("70.0 ± 0.0", "49.0 ± 0.0")


@pytest.mark.parametrize(("fresh", "found"), [(0.8, "reproduced"), (0.95, "refuted")])
def test_pruned_is_held_against_from_scratch(fresh, found):
    made = [{**row("sca", 0.3, fresh + 0.001 * seed, seed), "part": "scratch"} for seed in SEEDS]
    section = scratch(told(chain("sca", 0.9), made))
    assert section.claims[0].verdict == found
    assert scratch(told(chain("sca", 0.9))) is None


def test_the_structure_over_time_has_a_point_an_update():
    section = structure(told(chain("sca", 0.9), chain("l1", 0.8)))
    assert section.tables[1].rows == [("dense", "10", "20"), ("SCA", "3", "6"), ("L1 norm, global", "3", "6")]
    assert "conv1" in section.plots[0].svg
    assert len(section.plots) == 2


def test_all_sections_make_a_page_even_of_a_single_contender(monkeypatch):
    for known in (told(chain("sca", 0.9), chain("soft", 0.8, unmasked=0.9)), told(chain("random", 0.9)), told()):
        sections = [section for make in SECTIONS if (section := make(known)) is not None]
        assert "</html>" in render("t", sections)
        assert markdown("t", sections)


def test_a_contender_that_ended_early_is_told():
    rows = [row("l1", 0.7, 0.8, seed, ended="sparsity 0.7 keeps 3") for seed in SEEDS]
    section = accuracy(told(chain("sca", 0.9), rows))
    assert any("ended early: sparsity 0.7 keeps 3" in remark for remark in section.remarks)
    assert sweep_rows.at(Rows(rows), "l1", 0.3).distinct("seed") == []


def test_the_command_line_knows_the_data():
    assert set(STUDIES["sca"].data) == set(RECIPES)
    assert settings_of("nmnist-1k", quick=False) == EVENTS
    assert settings_of("fashion-mnist", quick=False) == FULL
    assert settings_of("fashion-mnist", quick=True) == QUICK
    assert replace(FULL, contenders=("sca",), scratch=None).fixed() == FULL.fixed()
    assert replace(FULL, batches=1).fixed() != FULL.fixed()


@pytest.mark.parametrize("override", ["seed=3", "method.regrow=0.2", "prune.stages=[0.5]"])
def test_what_the_study_decides_cannot_be_overridden(tmp_path, override):
    with pytest.raises(RecipeError, match=r"the study decides .* itself"):
        study.run("fashion-sample", tmp_path / "s", quick=True, overrides=[override])
    assert not (tmp_path / "s").exists()


def test_other_data_and_the_mlp_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(RecipeError, match=r"runs on fashion-mnist.*not on 'mnist'"):
        study.run("mnist", tmp_path / "s")
    with pytest.raises(RecipeError, match="not of the LIF MLP"):
        study.run("fashion-mnist", tmp_path / "s", overrides=["net.name=mlp"])
    assert not (tmp_path / "s").exists()
