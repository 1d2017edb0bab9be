"""Compile one network in a process of its own, and print how long that took.

    python -m spikeprune.bench.compiled TASK

The task is JSON: the facts of a `Network`, "saved", its file, "example", the file of a batch "x", and "bits". Machine code is kept in the
folder of this process's environment: with an empty one all of it is made.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load_file

from spikeprune.bench.networks import Network, build
from spikeprune.engine import compile
from spikeprune.saved import load
from spikeprune.view.model_view import model_view


@dataclass(frozen=True)
class Took:
    """What compiling took, libraries imported and the network read.

    Attributes:
        cpu: seconds of the processor.
        wall: seconds.
    """

    cpu: float
    wall: float


@torch.no_grad()
def took(task: dict[str, Any]) -> Took:
    """Read a network and compile it."""
    x = load_file(task["example"])["x"]
    net, _ = load(task["saved"], build(Network(**task["network"])))
    view = model_view(net.eval(), x)
    wall, cpu = time.perf_counter(), time.process_time()
    compile(view, x, bits=task["bits"])
    return Took(time.process_time() - cpu, time.perf_counter() - wall)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(asdict(took(json.loads(sys.argv[1])))))  # noqa: T201
