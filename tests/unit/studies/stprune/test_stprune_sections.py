"""What the sections of the STPrune study say of rows made by hand: every verdict can fall either way."""

import pytest

from spikeprune.errors import RecipeError
from spikeprune.metrics import HOROWITZ_45NM
from spikeprune.report.markdown import markdown
from spikeprune.report.page import render
from spikeprune.studies import STUDIES
from spikeprune.studies.deep import RECIPES, recipe_of
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.sections import SECTIONS, Told, bits, hybrid, noise, stages, time, widths
from spikeprune.studies.stprune.sections.words import paper_energy
from spikeprune.studies.stprune.settings import CIFAR, EVENTS, FULL, QUICK, Hybrid, Settings, settings_of
from spikeprune.studies.stprune.study import run
from spikeprune.studies.stprune.trials import SCHEMES, noises, trials

SEEDS = (0, 1, 2)
GRID = Settings(variances=(0.99, 0.9), levels=(8, 2), bits=(8, 5), aware=(3,), sigmas=(0.1, 0.2), hybrid=Hybrid((25, 50)))


def network(name, accuracy, seed, **more):
    facts = {"part": "dense"} if name == "dense" else {"part": "network", "name": name}
    found = {
        "seed": seed, "accuracy": accuracy, "timesteps": 8, "parameters": 1000, "synops": 900.0, "synops_dense": 1000.0, "pixels": 0.0,
        "operations": 5000.0, "energy_pj": 2000.0,
    }  # fmt: skip
    return {**facts, **found, **more}


def levels(accuracies):
    return [
        {"timesteps": t, "accuracy": a, "validation": a, "spikes": 10.0 * t, "synops": 9.0 * t, "energy_pj": 8.0 * t}
        for t, a in accuracies.items()
    ]


def rows_of(seed, **change):
    small = {
        "parameters": 90,
        "timesteps": 2,
        "synops_dense": 100.0,
        "pixels": 10.0,
        "energy_pj": 200.0,
        **change.get("short", {}),
    }
    disturbed = [{"kind": "gaussian", "strength": s, "accuracy": 0.7, "repeats": [0.7]} for s in GRID.sigmas]
    of_ann = [{**row, "accuracy": change.get("ann_noise", 0.6) + 0.001 * seed} for row in disturbed]
    fewer = [
        {"scheme": x, "bits": k, "accuracy": 0.86 if k == 8 else change.get("five", 0.858), "bytes": 100 * k}
        for x in SCHEMES
        for k in GRID.bits
    ]
    left = change.get("left", 90)
    wide = [
        {"reading": r, "variance": v, "widths": {"a": 3, "b": 5}, "parameters": left, "contraction": None}
        for r in ("current", "charge")
        for v in GRID.variances
    ]
    return [
        network("dense", 0.865, seed),
        network("dense on", 0.87, seed),
        network("ann", 0.88, seed, timesteps=1),
        network("ann on", 0.88, seed, timesteps=1, energy_pj=change.get("ann_energy", 3000.0)),
        network("slim", 0.86 + 0.0001 * seed, seed, parameters=90, variance=0.9),
        network("leading", change.get("leading", 0.85), seed, parameters=90),
        network("uniform", 0.85, seed, parameters=85),
        network("shallow", change.get("shallow", 0.85), seed, parameters=80),
        network("short", change.get("accuracy", 0.86), seed, levels=levels({8: 0.86, 2: 0.85}), **small),
        network("leading short", change.get("led", 0.86), seed, levels=levels({8: 0.86, 2: 0.85}), **small),
        network("sudden", 0.84 + 0.0001 * seed, seed, **small),
        {"part": "widths", "seed": seed, "rows": wide, "channels": {"a": 8, "b": 16, "fc": 10}},
        *(
            {
                "part": "cut",
                "name": name,
                "seed": seed,
                "rows": [{"timesteps": 8, "accuracy": 0.86}, {"timesteps": 2, "accuracy": change.get("cut", 0.4)}],
            }
            for name in ("slim", "leading")
        ),
        {"part": "bits", "name": "short", "seed": seed, "accuracy": 0.86, "rows": fewer},
        {"part": "aware", "name": "short", "bits": 3, "seed": seed, "max": 0.84, "learned": 0.85, "whole": 0.86},
        *(
            {"part": "noise", "name": n, "seed": seed, "accuracy": 0.86, "rows": of_ann if n == "ann on" else disturbed}
            for n in ("ann on", "dense on", "slim", "short")
        ),
        {
            "part": "hybrid",
            "seed": seed,
            "ann": 0.8,
            "trained on": 0.7,
            **{f"{k}, T = {t}": 0.5 for k in ("without leak", "with leak") for t in (25, 50)},
        },
    ]


def told(**change):
    return Told(Rows(row for seed in SEEDS for row in rows_of(seed, **change)), GRID, events=False)


def verdict(section, start):
    (claim,) = [claim for claim in section.claims if claim.text.startswith(start)]
    return claim.verdict


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, "reproduced"),
        ({"accuracy": 0.85}, "partly"),
        ({"short": {"timesteps": 4}}, "partly"),
        ({"short": {"timesteps": 4}, "accuracy": 0.85}, "refuted"),
    ],
)
def test_small_and_short_is_held_against_the_dense_network_trained_as_long(change, found):
    section = stages(told(**change))
    assert verdict(section, "Narrowed to significant widths") == found
    assert "11.1 ± 0.0 times fewer parameters" in section.claims[0].here


@pytest.mark.parametrize(("led", "found"), [(0.86, "reproduced"), (0.85, "partly")])
def test_leading_channels_at_fewer_timesteps_are_held_against_it_too(led, found):
    section = stages(told(led=led))
    assert verdict(section, "So does the network of the channels that lead") == found
    assert verdict(section, "Narrowed to significant widths") == "reproduced"
    assert any(row[0] == "leading channels, fewer timesteps" for row in section.tables[0].rows)


@pytest.mark.parametrize(("left", "found"), [(90, "reproduced"), (110, "refuted")])
def test_significant_dimensions_are_few(left, found):
    section = widths(told(left=left))
    assert verdict(section, "Significant dimensions are so few") == found
    assert "90 %" not in section.claims[0].here  # only what such analyses take


@pytest.mark.parametrize(("dense", "found"), [(100.0, "reproduced"), (4000.0, "refuted")])
def test_energy_as_the_paper_counts_it(dense, found):
    known = told(short={"synops_dense": dense})
    assert paper_energy(known.network("ann"), "ann")[0] == 5000 * HOROWITZ_45NM.mac
    assert paper_energy(known.network("short"), "short")[0] == pytest.approx(
        (dense - 10) * HOROWITZ_45NM.ac + 10 * HOROWITZ_45NM.mac
    )
    assert verdict(stages(known), "Compute energy") == found


@pytest.mark.parametrize(("shallow", "found"), [(0.87, "reproduced"), (0.85, "refuted")])
def test_depth(shallow, found):
    assert verdict(stages(told(shallow=shallow)), "Leaving out layers") == found


def test_the_last_stage_is_quantized():
    assert stages(told()).tables[0].rows[-1][2:4] == ("85.80 ± 0.00", "500 ± 0 bytes")


@pytest.mark.parametrize(("energy", "found"), [(3000.0, "reproduced"), (1500.0, "refuted")])
def test_energy_by_exact_counts(energy, found):
    assert verdict(stages(told(ann_energy=energy)), "So it does with exact counts") == found


@pytest.mark.parametrize(("leading", "found"), [(0.85, "reproduced"), (0.87, "refuted")])
def test_controls_can_win(leading, found):
    section = stages(told(leading=leading))
    assert verdict(section, "Weights drawn anew") == found
    assert verdict(section, "Significant widths are better") == "reproduced"


@pytest.mark.parametrize(("cut", "found"), [(0.4, "reproduced"), (0.9, "refuted")])
def test_training_is_held_against_cutting(cut, found):
    section = time(told(cut=cut))
    assert verdict(section, "At T = 2, significant widths, from scratch") == found
    assert section.tables[0].rows[1][:4] == ("2", "85.00 ± 0.00", f"{100 * cut:.2f} ± 0.00", "20 ± 0")


@pytest.mark.parametrize(("five", "found"), [(0.858, "reproduced"), (0.85, "refuted")])
def test_five_bits(five, found):
    section = bits(told(five=five))
    assert verdict(section, "5 bits") == found
    assert section.tables[0].rows[-1][-1] == "500 ± 0"
    assert section.tables[1].rows == [("3", "84.00 ± 0.00", "85.00 ± 0.00", "86.00 ± 0.00")]


@pytest.mark.parametrize(("ann", "found"), [(0.6, "reproduced"), (0.75, "refuted")])
def test_noise(ann, found):
    section = noise(told(ann_noise=ann))
    assert verdict(section, "Gaussian noise: the small and short network is above the ANN") == found
    assert verdict(section, "Gaussian noise: the small and short network is above the dense") == "refuted"  # they are equal


def test_widths_and_the_way_of_the_paper():
    section = widths(told())
    assert section.tables[0].rows[0] == ("dense", "8", "16", "1,000 ± 0", "")
    assert section.tables[0].rows[1] == ("99 %", "3 ± 0", "5 ± 0", "90 ± 0", "never")
    assert hybrid(told()).tables[0].rows[0] == ("ANN", "80.00 ± 0.00")
    assert len(hybrid(told()).tables[0].rows) == 6


def test_sections_without_their_trials_are_left_out():
    rows = Rows(
        row
        for seed in SEEDS
        for row in rows_of(seed)
        if row["part"] not in ("widths", "hybrid") and row.get("name") not in ("ann", "ann on")
    )
    known = Told(rows, GRID, events=True)
    assert widths(known) is None
    assert hybrid(known) is None
    assert [claim for claim in stages(known).claims if "energy" in claim.text] == []
    assert len(noise(known).claims) == 1


def test_the_report_renders():
    sections = [section for make in SECTIONS if (section := make(told())) is not None]
    assert len(sections) == len(SECTIONS)
    page, text = render("t", sections), markdown("t", sections)
    for section in sections:
        assert f'id="{section.anchor}"' in page
        assert section.title in text


def test_settings_suit_the_data():
    assert settings_of("fashion-mnist", False) is FULL
    assert settings_of("nmnist-1k", False) is EVENTS
    assert settings_of("nmnist-1k", True) is QUICK
    assert settings_of("cifar10", False) is CIFAR
    assert set(STUDIES["stprune"].data) <= RECIPES.keys()


@pytest.mark.parametrize(("settings", "events"), [(FULL, False), (EVENTS, True), (QUICK, False), (CIFAR, False)])
def test_every_network_comes_before_what_is_measured_of_it(settings, events):
    seen = set()
    for trial in trials(settings, events=events):
        if trial.facts["part"] in ("dense", "network"):
            seen.add(trial.facts.get("name", "dense"))
        elif "name" in trial.facts:
            assert trial.facts["name"] in seen
    kinds = noises(settings, events=events)
    assert set(kinds) == ({"deleted", "moved"} if events else {"gaussian"})


@pytest.mark.parametrize(
    ("data", "override", "message"),
    [
        ("fashion-sample", "net.timesteps=1", "levels are T = 2, 1, .* net.timesteps is 1"),
        ("fashion-sample", "net.timesteps=4", "levels are T = 2, 1, .* net.timesteps is 4"),
        ("fashion-sample", "prune.layers=['fc']", "the study decides prune.layers itself"),
        ("mnist", "net.width=0.5", "the study runs on"),
    ],
)
def test_what_is_not_the_users_is_refused_before_anything_is_written(data, override, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        run(data, tmp_path / "out", quick=True, overrides=[override])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "net", "left_out", "hybrid"),
    [
        ("fashion-sample", "vgg11", set(), True),
        ("fashion-sample", "sew_resnet18", {"shallow"}, False),
        ("nmnist-1k", "vggsnn", {"ann", "ann on"}, False),
        ("cifar10", "vgg9", set(), False),  # its images are normalized, which Poisson input is not for
    ],
)
def test_what_a_network_cannot_do_is_left_out(data, net, left_out, hybrid):
    settings = settings_of(data, True)
    found = settings.of(recipe_of(settings, data, 0, [f"net.name={net}"]))
    assert set(settings.networks) - set(found.networks) == left_out
    assert (found.hybrid is not None) == hybrid
