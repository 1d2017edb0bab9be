"""The command line. The only room that prints; an error is one message, never a traceback."""

import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from spikeprune.bench.command import bench
from spikeprune.errors import RecipeError, SpikepruneError, StorageError
from spikeprune.version import __version__

if TYPE_CHECKING:
    from spikeprune.report import Comparison
    from spikeprune.report.page import Section

RECIPES = ", ".join(
    sorted(Path(str(f)).stem for f in resources.files("spikeprune.recipes").iterdir() if str(f).endswith(".toml"))
)

app = typer.Typer(
    name="spikeprune",
    help="Make trained spiking neural networks small, sparse and measurably cheaper.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
WIDE = 200  # columns that a whole table of results takes
# No markup: names and values of users may hold square brackets.
out = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDE)
err = Console(markup=False, highlight=False, stderr=True)


def main() -> None:
    """Run the command line; every error of ours ends with status 1 and one message."""
    try:
        app()
    except SpikepruneError as error:
        _fail(str(error))
    except OSError as error:
        what = error.filename or "a file"
        _fail(
            f"cannot use {what}: {error.strerror or error}. Nothing finished was lost; free some space or mend the path, and run again."
        )


def _fail(message: str, status: int = 1) -> None:
    err.print("error:", style="bold red", end=" ")
    err.print(message, soft_wrap=True)
    sys.exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


app.command()(bench)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Make trained spiking neural networks small, sparse and measurably cheaper."""


@app.command(
    help=f"Run a recipe, or finish an interrupted run of it; each seed gets a directory of its own. Shipped recipes: {RECIPES}."
)
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe, a .toml file, or a run directory to go on with.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value on top of it: seed=3 method.alpha=0.25")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Where the runs go; by default runs/RECIPE[-OVERRIDES].")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Run so many seeds, from the recipe's on, and compare them.")] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete a run that is there and start anew.")] = False,
) -> None:
    """Run a recipe for one or more seeds and compare them."""
    from spikeprune.recipes.config import load_recipe
    from spikeprune.report import Comparison

    overrides = overrides or []
    if (Path(recipe) / "recipe.toml").exists():
        _refuse_with_directory(recipe, overrides, folder, seeds)
        done = _one(str(Path(recipe) / "recipe.toml"), [], Path(recipe), fresh)
        return _show(done, Path(recipe))
    first = load_recipe(recipe, overrides)
    folder = folder or Path("runs") / _slug(first.name, overrides)
    if (folder / "recipe.toml").exists():
        raise StorageError(
            f"{folder} is a run directory itself; --out names the folder that runs go into, such as {folder.parent}."
        )
    places = [folder / f"seed-{seed}" for seed in range(first.seed, first.seed + seeds)]
    parts = [_one(recipe, [*overrides, f"seed={first.seed + i}"], place, fresh) for i, place in enumerate(places)]
    return _show(Comparison.joined(parts), folder if seeds > 1 else places[0])


def _refuse_with_directory(recipe: str, overrides: Sequence[str], folder: Path | None, seeds: int) -> None:
    if overrides or folder or seeds > 1:
        raise StorageError(f"{recipe} is a run directory, whose recipe is fixed; go on with it alone: spikeprune run {recipe}")


def _one(recipe: str, overrides: Sequence[str], path: Path, fresh: bool) -> "Comparison":
    from spikeprune.recipes.config import load_recipe
    from spikeprune.recipes.run import run as run_recipe

    resolved = load_recipe(recipe, overrides)
    out.print(f"{resolved.name}, seed {resolved.seed} → {path}", soft_wrap=True)
    try:
        with Bar() as bar:
            return run_recipe(resolved, path, watch=bar, fresh=fresh)
    except KeyboardInterrupt:
        _fail(f"interrupted; go on where it stood with: spikeprune run {path}", status=130)
        raise


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="The study of a paper: cqp, sca, slamp, spikenm or stprune.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="key=value on top of its recipe, where the study takes some: net.width=0.25")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The data set, such as fashion-mnist; with --quick the embedded sample by default.")
    ] = None,
    net: Annotated[str | None, typer.Option(help="Another network of the zoo, where the study takes one: vgg16.")] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A small form of every part, on a smaller network; on the embedded images a minute or two."),
    ] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; 3 by default, 1 with --quick.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Where it goes; by default runs/study-NAME-DATA[-quick].")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete a study that is there and start anew.")] = False,
) -> None:
    """Measure every claim of a paper, from trained seeds to one report; go on with an interrupted one."""
    from spikeprune.studies import STUDIES

    if name not in STUDIES:
        raise RecipeError(f"there is no study {name!r}; there are {', '.join(STUDIES)}.")
    entry = STUDIES[name]
    if data is None and not quick:
        raise RecipeError(f"name the data with --data: {', '.join(entry.data)}; or try --quick, which has its own.")
    data, seeds = data or entry.sample, seeds or (1 if quick else 3)
    overrides = [*([f"net.name={net}"] if net else []), *(changes or [])]
    if overrides and not entry.open:
        raise RecipeError(f"the study {name} has the paper's network and training, so it takes no --net and no key=value.")
    if net and any(change.partition("=")[0].strip() == "net.name" for change in changes or []):
        raise RecipeError(f"the network is named twice, by --net {net} and by net.name; leave one out.")
    own = {"overrides": overrides} if entry.open else {}
    folder = folder or Path("runs") / _slug(f"study-{name}-{data}{'-quick' * quick}", overrides)
    out.print(f"study {name} on {data}, {seeds} seed{'s' * (seeds > 1)} → {folder}", soft_wrap=True)
    try:
        with Bar() as bar:
            done = entry.run(data, folder, seeds=seeds, quick=quick, watch=bar, fresh=fresh, **own)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where it stood.", status=130)
        raise
    _tell_claims(done.sections, folder)


def _tell_claims(sections: "Sequence[Section]", folder: Path) -> None:
    table = Table("claim", "paper", "here", "verdict", show_lines=True)
    for section in sections:
        for claim in section.claims:
            table.add_row(claim.text, claim.paper, claim.here, claim.verdict)
    out.print(table)
    out.print(f"Report: {folder / 'report.html'}", soft_wrap=True)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Finished run directories, or folders of them.")],
    folder: Annotated[Path, typer.Option("--out", help="Where to write report.html, report.md and report.json.")] = Path(
        "comparison"
    ),
) -> None:
    """Compare finished runs: one table and one report.html, seeds grouped, spread shown."""
    from spikeprune.report import Comparison

    _show(Comparison.joined(_read(path) for given in runs for path in _finished(given)), folder)


@app.command()
def profile(
    run: Annotated[Path, typer.Argument(help="A finished run directory.")],
    network: Annotated[str | None, typer.Option(help="Which network of the run; by default that of the recipe's method.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the layers of a run's network: weights, density, rates, SynOps, energy."""
    from spikeprune.recipes.rundir import RunDir

    path, *more = _finished(run)
    if more:
        raise StorageError(f"{run} holds {1 + len(more)} runs; name one, such as {path}.")
    label = network or RunDir(path).recipe().method.label
    found = {outcome.label: outcome for outcome in _read(path).outcomes}
    if label not in found:
        raise StorageError(f"{path} has no network {label!r}; it has {', '.join(found)}.")
    chosen = found[label].report
    print(chosen.to_json() if as_json else f"{path}: {label}\n\n{chosen.to_markdown()}", end="")  # noqa: T201


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
        self._progress = Progress(*columns, console=err, disable=not err.is_terminal)
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
    """Make a folder's name of a recipe and its overrides; the seed has a folder of its own."""
    text = "-".join([name, *sorted(text for text in overrides if not text.startswith("seed="))])
    return re.sub(r"[^\w.=,\[\]]+", "-", text).strip("-.")


def _read(path: Path) -> "Comparison":
    from spikeprune.files import read_json
    from spikeprune.report import Comparison

    return Comparison.from_dict(read_json(path / "report.json"))


def _finished(path: Path) -> list[Path]:
    """Find finished runs at or right below a path."""
    if (path / "recipe.toml").exists():
        if not (path / "report.json").exists():
            raise StorageError(f"{path} is not finished; go on with: spikeprune run {path}")
        return [path]
    below = sorted(file.parent for file in path.glob("*/recipe.toml"))
    if not below:
        raise StorageError(f"{path} is no run directory and holds none. Make one with: spikeprune run RECIPE")
    return [found for folder in below for found in _finished(folder)]


def _show(comparison: "Comparison", folder: Path) -> None:
    from spikeprune.files import write_text
    from spikeprune.report.compare import DETAILS, TITLES

    left_out = DETAILS if out.width < WIDE else ()
    for group in comparison.groups():
        table = Table(title=group, title_justify="left")
        for title in TITLES:
            if title not in left_out:
                table.add_column(title, no_wrap=title == "method")
        for row in comparison.rows(group):
            table.add_row(*(cell for title, cell in zip(TITLES, row, strict=True) if title not in left_out))
        out.print(table)
    for name, content in (("json", comparison.to_json()), ("md", comparison.to_markdown()), ("html", comparison.to_html())):
        write_text(folder / f"report.{name}", content)
    out.print(f"Report: {folder / 'report.html'}", soft_wrap=True)
