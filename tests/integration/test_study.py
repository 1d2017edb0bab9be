"""The studies in their quick forms, from untrained network to report, killed and gone on with."""

import json
import sys

import pytest
import torch

from spikeprune import cli
from spikeprune.errors import MeasureError, MissingExtra, RecipeError, StorageError
from spikeprune.recipes.run import Silent
from spikeprune.studies.cqp import study
from spikeprune.studies.cqp.settings import QUICK
from spikeprune.studies.deep import Asked, recipe_of
from spikeprune.studies.lab import Lab
from spikeprune.studies.rows import Rows
from spikeprune.studies.slamp import study as slamp
from spikeprune.studies.slamp.settings import QUICK as SLAMP_QUICK

pytestmark = pytest.mark.timeout(900)  # the first test of a study runs it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The network is small: threads would only wait for each other, for minutes where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def done(folder):
    return study.run(study.SAMPLE, folder / "quick", seeds=1, quick=True)


def numbers(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_trial_is_done_and_every_section_has_something_to_say(done):
    assert len(done.rows) == len(study.trials(QUICK))
    assert [section.anchor for section in done.sections] == [
        "budgets", "alpha", "readings", "sensitivity", "trap", "cliff", "zombies", "timesteps", "energy",
    ]  # fmt: skip
    assert all(section.tables for section in done.sections)
    assert sum(len(section.claims) for section in done.sections) >= 15


def test_pruning_is_exact_in_every_trial(done):
    for row in done.rows.where(part="budgets"):
        units = 784 if row["pattern"] == "column" else 784 * 64
        assert row["achieved"] == pytest.approx(round(units * row["sparsity"]) / units, abs=0.51 / units)
        assert row["revived"] == 0


def test_one_shot_magnitude_and_alpha_zero_are_the_same_network(done):
    for pattern in ("unstructured", "column"):
        magnitude = done.rows.where(part="budgets", method="magnitude", pattern=pattern, batches=0, sparsity=0.9)
        alpha = done.rows.where(part="alpha", alpha=0.0, pattern=pattern, batches=0, sparsity=0.9)
        assert magnitude.by_seed("accuracy") == alpha.by_seed("accuracy")


def test_the_trap_is_predicted_and_the_cliff_is_its_protected_counts(done):
    trap = done.rows.where(part="trap")
    assert {row["status"] for row in trap} == {"solved", "infeasible"}
    for row in trap:
        assert row["status"] == row["predicted_status"]
        assert row["differing_columns"] == 0
        assert row["accuracy"] == row["predicted_accuracy"]
    for row in done.rows.where(part="cliff"):
        assert row["achieved"] == pytest.approx(min(row["sparsity"], 1 - row["protected"] / row["columns"]), abs=0.51 / 784)


def test_zombies_come_back_without_hold_and_never_with_it(done):
    rows = done.rows.where(part="zombies")
    assert all(row["revived"] == 0 for row in rows if row["regime"].startswith("hold"))
    for optimizer in ("SGD, momentum 0.9", "Adam", "AdamW", "RMSprop, momentum 0.9"):
        for regime in ("gradient masked", "gradient masked, fresh optimizer, dense state resumed"):
            assert all(row["revived"] > 0.9 * row["dead"] for row in rows.where(optimizer=optimizer, regime=regime))
    assert all(row["revived"] == 0 for row in rows.where(regime="gradient masked, fresh optimizer"))


def test_the_report_is_whole_and_holds_every_claim(done, folder):
    page = (folder / "quick" / "report.html").read_text()
    text = (folder / "quick" / "report.md").read_text()
    data = json.loads((folder / "quick" / "report.json").read_text())
    assert page.count("<svg") >= 9
    assert page.count("</html>") == 1
    assert len(data["rows"]) == len(done.rows)
    assert data["facts"]["command"] == "OMP_NUM_THREADS=1 spikeprune study cqp --data fashion-sample --seeds 1 --quick"
    for claim in (claim for section in done.sections for claim in section.claims):
        assert claim.rule
        assert any(claim.text in line and f"**{claim.verdict}**" in line for line in text.splitlines())
    assert [claim["verdict"] for claim in data["claims"]] == [c.verdict for s in done.sections for c in s.claims]


def test_a_killed_study_goes_on_and_ends_with_the_same_numbers(done, folder, monkeypatch):
    file = folder / "quick" / "trials.jsonl"
    lines = file.read_text().splitlines()
    keep = [line for line in lines if '"trap"' not in line and '"tau": 1.0' not in line]
    assert 0 < len(keep) < len(lines)
    file.write_text("\n".join(keep) + "\n" + lines[-1][:40])
    ran = []
    relaxed = study.trap.__globals__["relaxed"]
    monkeypatch.setitem(study.trap.__globals__, "relaxed", lambda *args: ran.append(args) or relaxed(*args))
    again = study.run(study.SAMPLE, folder / "quick", seeds=1, quick=True)
    assert len(ran) == len(done.rows.where(part="trap"))
    assert numbers(again.rows) == numbers(done.rows)
    assert [s.claims for s in again.sections] == [s.claims for s in done.sections]


def test_another_study_in_the_folder_is_refused(done, folder):
    with pytest.raises(StorageError, match=r"they differ in .*data.*quick"):
        study.run("mnist", folder / "quick", seeds=1)


def test_a_trial_that_fails_is_told_and_costs_no_other(done, folder, monkeypatch):
    file = folder / "quick" / "trials.jsonl"
    whole = file.read_text()
    file.write_text("".join(line + "\n" for line in whole.splitlines() if '"cliff"' not in line and '"sensitivity"' not in line))

    def fails(*_):
        raise MeasureError("no gradient reaches the weights")

    monkeypatch.setitem(study.cliff.__globals__, "protected", fails)
    with pytest.raises(
        MeasureError, match=r"10 of \d+ trials of seed 0 failed; the others are kept\. First, part cliff.*no gradient"
    ):
        study.run(study.SAMPLE, folder / "quick", seeds=1, quick=True)
    assert sum('"sensitivity"' in line for line in file.read_text().splitlines()) == len(done.rows.where(part="sensitivity"))
    file.write_text(whole)


@pytest.mark.parametrize("data", ["mnist", "fashion-mnist"])
def test_the_report_of_the_real_data_holds_the_papers_figures(done, data):
    """On rows of the sample: every claim, line and caption that only these data have must be there."""
    known = study.Told(data, done.rows, done.rows.where(part="dense").by_seed("accuracy"), (784, 64, 32, 10))
    sections = {section.anchor: section for section in (told(known) for told in study.SECTIONS if told.__name__ != "budgets")}
    assert "notebook" in sections["cliff"].plots[0].svg
    assert ("notebook" in sections["alpha"].plots[0].svg) == (data == "fashion-mnist")


def test_without_the_solver_it_fails_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(MissingExtra, match=r"pip install 'spikeprune\[relaxation\]'"):
        study.run(study.SAMPLE, tmp_path / "s", seeds=1, quick=True)
    assert not (tmp_path / "s").exists()


def test_data_of_another_kind_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="the study runs on mnist, fashion-mnist, fashion-sample, not on 'nmnist'"):
        study.run("nmnist", tmp_path / "s")


def test_the_command_shows_claims_and_explains_what_it_cannot_do(done, folder, capsys, monkeypatch):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["spikeprune", "study", *args])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    status, out, _ = call("cqp", "--quick", "--out", str(folder / "quick"))
    assert status == 0
    assert all(word in out for word in ("claim", "reproduced", "refuted", "Report:"))
    assert "there is no study 'slam'; there are cqp" in call("slam")[2]
    assert "name the data with --data: mnist, fashion-mnist" in call("cqp")[2]


def test_rows_of_several_seeds_give_a_spread(done):
    doubled = Rows([*done.rows, *({**row, "seed": 1} for row in done.rows)])
    known = study.Told(study.SAMPLE, doubled, doubled.where(part="dense").by_seed("accuracy"), (784, 64, 32, 10))
    for section in study.SECTIONS:
        assert section(known).tables
    assert "± 0.00" in section_text(study.SECTIONS[0](known))


def section_text(section):
    return " ".join(cell for table in section.tables for row in table.rows for cell in row)


@pytest.fixture(scope="module")
def slamped(folder):
    return slamp.run("fashion-sample", folder / "slamp", seeds=1, quick=True)


def test_slamp_every_trial_is_done_and_every_section_is_there(slamped):
    assert len(slamped.rows) == len(slamp.trials(SLAMP_QUICK)) == 1 + len(SLAMP_QUICK.contenders) + 1
    assert [section.anchor for section in slamped.sections] == ["accuracy", "gains", "causes", "cost", "layers", "scratch"]
    assert all(section.plots for section in slamped.sections[:-1])
    for row in slamped.rows.where(part="sweep"):
        assert [stop["density"] for stop in row["stops"]] == list(SLAMP_QUICK.densities)
        assert all(stop["revived"] == 0 for stop in row["stops"])
        assert [stop["weights"] for stop in row["stops"]] == pytest.approx(SLAMP_QUICK.densities, abs=1e-4)


def test_slamp_alike_contenders_are_alike_and_others_differ(slamped):
    """At T = 1 all gains are 1; here they differ, and so do the densities of layers that follow from them."""
    stops = {row["method"]: row["stops"] for row in slamped.rows.where(part="sweep")}
    assert max(stops["slamp"][0]["gains"]) > 1.05
    assert stops["slamp"][0]["layers"] != stops["lamp"][0]["layers"] != stops["erk"][0]["layers"]


def test_slamp_report_is_whole(slamped, folder):
    page, text = ((folder / "slamp" / f"report.{kind}").read_text() for kind in ("html", "md"))
    data = json.loads((folder / "slamp" / "report.json").read_text())
    assert page.count("<svg") == sum(len(section.plots) for section in slamped.sections)
    assert page.count("</html>") == 1
    for section in slamped.sections:
        assert f'id="{section.anchor}"' in page
        assert f"## {section.title}\n" in text
    assert data["facts"]["command"] == "OMP_NUM_THREADS=1 spikeprune study slamp --data fashion-sample --seeds 1 --quick"
    assert len(data["rows"]) == len(slamped.rows)
    assert [claim["verdict"] for claim in data["claims"]] == [c.verdict for s in slamped.sections for c in s.claims]


def test_slamp_a_killed_study_goes_on_and_ends_with_the_same_report(slamped, folder, monkeypatch):
    reports = [folder / "slamp" / f"report.{kind}" for kind in ("html", "md", "json")]
    before = [report.read_text() for report in reports]
    ran = []
    plain = slamp.chains.__globals__["chain"]
    monkeypatch.setitem(slamp.chains.__globals__, "chain", lambda *args: ran.append(args[1]) or plain(*args))
    slamp.run("fashion-sample", folder / "slamp", seeds=1, quick=True)
    assert ran == []
    assert [report.read_text() for report in reports] == before

    file = folder / "slamp" / "trials.jsonl"
    lines = file.read_text().splitlines()
    keep = [line for line in lines if '"erk"' not in line]
    assert len(keep) == len(lines) - 1
    file.write_text("\n".join(keep) + "\n" + lines[-1][:40])  # killed in the middle of a line
    again = slamp.run("fashion-sample", folder / "slamp", seeds=1, quick=True)
    assert len(ran) == 1
    assert numbers(again.rows) == numbers(slamped.rows)
    assert again.sections == slamped.sections


def test_slamp_another_network_or_data_set_in_the_folder_is_refused(slamped, folder):
    for data, overrides in (("fashion-sample", ["net.timesteps=3"]), ("fashion-mnist", [])):
        with pytest.raises(StorageError, match=r"they differ in .*(overrides|data)"):
            slamp.run(data, folder / "slamp", seeds=1, quick=True, overrides=overrides)


def test_slamp_the_command_in_the_report_is_one_to_paste(slamped, folder):
    asked = Asked("slamp", "fashion-sample", quick=False, overrides=("train.augment=['crop', 'flip']",))
    known = slamp.told(asked, SLAMP_QUICK, [slamp_lab(folder)], list(slamped.rows))
    assert known.facts["command"].endswith("""--seeds 1 'train.augment=['"'"'crop'"'"', '"'"'flip'"'"']'""")
    assert "test samples" in known.facts["data"]


def slamp_lab(folder):
    return Lab(recipe_of(SLAMP_QUICK, "fashion-sample", 0, ()), folder / "slamp" / "seed-0", Silent())
