"""What a framework's neuron does, read off the module: snnTorch's Leaky; SpikingJelly's IFNode, LIFNode and ParametricLIFNode."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.engine.plan import constant
from spikeprune.errors import MeasureError, PlanError
from spikeprune.view.adapters import Adapter

ZERO = constant(0.0)
ONE = constant(1.0)


def dynamics(name: str, module: nn.Module, adapter: Adapter, shape: tuple[int, ...]) -> Mapping[str, Any]:
    """Give the fields of `plan.Neuron` that say what a neuron of a known class does to samples of a shape.

    Raises:
        PlanError: its class is not known, or it does something that a plan has no word for.
    """
    try:
        adapter.leak(module)  # refuses all classes but the known
    except MeasureError as error:
        raise PlanError(f"neuron {name!r} cannot be planned: {error}") from error
    fields = _integrate_and_fire(name, module) if hasattr(module, "v_threshold") else _leaky(name, module)
    return {key: _per_channel(name, key, x, shape) if isinstance(x, Tensor) else x for key, x in fields.items()}


def _integrate_and_fire(name: str, module: Any) -> dict[str, Any]:
    """SpikingJelly: fires at >=, resets at once."""
    if not getattr(module.surrogate_function, "spiking", True):
        raise _refused(name, "its surrogate function is not spiking, so that it gives no spikes")
    if hasattr(module, "w"):
        share = module.w.detach().double().sigmoid()
    else:
        share = constant(1 / module.tau) if hasattr(module, "tau") else ZERO
    start = module.v
    if not isinstance(start, float | int):
        raise _refused(name, "its membrane at rest is not one number")
    hard = module.v_reset is not None
    return {
        "decay": constant(1 - share),
        "gain": constant(share) if hasattr(module, "decay_input") and module.decay_input else ONE,
        "rest": constant(float(module.v_reset)) if hard else ZERO,
        "threshold": constant(module.v_threshold),
        "strict": False,
        "reset": "hard" if hard else "soft",
        "reset_to": constant(float(module.v_reset)) if hard else ZERO,
        "delayed": False,
        "start": constant(float(start)),
    }


def _leaky(name: str, module: Any) -> dict[str, Any]:
    """snnTorch: fires at >, and takes at the next timestep what the reset takes."""
    for trait in ("inhibition", "state_quant"):
        if getattr(module, trait, False):
            raise _refused(name, f"it has {trait}")
    if float((module.graded_spikes_factor.detach() - 1).abs().max()):
        raise _refused(name, "its spikes are graded (graded_spikes_factor)")
    kind = {"subtract": "soft", "zero": "hard", "none": "none"}[module.reset_mechanism]
    level = constant(module.threshold)
    if kind == "soft" and not module.reset_delay:
        raise _refused(name, "it resets by subtraction without delay (reset_delay=False)")
    if kind != "none" and bool((level < 0).any()):
        raise _refused(name, "its threshold is below its membrane at rest")
    return {
        "decay": constant(module.beta).clamp(0, 1),
        "gain": ONE,
        "rest": ZERO,
        "threshold": level,
        "strict": True,
        "reset": kind,
        "reset_to": ZERO,
        "delayed": kind == "soft",
        "start": ZERO,
    }


def _per_channel(name: str, what: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bring a constant that is broadcast over a sample to () or (C,)."""
    if x.numel() == 1:
        return x.reshape(())
    channels = shape[0] if shape else 1
    x = x.view(*[1] * (len(shape) - x.dim()), *x.shape) if x.dim() < len(shape) else x
    if x.dim() != len(shape) or x.numel() != channels or x.shape[0] != channels:
        raise _refused(
            name, f"its {what} has shape {tuple(x.shape)}, which is neither one number nor one for each of {channels} channels"
        )
    return x.reshape(channels)


def _refused(name: str, why: str) -> PlanError:
    return PlanError(f"neuron {name!r} cannot be planned: {why}. Change the neuron, or run the network as it is.")


def membrane(module: nn.Module) -> Tensor | None:
    """Give what the neuron keeps of its membrane now; snnTorch's charge, which it resets later."""
    kept = getattr(module, "v", None)
    kept = getattr(module, "mem", None) if kept is None else kept
    return kept.detach() if isinstance(kept, Tensor) and kept.numel() else None


def keeps_charge(module: nn.Module) -> bool:
    """Whether what the neuron keeps, and may return, is its charge before reset: snnTorch with its delay."""
    return bool(getattr(module, "reset_delay", False)) and not hasattr(module, "v_threshold")


def at_rest(value: object) -> bool:
    """Whether a membrane that is handed to a neuron is all zeros, or none."""
    return value is None or (isinstance(value, Tensor) and not bool(torch.count_nonzero(value)))
