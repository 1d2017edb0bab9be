"""From a network to an engine: followed into a plan, weights rounded if asked, each layer on the kernel that is fastest with it."""

from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from spikeprune.engine.crop import cropped
from spikeprune.engine.cuda import DTYPES, CudaEngine, place
from spikeprune.engine.engine import Engine
from spikeprune.engine.firing import spiking
from spikeprune.engine.follow import make_plan
from spikeprune.engine.grid import rounded_plan
from spikeprune.engine.reference import given
from spikeprune.engine.sums import side_by_side
from spikeprune.errors import LayoutError, PlanError
from spikeprune.view.layer import check_weights
from spikeprune.view.model_view import ModelView, model_view


@overload
def compile(
    net: nn.Module | ModelView,
    example: Any = None,
    *,
    bits: int | None = None,
    kernel: str | Mapping[str, str] | None = None,
    threads: int = 1,
    device: Literal["cpu"] = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Engine: ...


@overload
def compile(
    net: nn.Module | ModelView,
    example: Any = None,
    *,
    bits: int | None = None,
    kernel: str | Mapping[str, str] | None = None,
    threads: int = 1,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> Engine | CudaEngine: ...


def compile(
    net: nn.Module | ModelView,
    example: Any = None,
    *,
    bits: int | None = None,
    kernel: str | Mapping[str, str] | None = None,
    threads: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Engine | CudaEngine:
    """Compile a trained network for fast inference, on the CPU or on a GPU.

    On the CPU, spikes are bits between layers, and each layer runs on the native kernel that is fastest on the example: some pay for
    spikes, some for weights that are not zero. Layers that no native kernel takes, and those where dense arithmetic wins, run in torch;
    `Engine.explain` tells which and why. On a GPU, layers are dense, all timesteps at once; see `CudaEngine`. The engine holds its own
    copy of the weights.

    Args:
        net: the network, or a view of it; it is compiled as it answers in evaluation mode, and left as it was. One that draws its input by
            chance (Poisson coding) is given as a view, and the example as what was drawn.
        example: a batch as the network takes it, of the size that matters; its spike rates decide. None takes a view's own.
        bits: 2 to 8 rounds weights that spikes reach to so many bits, a step for each output channel; None leaves them: those that lie
            on a grid already (`quantize_`) are run as whole numbers, others in float32.
        kernel: one for all layers that it takes, or by layer name: "event rows", "event patches", "scatter",
            "block scatter", "gather", "bit-sliced gather", "dense". Layers that are not named, or do not take it, are measured.
        threads: how many may share a batch: by its samples, or layer by layer by outputs, whichever is faster for its size.
        device: "cpu", or "cuda" for a `CudaEngine`, which has neither kernels nor threads; `bits` rounds its weights all the same. Network
            and example may lie on either.
        dtype: of a GPU's weights and of values between its layers: float32, bfloat16 or float16. With the latter two a spike may flip
            where a charge lies near its threshold.

    Raises:
        PlanError: it is called in `torch.inference_mode`; the network does something that a plan has no word for, or draws its input; there is no such kernel, layer, device or
            dtype, or not there.
        NonFinite: a weight is NaN or infinite.
        QuantizeError: bits are out of range.
        LayoutError: `threads` is none, or given for a GPU.
        MissingExtra: a kernel is asked for, and llvmlite is not installed. Without it torch runs everything, and `Engine.explain` says so.

    Example:
        >>> import torch
        >>> from spikeprune import model_view
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> engine = compile(model_view(net, torch.rand(2, 4), spiking=False))
        >>> x = torch.rand(5, 4)
        >>> torch.allclose(engine(x), net(x), atol=1e-6)
        True
    """
    if torch.is_inference_mode_enabled():
        raise PlanError(
            "compile follows tensors, which inference_mode forbids; call it outside. The engine may be called inside."
        )
    where = _where(device, dtype, kernel, threads)
    view = _view(net, example)
    check_weights(view.layers)
    plan, x = make_plan(view), _tensor(view.example if example is None else example)
    if plan.input.drawn and tuple(x.shape[2:]) != plan.input.shape:
        raise PlanError(
            f"this network draws its input by chance, and an engine takes what was drawn: (T = {plan.timesteps}, N, ...) of 0 and 1. Give the "
            "network as a view, compile(model_view(net, images), drawn), and call the engine with such."
        )
    if where.type == "cpu":
        plan = side_by_side(plan, spiking(plan, given(plan, x)))
        plan = cropped(plan, spiking(plan, given(plan, x)))
    if bits is not None:
        plan = rounded_plan(plan, bits, spiking(plan, given(plan, x)))
    return Engine.tuned(plan, x, kernel, threads) if where.type == "cpu" else CudaEngine.tuned(plan, x, where, dtype)


def _where(device: torch.device | str, dtype: torch.dtype, kernel: str | Mapping[str, str] | None, threads: int) -> torch.device:
    """Give the device, unless the options are of another."""
    found = place(device)
    if found.type == "cpu":
        if dtype != torch.float32:
            raise PlanError(
                f"dtype is {dtype}, but engines on the CPU are float32 and whole numbers (bits=); dtype is for device='cuda'."
            )
        return found
    if dtype not in DTYPES:
        raise PlanError(f"dtype is {dtype!r}, but must be {', '.join(map(str, DTYPES[:-1]))} or {DTYPES[-1]}.")
    if kernel is not None:
        raise PlanError(f"kernel is {kernel!r}, but kernels are those of the CPU; leave it out, or compile with device='cpu'.")
    if threads != 1:
        raise LayoutError(
            f"threads is {threads!r}, but a GPU shares no batch over threads; leave it out, or compile with device='cpu'."
        )
    return found


def _view(net: nn.Module | ModelView, example: Any) -> ModelView:
    if isinstance(net, ModelView):
        return net
    if example is None:
        raise PlanError("compile needs an example: a batch as the network takes it.")
    return model_view(net, example)


def _tensor(example: Any) -> Tensor:
    found = [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
    if len(found) != 1:
        raise PlanError(f"the example must be one tensor, but holds {len(found)}.")
    return found[0]
