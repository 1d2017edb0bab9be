"""How large a compiled network is: on disk, in memory, and in the time that compiling takes."""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spikeprune.bench.cases import Case, Correctness, Row
from spikeprune.bench.goals import Goal
from spikeprune.bench.making import Made
from spikeprune.bench.measuring import Ground
from spikeprune.bench.networks import Network
from spikeprune.engine import Engine, compile, load_engine, save_engine

BATCH = 1


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
    wall, cpu = time.perf_counter(), time.process_time()
    engine = compile(made.view, x, bits=bits)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
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
        Row("compile", cpu, "s", wall=wall, note="processor time, kernels measured and first code generated; once for a network"),
        *_memory(ground, made, path),
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


def _memory(ground: Ground, made: Made, engine: Path) -> list[Row]:
    """Measure in processes of their own by how much memory grows from before a network is read to the peak of running it."""
    names = ("spikeprune, peak memory", "eager network, peak memory")
    if ground.options.quick:
        return [Row(name, unit="bytes", note="not run: left out of the quick form") for name in names]
    if made.network.rate is not None:
        return [Row(name, unit="bytes", note="not run: the network has no file") for name in names]
    saved = ground.maker.path(made.network)
    ours = _grown({"engine": str(engine), "network": asdict(made.network)})
    theirs = _grown({"saved": str(saved), "network": asdict(made.network)})
    ratio = theirs / ours if ours and theirs else None
    why = "" if ratio else "not measured: this system does not tell it"
    return [
        Row(names[0], ours, "bytes", note=why or "engine read and run, over the process before; buffers and code included"),
        Row(names[1], theirs, "bytes", ratio, note=why or "the same network in the framework, its zeros stored"),
    ]


def _grown(task: dict[str, Any]) -> int | None:
    command = [sys.executable, "-m", "spikeprune.bench.memory", json.dumps(task)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(json.loads(found.stdout.splitlines()[-1])["grown"]) if found.returncode == 0 else None
