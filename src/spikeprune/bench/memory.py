"""Run one network in a process of its own, and print by how many bytes its memory grew at the peak.

    python -m spikeprune.bench.memory TASK

The task is JSON: the facts of a `Network`, and either "engine", the file of an engine, or "saved", that of the network.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from spikeprune.bench.frameworks import spikingjelly
from spikeprune.bench.networks import Network, build
from spikeprune.engine import load_engine
from spikeprune.saved import load

STATUS = Path("/proc/self/status")
RUNS = 3


def read(field: str) -> int:
    """Read a field of this process in bytes, as "VmRSS", what it holds, or "VmHWM", the most that it held.

    Raises:
        OSError: this system has no such file.
    """
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


@torch.no_grad()
def grown(task: dict[str, Any]) -> int:
    """Read a network and run it; give by how much memory grew from before to the peak."""
    network = Network(**task["network"])
    x = network.input(1, torch.Generator().manual_seed(0))
    torch.nn.functional.conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3))  # what libraries take once is nobody's
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of before
    before = read("VmRSS")
    run: Any = load_engine(task["engine"]) if "engine" in task else spikingjelly(load(task["saved"], build(network))[0]).eval()
    for _ in range(RUNS):
        run(x)
    return read("VmHWM") - before


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"grown": grown(json.loads(sys.argv[1]))}))  # noqa: T201
