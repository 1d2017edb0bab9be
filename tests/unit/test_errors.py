import inspect
import re

import pytest

from spikeprune import errors
from spikeprune.errors import MissingExtra, SpikepruneError

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


def drawn():
    """Each error of the drawn tree with the one above it."""
    parents, found = [], {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    (?:([│ ]*)[├└]── )?([A-Z]\w+)", line):
            depth = 0 if match[1] is None else 1 + len(match[1]) // 4
            parents[depth:] = [match[2]]
            found[match[2]] = parents[depth - 1] if depth else "Exception"
    return found


def test_the_tree_is_drawn_as_it_is():
    assert drawn() == {kind.__name__: kind.__bases__[0].__name__ for kind in TREE}


@pytest.mark.parametrize("kind", TREE)
def test_one_root_catches_all(kind):
    assert issubclass(kind, SpikepruneError)
    assert kind.__doc__


def test_a_missing_package_names_its_extra():
    error = MissingExtra.of("matplotlib", "recipes", "drawing figures")
    assert isinstance(error, ImportError)
    assert str(error).endswith(
        "drawing figures needs matplotlib, which is not installed. Install it with: pip install 'spikeprune[recipes]'"
    )
