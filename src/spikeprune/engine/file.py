"""An engine in one file: its plan, with weights as the values that live and a bit for each, and the kernels that were chosen.

No framework and no network is needed to read it. Weights on a grid take as many bits as they need, others are float32.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, cast

import torch
from safetensors.torch import save as encoded
from torch import Tensor

from spikeprune.engine import plan as p
from spikeprune.engine.choice import Choice
from spikeprune.engine.engine import Engine
from spikeprune.engine.kernels import KERNELS
from spikeprune.engine.reference import Reference, given
from spikeprune.engine.stock import current, filled, storable
from spikeprune.engine.stored import Stored
from spikeprune.errors import PlanError, SpikepruneError, StorageError
from spikeprune.files import write_tensors
from spikeprune.masks import FORMAT, read
from spikeprune.runtime import jit

HOLDS = "an engine"
KINDS: dict[str, type[p.Operation]] = {
    kind.__name__: kind
    for kind in (p.Input, p.Synapse, p.Scale, p.Neuron, p.Pool, p.Add, p.Concatenate, p.Reshape, p.Crop, p.ReLU, p.Readout)
}


def save_engine(path: str | os.PathLike[str], engine: Engine) -> None:
    """Write an engine as one safetensors file, in one step.

    Raises:
        PlanError: a layer runs in torch by a function of the network, which no file can hold; or it is an engine on a GPU.
        StorageError: the file cannot be written.
    """
    if not isinstance(engine, Engine):
        raise PlanError(f"files hold engines on the CPU, not {type(engine).__name__}; compile with device='cpu' and save that.")
    if engine.plan.outside:
        names = "; ".join(f"{op.name} ({op.reason})" for op in engine.plan.outside)
        raise PlanError(f"this engine cannot be saved, since torch runs functions of the network in it: {names}.")
    plan, tensors = engine.plan, dict[str, Tensor]()
    told = {
        "operations": [_written(f"{number}.", op, tensors) for number, op in enumerate(plan.operations)],
        "outputs": plan.outputs,
        "timesteps": plan.timesteps,
        "notes": plan.notes,
        "spikes": sorted(engine.spikes),
        "choices": [asdict(choice) for choice in engine.choices],
    }
    text = json.dumps(told)
    write_tensors(path, tensors, {"format": FORMAT, "holds": HOLDS, "engine": text, "checksum": _checksum(tensors, text)})


def load_engine(path: str | os.PathLike[str], *, threads: int = 1) -> Engine:
    """Read what `save_engine` wrote; its layers get the kernels that were chosen then.

    Weights of layers with native kernels stay as the file has them, until a layer is laid out.

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
        weights = dict[int, Stored]()
        operations = tuple(_read(number, entry, tensors, weights) for number, entry in enumerate(told["operations"]))
        plan = p.Plan(operations, tuple(told["outputs"]), told["timesteps"], tuple(told["notes"]))
        _dry(plan)
        choices = [Choice(**entry) for entry in told["choices"]]
        native = _native(operations, choices)
        plan = filled(plan, {number: one.whole() for number, one in weights.items() if number not in native})
    except (SpikepruneError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise StorageError(
            f"{path} holds no engine that this version of spikeprune can run ({error}). Save the engine anew."
        ) from error
    return Engine(plan, set(told["spikes"]), choices, threads, stored={number: weights[number] for number in native})


def _written(prefix: str, op: p.Operation, tensors: dict[str, Tensor]) -> dict[str, Any]:
    entry: dict[str, Any] = {"operation": type(op).__name__}
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(op, p.Synapse) and field.name == "weight":
            entry["weight"] = Stored.of(value).write(prefix, tensors)
        elif isinstance(value, Tensor):
            tensors[prefix + field.name] = value
        else:
            entry[field.name] = value
    return entry


def _read(number: int, entry: Mapping[str, Any], tensors: Mapping[str, Tensor], weights: dict[int, Stored]) -> p.Operation:
    """Give an operation; if it is a synapse, with the shape of its weight, which goes to the others."""
    made, prefix = cast(Callable[..., p.Operation], KINDS[entry["operation"]]), f"{number}."
    own: dict[str, Any] = {}
    for field in fields(KINDS[entry["operation"]]):
        value = entry.get(field.name)
        if entry["operation"] == "Synapse" and field.name == "weight":
            weights[number] = Stored.read(prefix, entry["weight"], tensors)
            value = weights[number].outline(torch.double)
        elif prefix + field.name in tensors:
            value = tensors[prefix + field.name]
        own[field.name] = tuple(value) if isinstance(value, list) else value
    return made(**own)


def _native(operations: tuple[p.Operation, ...], choices: Iterable[Choice]) -> set[int]:
    """Give the synapses that run by native kernels alone, so that torch needs none of their weights."""
    native, dense = set[int](), set[int]()
    for choice in choices:
        (native if choice.kernel in KERNELS and jit.available() else dense).add(current(operations, choice.number)[0])
    return {number for number in native - dense if storable(operations, number)}


def _dry(plan: p.Plan) -> None:
    """Run a plan on nothing but zeros, synapses by the shapes of their weights, so that none whose parts do not fit gets further."""
    lead = {None: (1,), 0: (plan.timesteps, 1), 1: (1, plan.timesteps)}[plan.input.time_axis]
    run, values = Reference(plan), [given(plan, torch.zeros(*lead, *plan.input.shape))]
    for number, op in enumerate(plan.operations[1:], 1):
        inputs = [values[i] for i in op.inputs]
        if isinstance(op, p.Synapse):
            axis = 1 + plan.operations[op.inputs[0]].over_time
            values.append(torch.zeros(()).expand(*inputs[0].shape[:axis], *_through(op, tuple(inputs[0].shape[axis:]))))
        else:
            values.append(run.one(number, inputs, plan.timesteps))
    for number, (op, value) in enumerate(zip(plan.operations, values, strict=True)):
        wanted = (plan.timesteps, 1, *op.shape) if op.over_time else (1, *op.shape)
        if tuple(value.shape) != wanted:
            raise PlanError(f"operation {number} gives {tuple(value.shape)} and says {wanted}")
    if not plan.outputs or not all(0 <= number < len(values) for number in plan.outputs):
        raise PlanError(f"there are no outputs {plan.outputs}")


def _through(op: p.Synapse, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the shape that a synapse makes of another, if its weight takes that."""
    outputs, inputs, *kernel = op.weight.shape
    axes = zip(shape[1:], kernel, op.stride, op.padding, op.dilation, strict=True)
    sides = [(side + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for side, size, stride, padding, dilation in axes]
    fits = inputs * op.groups == shape[0] and not outputs % op.groups and min(sides, default=1) > 0
    if not fits or (op.bias is not None and tuple(op.bias.shape) != (outputs,)):
        raise PlanError(f"{op.name} has a weight {tuple(op.weight.shape)} in {op.groups} groups for an input {shape}")
    return outputs, *sides


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        found.update(encoded({name: tensors[name].contiguous()}))
    return found.hexdigest()
