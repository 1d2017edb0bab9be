"""A run killed at any moment goes on, and ends exactly as one that was never killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from run_facts import facts
from spikeprune.errors import StorageError
from spikeprune.files import write_tensors
from spikeprune.recipes.config import load_recipe
from spikeprune.recipes.run import run
from spikeprune.recipes.rundir import RunDir

# The run in a process of its own, which says when its imports are done, so that kills hit the run itself.
CHILD = """
import sys
from spikeprune.recipes.config import load_recipe
from spikeprune.recipes.run import run
print("ready", flush=True)
run(load_recipe(sys.argv[1]), sys.argv[2])
"""


def start(recipe: Path, folder: Path) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(recipe), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(tiny, tmp_path):
    run(load_recipe(str(tiny)), tmp_path / "whole")
    moments = random.Random(0)
    kills = 0
    for _ in range(4):
        child = start(tiny, tmp_path / "broken")
        time.sleep(moments.uniform(0.2, 1.6))
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.communicate()
        if (tmp_path / "broken" / "report.html").exists():
            break
    assert kills
    child = start(tiny, tmp_path / "broken")
    _, err = child.communicate()
    assert child.returncode == 0, err.decode()
    assert facts(tmp_path / "broken") == facts(tmp_path / "whole")


class Killed(Exception):
    pass


class KillAt:
    """Ends the run after so many steps, without a chance to tidy up."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def phase(self, label: str, steps: int, done: int) -> None:
        pass

    def advance(self) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize("step", [3, 8, 11, 19, 27])
def test_a_run_broken_off_in_any_phase_resumes_from_its_last_epoch(tiny, tmp_path, step):
    recipe = load_recipe(str(tiny))  # 8 steps an epoch: dense 16, cqp 16, random 16
    run(recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        run(recipe, tmp_path / "broken", watch=KillAt(step))
    run(recipe, tmp_path / "broken")
    assert facts(tmp_path / "broken") == facts(tmp_path / "whole")


def test_without_the_checkpointed_optimizer_the_resumed_run_would_differ(tiny, tmp_path, monkeypatch):
    """Negative twin: the equality above is no accident."""
    recipe = load_recipe(str(tiny))
    run(recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        run(recipe, tmp_path / "broken", watch=KillAt(11))
    whole = RunDir.resume

    def forgetful(self, label, net, optimizer):
        found = whole(self, label, net, optimizer)
        optimizer.state.clear()
        return found

    monkeypatch.setattr(RunDir, "resume", forgetful)
    run(recipe, tmp_path / "broken")
    assert facts(tmp_path / "broken") != facts(tmp_path / "whole")


def test_a_line_cut_short_by_the_kill_is_dropped(tiny, tmp_path):
    recipe = load_recipe(str(tiny))
    run(recipe, tmp_path / "whole")
    with pytest.raises(Killed):
        run(recipe, tmp_path / "broken", watch=KillAt(11))
    with (tmp_path / "broken" / "metrics.jsonl").open("ab") as file:
        file.write(b'null\n{}\n\xff\n{"phase": "dense", "epo')
    run(recipe, tmp_path / "broken")
    assert facts(tmp_path / "broken") == facts(tmp_path / "whole")


def test_a_checkpoint_that_is_none_says_what_to_delete(tiny, tmp_path):
    recipe = load_recipe(str(tiny))
    with pytest.raises(Killed):
        run(recipe, tmp_path / "broken", watch=KillAt(11))
    file = tmp_path / "broken" / "checkpoint.safetensors"
    write_tensors(file, {"x": torch.ones(1)})
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors is damaged or of another run.*Delete it"):
        run(recipe, tmp_path / "broken")
    file.unlink()
    run(recipe, tmp_path / "whole")
    run(recipe, tmp_path / "broken")
    assert facts(tmp_path / "broken") == facts(tmp_path / "whole")
