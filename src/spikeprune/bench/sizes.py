"""How large a compiled network is: on disk, in memory, and in the time that compiling takes."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from spikeprune.bench import goals
from spikeprune.bench.cases import OURS, Case, Correctness, Row
from spikeprune.bench.compiled import Took
from spikeprune.bench.goals import Goal
from spikeprune.bench.making import Made
from spikeprune.bench.measuring import Ground
from spikeprune.bench.memory import STATUS, Grown
from spikeprune.bench.networks import Network
from spikeprune.engine import Engine, compile, load_engine, save_engine
from spikeprune.saved import save

BATCH = 1
TIMES = 3  # new processes that something is measured in: how memory is handed out, for one, is partly chance
EAGER = "eager network"
ANEW, KEPT = "compile, for the first time", "compile, machine code kept"
FIRST, WHOLE, RUNNING = "read and first answer", "peak memory", "peak memory of running alone"
UNTOLD = "not measured: this system does not tell it"


def sizes(workload: str, ground: Ground, network: Network, bits: int, goal: Goal | None) -> Case:
    """Measure one network: rows are ratios of what the dense float32 network takes to what ours does.

    Args:
        workload: the name of the workload.
        ground: of the run.
        network: pruned.
        bits: of the engine's weights.
        goal: of the ratio of bytes on disk.
    """
    title = f"{network.sparsity:.0%} pruned, {bits} bit"
    ground.watch(f"{workload}: {title}")
    made, x = ground.maker.make(network), ground.batch(network, BATCH)
    engine = compile(made.view, x, bits=bits)
    path = ground.options.folder / "engines" / f"{network.name}-{bits}bit.safetensors"
    save_engine(path, engine)
    again = load_engine(path)
    same = torch.equal(_answer(again, x), _answer(engine, x))
    note = "the file gives the same answers, bit by bit" if same else "WRONG: the file gives other answers"
    disk = path.stat().st_size
    dense = sum(value.numel() * value.element_size() for value in made.net.state_dict().values())
    rows = [
        Row("spikeprune, saved engine", disk, "bytes", note=note),
        Row("dense float32 state_dict", dense, "bytes", dense / disk, goal, note="as it is kept by torch, without its header"),
        *_compiling(ground, made, x, bits),
        *_fresh(ground, made, path),
    ]
    correctness = ground.correctness(made, again, x, BATCH)
    if not same:
        correctness = Correctness(**{**asdict(correctness), "difference": float("inf")})
    layers = [asdict(choice) for choice in engine.choices]
    return Case(workload, title, network.name, made.training, BATCH, bits, layers, made.density, correctness, rows)


def _answer(engine: Engine, x: torch.Tensor) -> torch.Tensor:
    out = engine(x)
    assert isinstance(out, torch.Tensor)
    return out


def _compiling(ground: Ground, made: Made, x: torch.Tensor, bits: int) -> list[Row]:
    """Measure compiling in new processes: with no machine code from before, and with all of it on disk."""
    if ground.options.quick:
        return [Row(name, unit="s", goal=goals.COMPILING, note="not run: left out of the quick form") for name in (ANEW, KEPT)]
    task = {"network": asdict(made.network), "saved": str(_saved(ground, made)), "bits": bits}
    rounds = [_compiled_twice(task, x) for _ in range(TIMES)]
    found = [sorted(took, key=lambda one: one.cpu)[TIMES // 2] for took in zip(*rounds, strict=True)]
    told = ("no machine code from before: all is made", "machine code from its folder")
    note = f"processor time in a new process, the median of {TIMES}; kernels measured; "
    return [
        Row(name, one.cpu, "s", goal=goals.COMPILING, wall=one.wall, note=note + how)
        for name, one, how in zip((ANEW, KEPT), found, told, strict=True)
    ]


def _compiled_twice(task: dict[str, Any], x: torch.Tensor) -> list[Took]:
    """Compile in two new processes, the second of which finds the machine code of the first."""
    with tempfile.TemporaryDirectory() as folder:
        example = Path(folder) / "example.safetensors"
        save_file({"x": x.contiguous()}, example)
        return [Took(**_child("compiled", task | {"example": str(example)}, SPIKEPRUNE_CACHE=folder)) for _ in (ANEW, KEPT)]


def _fresh(ground: Ground, made: Made, engine: Path) -> list[Row]:
    """Measure engine and network in processes of their own, that read them and run them: seconds to the first answer, and memory."""
    if ground.options.quick:
        names = (FIRST, *(f"{who}, {what}" for what in (WHOLE, RUNNING) for who in (OURS, EAGER)))
        return [Row(name, unit="bytes", note="not run: left out of the quick form") for name in names]
    network = asdict(made.network)
    ours = _grown({"engine": str(engine), "network": network})
    theirs = _grown({"saved": str(_saved(ground, made)), "network": network})
    return [_first(ours), *_compared(WHOLE, ours, theirs), *_compared(RUNNING, ours, theirs)]


def _first(ours: Grown | None) -> Row:
    if ours is None:
        return Row(FIRST, unit="s", goal=goals.FIRST, note=UNTOLD)
    note = "processor time in a new process, from the file to the first answer; libraries imported, machine code from its folder"
    return Row(FIRST, ours.cpu, "s", goal=goals.FIRST, wall=ours.wall, note=note)


def _compared(what: str, ours: Grown | None, theirs: Grown | None) -> list[Row]:
    """Give our row and theirs, of the memory of reading and running, or of running alone."""
    names = [f"{who}, {what}" for who in (OURS, EAGER)]
    if ours is None or theirs is None:
        return [Row(names[0], unit="bytes", note=UNTOLD), Row(names[1], unit="bytes", goal=goals.MEMORY, note=UNTOLD)]
    amounts = [one.whole if what == WHOLE else one.running for one in (ours, theirs)]
    notes = [
        f"over the process before, buffers and code included, the median of {TIMES}; {one.files:,} bytes are pages of files"
        for one in (ours, theirs)
    ]
    return [
        Row(names[0], amounts[0], "bytes", note=notes[0]),
        Row(names[1], amounts[1], "bytes", amounts[1] / max(1, amounts[0]), goals.MEMORY, note=f"its zeros stored; {notes[1]}"),
    ]


def _saved(ground: Ground, made: Made) -> Path:
    """Give the file of a network; one that is not trained is written."""
    path = ground.maker.path(made.network)
    if made.network.rate is not None:
        save(path, made.net)
    return path


def _grown(task: dict[str, Any]) -> Grown | None:
    """Run a task in new processes, and give the one of median memory; None if this system does not tell a process's memory."""
    if not STATUS.exists():
        return None
    return sorted((Grown(**_child("memory", task)) for _ in range(TIMES)), key=lambda one: one.whole)[TIMES // 2]


def _child(module: str, task: dict[str, Any], **environment: str) -> Any:
    """Run a task in a new process, and read what it prints."""
    command = [sys.executable, "-m", f"spikeprune.bench.{module}", json.dumps(task)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return json.loads(found.stdout.splitlines()[-1])
