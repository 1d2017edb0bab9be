"""An engine in one file: its plan, with weights as the values that live and a bit for each, and the kernels that were chosen.

No framework and no network is needed to read it. Weights on a grid take as many bits as they need, others are float32.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

import torch
from safetensors.torch import save as encoded
from torch import Tensor

from spikeprune.engine import plan as p
from spikeprune.engine.choice import Choice
from spikeprune.engine.engine import Engine
from spikeprune.engine.grid import on_grid
from spikeprune.engine.reference import Reference
from spikeprune.errors import PlanError, SpikepruneError, StorageError
from spikeprune.files import write_tensors
from spikeprune.kernel.packing import pack_bits, unpack_bits
from spikeprune.masks import FORMAT, read

HOLDS = "an engine"
KINDS: dict[str, type[p.Operation]] = {
    kind.__name__: kind
    for kind in (p.Input, p.Synapse, p.Scale, p.Neuron, p.Pool, p.Add, p.Concatenate, p.Reshape, p.ReLU, p.Readout)
}


def save_engine(path: str | os.PathLike[str], engine: Engine) -> None:
    """Write an engine as one safetensors file, in one step.

    Raises:
        PlanError: a layer runs in torch by a function of the network, which no file can hold.
        StorageError: the file cannot be written.
    """
    if engine.plan.outside:
        names = "; ".join(f"{op.name} ({op.reason})" for op in engine.plan.outside)
        raise PlanError(f"this engine cannot be saved, since torch runs functions of the network in it: {names}.")
    tensors: dict[str, Tensor] = {}
    operations = [_written(f"{number}.", op, tensors) for number, op in enumerate(engine.plan.operations)]
    told = {
        "operations": operations,
        "outputs": engine.plan.outputs,
        "timesteps": engine.plan.timesteps,
        "notes": engine.plan.notes,
        "spikes": sorted(engine.spikes),
        "choices": [asdict(choice) for choice in engine.choices],
    }
    text = json.dumps(told)
    write_tensors(path, tensors, {"format": FORMAT, "holds": HOLDS, "engine": text, "checksum": _checksum(tensors, text)})


def load_engine(path: str | os.PathLike[str], *, threads: int = 1) -> Engine:
    """Read what `save_engine` wrote; its layers get the kernels that were chosen then.

    Raises:
        StorageError: the file is missing or damaged, or holds something else.
        LayoutError: `threads` is no number of threads.
    """
    tensors, metadata = read(path, HOLDS)
    text = metadata.get("engine", "")
    if metadata.get("checksum") != _checksum(tensors, text):
        raise StorageError(
            f"{path} was changed since it was written: its checksum differs. Copy it again, or save the engine anew."
        )
    try:
        told = json.loads(text)
        operations = tuple(_read(f"{number}.", entry, tensors) for number, entry in enumerate(told["operations"]))
        plan = p.Plan(operations, tuple(told["outputs"]), told["timesteps"], tuple(told["notes"]))
        _dry(plan)
        choices = [Choice(**entry) for entry in told["choices"]]
    except (SpikepruneError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise StorageError(
            f"{path} holds no engine that this version of spikeprune can run ({error}). Save the engine anew."
        ) from error
    return Engine(plan, set(told["spikes"]), choices, threads)


def _written(prefix: str, op: p.Operation, tensors: dict[str, Tensor]) -> dict[str, Any]:
    entry: dict[str, Any] = {"operation": type(op).__name__}
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(op, p.Synapse) and field.name == "weight":
            entry["weight"] = _packed(prefix, value, tensors)
        elif isinstance(value, Tensor):
            tensors[prefix + field.name] = value
        else:
            entry[field.name] = value
    return entry


def _read(prefix: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> p.Operation:
    made: Callable[..., p.Operation] = KINDS[entry["operation"]]
    own: dict[str, Any] = {}
    for field in fields(KINDS[entry["operation"]]):
        value = entry.get(field.name)
        if entry["operation"] == "Synapse" and field.name == "weight":
            value = _unpacked(prefix, value, tensors)
        elif prefix + field.name in tensors:
            value = tensors[prefix + field.name]
        own[field.name] = tuple(value) if isinstance(value, list) else value
    return made(**own)


def _packed(prefix: str, weight: Tensor, tensors: dict[str, Tensor]) -> dict[str, Any]:
    found = on_grid(weight)
    numbers = weight.float() if found is None else found[0]
    alive = numbers != 0
    values = numbers[alive]
    entry: dict[str, Any] = {"shape": list(weight.shape), "bits": 0}
    if found is not None:
        entry["bits"] = max(2, int(values.abs().max()).bit_length() + 1) if len(values) else 2
        values = pack_bits(values.long() + (1 << (entry["bits"] - 1)), entry["bits"])
        tensors[prefix + "step"] = found[1]
    tensors[prefix + "values"], tensors[prefix + "alive"] = values, pack_bits(alive.flatten().long(), 1)
    return entry


def _unpacked(prefix: str, entry: Any, tensors: Mapping[str, Tensor]) -> Tensor:
    shape, bits = [int(side) for side in entry["shape"]], int(entry["bits"])
    count = int(torch.Size(shape).numel())
    alive = unpack_bits(tensors[prefix + "alive"], 1, count).bool().view(shape)
    values, whole = tensors[prefix + "values"], torch.zeros(shape, dtype=torch.double)
    if bits:
        values = unpack_bits(values, bits, int(alive.sum())).long() - (1 << (bits - 1))
    whole[alive] = values.double()
    return whole * tensors[prefix + "step"].view(-1, *[1] * (len(shape) - 1)) if bits else whole


def _dry(plan: p.Plan) -> None:
    """Run a plan on nothing but zeros, so that none whose parts do not fit gets further."""
    lead = {None: (1,), 0: (plan.timesteps, 1), 1: (1, plan.timesteps)}[plan.input.time_axis]
    values = Reference(plan).values(torch.zeros(*lead, *plan.input.shape))
    for number, (op, value) in enumerate(zip(plan.operations, values, strict=True)):
        wanted = (plan.timesteps, 1, *op.shape) if op.over_time else (1, *op.shape)
        if tuple(value.shape) != wanted:
            raise PlanError(f"operation {number} gives {tuple(value.shape)} and says {wanted}")
    if not plan.outputs or not all(0 <= number < len(values) for number in plan.outputs):
        raise PlanError(f"there are no outputs {plan.outputs}")


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        found.update(encoded({name: tensors[name].contiguous()}))
    return found.hexdigest()
