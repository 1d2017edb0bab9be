import tomllib

import pytest

from spikeprune.errors import RecipeError
from spikeprune.kernel.allocate import uniform_plus
from spikeprune.kernel.patterns import Channel
from spikeprune.methods import SET, SNIP, Magnitude, RigL
from spikeprune.recipes.config import check, load_recipe, shipped
from spikeprune.recipes.methods import METHODS, build


def table(**changes):
    base = {
        "name": "mine",
        "data": {"name": "fashion-sample", "validation": 500},
        "train": {"epochs": 1},
        "prune": {"stages": [0.5, 0.9]},
        "method": {"name": "cqp"},
    }
    return {**base, **changes}


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_valid_and_reads_back_from_its_own_toml(name):
    recipe = load_recipe(name)
    again = check(tomllib.loads(recipe.to_toml()), name)
    assert again == recipe
    assert recipe.name == name
    assert recipe.about


def test_overrides_reach_any_key_with_toml_values():
    recipe = load_recipe("cqp-mnist", ["method.alpha=0.25", "seed=3", "prune.layers=['fc1']", "data.name=fashion-mnist"])
    assert (recipe.method.alpha, recipe.seed, recipe.prune.layers, recipe.data.name) == (0.25, 3, ["fc1"], "fashion-mnist")


def test_another_method_drops_the_options_of_the_first():
    recipe = load_recipe("cqp-mnist", ["method.name=erk"])
    assert recipe.method.label == "erk"


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_overrides_does_not_matter(order):
    recipe = load_recipe("cqp-mnist", ["net.name=vgg9", "net.width=0.25", "method.name=slamp", "method.cap=3.0"][::order])
    assert (recipe.net.name, recipe.net.width, recipe.method.name) == ("vgg9", 0.25, "slamp")
    assert recipe.method.cap == 3.0


def test_a_path_gives_the_recipe_its_name(tmp_path):
    file = tmp_path / "my.toml"
    recipe = load_recipe("demo")
    file.write_text(
        "\n".join(
            line for line in recipe.to_toml().splitlines() if not line.startswith("name =") or "cqp" in line or "fashion" in line
        )
    )
    assert load_recipe(str(file)).name == "my"


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["prune.epoch=2"], ["prune.epoch", "unknown key", "'epochs'"]),
        (["prun.epochs=2"], ["prun", "unknown key", "'prune'"]),
        (["method.alfa=2"], ["method.alfa", "unknown key", "'alpha'"]),
        (["method.name=cpq"], ["method.name", "'cpq'", "'cqp'"]),
        (["method.name=lamp", "method.alpha=1.0"], ["method.alpha", "unknown key", "no options"]),
        (["train.epochs='six'"], ["train.epochs", "integer", "'six'"]),
        (["train.epochs=0"], ["train.epochs", "greater than or equal to 1"]),
        (["train.optimizer=adan"], ["train.optimizer", "'adam'", "'adan'"]),
        (["prune.stages=[0.5, 1.0]"], ["prune.stages", "[0, 1)", "1.0"]),
        (["prune.stages=[0.9, 0.5]"], ["prune.stages", "rise"]),
        (["data.name=mnits"], ["data.name", "'mnits'", "'mnist'"]),
        (["method={name='set', fraction=1.0}"], ["method.fraction", "less than 1"]),
        (["method={name='set', stop=9}"], ["method.stop", "unknown key", "fraction"]),
        (["method={name='rigl', stop=0}"], ["method.stop", "greater than or equal to 1"]),
        (["method.protect=1.5"], ["method.protect", "less than or equal to 1"]),
        (["seed"], ["'seed'", "key=value"]),
        (["seed.x=1"], ["seed", "integer"]),
        (["baselines=['cqp']"], ["'cqp'", "twice"]),
        (["baselines=[3]"], ["baselines[0]", "name a method"]),
    ],
)
def test_a_bad_recipe_says_which_key_and_what_to_do(overrides, parts):
    with pytest.raises(RecipeError) as error:
        load_recipe("cqp-mnist", overrides)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_all_faults_are_listed_at_once():
    with pytest.raises(RecipeError) as error:
        load_recipe("cqp-mnist", ["prune.epoch=2", "train.lr=-1.0"])
    assert "prune.epoch" in str(error.value)
    assert "train.lr" in str(error.value)


def test_a_missing_key_is_named():
    with pytest.raises(RecipeError, match=r"train\.epochs: Field required"):
        check(table(train={}), "mine")
    with pytest.raises(RecipeError, match="method: name a method"):
        check({k: v for k, v in table().items() if k != "method"}, "mine")


def test_an_unknown_recipe_offers_the_nearest(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'cqp-mnist'"):
        load_recipe("cqp-mnits")
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("seed = = 3")
    with pytest.raises(RecipeError, match="not TOML"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_the_budget_is_equal_exactly_when_results_may_be_compared():
    base = load_recipe("cqp-mnist")
    same = load_recipe("cqp-mnist", ["seed=5", "method.alpha=0.25", "baselines=[]"])
    assert same.budget == base.budget
    for change in ("prune.lr=1e-3", "prune.epochs=2", "train.epochs=7", "data.name=fashion-mnist", "prune.calibration=4"):
        assert load_recipe("cqp-mnist", [change]).budget != base.budget


def test_the_label_names_the_options_that_are_not_default():
    assert load_recipe("cqp-mnist").method.label == "cqp"
    assert load_recipe("cqp-mnist", ["method.alpha=0.25"]).method.label == "cqp alpha=0.25"


@pytest.mark.parametrize("name", METHODS)
def test_every_listed_method_can_be_built(name):
    pattern = "channel" if name in ("sca", "slimming", "activity") else "unstructured"
    method = build(METHODS[name].spec(name=name), pattern, seed=1)
    assert isinstance(method.needs, frozenset)


def test_options_reach_the_methods_that_train_sparsely():
    recipe = load_recipe(
        "cqp-mnist", ["method={name='rigl', fraction=0.2, stop=50}", "baselines=[{name='set', fraction=0.1}, 'snip', 'uniform+']"]
    )
    rigl, sets, snip, plus = [build(spec, "unstructured", seed=7) for spec in recipe.methods]
    assert (rigl, sets) == (RigL(0.2, stop=50, seed=7), SET(0.1, seed=7))
    assert (snip, plus) == (SNIP(), Magnitude(allocation=uniform_plus))
    assert build(recipe.methods[2], "column", seed=7) == SNIP(Channel(dim=1))
    assert recipe.method.label == "rigl fraction=0.2 stop=50"


@pytest.mark.parametrize("name", ["set", "rigl"])
def test_single_weights_are_not_exchanged_by_column(name):
    with pytest.raises(RecipeError, match=rf"prune\.pattern: {name} exchanges single weights; set it to .unstructured."):
        build(METHODS[name].spec(name=name), "column", seed=1)


@pytest.mark.parametrize("about", ["x \U0001f642", 'quotes " and \\ back', "tab\tline\nend", "del\x7f", "[brackets]"])
def test_any_text_reads_back(about):
    recipe = check(table(about=about), "mine")
    assert check(tomllib.loads(recipe.to_toml()), "mine") == recipe
