"""2:4 weights on the sparse tensor cores of a CUDA device: linear maps, and convolutions as one linear map of patches.

torch multiplies by matrices of which every four numbers in a row hold at most two that are not zero (`torch.sparse`'s semi-structured
tensors). A convolution's weight becomes one with the kernel positions side by side and the input channels innermost, along which its
blocks lie; its input becomes a row of the same order for every place of the output (im2col). That costs memory: an input of 3x3
patches is written nine times.

torch asks for sizes that are multiples of 16 (cuSPARSELt) or of 32 rows and 64 columns (CUTLASS). Matrices are filled up with zeros to the
latter, so any weight fits. It takes half precision only here: cuSPARSELt has no float32, and sums of int8 come out as int8.
There is no gradient.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeprune.errors import LayoutError, SparsityError

ROWS, COLUMNS = 32, 64
BLOCK, ALIVE = 4, 2
DTYPES = (torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)  # Ampere: the first with sparse tensor cores

Sizes = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class SemiStructured:
    """A 2:4 weight as a matrix to multiply by. Made by `compress`; with a plain matrix in it all else runs on any device.

    Attributes:
        matrix: (rows, columns) as `matrix_of` gives, semi-structured or plain.
        bias: (rows,) or None.
        shape: of the weight: (C_out, C_in, kernel ...).
    """

    matrix: Tensor
    bias: Tensor | None
    shape: torch.Size


def compress(weight: Tensor, bias: Tensor | None = None) -> SemiStructured:
    """Bring a 2:4 weight into the form that sparse tensor cores multiply by.

    Args:
        weight: (C_out, C_in, kernel ...), float16 or bfloat16, on a CUDA device of capability 8.0 or more; of every 4 weights in a
            row along the input channels at most 2 are not zero.
        bias: (C_out,), of the same dtype and device.

    Raises:
        SparsityError: the weight or bias is none of these, or this build of torch has no such product.

    Example:
        >>> compress(torch.zeros(8, 8))
        Traceback (most recent call last):
        spikeprune.errors.SparsityError: the weight is torch.float32, but 2:4 products take torch.float16 or torch.bfloat16. ...
    """
    _check_weight(weight)
    matrix = matrix_of(weight.detach())
    crowd = (matrix.view(-1, BLOCK) != 0).sum(1)
    if (wrong := int((crowd > ALIVE).sum())) > 0:
        raise SparsityError(
            f"{wrong} of {len(crowd)} blocks of 4 weights have more than 2 that are not zero; the fullest has {int(crowd.max())}. Prune the "
            "layer with patterns.NM(2, 4) first."
        )
    if bias is not None:
        _check_bias(bias, weight)
        bias = F.pad(bias.detach(), (0, -len(bias) % ROWS))
    _check_device(weight.device)
    return SemiStructured(_semi_structured(matrix), bias, weight.shape)


def linear(x: Tensor, weight: SemiStructured) -> Tensor:
    """Apply a linear map (C_out, C_in) to x (..., C_in); as `torch.nn.functional.linear`, without a gradient.

    Raises:
        LayoutError: x is of another size, dtype or device than the weight takes, empty, or waits for a gradient.

    Example:
        >>> weight = torch.tensor([[0.0, 2.0, 1.0, 0.0, 0.0, 3.0]])
        >>> linear(torch.ones(2, 6), SemiStructured(matrix_of(weight), None, weight.shape))
        tensor([[6.],
                [6.]])
    """
    if len(weight.shape) != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        raise LayoutError(f"a linear map of a weight {tuple(weight.shape)} was given {tuple(x.shape)}; it takes (..., C_in).")
    _check_input(x, weight)
    rows = _filled(x.reshape(-1, x.shape[-1]), 0, weight.matrix.shape[1] - x.shape[-1])
    return _product(rows, weight).reshape(*x.shape[:-1], weight.shape[0])


def convolution(x: Tensor, weight: SemiStructured, *, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1) -> Tensor:
    """Convolve x (N, C_in, space ...) in one, two or three dimensions; as `torch.nn.functional.conv2d`, without a gradient.

    Args:
        x: (N, C_in, space ...).
        weight: of shape (C_out, C_in, kernel ...); there are no groups.
        stride: one number, or one a dimension.
        padding: zeros on both sides; one number, or one a dimension.
        dilation: one number, or one a dimension.

    Returns:
        (N, C_out, space ...), of which the channels lie innermost in memory.

    Raises:
        LayoutError: x is of another size, dtype or device than the weight takes, too small for the kernel, empty, or waits for a gradient.

    Example:
        >>> weight = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [0.0, 0.0], [3.0, 0.0]]])  # one output, four inputs, kernel 2
        >>> convolution(torch.ones(1, 4, 3), SemiStructured(matrix_of(weight), None, weight.shape), padding=1)
        tensor([[[2., 6., 6., 4.]]])
    """
    space = len(weight.shape) - 2
    if space < 1 or x.dim() != space + 2 or x.shape[1] != weight.shape[1]:
        raise LayoutError(
            f"a convolution of a weight {tuple(weight.shape)} was given {tuple(x.shape)}; it takes (N, C_in, space ...), and no groups."
        )
    _check_input(x, weight)
    steps = _each(stride, space, "stride")
    sides = _each(padding, space, "padding", least=0)
    gaps = _each(dilation, space, "dilation")
    found = patches(x, weight.shape[2:], steps, sides, gaps)
    rows = _filled(found.flatten(0, -2), 0, weight.matrix.shape[1] - found.shape[-1])
    return _product(rows, weight).reshape(*found.shape[:-1], weight.shape[0]).movedim(-1, 1)


def matrix_of(weight: Tensor) -> Tensor:
    """Lay a weight out as a matrix: a row for each output, kernel positions side by side, input channels innermost.

    Channels are filled up with zeros to a multiple of 4, rows to one of 32, columns to one of 64.

    Example:
        >>> matrix_of(torch.arange(16.0).view(1, 4, 2, 2))[0, :8]  # channel c at position p is 4 c + p
        tensor([ 0.,  4.,  8., 12.,  1.,  5.,  9., 13.])
    """
    rows = _filled(weight.movedim(1, -1), 0, -weight.shape[1] % BLOCK).flatten(1)
    return _filled(rows, 0, -rows.shape[1] % COLUMNS, 0, -rows.shape[0] % ROWS).contiguous()


def patches(x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Give what the kernel covers at each place of the output, in the order of `matrix_of`.

    Args:
        x: (N, C_in, space ...).
        kernel: its size, one number a dimension of space.
        stride: alike.
        padding: alike, of zeros on both sides.
        dilation: alike.

    Returns:
        (N, places ..., columns), columns being kernel positions times C_in, filled up to a multiple of 4.

    Raises:
        LayoutError: x is smaller than the kernel.

    Example:
        >>> patches(torch.arange(6.0).view(1, 2, 3), [2], [1], [0], [1])
        tensor([[[0., 3., 0., 0., 1., 4., 0., 0.],
                 [1., 4., 0., 0., 2., 5., 0., 0.]]])
    """
    sides = [side for p in reversed(padding) for side in (p, p)]
    x = _filled(x.movedim(1, -1), 0, -x.shape[1] % BLOCK, *sides)
    reaches = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(size < reach for size, reach in zip(x.shape[1:-1], reaches, strict=True)):
        raise LayoutError(f"the kernel reaches over {reaches} places, but the padded input has only {list(x.shape[1:-1])}.")
    for axis, (reach, step, d) in enumerate(zip(reaches, stride, dilation, strict=True), start=1):
        x = x.unfold(axis, reach, step)[..., ::d]
    return x.movedim(len(kernel) + 1, -1).flatten(len(kernel) + 1)


def _filled(x: Tensor, *sides: int) -> Tensor:
    """Fill up with zeros, the last axis first; torch's own copies even where there is nothing to fill."""
    return F.pad(x, sides) if any(sides) else x


def _product(rows: Tensor, weight: SemiStructured) -> Tensor:
    with torch.no_grad():  # cuSPARSELt reads rows in one piece
        return F.linear(rows.contiguous(), weight.matrix, weight.bias)[:, : weight.shape[0]].contiguous()


def _semi_structured(matrix: Tensor) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The PyTorch API of SparseSemiStructuredTensor", category=UserWarning)
            return torch.sparse.to_sparse_semi_structured(matrix)
    except RuntimeError as error:
        raise SparsityError(
            f"torch {torch.__version__} makes no 2:4 matrix on {torch.cuda.get_device_name(matrix.device)} ({error}). It needs a build with "
            "cuSPARSELt that knows this device."
        ) from error


def _check_weight(weight: Tensor) -> None:
    if not 2 <= weight.dim() <= 5 or not weight.numel():
        raise SparsityError(
            f"the weight has shape {tuple(weight.shape)}; 2:4 products take (C_out, C_in, kernel ...), not empty."
        )
    if weight.dtype not in DTYPES:
        raise SparsityError(
            f"the weight is {weight.dtype}, but 2:4 products take torch.float16 or torch.bfloat16. Convert it: weight.bfloat16()."
        )


def _check_bias(bias: Tensor, weight: Tensor) -> None:
    if (bias.shape, bias.dtype, bias.device) != (weight.shape[:1], weight.dtype, weight.device):
        raise SparsityError(
            f"the bias is {bias.dtype} of shape {tuple(bias.shape)} on {bias.device}, but must be {weight.dtype} of shape "
            f"{tuple(weight.shape[:1])} on {weight.device}, as the weight."
        )


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        raise SparsityError(
            f"the weight lies on {device}, but 2:4 products run on CUDA devices only. Move it: weight.cuda(). On the CPU use "
            "the dense weight."
        )
    if (found := torch.cuda.get_device_capability(device)) < CAPABILITY:
        raise SparsityError(
            f"{torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}; sparse tensor cores begin with "
            f"{CAPABILITY[0]}.{CAPABILITY[1]}. Use the dense weight."
        )


def _check_input(x: Tensor, weight: SemiStructured) -> None:
    if (x.dtype, x.device) != (weight.matrix.dtype, weight.matrix.device):
        raise LayoutError(
            f"the input is {x.dtype} on {x.device}, the weight {weight.matrix.dtype} on {weight.matrix.device}; convert one."
        )
    if not x.numel():
        raise LayoutError(f"the input {tuple(x.shape)} is empty.")
    if x.requires_grad and torch.is_grad_enabled():
        raise LayoutError("the input waits for a gradient, which 2:4 products do not have. Run them under torch.no_grad().")


def _each(sizes: Sizes, space: int, name: str, least: int = 1) -> list[int]:
    found = [sizes] * space if isinstance(sizes, int) else list(sizes)
    if len(found) != space or not all(isinstance(size, int) and size >= least for size in found):
        raise LayoutError(f"{name} is {sizes!r}, but must be a whole number, or {space} of them, {least} or more.")
    return found
