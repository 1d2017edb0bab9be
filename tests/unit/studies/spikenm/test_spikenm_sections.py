"""What the sections of the SpikeNM study say of rows that are known: claims, tables, dashes."""

from dataclasses import replace

import pytest

from spikeprune.studies.rows import Rows
from spikeprune.studies.spikenm.sections import SECTIONS, Told
from spikeprune.studies.spikenm.sections.accuracy import accuracy
from spikeprune.studies.spikenm.sections.cost import cost
from spikeprune.studies.spikenm.sections.search import search
from spikeprune.studies.spikenm.settings import FULL
from spikeprune.studies.study import Study

SEEDS = (0, 1)
GRID = replace(FULL, alone=(), patterns=((2, 4), (1, 8)), more=((4, 8),), moments=(0.5,), draws=4)


def measured(value, **more):
    return {"accuracy": value, "synops": 800.0, "energy_pj": 2000.0, "rates": [0.1, 0.3], **more}


def of(pattern, name, seed, value, **more):
    n, m = map(int, pattern.split(":"))
    usage = [float(count == n) for count in range(m + 1)]
    looked = {"step": 5, "entropy": 0.5, "slope": 0.9, "direction": more.pop("direction", 0.8), "masks": 0.3}
    facts = {"part": "masks", "pattern": pattern, "name": name, "seed": seed, "fullest": n, "usage": usage}
    found = {"covered": 0.9, "alive": 0.5, "density": n / m, "search": [looked] if "spikenm" in name or "dist" in name else []}
    return {**facts, **found, **measured(value), **more}


def rows_of(seed, **change):
    lead = {name: change.get(name, 0.80 + 0.001 * seed) for name in GRID.contenders}
    lead |= {"spikenm": change.get("ours", 0.85)}
    rows = [
        {
            "part": "dense",
            "seed": seed,
            **measured(change.get("dense", 0.85), synops=1600.0),
            "pruned": {"2:4": 0.8, "4:8": 0.7, "1:8": 0.1},
        }
    ]
    for pattern in ("2:4", "1:8"):
        for name, value in lead.items():
            more = {"direction": change.get("with", 0.6) if name == "spikenm" else 0.8}
            rows.append(of(pattern, name, seed, value, **more))
    rows += [of("4:8", name, seed, lead[name]) for name in ("spikenm", "sr-ste", "asp")]
    rows[1]["fullest"] = change.get("fullest", 2)
    return rows


def told(**change):
    rows = Rows(row for seed in SEEDS for row in rows_of(seed, **change))
    return Told(rows, GRID, {"2:4": "conv1, fc"})


def verdict(section, start):
    (claim,) = [claim for claim in section.claims if claim.text.startswith(start)]
    return claim.verdict


@pytest.mark.parametrize(("ours", "found"), [(0.85, "reproduced"), (0.8475, "reproduced"), (0.846, "refuted")])
def test_two_of_four_is_held_against_the_dense_network(ours, found):
    assert verdict(accuracy(told(ours=ours)), "2:4 keeps the accuracy") == found


@pytest.mark.parametrize(("other", "found"), [(0.80, "reproduced"), (0.86, "refuted"), (0.85, "refuted")])
def test_it_is_held_against_every_other_at_high_sparsity(other, found):
    section = accuracy(told(**{"sr-ste": other}))
    assert verdict(section, "SpikeNM is above SR-STE") == found
    (claim,) = [claim for claim in section.claims if "SR-STE" in claim.text]
    assert "1:8" in claim.here
    assert "2:4" not in claim.here
    assert verdict(section, "SpikeNM is above random") == "reproduced"


@pytest.mark.parametrize(("direction", "found"), [(0.6, "reproduced"), (0.85, "refuted")])
def test_distillation_is_held_against_chance_in_the_direction(direction, found):
    section = search(told(**{"with": direction}))
    (claim,) = section.claims
    assert claim.verdict == found
    assert "from 0.80 ± 0.00 to" in claim.here


@pytest.mark.parametrize(("fullest", "found"), [(2, "reproduced"), (3, "refuted")])
def test_a_fuller_block_refutes_the_rule(fullest, found):
    section = cost(told(fullest=fullest))
    assert verdict(section, "No block has more") == found


def test_tables_have_dashes_where_nothing_was_tried_and_patterns_from_dense_to_sparse():
    known = told()
    assert known.patterns == ["2:4", "4:8", "1:8"]
    table = accuracy(known).tables[0]
    assert table.rows[3][-1].startswith("10.00")
    assert [row[0] for row in table.rows] == ["dense", "2:4", "4:8", "1:8"]
    names = list(table.titles)
    assert table.rows[2][names.index("random N:M")] == "–"
    assert table.rows[2][names.index("SR-STE")].startswith("80.05")
    assert "2:4: conv1, fc" in accuracy(known).text[0]


def test_operations_are_told_of_the_dense_networks():
    row = cost(told()).tables[0].rows[1]
    assert row[0] == "SpikeNM"
    assert "0.50 ± 0.00" in row
    assert "20.0 ± 0.0" in row


def test_without_logits_there_is_no_search():
    known = replace(told(), settings=replace(GRID, contenders=("sr-ste", "random")))
    assert search(known) is None
    assert len(accuracy(known).tables) == 1


def test_the_report_renders():
    known = told()
    study = Study("title", "intro", [make(known) for make in SECTIONS], {"data": "none"}, known.rows)
    page, text = study.to_html(), study.to_markdown()
    for section in study.sections:
        assert section.title in page
        assert section.title in text
