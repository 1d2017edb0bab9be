"""Recipes: a TOML file, checked key by key; anything on top of it can be overridden with `key=value`."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from spikeprune.errors import RecipeError
from spikeprune.recipes.methods import METHODS, MethodSpec, method_spec
from spikeprune.recipes.nets import KINDS, MLP, AnyNet, DeepNet, Net
from spikeprune.recipes.tables import Data, Machine, Prune, Table, Train


class Recipe(Table):
    """A whole run: train a dense network, prune copies of it by a method and by its baselines, measure all."""

    name: str
    about: str = ""
    seed: int = Field(0, ge=0, lt=2**63)
    data: Data
    net: AnyNet = Field(default_factory=lambda: Net.model_validate({}))
    train: Train
    prune: Prune
    method: SerializeAsAny[MethodSpec]
    baselines: list[SerializeAsAny[MethodSpec]] = Field([])
    machine: Machine = Machine()

    @property
    def methods(self) -> list[MethodSpec]:
        """The method, then its baselines."""
        return [self.method, *self.baselines]

    @property
    def budget(self) -> str:
        """Name what must be equal for two results to be compared: all but seed, methods, device and words."""
        parts: dict[str, Any] = {"data": self.data.digested(), "net": self.net.digested()}
        parts |= {"train": self.train.digested(), "prune": self.prune.digested()}
        if self.machine.precision != "32-true":
            parts["precision"] = self.machine.precision
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:6]
        layers = "all layers" if self.prune.layers == ["*"] else " ".join(self.prune.layers)
        rounds = f"{len(self.prune.stages)} stage{'s' * (len(self.prune.stages) != 1)}, {self.prune.epochs} epoch{'s' * (self.prune.epochs != 1)} of fine-tuning each"
        return f"{self.data.name}, {self.net.title}, {layers} to {self.prune.stages[-1]:.0%} in {rounds} (budget {digest})"

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        deep = isinstance(self.net, DeepNet)
        if self.data.events and not deep:
            raise ValueError(f"net: {self.data.name} holds events, which the LIF MLP cannot take; name a network, such as vggsnn")
        if isinstance(self.net, DeepNet) and self.net.coding is not None and self.data.events:
            raise ValueError(f"net.coding: {self.data.name} holds events, which are spikes already; leave it out")
        if isinstance(self.net, DeepNet) and self.net.coding == "poisson" and self.data.normalize != "none":
            raise ValueError("data.normalize: poisson coding takes pixels as probabilities, in [0, 1]; leave it out")
        for where, table in (("train", self.train), ("prune", self.prune)):
            if table.loss == "tet" and not deep:
                raise ValueError(f"{where}.loss: tet looks at every timestep's output, which the LIF MLP does not give; use ce")
        return self

    def to_toml(self) -> str:
        """Give the recipe as TOML that reads back to the same."""
        dump = self.model_dump(exclude_none=True)
        tables = {k: v for k, v in dump.items() if isinstance(v, dict)}
        lines = [f"{k} = {_toml(v)}" for k, v in dump.items() if k not in tables and k != "baselines"]
        lines.append("baselines = [" + ", ".join(_toml(spec) for spec in dump["baselines"]) + "]")
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def shipped() -> dict[str, str]:
    """Give the recipes that come with the package: name -> what it is about."""
    folder = resources.files("spikeprune.recipes")
    names = sorted(Path(str(file)).stem for file in folder.iterdir() if str(file).endswith(".toml"))
    return {name: tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")).get("about", "") for name in names}


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, override keys, and check it.

    Args:
        source: the name of a shipped recipe, or the path of a TOML file.
        overrides: "seed=3", "method.alpha=0.25", "prune.layers=['fc1']"; the value is TOML, or else a string.

    Raises:
        RecipeError: no such recipe, not TOML, an unknown key (the nearest is offered), or a wrong type or value.
    """
    table = _read(source)
    for override in sorted(overrides, key=lambda text: _key(text) not in ("method.name", "net.name")):  # a name clears its table
        _override(table, override)
    return check(table, source)


def check(table: dict[str, Any], source: str) -> Recipe:
    """Build a recipe from what the TOML holds; one RecipeError lists all that is wrong with it."""
    try:
        table = {**table, "method": method_spec(table.get("method"), "method")}
        baselines = table.get("baselines", [])
        if not isinstance(baselines, list):
            raise RecipeError(f"baselines: must be a list, such as ['magnitude', 'lamp'], not {baselines!r}")
        table["baselines"] = [method_spec(entry, f"baselines[{i}]") for i, entry in enumerate(baselines)]
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        faults = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
        raise RecipeError(f"recipe {source}:\n{faults}") from error
    except RecipeError as error:
        raise RecipeError(f"recipe {source}:\n  {error}") from error
    labels = [spec.label for spec in recipe.methods]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise RecipeError(f"recipe {source}:\n  method {sorted(twice)[0]!r} is asked for twice; take it out of baselines")
    return recipe


def _read(source: str) -> dict[str, Any]:
    path = Path(source)
    if path.suffix != ".toml":
        known = shipped()
        if source not in known:
            raise RecipeError(
                f"there is no recipe {source!r}{_nearest(source, known)}. Give a name of {', '.join(known)}, or a .toml file."
            )
        text = (resources.files("spikeprune.recipes") / f"{source}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read recipe {source}: {getattr(error, 'strerror', None) or error}.") from error
    try:
        return {"name": path.stem, **tomllib.loads(text)}
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {source} is not TOML: {error}.") from error


def _key(override: str) -> str:
    return override.partition("=")[0].strip()


def _override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"cannot read the override {override!r}; write key=value, such as seed=3 or method.alpha=0.25.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"cannot override {key!r}: {part!r} is a value, not a table.")
    if path == ["method"] and last == "name" and table.get("name") != value:
        table.clear()  # another method's keys mean nothing to this one
    if path == ["net"] and last == "name" and (table.get("name", MLP) == MLP) != (value == MLP):
        table.clear()  # nor do those of the MLP to a deep network
    table[last] = value


def _explain(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"] if part not in KINDS)
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown key{_offer(fault['loc'])}"
    message = fault["msg"].removeprefix("Value error, ")
    said = f"{where}: {message}" if where else message
    return said + ("" if fault["type"] in ("missing", "value_error") else f", not {fault['input']!r}")


def _offer(path: Sequence[str | int]) -> str:
    """Offer the nearest key to an unknown one; `path` leads to it through the tables."""
    model: Any = Recipe
    for part in path[:-1]:
        fields = getattr(model, "model_fields", {})
        model = KINDS.get(str(part)) or (fields[part].annotation if part in fields else model)
    key = str(path[-1])
    if model is Net and key in DeepNet.model_fields:
        return ' of the LIF MLP; it belongs to a deep network: name one, such as name = "vgg9"'
    if model is DeepNet and key in Net.model_fields:
        return f" of a deep network; it belongs to the LIF MLP. Deep ones take {', '.join(DeepNet.model_fields)}"
    return _nearest(key, model.model_fields)


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


__all__ = ["METHODS", "Machine", "Prune", "Recipe", "Train", "check", "load_recipe", "shipped"]
