"""What `import spikeprune` offers, and what it must not pull in."""

import ast
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import spikeprune

OPTIONAL = (
    "snntorch",
    "spikingjelly",
    "matplotlib",
    "jinja2",
    "pooch",
    "lightning",
    "lightning_fabric",
    "tensorboard",
    "neurobench",
)


def test_all_is_the_sorted_public_names():
    tree = ast.parse(Path(spikeprune.__file__).read_text(encoding="utf-8"))
    imported = [alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert spikeprune.__all__ == sorted(name for name in imported if not name.startswith("_"))
    visible = {name for name, value in vars(spikeprune).items() if not name.startswith("_")}
    extra = {name for name in visible - set(spikeprune.__all__) if not isinstance(getattr(spikeprune, name), ModuleType)}
    assert extra == set()


def test_public_names_are_documented():
    for name in spikeprune.__all__:
        assert getattr(spikeprune, name).__doc__, name


def test_public_names_show_an_example():
    names = ["Masks", "ModelView", "Need", "Pruner", "hold", "load", "measure", "model_view", "profile", "prune", "save"]
    found = [getattr(spikeprune, name) for name in names]
    found += [getattr(spikeprune.methods, name) for name in spikeprune.methods.__all__] + [spikeprune.metrics.EnergyTable]
    functions = [getattr(spikeprune.temporal, name) for name in spikeprune.temporal.__all__]
    found += [item for item in functions if isinstance(item, FunctionType)]
    assert [item.__name__ for item in found if ">>>" not in (item.__doc__ or "")] == []


def test_importing_pulls_in_no_extra():
    code = f"import sys, spikeprune; sys.exit(', '.join(name for name in {OPTIONAL} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
