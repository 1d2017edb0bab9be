"""The command line. The only room that prints; an error is one message, never a traceback."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from spikeprune.errors import SpikepruneError, StorageError
from spikeprune.version import __version__

app = typer.Typer(
    name="spikeprune",
    help="Make trained spiking neural networks small, sparse and measurably cheaper.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)


def main() -> None:
    """Run the command line; every error of ours ends with status 1 and one message."""
    try:
        app()
    except SpikepruneError as error:
        _fail(str(error))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(
            f"cannot use{where}: {error.strerror or error}. Nothing finished was lost; free some space or mend the path, and run again."
        )


def _fail(message: str) -> None:
    err.print(f"[bold red]error:[/] {_plain(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Make trained spiking neural networks small, sparse and measurably cheaper."""


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (see below) or a .toml file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value on top of it: seed=3 method.alpha=0.25")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to keep the runs; by default runs/RECIPE[-OVERRIDES].")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Run so many seeds, from the recipe's on, and compare them.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete a run that is there and start anew.")] = False,
) -> None:
    """Run a recipe, or finish an interrupted run of it; each seed gets a directory of its own.

    Shipped recipes: demo, cqp-mnist, cqp-fashion, cqp-fc1-oneshot, cqp-fc1-rounds.
    """
    from spikeprune.compare import Comparison
    from spikeprune.recipes.config import load_recipe
    from spikeprune.recipes.run import run as run_recipe

    overrides = overrides or []
    first = load_recipe(recipe, overrides)
    folder = folder or Path("runs") / _slug(first.name, overrides)
    parts = []
    for seed in range(first.seed, first.seed + seeds):
        path = folder / f"seed-{seed}"
        out.print(f"[bold]{first.name}[/], seed {seed} → {path}", highlight=False)
        with Bar() as bar:
            parts.append(run_recipe(load_recipe(recipe, [*overrides, f"seed={seed}"]), path, watch=bar, fresh=fresh))
    _show(Comparison.joined(parts), folder if seeds > 1 else path)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished run directories, or folders of them.")],
    folder: Annotated[Path, typer.Option("--out", help="Where to write report.html, report.md and report.json.")] = Path(
        "comparison"
    ),
) -> None:
    """Compare finished runs: one table and one report.html, seeds grouped, spread shown."""
    from spikeprune.compare import Comparison

    parts = []
    for path in [found for given in runs for found in _finished(given)]:
        from spikeprune.files import read_json

        parts.append(Comparison.from_dict(read_json(path / "report.json")))
    _show(Comparison.joined(parts), folder)


@app.command()
def profile(
    run: Annotated[Path, typer.Argument(help="A finished run directory.")],
    network: Annotated[str | None, typer.Option(help="Which network of the run; by default that of the recipe's method.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the layers of a run's network: weights, density, rates, SynOps, energy."""
    from spikeprune.compare import Comparison
    from spikeprune.files import read_json
    from spikeprune.recipes.rundir import RunDir

    label = network or RunDir(run).recipe().method.label
    found = {o.label: o for o in Comparison.from_dict(read_json(_finished(run)[0] / "report.json")).outcomes}
    if label not in found:
        raise StorageError(f"{run} has no network {label!r}; it has {', '.join(found)}.")
    chosen = found[label].report
    print(chosen.to_json() if as_json else f"{run}: {label}\n\n{chosen.to_markdown()}", end="")  # noqa: T201


@app.command()
def methods() -> None:
    """List the methods, what they do, and their papers."""
    from spikeprune.recipes.methods import METHODS

    table = Table("method", "what it does", "options", "paper", box=None)
    for name, entry in METHODS.items():
        options = ", ".join(f"{key}={field.default}" for key, field in entry.spec.model_fields.items() if key != "name")
        table.add_row(name, entry.about, options, entry.paper)
    out.print(table)


class Bar:
    """Shows the phases of a run as progress bars with the time left; silent where no terminal is."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description:>16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=err)
        self._task: TaskID | None = None

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, label: str, steps: int, done: int) -> None:
        """Begin a bar."""
        self._task = self._progress.add_task(label, total=steps or 1, completed=done if steps else 1)

    def advance(self) -> None:
        """Move the bar by one step."""
        assert self._task is not None
        self._progress.advance(self._task)


def _slug(name: str, overrides: Sequence[str]) -> str:
    parts = [name, *(text.replace("/", "_") for text in sorted(overrides) if not text.startswith("seed="))]
    return "-".join(part.replace(" ", "").replace("'", "").replace('"', "") for part in parts)


def _finished(path: Path) -> list[Path]:
    """Find finished runs at or right below a path."""
    if (path / "recipe.toml").exists():
        if not (path / "report.json").exists():
            raise StorageError(f"{path} is not finished; go on with: spikeprune run {path / 'recipe.toml'} --out {path.parent}")
        return [path]
    below = sorted(file.parent for file in path.glob("*/recipe.toml"))
    if not below:
        raise StorageError(f"{path} is no run directory and holds none.")
    return [found for folder in below for found in _finished(folder)]


def _show(comparison: "Comparison", folder: Path) -> None:  # type: ignore[name-defined] # noqa: F821
    from spikeprune.compare import TITLES
    from spikeprune.files import write_text

    for group in comparison.groups():
        table = Table(*TITLES, title=group, title_justify="left")
        for row in comparison.rows(group):
            table.add_row(*row)
        out.print(table)
    for name, content in (
        ("report.json", comparison.to_json()),
        ("report.md", comparison.to_markdown()),
        ("report.html", comparison.to_html()),
    ):
        write_text(folder / name, content)
    out.print(f"Report: {folder / 'report.html'}", highlight=False, soft_wrap=True)
