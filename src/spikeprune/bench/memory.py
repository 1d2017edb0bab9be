"""Run one network in a process of its own, and print how much its memory grew, and how long the first answer took.

    python -m spikeprune.bench.memory TASK

The task is JSON: the facts of a `Network`, and either "engine", the file of an engine, or "saved", that of the network.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spikeprune.bench.frameworks import spikingjelly
from spikeprune.bench.networks import Network, build
from spikeprune.engine import load_engine
from spikeprune.saved import load

STATUS = Path("/proc/self/status")
RUNS = 3


@dataclass(frozen=True)
class Grown:
    """What it took to read a network and run it, over the process before, which had imported all that it needs.

    Attributes:
        whole: bytes, from before it was read to the peak of all.
        running: bytes, from before it was read to the peak of running alone.
        files: bytes, of what is held in the end, that are pages of files, such as the code of libraries.
        cpu: seconds of the processor until the first answer.
        wall: seconds until the first answer.
    """

    whole: int
    running: int
    files: int
    cpu: float
    wall: float


def read(field: str) -> int:
    """Read a field of this process in bytes, as "VmRSS", what it holds, or "VmHWM", the most that it held.

    Raises:
        OSError: this system has no such file.
    """
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def forget() -> None:
    """Let this process's peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


@torch.no_grad()
def grown(task: dict[str, Any]) -> Grown:
    """Read a network and run it; give by how much memory grew, and how long the first answer took."""
    network = Network(**task["network"])
    x = network.input(1, torch.Generator().manual_seed(0))
    torch.nn.functional.conv2d(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3))  # what libraries take once is nobody's
    forget()
    before, files = read("VmRSS"), read("RssFile")
    wall, cpu = time.perf_counter(), time.process_time()
    run: Any = load_engine(task["engine"]) if "engine" in task else spikingjelly(load(task["saved"], build(network))[0]).eval()
    reading = read("VmHWM") - before
    forget()
    run(x)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for _ in range(RUNS - 1):
        run(x)
    running = read("VmHWM") - before
    return Grown(max(reading, running), running, read("RssFile") - files, cpu, wall)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(asdict(grown(json.loads(sys.argv[1])))))  # noqa: T201
