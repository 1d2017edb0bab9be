"""The network of a recipe: the MLP or a deep one, each with its own keys, and a budget that says which."""

import tomllib
from dataclasses import fields, replace

import pytest
import torch

from spikeprune import zoo
from spikeprune.errors import RecipeError
from spikeprune.recipes.config import check, load_recipe
from spikeprune.recipes.nets import DeepNet, Net, NeuronTable
from spikeprune.recipes.train import make_net

# As results of these recipes were published.
BUDGETS = {
    "cqp-fashion": "fashion-mnist, LIF MLP 256-128, T = 10, all layers to 90% in 4 stages, 1 epoch of fine-tuning each (budget 93293d)",
    "cqp-fc1-oneshot": "mnist, LIF MLP 256-128, T = 10, fc1 to 90% in 1 stage, 0 epochs of fine-tuning each (budget cef592)",
    "cqp-fc1-rounds": "mnist, LIF MLP 256-128, T = 10, fc1 to 90% in 3 stages, 1 epoch of fine-tuning each (budget 4cd149)",
    "cqp-mnist": "mnist, LIF MLP 256-128, T = 10, all layers to 90% in 4 stages, 1 epoch of fine-tuning each (budget f9357e)",
    "cqp-paper": "mnist, LIF MLP 256-128, T = 10, fc1 to 90% in 3 stages, 1 epoch of fine-tuning each (budget 817789)",
    "demo": "fashion-sample, LIF MLP 256-128, T = 10, all layers to 90% in 4 stages, 2 epochs of fine-tuning each (budget 39a088)",
}
DEEP_BUDGET = "9e38a1"
DEEP = {
    "data": {"name": "fashion-sample", "validation": 500},
    "net": {"name": "vgg9", "width": 0.0625},
    "train": {"epochs": 2},
    "prune": {"stages": [0.5, 0.9]},
    "method": "lamp",
}


def recipe(**changes):
    """A deep recipe; a change of a table is joined to it."""
    joined = {key: {**DEEP.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()}
    return check({"name": "mine", **DEEP, **joined}, "mine")


EVENTS = {"name": "nmnist-1k", "validation": 100}


@pytest.mark.parametrize("name", BUDGETS)
def test_keys_that_came_later_leave_the_budgets_of_published_results_alone(name):
    assert load_recipe(name).budget == BUDGETS[name]


def test_keys_that_came_later_leave_the_budgets_of_deep_networks_alone():
    assert recipe().budget.endswith(f"(budget {DEEP_BUDGET})")


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"warmup": 1}}, {"train": {"ema": 0.9}}, {"train": {"clip": 1.0}}, {"train": {"smoothing": 0.1}},
        {"train": {"loss": "tet"}}, {"prune": {"decay": "cosine"}}, {"prune": {"warmup": 1}}, {"prune": {"clip": 1.0}},
        {"data": {"augment": ["flip"]}}, {"data": {"normalize": "channel"}}, {"data": {"pad": 2}},
        {"net": {"norm": "none"}}, {"net": {"dropout": 0.0}},
    ],
)  # fmt: skip
def test_a_later_key_that_is_not_at_its_default_makes_another_budget(change):
    assert recipe(**change).budget != recipe().budget


def test_the_budget_names_the_network():
    assert recipe(net={"timesteps": 2}).budget.startswith(
        "fashion-sample, vgg9 width 0.0625, T = 2, all layers to 90% in 2 stages"
    )
    assert "T = 4, poisson, all layers" in recipe(net={"coding": "poisson"}).budget
    assert recipe(net={"neuron": {"tau": 3.0}}).budget != recipe().budget


def test_a_deep_recipe_reads_back_from_its_own_toml():
    made = recipe(
        net={"neuron": {"tau": 3.0, "detach_reset": False}}, data={"augment": ["crop"]}, machine={"channels_last": True}
    )
    assert check(tomllib.loads(made.to_toml()), "mine") == made
    assert isinstance(made.net, DeepNet)
    assert isinstance(load_recipe("demo").net, Net)


def test_a_network_is_built_for_its_data_with_its_own_neuron_and_what_is_changed_of_it():
    net = make_net(recipe(net={"neuron": {"threshold": 0.5}}), torch.zeros(1, 1, 28, 28), classes=7)
    assert (net.image, net.coding, net.timesteps, net.fc.out_features) == ((1, 28, 28), "direct", 4, 7)
    assert net.neuron1.v_threshold == 0.5
    assert net.neuron1.tau == 101.0  # vgg9's own
    net = make_net(recipe(data=EVENTS, net={"name": "sca_dvs", "timesteps": 3}), torch.zeros(3, 1, 2, 34, 34), classes=10)
    assert (net.image, net.coding, net.timesteps) == ((2, 34, 34), "events", 3)


def test_norm_and_dropout_reach_the_networks_that_have_them():
    example = torch.zeros(1, 1, 28, 28)
    asked = recipe(net={"norm": "gain", "dropout": 0.25})
    net = make_net(asked, example, classes=10)
    assert (set(net.norm1.state_dict()), net.drop1.p) == ({"log_gain"}, 0.25)
    assert check(tomllib.loads(asked.to_toml()), "mine") == asked
    plain = make_net(recipe(), example, classes=10)
    assert isinstance(plain.norm1, torch.nn.BatchNorm2d)
    assert not hasattr(plain, "drop1")
    with pytest.raises(RecipeError, match="resnet18: unknown option 'dropout'"):
        make_net(recipe(net={"name": "resnet18", "dropout": 0.25}), example, classes=10)


def test_the_ann_twin_of_a_network_is_a_kind_of_neuron():
    options = {"timesteps": 1, "neuron": {"kind": "relu"}}
    ann, net = (make_net(recipe(net=changes), torch.zeros(1, 1, 28, 28), 10) for changes in (options, {"timesteps": 8}))
    assert torch.equal(ann.conv1.weight, net.conv1.weight)
    net.load_state_dict(ann.state_dict())


@pytest.mark.parametrize(
    ("name", "image", "coding"),
    [
        ("six_conv_two_fc", (1, 28, 28), "direct"), ("vgg9", (1, 28, 28), "poisson"), ("vggsnn", (2, 34, 34), "events"),
        ("sca_dvs", (2, 34, 34), "events"), ("resnet19", (1, 28, 28), "direct"),
    ],
)  # fmt: skip
def test_small_networks_take_the_small_images_of_the_field(name, image, coding):
    net = zoo.make(name, width=1 / 16, image=image, timesteps=2, coding=coding)
    x = torch.rand(2, 3, *image) if coding == "events" else torch.rand(3, *image)
    outputs = net.eval().over_time(x.round() if coding == "poisson" else x)
    assert outputs.shape == (2, 3, 10)
    assert torch.equal(net(x.round() if coding == "poisson" else x), outputs.mean(0))


def test_the_same_seed_draws_the_same_weights_and_another_seed_others():
    example = torch.zeros(1, 1, 28, 28)
    nets = [make_net(replaced, example, 10).conv1.weight for replaced in (recipe(), recipe(), recipe(seed=1))]
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_every_option_of_a_neuron_can_be_asked_for():
    assert set(NeuronTable.model_fields) == {field.name for field in fields(zoo.Neuron)}
    given = replace(zoo.Neuron(), **NeuronTable(kind="if", surrogate="erf").model_dump(exclude_none=True))
    assert given == zoo.Neuron("if", surrogate="erf")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"net": {"name": "vgg99"}}, ["net.name", "'vgg99'", "'vgg9'"]),
        ({"net": {"widht": 0.5}}, ["net.widht: unknown key", "'width'"]),
        ({"net": {"hidden": [8]}}, ["net.hidden", "LIF MLP", "width"]),
        ({"net": {"name": "mlp"}}, ["net.width", "deep network", 'name = "vgg9"']),
        ({"net": {"neuron": {"taw": 2.0}}}, ["net.neuron.taw: unknown key", "'tau'"]),
        ({"net": {"width": 0}}, ["net.width", "greater than 0"]),
        ({"net": {"norm": "layer"}}, ["net.norm", "'batch'", "'layer'"]),
        ({"net": {"dropout": 1.0}}, ["net.dropout", "less than 1"]),
        ({"net": {"coding": "events"}}, ["net.coding", "'direct'"]),
        ({"net": 3}, ["net: ", "not 3"]),
        ({"data": EVENTS, "net": {"coding": "direct"}}, ["net.coding", "nmnist-1k holds events"]),
        ({"net": {"coding": "poisson"}, "data": {"normalize": "channel"}}, ["data.normalize", "poisson"]),
        ({"data": {"augment": ["roll_frames"]}}, ["data: ", "'roll_frames'", "crop, flip"]),
        ({"data": {**EVENTS, "augment": ["crop"]}}, ["data: ", "'crop'", "roll_frames"]),
        ({"data": {"augment": ["blur"]}}, ["data.augment.0", "'crop'", "'blur'"]),
        ({"data": {"by": "time", "side": 8}}, ["by and side", "holds images"]),
        ({"data": {**EVENTS, "normalize": "channel"}}, ["normalize", "holds events"]),
        ({"data": {"name": "nmnits"}}, ["data.name", "'nmnits'", "'nmnist'"]),
        ({"train": {"warmup": 3}}, ["train: ", "3 epochs", "2"]),
        ({"prune": {"warmup": 2}}, ["prune: ", "2 epochs", "1"]),
        ({"prune": {"ema": 0.9}}, ["prune.ema: unknown key"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_the_key_and_what_to_do(changes, parts):
    with pytest.raises(RecipeError) as error:
        recipe(**changes)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_the_mlp_takes_neither_events_nor_a_loss_of_every_timestep():
    with pytest.raises(RecipeError, match=r"net: nmnist-1k holds events.*vggsnn"):
        load_recipe("demo", ["data.name=nmnist-1k"])
    with pytest.raises(RecipeError, match=r"prune\.loss: tet"):
        load_recipe("demo", ["prune.loss=tet"])


def test_an_override_of_the_name_drops_the_keys_of_the_other_kind_of_network():
    assert load_recipe("demo", ["net.name=vgg9", "net.width=0.5"]).net == DeepNet(name="vgg9", width=0.5)
    assert load_recipe("vgg9-fashion", ["net.name=vgg11"]).net.width == 0.0625
    assert load_recipe("vgg9-fashion", ["net.name=mlp"]).net == Net()
