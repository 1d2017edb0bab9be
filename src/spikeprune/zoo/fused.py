"""SpikingJelly's neurons with all timesteps in one native call, forward and backward, on the CPU.

They are SpikingJelly's in all else: state, step mode "s", CUDA. What the kernel does not know goes SpikingJelly's way too. In
float32 the spikes are the same bit by bit. In bfloat16, as under autocast, SpikingJelly rounds the membrane at every timestep, the
kernel only at the last.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, final

from torch import Tensor

from spikeprune.errors import MissingExtra
from spikeprune.runtime import IntegrateAndFire, integrate_and_fire
from spikeprune.runtime.lif import native

try:
    from spikingjelly.activation_based import neuron, surrogate
except ImportError as error:
    raise MissingExtra.of("spikingjelly", "spikingjelly", "the deep networks") from error

# Those that SpikingJelly 2.0 runs in one fused kernel on CUDA; its others take a loop over timesteps there too.
SURROGATES = {
    "atan": surrogate.ATan,
    "erf": surrogate.Erf,
    "piecewise_exp": surrogate.PiecewiseExp,
    "piecewise_quadratic": surrogate.PiecewiseQuadratic,
    "sigmoid": surrogate.Sigmoid,
    "soft_sign": surrogate.SoftSign,
    "super_spike": surrogate.SuperSpike,
}
_NAMES = {kind: name for name, kind in SURROGATES.items()}

Forward = Callable[..., Any]


def natively(plain: Forward) -> Forward:
    """Wrap a `multi_step_forward` of SpikingJelly: the native kernel where it does the same, `plain` elsewhere."""

    @wraps(plain)  # who asks for the dynamics of a neuron may unwrap it
    def multi_step_forward(node: Any, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
        equations = None if args or kwargs or not native(x_seq) else equations_of(node)
        if equations is None:
            return plain(node, x_seq, *args, **kwargs)
        # A membrane at rest is still a number; SpikingJelly fits any other to the batch.
        start = node.v if isinstance(node.v, float) else node.materialize_states((x_seq,), (node.v,), "m")[0]
        spikes, node.v = integrate_and_fire(x_seq, start, equations)
        return spikes

    return multi_step_forward


def equations_of(node: Any) -> IntegrateAndFire | None:
    """Return what a neuron of IFNode's or LIFNode's kind does at the moment; None if the kernel cannot do it.

    Example:
        >>> equations_of(FusedIF(v_threshold=0.5, v_reset=None))
        IntegrateAndFire(tau=None, decay_input=True, threshold=0.5, reset=None, surrogate='sigmoid', alpha=4.0, detach_reset=False)
    """
    slope = node.surrogate_function
    name = _NAMES.get(type(slope))
    tau, reset = getattr(node, "tau", None), node.v_reset
    values = [value for value in (tau, reset, node.v_threshold, getattr(slope, "alpha", None)) if value is not None]
    known = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    if name is None or not slope.spiking or not known or node.store_v_seq or node._neuron_precision is not None:
        return None
    return IntegrateAndFire(
        tau=tau,
        decay_input=getattr(node, "decay_input", True),
        threshold=float(node.v_threshold),
        reset=reset,
        surrogate=name,
        alpha=float(slope.alpha),
        detach_reset=node.detach_reset,
    )


@final
class FusedIF(neuron.IFNode):  # type: ignore[misc]
    """SpikingJelly's IFNode, faster on the CPU.

    Example:
        >>> import torch
        >>> FusedIF(step_mode="m")(torch.full((3, 1), 0.5)).flatten()
        tensor([0., 1., 0.])
    """

    multi_step_forward = natively(neuron.IFNode.multi_step_forward)


@final
class FusedLIF(neuron.LIFNode):  # type: ignore[misc]
    """SpikingJelly's LIFNode, faster on the CPU.

    Example:
        >>> import torch
        >>> FusedLIF(tau=2.0, step_mode="m")(torch.full((3, 1), 1.5)).flatten()
        tensor([0., 1., 0.])
    """

    multi_step_forward = natively(neuron.LIFNode.multi_step_forward)
