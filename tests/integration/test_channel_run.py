"""A run that prunes output channels keeps the smaller network, and measures that one."""

import pytest
import torch

from spikeprune import load, model_view, zoo
from spikeprune.errors import RecipeError
from spikeprune.masks import Masks
from spikeprune.recipes.config import load_recipe
from spikeprune.recipes.run import run
from spikeprune.recipes.rundir import RunDir

TOML = """
baselines = ["slimming"]
[data]
name = "fashion-sample"
validation = 4000
pad = 2
[net]
name = "vgg9"
width = 0.0625
timesteps = 2
[train]
epochs = 1
batch = 64
lr = 1e-2
[prune]
stages = [0.5]
pattern = "channel"
epochs = 1
batch = 128
lr = 5e-3
calibration = 1
calibration_batch = 32
[method]
name = "sca"
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "channels.toml"
    file.write_text(TOML)
    return load_recipe(str(file))


def test_the_smaller_network_is_kept_measured_and_loaded(recipe, tmp_path):
    done = run(recipe, tmp_path / "run")
    found = {outcome.label: outcome for outcome in done.outcomes}
    assert found.keys() == {"dense", "sca", "slimming"}
    dense = zoo.make("vgg9", image=(1, 32, 32), width=1 / 16, timesteps=2, coding="direct")
    view = model_view(dense, torch.rand(2, 1, 32, 32))
    channels = sum(layer.weight.shape[0] for layer in view.channel_layers())
    for label, outcome in found.items():
        if label == "dense":
            assert outcome.kept == outcome.weights
            continue
        assert outcome.weights == found["dense"].weights
        assert outcome.kept < 0.6 * outcome.weights
        assert outcome.revived == 0
        folder = RunDir(tmp_path / "run").network(label)
        masks = Masks.load(folder / "masks.safetensors")
        kept = sum(int(mask.flatten(1).any(1).sum()) for mask in masks.values())
        assert abs(kept - channels / 2) <= 1.5
        small, weights = load(folder / "model.safetensors", dense)
        assert not weights
        layers = model_view(small, torch.rand(2, 1, 32, 32)).layers
        assert sum(layer.weight.numel() for layer in layers) == outcome.kept
        assert sum(layer.weights for layer in outcome.report.layers) == outcome.kept
    assert run(recipe, tmp_path / "run").to_json() == done.to_json()


@pytest.mark.parametrize(
    ("name", "pattern"), [("sca", "unstructured"), ("slimming", "column"), ("slamp", "channel"), ("rigl", "channel")]
)
def test_a_method_that_does_not_fit_the_pattern_is_refused_before_training(recipe, tmp_path, name, pattern):
    file = tmp_path / "channels.toml"
    other = load_recipe(str(file), [f"method.name={name}", f"prune.pattern={pattern}", "baselines=[]"])
    with pytest.raises(RecipeError, match=rf"prune\.pattern: {name} "):
        run(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_blocks_of_a_recipe_live_and_die_whole(recipe, tmp_path):
    file = tmp_path / "channels.toml"
    chosen = [
        "prune.pattern=block",
        "method.name=magnitude",
        "baselines=[]",
        "net.width=0.125",
        'prune.layers=["conv[345]"]',
        "prune.epochs=0",
    ]
    done = run(load_recipe(str(file), chosen), tmp_path / "run")
    assert {outcome.label for outcome in done.outcomes} == {"dense", "magnitude"}
    masks = Masks.load(RunDir(tmp_path / "run").network("magnitude") / "masks.safetensors")
    assert sorted(masks) == ["conv3", "conv4", "conv5"]
    alive, total = 0, 0
    for mask in masks.values():
        blocks = mask.view(-1, min(32, len(mask)), *mask.shape[1:])
        assert torch.equal(blocks.all(1), blocks.any(1))
        alive, total = alive + int(blocks.any(1).sum()), total + blocks.any(1).numel()
    assert alive == total // 2
