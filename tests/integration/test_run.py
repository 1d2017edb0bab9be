import json

import pytest
import torch
from safetensors.torch import load_file

from run_facts import facts
from spikeprune.errors import NoPrunableLayers, RecipeError, SparsityError, StorageError
from spikeprune.kernel.allocate import kept
from spikeprune.masks import Masks
from spikeprune.recipes.config import load_recipe
from spikeprune.recipes.run import run


def test_a_run_trains_prunes_exactly_measures_and_reports(tiny, tmp_path):
    recipe = load_recipe(str(tiny))
    before = torch.get_rng_state()
    comparison = run(recipe, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)

    dense, cqp, chance = comparison.outcomes
    assert [dense.label, cqp.label, chance.label] == ["dense", "cqp", "random"]
    assert dense.accuracy > 0.5
    weights = 784 * 24 + 24 * 10
    for outcome in (cqp, chance):
        assert outcome.weights == weights
        assert outcome.kept == kept(weights, 0.9)
        assert outcome.report.nonzero <= outcome.kept
        assert outcome.revived == 0
        assert [point.sparsity for point in outcome.curve] == [0.5, 0.9]
    assert cqp.accuracy > chance.accuracy

    masks = Masks.load(tmp_path / "run" / "masks.safetensors")
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert sum(masks.kept.values()) == cqp.kept
    assert not any(bool((model[f"model.{name}.weight"][~mask] != 0).any()) for name, mask in masks.items())
    for name in ("recipe.toml", "environment.json", "metrics.jsonl", "report.html", "report.md", "report.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert list((tmp_path / "run" / "tensorboard").rglob("events*"))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [(row["phase"], row["event"]) for row in rows]
    pruning = ["pruned", "trained"] * 2
    assert told == [("dense", "trained")] * 2 + [("cqp", event) for event in pruning] + [("random", event) for event in pruning]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tiny, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(load_recipe(str(tiny), [f"seed={seed}", "prune.stages=[0.9]"]), tmp_path / name)
    assert facts(tmp_path / "a") == facts(tmp_path / "b")
    assert facts(tmp_path / "a") != facts(tmp_path / "c")


def test_one_shot_without_fine_tuning_leaves_surviving_weights_as_they_were(tiny, tmp_path):
    comparison = run(
        load_recipe(str(tiny), ["prune.epochs=0", "prune.layers=['fc1']", "baselines=['magnitude']"]), tmp_path / "run"
    )
    dense = load_file(tmp_path / "run" / "networks" / "dense" / "model.safetensors")
    for outcome in comparison.outcomes[1:]:
        pruned = load_file(tmp_path / "run" / "networks" / outcome.label / "model.safetensors")
        mask = pruned["mask.fc1"]
        assert outcome.kept == int(mask.sum()) == kept(784 * 24, 0.9)
        assert torch.equal(pruned["model.fc1.weight"], dense["model.fc1.weight"] * mask)
        assert torch.equal(pruned["model.fc2.weight"], dense["model.fc2.weight"])


def test_a_finished_run_is_not_run_again(tiny, tmp_path):
    recipe = load_recipe(str(tiny), ["prune.stages=[0.9]", "baselines=[]"])
    run(recipe, tmp_path / "run")
    stamp = (tmp_path / "run" / "networks" / "cqp" / "model.safetensors").stat().st_mtime_ns
    run(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "networks" / "cqp" / "model.safetensors").stat().st_mtime_ns == stamp
    (tmp_path / "run" / "notes.txt").write_text("mine")
    run(recipe, tmp_path / "run", fresh=True)
    assert (tmp_path / "run" / "networks" / "cqp" / "model.safetensors").stat().st_mtime_ns != stamp
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_directory_of_another_recipe_or_of_no_run_is_refused_and_left_alone(tiny, tmp_path):
    run(load_recipe(str(tiny), ["prune.stages=[0.9]", "baselines=[]"]), tmp_path / "run")
    text = (tmp_path / "run" / "recipe.toml").read_text()
    with pytest.raises(StorageError, match=r"differ in method.*--out.*--fresh"):
        run(load_recipe(str(tiny), ["prune.stages=[0.9]", "baselines=[]", "method.alpha=1.0"]), tmp_path / "run")
    assert (tmp_path / "run" / "recipe.toml").read_text() == text
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(StorageError, match="not empty and holds no run"):
        run(load_recipe(str(tiny)), tmp_path / "mine", fresh=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_the_test_set_is_not_touched_again_by_a_finished_run(tiny, tmp_path, monkeypatch):
    recipe = load_recipe(str(tiny), ["prune.stages=[0.9]", "baselines=[]"])
    first = run(recipe, tmp_path / "run")
    monkeypatch.setattr("spikeprune.recipes.run.measured", lambda job: pytest.fail("measured again"))
    (tmp_path / "run" / "report.html").unlink()
    assert run(recipe, tmp_path / "run") == first
    assert (tmp_path / "run" / "report.html").exists()


def test_lower_precision_runs_and_is_a_budget_of_its_own(tiny, tmp_path):
    recipe = load_recipe(str(tiny), ["machine.precision=bf16-mixed", "prune.stages=[0.9]"])
    outcomes = run(recipe, tmp_path / "run").outcomes
    assert outcomes[1].kept == kept(784 * 24 + 240, 0.9)
    assert outcomes[1].revived == 0
    assert recipe.budget != load_recipe(str(tiny), ["prune.stages=[0.9]"]).budget


@pytest.mark.parametrize(
    ("change", "error", "part"),
    [
        ("prune.layers=['fc9']", NoPrunableLayers, "fc1, fc2"),
        ("prune.stages=[0.99999]", SparsityError, "Ask for at most"),
        ("machine.device=cuda", RecipeError, "machine.device"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is missing")
def test_what_cannot_be_is_refused_before_any_training_and_an_earlier_run_stays(tiny, tmp_path, change, error, part):
    run(load_recipe(str(tiny), ["prune.stages=[0.9]", "baselines=[]"]), tmp_path / "run")
    before = facts(tmp_path / "run")
    with pytest.raises(error, match=part):
        run(load_recipe(str(tiny), [change]), tmp_path / "run", fresh=True)
    assert facts(tmp_path / "run") == before


def test_a_network_whose_files_are_gone_is_made_anew(tiny, tmp_path):
    recipe = load_recipe(str(tiny), ["prune.stages=[0.9]"])
    run(recipe, tmp_path / "run")
    before = facts(tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    (tmp_path / "run" / "networks" / "random" / "model.safetensors").unlink()
    run(recipe, tmp_path / "run")
    assert facts(tmp_path / "run") == before


def test_a_damaged_network_says_what_to_delete(tiny, tmp_path):
    recipe = load_recipe(str(tiny), ["prune.stages=[0.9]"])
    run(recipe, tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()
    (tmp_path / "run" / "networks" / "random" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(StorageError, match=r"Delete .*random and run again"):
        run(recipe, tmp_path / "run")


def test_going_on_elsewhere_is_noted(tiny, tmp_path):
    recipe = load_recipe(str(tiny), ["prune.stages=[0.9]", "baselines=[]"])
    run(recipe, tmp_path / "run")
    file = tmp_path / "run" / "environment.json"
    there = json.loads(file.read_text())
    there["machine"]["cpu"] = "another one"
    file.write_text(json.dumps(there))
    (tmp_path / "run" / "report.json").unlink()
    run(recipe, tmp_path / "run")
    after = json.loads(file.read_text())
    assert after["machine"]["cpu"] == "another one"
    assert len(after["resumed"]) == 1
