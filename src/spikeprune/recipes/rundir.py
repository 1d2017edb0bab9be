"""The run directory: what is in it, and how it survives being killed at any moment.

::

    recipe.toml            the resolved recipe; running it again gives the run again
    environment.json       versions, seed, machine, data; and those of each time that the run went on elsewhere
    metrics.jsonl          one line an epoch or pruning, of every phase
    checkpoint.safetensors where the running phase stands; gone when the run is finished
    networks/LABEL/        model.safetensors, masks.safetensors, training.json of every finished phase
    masks.safetensors, model.safetensors    those of the recipe's method
    report.html, report.md, report.json     the measured networks; the run is finished once report.json is there
    tensorboard/

A phase is finished once its training.json is there, which is written last. All files but metrics.jsonl are whole or absent.
"""

import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.errors import StorageError
from spikeprune.files import read_json, read_tensors, write_bytes, write_json, write_tensors, write_text
from spikeprune.masks import Masks
from spikeprune.plan import ShrinkPlan
from spikeprune.recipes.config import Recipe, load_recipe
from spikeprune.report import Comparison, versions
from spikeprune.saved import save

OWN = [
    "recipe.toml",
    "environment.json",
    "metrics.jsonl",
    "checkpoint.safetensors",
    "networks",
    "masks.safetensors",
    "model.safetensors",
    "report.html",
    "report.md",
    "report.json",
    "tensorboard",
]


class RunDir:
    """The files of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str], recipe: Recipe, *, fresh: bool = False) -> "RunDir":
        """Open a new, unfinished or finished run directory for a recipe; `fresh` starts an existing one anew.

        Raises:
            StorageError: the directory holds another run, or something that is no run.
        """
        run = cls(path)
        there = run._file("recipe.toml").exists()
        if there and not fresh:
            run._refuse_other(recipe)
            return run
        if there:
            run._clear()
        elif run.path.exists() and any(run.path.iterdir()):
            raise StorageError(f"{path} is not empty and holds no run; choose another folder with --out.")
        write_text(run._file("recipe.toml"), recipe.to_toml())
        return run

    def _clear(self) -> None:
        """Delete what a run writes, and nothing else that lies there."""
        for name in OWN:
            file = self._file(name)
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)

    def _refuse_other(self, recipe: Recipe) -> None:
        there = self.recipe().model_dump()
        if there != recipe.model_dump():
            keys = sorted(key for key in there if there[key] != recipe.model_dump()[key])
            raise StorageError(
                f"{self.path} holds a run of another recipe; they differ in {', '.join(keys)}. Choose another folder with --out, "
                "or start anew with --fresh, which deletes that run."
            )

    def recipe(self) -> Recipe:
        """Read the run's recipe."""
        if not self._file("recipe.toml").exists():
            raise StorageError(
                f"{self.path} is no run directory: it has no recipe.toml. Make one with: spikeprune run RECIPE --out {self.path}"
            )
        return load_recipe(str(self._file("recipe.toml")))

    # --- finished phases -------------------------------------------------------------------------------------------

    def finish(
        self, label: str, net: nn.Module, masks: Masks, facts: Mapping[str, Any], *, plan: ShrinkPlan | None = None
    ) -> None:
        """Keep a phase's network for good, and forget its checkpoint.

        Args:
            label: of the phase.
            net: the network; of a plan, the smaller one.
            masks: those that were decided; of a plan, for the network before it was made smaller.
            facts: what `finished` gives back.
            plan: how the network was made smaller.
        """
        folder = self.network(label)
        save(folder / "model.safetensors", net, masks if plan is None else plan.masks(masks), plan=plan)
        masks.save(folder / "masks.safetensors")
        write_json(folder / "training.json", dict(facts))
        self._file("checkpoint.safetensors").unlink(missing_ok=True)

    def finished(self, label: str) -> dict[str, Any] | None:
        """Read the facts of a finished phase; None if it is not finished, or a file of it is gone."""
        folder = self.network(label)
        whole = all((folder / name).exists() for name in ("model.safetensors", "masks.safetensors", "training.json"))
        return dict(read_json(folder / "training.json")) if whole else None

    def network(self, label: str) -> Path:
        """Where a phase's network lies."""
        return self.path / "networks" / re.sub(r"[^\w.=-]+", "-", label)

    def promote(self, label: str) -> None:
        """Put the network of the recipe's method at the top of the directory as well."""
        for name in ("model.safetensors", "masks.safetensors"):
            write_bytes(self._file(name), (self.network(label) / name).read_bytes())

    # --- the running phase -----------------------------------------------------------------------------------------

    def checkpoint(self, net: nn.Module, optimizer: Optimizer, pruner: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keep where the running phase stands, in one file written in one step.

        Args:
            net: the network.
            optimizer: its optimizer.
            pruner: the pruner's "steps", "masks" and "silenced"; and "average", the running average of the network, if there is one.
            facts: what `resume` gives back as it is.
        """
        tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
        tensors |= {f"mask.{name}": mask for name, mask in pruner["masks"].items()}
        tensors |= {f"silenced.{name}": value for name, value in pruner.get("silenced", {}).items()}
        tensors |= {f"average.{name}": value for name, value in pruner.get("average", {}).items()}
        state = optimizer.state_dict()
        numbers: dict[str, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{key}"] = value
                else:
                    numbers.setdefault(str(index), {})[key] = value
        rest = {"facts": dict(facts), "steps": pruner["steps"], "groups": state["param_groups"], "numbers": numbers}
        write_tensors(self._file("checkpoint.safetensors"), tensors, {"format": "spikeprune-1", "state": json.dumps(rest)})

    def resume(self, label: str, net: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Bring network and optimizer to where the phase stood; returns the pruner's state, with the average, and the facts, or None.

        The checkpoint of another phase is stale and left alone.
        """
        file = self._file("checkpoint.safetensors")
        if not file.exists():
            return None
        try:
            return self._restore(label, net, optimizer, *read_tensors(file))
        except (StorageError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise StorageError(
                f"{file} is damaged or of another run ({error}). Delete it and run again: the phase then starts anew."
            ) from error

    @staticmethod
    def _restore(
        label: str, net: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], metadata: dict[str, str]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        rest = json.loads(metadata["state"])
        if rest["facts"]["label"] != label:
            return None
        net.load_state_dict(_under("net.", tensors))
        state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in rest["numbers"].items()}
        for name, value in _under("optimizer.", tensors).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": rest["groups"]})
        own = {"steps": rest["steps"], "masks": _under("mask.", tensors)}
        own |= {name: _under(f"{name}.", tensors) for name in ("silenced", "average")}
        return own, rest["facts"]

    # --- metrics ---------------------------------------------------------------------------------------------------

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with self._file("metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise StorageError(
                f"cannot write {self._file('metrics.jsonl')}: {error.strerror or error}. Free some space and resume."
            ) from error

    def rows(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a line cut short by a kill is left out."""
        file = self._file("metrics.jsonl")
        rows = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and {"phase", "epoch"} <= row.keys():
                rows.append(row)
        return rows

    def rewind(self, label: str, epochs: int) -> None:
        """Drop lines that the killed run wrote after its last checkpoint: of this phase beyond `epochs` epochs."""
        rows = self.rows()
        kept = [row for row in rows if row["phase"] != label or row["epoch"] < epochs]
        if self._file("metrics.jsonl").exists():
            write_text(self._file("metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in kept))

    def _file(self, name: str) -> Path:
        return self.path / name

    def report(self) -> Comparison | None:
        """Read the measured networks of a finished run, or None."""
        file = self._file("report.json")
        return Comparison.from_dict(read_json(file)) if file.exists() else None

    def note_environment(self, now: Mapping[str, Any]) -> None:
        """Keep what the numbers depend on; where the run goes on in another environment, that one too."""
        file = self._file("environment.json")
        first = dict(read_json(file)) if file.exists() else dict(now)
        seen = [{k: v for k, v in first.items() if k != "resumed"}, *first.get("resumed", [])]
        if dict(now) not in seen:
            first["resumed"] = [*first.get("resumed", []), dict(now)]
        write_json(file, first)

    def write(self, name: str, content: str) -> Path:
        """Write a text file of the run in one step."""
        write_text(self._file(name), content)
        return self._file(name)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def environment(recipe: Recipe, source: str) -> dict[str, Any]:
    """Say what the numbers of a run depend on besides the recipe."""
    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor()
    )
    return {
        "seed": recipe.seed,
        "versions": versions(),
        "machine": {"system": platform.platform(), "cpu": cpu, "threads": torch.get_num_threads()},
        "data": {"name": recipe.data.name, "source": source},
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
