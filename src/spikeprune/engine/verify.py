"""A plan is the network, or it is refused: both are run on one example in float64, and compared neuron by neuron."""

from collections.abc import Iterable

import torch
from torch import Tensor

from spikeprune.engine.listen import Heard
from spikeprune.engine.plan import Neuron, Plan
from spikeprune.engine.reference import Reference
from spikeprune.errors import PlanError

TOLERANCE = 1e-6
"""How far currents, membranes and outputs may differ, as a share of the largest, or of 1: networks may cast to float32 in between."""


def verify(plan: Plan, x: Tensor, heard: Heard, outputs: Iterable[Tensor]) -> None:
    """Refuse a plan that does not do what the network did.

    Args:
        plan: the plan.
        x: its input.
        heard: what the network's neurons were given, fired and kept.
        outputs: what the network returned.

    Raises:
        PlanError: a neuron or an output differs; the first that does is named, with where and by how much.
    """
    run = Reference(plan, torch.double, x.device)
    values = run.values(x)
    for number, op in enumerate(plan.operations):
        if isinstance(op, Neuron) and op.gives == "spikes":
            _compare_neuron(op, number, run, values, heard)
    for place, (number, wanted) in enumerate(zip(plan.outputs, outputs, strict=True)):
        _compare(f"output {place}", values[number], wanted)


def _compare_neuron(op: Neuron, number: int, run: Reference, values: list[Tensor], heard: Heard) -> None:
    what = f"neuron {op.name!r}"
    current = torch.stack(heard.currents[op.name])
    _compare(f"the input of {what}", values[op.inputs[0]].expand(current.shape), current)
    wanted = torch.stack(heard.spikes[op.name]).double()
    wrong = (values[number] != wanted).flatten(1).sum(1)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise PlanError(
            f"the plan is not the network: {what} fires differently in {int(wrong.sum())} of {wanted.numel()} places, first at timestep {first}. "
            + ADVICE
        )
    charge, membrane = run.state(number)
    for kept, ours in ((heard.charges, charge), (heard.membranes, membrane)):
        if op.name in kept:
            _compare(f"the membrane of {what}", ours, kept[op.name])


def _compare(what: str, ours: Tensor, wanted: Tensor) -> None:
    wanted = wanted.detach().double()
    if ours.shape != wanted.shape:
        raise PlanError(
            f"the plan is not the network: {what} has shape {tuple(ours.shape)}, there {tuple(wanted.shape)}. {ADVICE}"
        )
    gap = (ours - wanted).abs()
    most = float(gap.max()) if gap.numel() else 0.0
    if not most <= TOLERANCE * max(1.0, float(wanted.abs().max()) if wanted.numel() else 0.0):
        raise PlanError(f"the plan is not the network: {what} differs by up to {most:.3g}. {ADVICE}")


ADVICE = "Something in the forward depends on what it is given, or is not what it seems; run the network as it is."
