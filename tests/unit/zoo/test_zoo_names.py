"""What the zoo offers, and what importing it must not pull in."""

import subprocess
import sys

import pytest

from spikeprune import zoo
from spikeprune.errors import MissingExtra


def test_every_public_name_is_there_and_documented():
    for name in zoo.__all__:
        assert ">>>" in getattr(zoo, name).__doc__, name
    assert set(zoo.networks()) < set(zoo.__all__)


def test_no_other_name_is_there():
    with pytest.raises(AttributeError, match="has no attribute 'vgg99'"):
        zoo.vgg99  # noqa: B018


@pytest.mark.parametrize("name", [name for name in zoo.__all__ if name not in ("make", "networks")])
def test_a_missing_framework_is_named_with_its_extra(name, monkeypatch):
    absent, extra = ("snntorch", "recipes") if name == "SpikingMLP" else ("spikingjelly", "spikingjelly")
    for module in [m for m in sys.modules if m == absent or m.startswith((f"{absent}.", "spikeprune.zoo."))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtra, match=rf"needs {absent}.*spikeprune\[{extra}\]"):
        getattr(zoo, name)
    assert zoo.networks()


def test_importing_the_zoo_pulls_in_no_framework():
    code = "import sys, spikeprune.zoo as z; z.networks(); sys.exit(any(n in sys.modules for n in ('snntorch', 'spikingjelly')))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
