"""Recipes: a TOML file, checked key by key; anything on top of it can be overridden with `key=value`."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, field_validator

from spikeprune import data
from spikeprune.errors import RecipeError
from spikeprune.recipes.methods import METHODS, MethodSpec, method_spec

LARGE = 1_000_000  # beyond it a number is a slip of the hand


class Table(BaseModel):
    """A table of a recipe: no unknown keys, no silent conversion, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Data(Table):
    """Which data, and how much of the training set is held out for every choice."""

    name: str
    validation: int = Field(gt=0)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in data.names():
            raise ValueError(f"there is no data set {name!r}{_nearest(name, data.names())}")
        return name


class Net(Table):
    """The network: a LIF MLP between the image and the classes."""

    hidden: list[Annotated[int, Field(ge=1, le=LARGE)]] = [256, 128]
    beta: float = Field(0.9, gt=0, le=1)
    timesteps: int = Field(10, ge=1, le=LARGE)
    dropout: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0)


class Train(Table):
    """Training of the dense network."""

    epochs: int = Field(ge=1, le=LARGE)
    batch: int = Field(128, ge=1, le=LARGE)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.0, ge=0)
    decay: Literal["cosine", "constant"] = "cosine"


class Prune(Table):
    """What every method of the run does alike: layers, targets, fine-tuning, calibration. The budget."""

    layers: list[str] = ["*"]
    pattern: Literal["unstructured", "column"] = "unstructured"
    stages: list[float] = Field(min_length=1)
    epochs: int = Field(1, ge=0, le=LARGE, description="of fine-tuning after each stage")
    batch: int = Field(128, ge=1, le=LARGE)
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(5e-4, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.0, ge=0)
    calibration: int = Field(8, ge=1, le=LARGE, description="batches")
    calibration_batch: int = Field(512, ge=1, le=LARGE)

    @field_validator("stages")
    @classmethod
    def _rising(cls, stages: list[float]) -> list[float]:
        if any(not 0 <= s < 1 for s in stages) or any(b <= a for a, b in pairwise(stages)):
            raise ValueError(f"stages must rise and lie in [0, 1); got {stages}")
        return stages


class Machine(Table):
    """Where it runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


class Recipe(Table):
    """A whole run: train a dense network, prune copies of it by a method and by its baselines, measure all."""

    name: str
    about: str = ""
    seed: int = Field(0, ge=0, lt=2**63)
    data: Data
    net: Net = Field(default_factory=lambda: Net.model_validate({}))
    train: Train
    prune: Prune
    method: SerializeAsAny[MethodSpec]
    baselines: list[SerializeAsAny[MethodSpec]] = []
    machine: Machine = Machine()

    @property
    def methods(self) -> list[MethodSpec]:
        """The method, then its baselines."""
        return [self.method, *self.baselines]

    @property
    def budget(self) -> str:
        """Name what must be equal for two results to be compared: all but seed, methods, device and words."""
        parts = self.model_dump(exclude={"name", "about", "seed", "method", "baselines", "machine"})
        if self.machine.precision != "32-true":
            parts["precision"] = self.machine.precision
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:6]
        sizes = "-".join(str(size) for size in self.net.hidden)
        layers = "all layers" if self.prune.layers == ["*"] else " ".join(self.prune.layers)
        rounds = f"{len(self.prune.stages)} stage{'s' * (len(self.prune.stages) != 1)}, {self.prune.epochs} epoch{'s' * (self.prune.epochs != 1)} of fine-tuning each"
        return f"{self.data.name}, LIF MLP {sizes}, T = {self.net.timesteps}, {layers} to {self.prune.stages[-1]:.0%} in {rounds} (budget {digest})"

    def to_toml(self) -> str:
        """Give the recipe as TOML that reads back to the same."""
        dump = self.model_dump(exclude_none=True)
        tables = {k: v for k, v in dump.items() if isinstance(v, dict)}
        lines = [f"{k} = {_toml(v)}" for k, v in dump.items() if k not in tables and k != "baselines"]
        lines.append("baselines = [" + ", ".join(_inline(spec) for spec in dump["baselines"]) + "]")
        for name, table in tables.items():
            lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(spec: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in spec.items()) + " }"


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
    for override in overrides:
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
    table[last] = value


def _explain(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        model: Any = Recipe
        for part in fault["loc"][:-1]:
            model = model.model_fields[part].annotation if isinstance(part, str) and part in model.model_fields else Recipe
        return f"{where}: unknown key{_nearest(str(fault['loc'][-1]), model.model_fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" + ("" if fault["type"] in ("missing", "value_error") else f", not {fault['input']!r}")


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


__all__ = ["METHODS", "Recipe", "check", "load_recipe", "shipped"]
