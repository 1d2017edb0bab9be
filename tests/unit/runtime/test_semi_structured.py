"""2:4 products: their layout against torch's own convolutions on any device, refusals, and on a GPU the products themselves."""

import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from spikeprune.errors import LayoutError, SparsityError
from spikeprune.runtime import semi_structured
from spikeprune.runtime.semi_structured import SemiStructured, compress, convolution, linear, matrix_of

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
SHAPES = [(5, 4), (3, 6), (8, 9, 3), (5, 4, 3, 3), (4, 7, 3, 1), (32, 64, 1, 1), (3, 6, 2, 1, 3)]


def two_of_four(*shape, seed=0, whole=False):
    """Draw a weight of which the first and third or second and fourth input of every four live; whole numbers if asked."""
    draw = torch.Generator().manual_seed(seed)
    weight = (
        torch.randint(-2, 3, shape, generator=draw).double() if whole else torch.randn(shape, generator=draw, dtype=torch.double)
    )
    odd = torch.randint(0, 2, (shape[0], 1, *shape[2:]), generator=draw)
    inputs = torch.arange(shape[1]).view(1, -1, *[1] * (len(shape) - 2))
    return weight * (inputs % 2 == odd)


def spikes(*shape, rate=0.1, seed=1):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).double()


def plain(weight, bias=None):
    """What `compress` makes, with the matrix as it is."""
    matrix = matrix_of(weight)
    return SemiStructured(matrix, None if bias is None else F.pad(bias, (0, len(matrix) - len(bias))), weight.shape)


def fullest(matrix):
    return int((matrix.reshape(-1, 4) != 0).sum(1).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_is_two_of_four_and_of_sizes_that_torch_takes(shape):
    weight = two_of_four(*shape)
    matrix = matrix_of(weight)
    assert fullest(matrix) <= 2
    assert matrix.count_nonzero() == weight.count_nonzero() > 0
    assert matrix.is_contiguous()
    for backend in (torch.sparse.SparseSemiStructuredTensorCUTLASS, torch.sparse.SparseSemiStructuredTensorCUSPARSELT):
        for dtype in semi_structured.DTYPES:
            least = backend._DTYPE_SHAPE_CONSTRAINTS[dtype]
            assert (matrix.shape[0] % least.sparse_min_rows, matrix.shape[1] % least.sparse_min_cols) == (0, 0)


def test_with_positions_innermost_it_would_not_be():
    weight = torch.ones(2, 8, 3, 3) * (torch.arange(8).view(1, -1, 1, 1) < 2)  # 2 of the first 4 inputs, none of the others
    assert fullest(matrix_of(weight)) == 2
    assert fullest(weight.flatten(1)) == 4


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_map_is_that_of_torch(lead, bias):
    weight, x = two_of_four(5, 6), torch.rand(*lead, 6, dtype=torch.double)
    b = torch.arange(5.0).double() if bias else None
    torch.testing.assert_close(linear(x, plain(weight, b)), F.linear(x, weight, b))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), list(itertools.product((1, 2), (0, 2), (1, 2))))
def test_a_convolution_is_that_of_torch(shape, stride, padding, dilation):
    space = len(shape) - 2
    weight, bias = two_of_four(*shape), torch.arange(shape[0]).double()
    x = torch.rand(2, shape[1], *range(6, 6 + space), dtype=torch.double)
    found = convolution(x, plain(weight, bias), stride=stride, padding=padding, dilation=dilation)
    torch.testing.assert_close(found, CONVOLVE[space](x, weight, bias, stride, padding, dilation))


def test_each_dimension_by_itself():
    weight, x = two_of_four(3, 8, 3, 2), torch.rand(1, 8, 9, 7, dtype=torch.double)
    options = {"stride": (2, 1), "padding": (0, 3), "dilation": (1, 4)}
    found = convolution(x, plain(weight), **options)
    torch.testing.assert_close(found, F.conv2d(x, weight, **options))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("sizes", [-1, (1,), (1, 1, 1), (1, -1), (1, 1.0), "same"])
@pytest.mark.parametrize(("name", "least"), [("stride", 1), ("padding", 0), ("dilation", 1)])
def test_sizes_that_are_none(sizes, name, least):
    with pytest.raises(LayoutError, match=rf"{name} is .* but must be a whole number, or 2 of them, {least} or more"):
        convolution(torch.rand(1, 4, 5, 5), plain(torch.zeros(2, 4, 3, 3)), **{name: sizes})


@pytest.mark.parametrize("name", ["stride", "dilation"])
def test_no_step_and_no_gap_is_zero(name):
    with pytest.raises(LayoutError, match=f"{name} is 0"):
        convolution(torch.rand(1, 4, 5, 5), plain(torch.zeros(2, 4, 3, 3)), **{name: 0})


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (torch.zeros(8, 8), "the weight is torch.float32, but 2:4 products take torch.float16 or torch.bfloat16. Convert it"),
        (torch.zeros(8, 8, dtype=torch.int8), "the weight is torch.int8"),
        (torch.zeros(8).half(), r"the weight has shape \(8,\)"),
        (torch.zeros(0, 8).half(), r"the weight has shape \(0, 8\)"),
        (torch.ones(1, 1, 1, 1, 1, 1).half(), "2:4 products take"),
        (
            torch.tensor([[1.0, 0, 1, 1, 1, 0, 0, 1]]).half(),
            r"1 of \d+ blocks of 4 weights have more than 2 .*; the fullest has 3",
        ),
        (torch.ones(2, 4, 3).bfloat16(), r"6 of \d+ blocks .* the fullest has 4"),
        (torch.zeros(8, 8).half(), "the weight lies on cpu, but 2:4 products run on CUDA devices only"),
    ],
)
def test_weights_that_are_refused_without_a_device(weight, told):
    with pytest.raises(SparsityError, match=told):
        compress(weight)


def test_other_biases_are_refused():
    for bias in (torch.zeros(7).half(), torch.zeros(8), torch.zeros(8, 1).half()):
        with pytest.raises(
            SparsityError, match=r"the bias is .*, but must be torch.float16 of shape \(8,\) on cpu, as the weight"
        ):
            compress(torch.zeros(8, 8).half(), bias)
    with pytest.raises(SparsityError, match="lies on cpu"):
        compress(torch.zeros(8, 8).half(), torch.zeros(8).half())


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.rand(2, 5), r"weight \(3, 6\) was given \(2, 5\); it takes \(..., C_in\)"),
        (torch.rand(()), r"was given \(\)"),
        (torch.rand(2, 6).double(), "the input is torch.float64 on cpu, the weight torch.float32 on cpu"),
        (torch.rand(0, 6), r"the input \(0, 6\) is empty"),
        (torch.rand(2, 6, requires_grad=True), "the input waits for a gradient"),
    ],
)
def test_inputs_of_a_linear_map_that_are_refused(x, told):
    with pytest.raises(LayoutError, match=told):
        linear(x, plain(torch.zeros(3, 6)))


def test_without_gradients_the_input_may_have_one():
    x, weight = torch.rand(2, 6, requires_grad=True), two_of_four(3, 6).float()
    with torch.no_grad():
        found = linear(x, plain(weight))
    assert not found.requires_grad
    torch.testing.assert_close(found, F.linear(x.detach(), weight))


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.rand(1, 8, 5, 5), r"weight \(2, 4, 3, 3\) was given \(1, 8, 5, 5\); it takes .* no groups"),
        (torch.rand(4, 5, 5), r"was given \(4, 5, 5\)"),
        (torch.rand(1, 4, 5, 2), r"the kernel reaches over \[3, 3\] places, but the padded input has only \[5, 2\]"),
        (torch.rand(0, 4, 5, 5), "is empty"),
        (torch.rand(1, 4, 5, 5).half(), "the input is torch.float16 on cpu"),
        (torch.rand(1, 4, 5, 5, requires_grad=True), "waits for a gradient"),
    ],
)
def test_inputs_of_a_convolution_that_are_refused(x, told):
    with pytest.raises(LayoutError, match=told):
        convolution(x, plain(torch.zeros(2, 4, 3, 3)))


def test_a_linear_weight_does_not_convolve_and_the_reverse():
    with pytest.raises(LayoutError, match=r"a convolution of a weight \(3, 6\)"):
        convolution(torch.rand(2, 6), plain(torch.zeros(3, 6)))
    with pytest.raises(LayoutError, match=r"a linear map of a weight \(3, 6, 1\)"):
        linear(torch.rand(2, 6), plain(torch.zeros(3, 6, 1)))


def test_a_device_that_is_too_old(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old")
    with pytest.raises(SparsityError, match=r"Old has compute capability 7.5; sparse tensor cores begin with 8.0"):
        semi_structured._check_device(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    semi_structured._check_device(torch.device("cuda"))


def test_what_torch_refuses_is_told(monkeypatch):
    def refuse(matrix):
        raise RuntimeError("architecture mismatch")

    monkeypatch.setattr(semi_structured, "_check_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "New")
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", refuse)
    with pytest.raises(SparsityError, match=r"makes no 2:4 matrix on New \(architecture mismatch\)"):
        compress(torch.zeros(8, 8).half())


def test_the_warning_of_a_prototype_is_kept_from_users_and_no_other(monkeypatch):
    def warn(matrix):
        warnings.warn("The PyTorch API of SparseSemiStructuredTensor is in prototype stage", UserWarning, stacklevel=2)
        return matrix

    monkeypatch.setattr(semi_structured, "_check_device", lambda device: None)
    monkeypatch.setattr(torch.sparse, "to_sparse_semi_structured", warn)
    weight, bias, x = two_of_four(5, 6, whole=True).half(), torch.arange(5.0).half(), spikes(3, 6, rate=0.5).half()
    assert torch.equal(linear(x, compress(weight, bias)), F.linear(x, weight, bias))  # warnings are errors here
    monkeypatch.setattr(
        torch.sparse, "to_sparse_semi_structured", lambda matrix: warnings.warn("another", UserWarning, stacklevel=2)
    )
    with pytest.raises(UserWarning, match="another"):
        compress(weight)


cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
gpu = pytest.mark.parametrize("dtype", [pytest.param(dtype, marks=cuda, id=str(dtype)[6:]) for dtype in semi_structured.DTYPES])


@gpu
@pytest.mark.parametrize("shape", [(32, 64), (5, 6), (10, 512), (512, 512), (100, 1000)])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_on_a_gpu_sums_of_spikes_are_exact(dtype, shape, rows):
    weight, bias = two_of_four(*shape, whole=True), torch.arange(shape[0]).double() % 8
    x = spikes(2, rows, shape[1])
    expected = F.linear(x, weight, bias)
    assert expected.abs().max() <= 256  # whole numbers that both dtypes hold
    sparse = compress(weight.to("cuda", dtype), bias.to("cuda", dtype))
    assert torch.equal(linear(x.to("cuda", dtype), sparse).double().cpu(), expected)
    without = compress(weight.to("cuda", dtype))
    assert torch.equal(linear(x.to("cuda", dtype), without).double().cpu(), F.linear(x, weight))


@gpu
@pytest.mark.parametrize("shape", [(64, 64, 3, 3), (5, 6, 3, 3), (32, 16, 1, 1), (8, 9, 3), (4, 8, 2, 2, 2)])
@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
def test_on_a_gpu_convolutions_of_spikes_are_exact(dtype, shape, stride, padding):
    space = len(shape) - 2
    weight, bias = two_of_four(*shape, whole=True), torch.arange(shape[0]).double() % 8
    x = spikes(3, shape[1], *range(6, 6 + space))
    expected = CONVOLVE[space](x, weight, bias, stride, padding)
    assert expected.abs().max() <= 256
    sparse = compress(weight.to("cuda", dtype), bias.to("cuda", dtype))
    found = convolution(x.to("cuda", dtype), sparse, stride=stride, padding=padding)
    assert torch.equal(found.double().cpu(), expected)


@gpu
def test_on_a_gpu_real_numbers_are_as_near_as_their_dtype_lets_them(dtype):
    weight = two_of_four(256, 512).to("cuda", dtype) / math.sqrt(512)
    x = torch.rand(100, 512, generator=torch.Generator().manual_seed(2)).to("cuda", dtype)
    found, expected = linear(x, compress(weight)), F.linear(x.double(), weight.double())
    # One rounding of the sum, and sums in float32.
    torch.testing.assert_close(found.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-4)


@gpu
def test_on_a_gpu_an_input_in_pieces_is_read_right(dtype):
    weight = two_of_four(32, 64, whole=True).to("cuda", dtype)
    x = spikes(64, 3, 5).to("cuda", dtype).movedim(0, -1)
    assert not x.is_contiguous()
    assert torch.equal(linear(x, compress(weight)), F.linear(x.contiguous(), weight))
    with torch.inference_mode():
        assert torch.equal(linear(x, compress(weight)), F.linear(x.contiguous(), weight))


@gpu
def test_on_a_gpu_a_weight_elsewhere_is_refused(dtype):
    sparse = compress(two_of_four(32, 64).to("cuda", dtype))
    with pytest.raises(LayoutError, match="on cpu, the weight"):
        linear(torch.rand(2, 64, dtype=dtype), sparse)
