"""Whom an engine is compared with: the frameworks, torch in its best dense form, and dense engines, each on one thread.

A peer that is not installed, or that cannot run a network, is told with the reason; it is never an error of the benchmark.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.bench import exported, frameworks
from spikeprune.bench.folded import Folded
from spikeprune.engine import Plan
from spikeprune.errors import MissingExtra

Call = Callable[[], Any]


class Absent(Exception):
    """Why a peer has no row of figures."""


@dataclass(frozen=True)
class Task:
    """What a peer is given.

    Attributes:
        net: the network, in evaluation mode.
        plan: of it, in float.
        x: the batch.
        calibration: batches as large, whose activations set the steps of integers.
        quick: whether what takes long to build is left out.
    """

    net: nn.Module
    plan: Plan
    x: Tensor
    calibration: Sequence[Tensor]
    quick: bool = False
    _kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def folded(self) -> Folded:
        """The network as ordinary modules, T folded into the batch."""
        return Folded(self.plan).eval()

    @cached_property
    def onnx(self) -> bytes:
        """The same as an ONNX file."""
        return exported.onnx(self.folded, self.x)

    @cached_property
    def whole(self) -> bytes:
        """The same, its layers in int8."""
        return exported.static(self.onnx, self.calibration)


def calls(name: str, task: Task) -> Call:
    """Give what runs a network by a peer.

    Args:
        name: of the peer, of `PEERS`.
        task: the network and its input.

    Raises:
        Absent: it is not installed, or cannot run this; the message says which.
    """
    try:
        return PEERS[name](task)
    except Absent:
        raise
    except MissingExtra as error:
        package = error.__cause__.name if isinstance(error.__cause__, ImportError) else None
        raise Absent(f"not installed: {package or error}") from error
    except Exception as error:
        # Of a peer anything may come; a benchmark that fails by it would tell nothing of the others.
        first = (str(error).strip().splitlines() or [""])[0]
        raise Absent(f"failed: {type(error).__name__}: {first[:160]}") from error


def _inferring(net: nn.Module, x: Tensor) -> Call:
    def run() -> Any:
        with torch.inference_mode():
            return net(x)

    return run


def _spikingjelly(task: Task) -> Call:
    return _inferring(frameworks.spikingjelly(task.net), task.x)


def _loop(cell: Callable[[Any], frameworks.Cell]) -> Callable[[Task], Call]:
    def looped(task: Task) -> Call:
        if not frameworks.runnable(task.net):
            raise Absent("not run: the loop has no neuron whose input decays")
        return _inferring(frameworks.Loop(task.net, cell).eval(), task.x)

    return looped


def _folded(task: Task) -> Call:
    return _inferring(task.folded, task.x)


def _compiled(task: Task) -> Call:
    if task.quick:
        raise Absent("not run: left out of the quick form")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        raise Absent("not run: torch.compile needs a C++ compiler, and there is none")
    import torch._dynamo
    import torch._inductor.config as config

    torch._dynamo.reset()
    net, x = torch.compile(Folded(task.plan).eval(), dynamic=False, fullgraph=True), task.x

    def run() -> Any:
        with torch.no_grad():
            return net(x)

    with exported.quiet(), config.patch(freezing=True):
        run()
    return run


def _with(package: str, make: Callable[[Task], Call]) -> Callable[[Task], Call]:
    """Ask for a peer's own package before those that its file is made with."""

    def checked(task: Task) -> Call:
        exported.needed(package)
        return make(task)

    return checked


PEERS: dict[str, Callable[[Task], Call]] = {
    "SpikingJelly": _spikingjelly,
    "snnTorch": _loop(frameworks.leaky),
    "Norse": _loop(frameworks.lif_box),
    "torch folded": _folded,
    "torch.compile": _compiled,
    "ONNX Runtime": _with("onnxruntime", lambda task: exported.in_onnxruntime(task.onnx, task.x)),
    "ONNX Runtime int8": _with("onnxruntime", lambda task: exported.in_onnxruntime(exported.dynamic(task.onnx), task.x)),
    "OpenVINO": _with("openvino", lambda task: exported.in_openvino(task.onnx, task.x)),
    "OpenVINO int8": _with("openvino", lambda task: exported.in_openvino(task.whole, task.x)),
}
ABOUT = {
    "SpikingJelly": "the framework itself, multi-step, eager",
    "snnTorch": "the framework itself, a loop over time, eager",
    "Norse": "the framework itself, a loop over time, eager",
    "torch folded": "T in the batch, norms folded, eager",
    "torch.compile": "the same, compiled by inductor, constants frozen",
    "ONNX Runtime": "the same, float32",
    "ONNX Runtime int8": "the same, weights int8, activations rounded as they come",
    "OpenVINO": "the same, float32",
    "OpenVINO int8": "the same, layers in int8 by calibration (QDQ)",
}
