"""A whole benchmark: its workloads one after the other on one thread, and the report."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from spikeprune.bench.measuring import Ground, Options
from spikeprune.bench.page import page
from spikeprune.bench.report import Report
from spikeprune.bench.workloads import WORKLOADS, chosen
from spikeprune.files import write_text
from spikeprune.version import __version__

PACKAGES = ("torch", "numpy", "llvmlite", "spikingjelly", "snntorch", "onnx", "onnxruntime", "openvino")
UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")  # what dense engines profit by


def run(names: Sequence[str], options: Options, watch: Callable[[str], None] = lambda title: None) -> Report:
    """Measure workloads, and write report.json, report.md and report.html into the folder of the options.

    Args:
        names: of `WORKLOADS`; none for all.
        options: how.
        watch: is told the title of each case before it is measured.

    Raises:
        RecipeError: there is no such workload.
        DataError: the data are not there.
    """
    names = chosen(list(names))
    ground = Ground(options, watch)
    cases = []
    with one_thread():
        for name in names:
            cases += list(WORKLOADS[name].cases(name, ground))
            report = Report(facts(names, options), cases)
            # After each workload: a benchmark that is broken off has told what it knew.
            write_text(options.folder / "report.json", report.to_json())
            write_text(options.folder / "report.md", report.to_markdown())
            write_text(options.folder / "report.html", page(report))
    return report


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, and on as many as before after."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def facts(names: Sequence[str], options: Options) -> dict[str, Any]:
    """Tell what figures depend on."""
    words = ["spikeprune bench", *(f"--workload {name}" for name in names), f"--width {options.width:g}"]
    kept = {key: value for key, value in asdict(options).items() if key != "folder"}
    return {
        "command": " ".join([*words, *(["--quick"] if options.quick else []), f"--rounds {options.rounds}"]),
        "machine": {
            "cpu": told("model name") or platform.processor(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "units": ", ".join(unit for unit in UNITS if unit in told("flags").split()) or "none known",
            "cores": os.cpu_count(),
            "system": platform.platform(),
        },
        "versions": {"spikeprune": __version__, "python": platform.python_version(), **installed()},
        "threads": 1,
        "options": kept,
    }


def installed() -> dict[str, str]:
    """Give the versions of what takes part; "not installed" of what is not there."""
    return {name: _version(name) for name in PACKAGES}


def told(what: str) -> str:
    """Give what the system tells of the processor, such as "model name"; "" where it does not."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(what)), "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
