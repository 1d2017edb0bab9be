"""Integrate and fire over all timesteps at once, with its gradient: native where it can be, by torch elsewhere."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import jit, kernels
from spikeprune.runtime.equations import IntegrateAndFire

HALF = {torch.float32: False, torch.bfloat16: True}
SHARE = 1 << 19  # elements that are worth a thread of their own: about a millisecond


def integrate_and_fire(x: Tensor, start: Tensor | float, neuron: IntegrateAndFire) -> tuple[Tensor, Tensor]:
    """Run a neuron over all timesteps; return its spikes and its last membrane, through both of which gradients flow.

    Inputs of bfloat16 are charged in float32, and only what is returned is rounded. The gradient of a gradient takes the slow
    way, by torch.

    Args:
        x: (T, ...), input of each timestep.
        start: (...), membrane before the first timestep, or one number for all.
        neuron: what it does.

    Returns:
        spikes (T, ...) and membrane (...), of x's dtype.

    Raises:
        LayoutError: x has no timestep, or the start is not of one timestep's shape.

    Example:
        >>> spikes, membrane = integrate_and_fire(torch.full((3, 1), 0.5), 0.0, IntegrateAndFire(threshold=1.0))
        >>> spikes.flatten(), membrane
        (tensor([0., 1., 0.]), tensor([0.5000]))
    """
    if x.dim() < 1 or not len(x):
        raise LayoutError(f"a neuron takes (T, ...) with T of 1 or more, but was given {tuple(x.shape)}.")
    if isinstance(start, Tensor) and start.shape != x.shape[1:]:
        raise LayoutError(
            f"the membrane {tuple(start.shape)} does not fit the input {tuple(x.shape)}: it must be {tuple(x.shape[1:])}."
        )
    dtype = x.dtype
    if not native(x):
        wide = x.float() if dtype in HALF else x
        spikes, membrane = scan(wide, _membrane(start, wide), neuron)
    elif isinstance(start, Tensor):
        spikes, membrane = _Native.apply(x, start.float(), 0.0, neuron)  # type: ignore[no-untyped-call]
    else:
        spikes, membrane = _Native.apply(x, None, float(start), neuron)  # type: ignore[no-untyped-call]
    return spikes.to(dtype), membrane.to(dtype)


def native(x: Tensor) -> bool:
    """Whether this input gets the native kernel: on the CPU, float32 or bfloat16, with llvmlite installed.

    Example:
        >>> native(torch.zeros(2, 3)), native(torch.zeros(2, 3, dtype=torch.float64))
        (True, False)
    """
    plain = type(x) is Tensor and x.device.type == "cpu" and x.layout is torch.strided
    return plain and x.dtype in HALF and x.numel() > 0 and jit.available() and not torch.compiler.is_compiling()


def scan(x: Tensor, v: Tensor, neuron: IntegrateAndFire) -> tuple[Tensor, Tensor]:
    """Run a neuron timestep by timestep in torch; as `integrate_and_fire`, and differentiable any number of times.

    Example:
        >>> scan(torch.full((3, 1), 0.5), torch.zeros(1), IntegrateAndFire(reset=None, threshold=0.5))[0].flatten()
        tensor([1., 1., 1.])
    """
    spikes = []
    for current in x:
        h = neuron.charge(v, current)
        s = _Spike.apply(h, neuron)  # type: ignore[no-untyped-call]
        v = neuron.membrane(h, s.detach() if neuron.detach_reset else s)
        spikes.append(s)
    return torch.stack(spikes), v


class _Spike(torch.autograd.Function):
    """1 where the charge reaches the threshold, with the surrogate gradient."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, neuron: IntegrateAndFire) -> Tensor:
        ctx.neuron = neuron
        ctx.save_for_backward(h)
        return (h >= neuron.threshold).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, ds: Tensor) -> tuple[Tensor, None]:
        (h,) = ctx.saved_tensors
        return ds * ctx.neuron.slope(h), None


class _Native(torch.autograd.Function):
    """The native kernels under autograd; what it keeps for the gradient is its input."""

    @staticmethod
    def forward(x: Tensor, v0: Tensor | None, start: float, neuron: IntegrateAndFire) -> tuple[Tensor, Tensor]:
        x = _dense(x)
        v0 = v0 if v0 is None else _as(x, v0[None])[0]
        size, s, v = x[0].numel(), _empty(x, x.shape, x.dtype), _empty(x, x.shape[1:], torch.float32)
        run = kernels.forward(neuron, half=HALF[x.dtype])

        def share(first: int, last: int) -> None:
            run(x.data_ptr(), _address(v0), s.data_ptr(), v.data_ptr(), start, len(x), size, x.stride(0), first, last)

        _divide(share, size, len(x))
        return s, v

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, float, IntegrateAndFire], output: Any) -> None:
        x, v0, ctx.start, ctx.neuron = inputs
        ctx.save_for_backward(x, v0)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, ds: Tensor | None, dv: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, v0 = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            return *_by_torch(x, v0, ctx.start, ctx.neuron, (ds, dv)), None, None
        x = _dense(x)
        ds = _as(x, torch.zeros_like(x) if ds is None else ds)
        v0, dv = (None if v is None else _as(x, v[None])[0] for v in (v0, dv))
        size, dx, dv0 = x[0].numel(), _empty(x, x.shape, x.dtype), _empty(x, x.shape[1:], torch.float32)
        run = kernels.backward(ctx.neuron, half=HALF[x.dtype])

        def share(first: int, last: int) -> None:
            room = torch.empty(len(x) * kernels.BLOCK, dtype=torch.float32)
            places = (x.data_ptr(), _address(v0), ds.data_ptr(), _address(dv), dx.data_ptr(), dv0.data_ptr(), room.data_ptr())
            run(*places, ctx.start, len(x), size, x.stride(0), ds.stride(0), first, last)

        _divide(share, size, len(x))
        return dx, None if v0 is None else dv0, None, None


def _by_torch(x: Tensor, v0: Tensor | None, start: float, neuron: IntegrateAndFire, grads: tuple[Any, Any]) -> tuple[Any, Any]:
    """Differentiate the scan, so that its gradient can be differentiated in turn."""
    wide = x.float()
    outputs = scan(wide, _membrane(start if v0 is None else v0, wide), neuron)
    given = [(output, grad.to(output.dtype)) for output, grad in zip(outputs, grads, strict=True) if grad is not None]
    inputs = [tensor for tensor in (x, v0) if tensor is not None and tensor.requires_grad]
    found = iter(torch.autograd.grad([o for o, _ in given], inputs, [g for _, g in given], create_graph=True, allow_unused=True))
    dx, dv0 = (next(found) if tensor is not None and tensor.requires_grad else None for tensor in (x, v0))
    return dx, dv0


def _membrane(start: Tensor | float, x: Tensor) -> Tensor:
    return start.to(x.dtype) if isinstance(start, Tensor) else torch.full_like(x[0], start, requires_grad=False)


def _last(x: Tensor) -> bool:
    """Tell whether the channels of each timestep (N, C, H, W) lie innermost, and only so."""
    step = x[0]
    return step.dim() == 4 and not step.is_contiguous() and step.is_contiguous(memory_format=torch.channels_last)


def _dense(x: Tensor) -> Tensor:
    """Return x with each timestep free of gaps, in either order; timesteps may lie anywhere, also on each other."""
    return x if _last(x) or x[0].is_contiguous() else x.contiguous()


def _as(like: Tensor, x: Tensor) -> Tensor:
    """Return x (T, ...) with the elements of each timestep in the order of `like`, which is dense."""
    order = torch.channels_last if _last(like) else torch.contiguous_format
    return x if x[0].is_contiguous(memory_format=order) else _empty(like, x.shape, x.dtype).copy_(x)


def _empty(like: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Make room for a shape, its elements in the order of `like`, but one timestep after the other."""
    if not _last(like):
        return torch.empty(shape, dtype=dtype)
    c, h, w = shape[-3:]
    strides = (shape[-4] * c * h * w, c * h * w, 1, w * c, c)
    return torch.empty_strided(shape, strides[-len(shape) :], dtype=dtype)


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _divide(share: Callable[[int, int], None], size: int, timesteps: int) -> None:
    """Run a kernel on ranges of elements, each in a thread of its own if they are many."""
    threads = min(torch.get_num_threads(), size * timesteps // SHARE)
    if threads < 2:
        return share(0, size)
    bounds = [size * i // threads // 16 * 16 for i in range(threads)] + [size]  # a cache line is of one thread
    others = [threading.Thread(target=share, args=pair) for pair in itertools.pairwise(bounds[1:])]
    for other in others:
        other.start()
    share(*bounds[:2])
    for other in others:
        other.join()
    return None
