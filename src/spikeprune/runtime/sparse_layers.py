"""Layers with few living weights, forward and backward, by native code: what dead weights would do is not computed.

Dead weights are never read, and their gradients are zero. Values of the living are read at every call, so the weight may change as it
likes; which of them live is packed once for each size of input.
"""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError
from spikeprune.runtime import jit, sparse_code
from spikeprune.runtime.sparse_code import LANES
from spikeprune.runtime.sparse_lists import Convolution, Lists, Living, Packing, Pair, Pass

SIZES = 8  # of inputs that packed lists are kept for
SHARE = 1 << 23  # multiply-adds that are worth a thread of their own: about a millisecond
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, None]


class SparseWeight:
    """Which weights of a layer live, and for each size of its input how that is packed.

    Args:
        mask: bool (C_out, C_in) of a linear layer, (C_out, C_in, height, width) of a convolution; True keeps.

    Example:
        >>> SparseWeight(torch.eye(4, dtype=torch.bool)).density
        0.25
    """

    def __init__(self, mask: Tensor) -> None:
        self.shape = mask.shape
        self._living = Living.of(mask.cpu() if mask.dim() == 4 else mask.cpu()[..., None, None])
        self._packed: dict[tuple[Convolution, int], Packing] = {}

    @property
    def density(self) -> float:
        """The share of weights that live."""
        return self._living.density

    def packed(self, x: Tensor, stride: Pair = (1, 1), padding: Pair = (0, 0)) -> Packing:
        """Pack for inputs of this shape, (N, C_in, height, width) or (N, C_in)."""
        outputs, channels, *kernel = self.shape
        size, taps = (tuple(x.shape[2:]), tuple(kernel)) if kernel else ((1, 1), (1, 1))
        sizes = Convolution(channels, outputs, size, taps, stride, padding)  # type: ignore[arg-type]
        key = sizes, sizes.vectors(len(x))
        if key not in self._packed:
            if len(self._packed) >= SIZES:
                self._packed.clear()
            self._packed[key] = Packing(self._living, *key)
        return self._packed[key]


def obstacle(x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: Pair = (0, 0)) -> str | None:
    """Say why native code cannot take these tensors; None if it can.

    Args:
        x: (N, C_in, height, width), or (N, C_in) for a weight of 2 axes.
        weight: of the layer.
        bias: of the layer, if it has one.
        padding: of a convolution.

    Example:
        >>> obstacle(torch.zeros(2, 16, dtype=torch.float64), torch.zeros(16, 16))
        'its input is torch.float64, not float32'
        >>> obstacle(torch.zeros(2, 16), torch.zeros(16, 16)) is None
        True
    """
    if not jit.available():
        return "llvmlite is not installed: pip install 'spikeprune[runtime]'"
    if torch.compiler.is_compiling():
        return "torch.compile is at work"
    for name, tensor in (("input", x), ("weight", weight), ("bias", bias)):
        if tensor is not None and (why := _odd(tensor)) is not None:
            return f"its {name} {why}"
    if x.dim() != weight.dim() or x.shape[1] != weight.shape[1]:
        return f"its input {tuple(x.shape)} does not go with its weight {tuple(weight.shape)}"
    if any(n + 2 * p < k for n, k, p in zip(x.shape[2:], weight.shape[2:], padding, strict=False)):
        return "its input is smaller than its kernel"
    return "its input is empty" if not x.numel() else None


def _odd(tensor: Tensor) -> str | None:
    if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        return "is no plain tensor"
    if tensor.device.type != "cpu":
        return f"is on {tensor.device.type}, not on the CPU"
    return f"is {tensor.dtype}, not float32" if tensor.dtype != torch.float32 else None


def sparse_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, packing: Packing) -> Tensor:
    """Convolve with the living weights alone; differentiable.

    Gradients of input and of living weights are those of the dense convolution, up to the order of sums, and those of dead weights are
    zero. To differentiate a gradient takes the dense way, by torch.

    Args:
        x: float32 (N, C_in, height, width), on the CPU.
        weight: float32 (C_out, C_in, height, width).
        bias: float32 (C_out,), or None.
        packing: from `SparseWeight.packed`, for inputs of this shape and about as many samples.

    Raises:
        LayoutError: the packing is for other shapes, or of sizes that native code does not take, or a tensor is none that it takes.

    Example:
        >>> weight = torch.eye(16).view(16, 16, 1, 1)
        >>> x = torch.rand(2, 16, 3, 3)
        >>> packing = SparseWeight(weight != 0).packed(x)
        >>> torch.equal(sparse_conv2d(x, weight, None, packing), x)
        True
    """
    _check(x, weight, bias, packing)
    found: Tensor = _Sparse.apply(x, weight, bias, packing)  # type: ignore[no-untyped-call]
    return found


def sparse_linear(x: Tensor, weight: Tensor, bias: Tensor | None, packing: Packing) -> Tensor:
    """Do what `sparse_conv2d` does for x (N, C_in) and a weight (C_out, C_in).

    Example:
        >>> x = torch.rand(2, 16)
        >>> packing = SparseWeight(torch.eye(16, dtype=torch.bool)).packed(x)
        >>> torch.equal(sparse_linear(x, torch.ones(16, 16), None, packing), x)
        True
    """
    return sparse_conv2d(x[..., None, None], weight[..., None, None], bias, packing).flatten(1)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, packing: Packing) -> None:
    """Refuse what native code would read as something else."""
    sizes = packing.sizes
    if not packing.fits:
        raise LayoutError(
            f"native code takes 16 numbers or more a sample, given and made, and fewer than 2^31 in all, but this is {sizes}."
        )
    shapes = (len(x), sizes.channels, *sizes.size), (sizes.outputs, sizes.channels, *sizes.kernel), (sizes.outputs,)
    for name, tensor, shape in zip(("input", "weight", "bias"), (x, weight, bias), shapes, strict=True):
        if tensor is not None and (_odd(tensor) is not None or tensor.shape != shape):
            raise LayoutError(
                f"the {name} is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}, but must be a plain float32 {shape} on the CPU. "
                "Pack for the shape of this input."
            )


class _Sparse(torch.autograd.Function):
    """The native code under autograd; what it keeps for the gradient is input and weight."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, packing: Packing) -> Tensor:
        sizes, run, x = packing.sizes, packing.forward, x.contiguous()
        y = torch.empty(len(x), sizes.outputs, *sizes.out, dtype=torch.float32)
        values, start = (
            _values(weight, run.lists),
            torch.zeros(sizes.outputs, dtype=torch.float32) if bias is None else bias.contiguous(),
        )
        places = packing.x_places, packing.y_places

        def share(_: int, chunks: range) -> None:
            lanes, sums = torch.zeros(packing.x.numel, dtype=torch.float32), torch.empty(packing.y.numel, dtype=torch.float32)
            for first in chunks:
                _spread(x, first, places[0], lanes, packing)
                _gather(lanes, run, values, start, sums, packing.y.plane)
                _collect(sums, places[1], y, first, packing)

        _divide(share, packing.chunks(len(x)), _shares(packing, len(x)))
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Packing], output: Any) -> None:
        x, weight, _, ctx.packing = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        packing, (of_x, of_weight, of_bias, _) = ctx.packing, ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            dx, dw = _by_torch(x, weight, packing, dy, (of_x, of_weight))
        else:
            x, dy = x.contiguous(), dy.contiguous()
            shares = _shares(packing, len(x))
            back = _Back(packing, weight, x, torch.empty_like(x) if of_x else None, shares if of_weight else 0)
            _divide(lambda i, chunks: back.share(i, chunks, dy), packing.chunks(len(x)), shares)
            dx, dw = back.dx, back.weight_gradient(weight) if of_weight else None
        return dx, dw, dy.sum((0, 2, 3)) if of_bias else None, None


class _Back:
    """One run backward: what its shares read, and where they write."""

    def __init__(self, packing: Packing, weight: Tensor, x: Tensor, dx: Tensor | None, shares: int) -> None:
        self.packing, self.x, self.dx = packing, x, dx
        self.passes = [] if dx is None else [(run, _values(weight, run.lists)) for run in packing.backward]
        self.places = packing.dy_places, packing.dx_places, packing.x_places
        self.start = torch.zeros(packing.sizes.channels, dtype=torch.float32)
        self.dw = torch.zeros(shares, len(packing.forward.lists.index), dtype=torch.float32)

    def share(self, i: int, chunks: range, dy: Tensor) -> None:
        """Do some of the chunks."""
        packing = self.packing
        grads = torch.zeros(packing.dy.numel, dtype=torch.float32)
        sums = torch.empty(packing.dx.numel if self.passes else 0, dtype=torch.float32)
        lanes = torch.zeros(packing.x.numel if len(self.dw) else 0, dtype=torch.float32)
        for first in chunks:
            _spread(dy, first, self.places[0], grads, packing)
            for run, values in self.passes:
                _gather(grads, run, values, self.start, sums, packing.dx.plane)
            if self.dx is not None:
                _collect(sums, self.places[1], self.dx, first, packing)
            if len(self.dw):
                _spread(self.x, first, self.places[2], lanes, packing)
                _correlate(lanes, grads, self.dw[i], packing)

    def weight_gradient(self, weight: Tensor) -> Tensor:
        """Put the gradients of living weights where they belong."""
        found = torch.zeros(weight.shape, dtype=torch.float32)
        found.view(-1).scatter_(0, self.packing.forward.lists.index, self.dw.sum(0))
        return found


def _by_torch(x: Tensor, weight: Tensor, packing: Packing, dy: Tensor, wanted: tuple[bool, bool]) -> tuple[Any, ...]:
    """Differentiate the dense convolution, so that its gradient can be differentiated in turn."""
    sizes, index = packing.sizes, packing.forward.lists.index
    alive = torch.zeros(weight.numel()).index_fill_(0, index, 1.0).view(weight.shape)
    y = F.conv2d(x, weight * alive, None, sizes.stride, sizes.padding)
    inputs = [tensor for tensor, is_wanted in zip((x, weight), wanted, strict=True) if is_wanted]
    found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True) if inputs else ())
    return tuple(next(found) if is_wanted else None for is_wanted in wanted)


def _values(weight: Tensor, lists: Lists) -> Tensor:
    return weight.detach().reshape(-1).index_select(0, lists.index)


def _spread(x: Tensor, first: int, places: Tensor, lanes: Tensor, packing: Packing) -> None:
    features, chunk = x[0].numel(), packing.vectors * LANES
    addresses = _at(x, first * features), places.data_ptr(), lanes.data_ptr()
    sparse_code.spread()(*addresses, min(chunk, len(x) - first), features, packing.vectors)


def _collect(lanes: Tensor, places: Tensor, x: Tensor, first: int, packing: Packing) -> None:
    features, chunk = x[0].numel(), packing.vectors * LANES
    sparse_code.collect()(lanes.data_ptr(), places.data_ptr(), _at(x, first * features), min(chunk, len(x) - first), features)


def _gather(source: Tensor, run: Pass, values: Tensor, start: Tensor, target: Tensor, plane: int) -> None:
    lists = run.lists
    given = (tensor.data_ptr() for tensor in (source, lists.offsets, values, lists.ends, start))
    numbers = lists.sums, lists.blocks, *run.tiles, run.row, plane, *run.target
    sparse_code.gather(run.tile)(*given, _at(target, run.start), *numbers)


def _correlate(source: Tensor, grads: Tensor, dw: Tensor, packing: Packing) -> None:
    run, dy = packing.forward, packing.dy
    given = (tensor.data_ptr() for tensor in (source, run.lists.offsets, run.lists.ends))
    numbers = run.lists.sums, run.lists.blocks, *run.tiles, run.row, dy.plane, dy.place(1, 0)
    sparse_code.correlate(run.tile)(*given, _at(grads, dy.place(*packing.margin)), dw.data_ptr(), *numbers)


def _at(x: Tensor, number: int) -> int:
    return x.data_ptr() + number * x.element_size()


def _shares(packing: Packing, samples: int) -> int:
    """Say how many threads to use."""
    work = samples * packing.sizes.out[0] * packing.sizes.out[1] * len(packing.living.index)
    return max(1, min(torch.get_num_threads(), work // SHARE, len(packing.chunks(samples))))


def _divide(share: Callable[[int, range], None], chunks: range, shares: int) -> None:
    """Run shares of the chunks, each but the first in a thread of its own."""
    bounds = [len(chunks) * i // shares for i in range(shares + 1)]
    parts = [chunks[a:b] for a, b in itertools.pairwise(bounds)]
    others = [threading.Thread(target=share, args=(i, part)) for i, part in enumerate(parts) if i]
    for other in others:
        other.start()
    share(0, parts[0])
    for other in others:
        other.join()
