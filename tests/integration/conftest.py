from pathlib import Path

import pytest

TINY = """
about = "two methods, one epoch here and there"
baselines = ["random"]

[data]
name = "fashion-sample"
validation = 4000

[net]
hidden = [24]
timesteps = 4

[train]
epochs = 2
lr = 1e-2

[prune]
stages = [0.5, 0.9]
epochs = 1
lr = 5e-3
calibration = 2
calibration_batch = 64

[method]
name = "cqp"
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A recipe that runs in a few seconds, on 1,000 of the embedded training images."""
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    return file
