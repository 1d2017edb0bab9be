"""Sparse convolutions and linear layers against torch's own with the dead weights at zero, forward and backward."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from spikeprune.errors import LayoutError
from spikeprune.runtime import jit, sparse_layers
from spikeprune.runtime.sparse_cost import advantage
from spikeprune.runtime.sparse_layers import SparseWeight, obstacle, sparse_conv2d, sparse_linear


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masked(*shape, density=0.3):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < density


def gradients(y, inputs, **options):
    return torch.autograd.grad(y, inputs, drawn(*y.shape, seed=5), **options)


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1e-30)


def both(x, weight, mask, bias=None, stride=(1, 1), padding=(0, 0)):
    """Return output and gradients of sparse code, whose dead weights are NaN, and of dense, whose dead weights are 0."""
    outcomes = []
    for dense in (False, True):
        leaves = [x.detach().requires_grad_(), weight.where(mask, 0.0 if dense else torch.nan).requires_grad_()]
        leaves += [] if bias is None else [bias.detach().requires_grad_()]
        if dense:
            y = F.conv2d(*leaves, stride=stride, padding=padding)
        else:
            packing = SparseWeight(mask).packed(x, stride, padding)
            y = sparse_conv2d(leaves[0], leaves[1], leaves[2] if bias is not None else None, packing)
        outcomes.append([y.detach(), *gradients(y, leaves)])
    return outcomes


def assert_same(x, weight, mask, *rest):
    found, expected = both(x, weight, mask, *rest)
    assert not found[2][~mask].any()
    expected[2] = expected[2] * mask
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_by_hand():
    # One living weight, 2, reads the right-hand neighbour; the last column's is beyond the edge.
    x, weight = torch.arange(16.0).view(1, 1, 4, 4).requires_grad_(), torch.tensor([[[[7.0, 7.0, 2.0]]]], requires_grad=True)
    packing = SparseWeight(torch.tensor([[[[False, False, True]]]])).packed(x, padding=(0, 1))
    y = sparse_conv2d(x, weight, torch.tensor([0.5]), packing)
    assert y.detach().view(4, 4).tolist() == [
        [4.0 * 0 + 2 * n + 0.5 if n % 4 else 0.5 for n in range(r + 1, r + 5)] for r in (0, 4, 8, 12)
    ]
    dx, dw = torch.autograd.grad(y.sum(), (x, weight))
    assert dx.view(4, 4).tolist() == [[0.0, 2.0, 2.0, 2.0]] * 4
    assert dw.flatten().tolist() == [0.0, 0.0, float(sum(n for n in range(16) if n % 4))]


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 40])
def test_samples(samples):
    assert_same(drawn(samples, 5, 6, 6), drawn(7, 5, 3, 3), masked(7, 5, 3, 3), drawn(7), (1, 1), (1, 1))


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (5, 3), (7, 7)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (3, 1)])
def test_kernels_strides_and_paddings(kernel, stride, padding):
    assert_same(drawn(5, 3, 9, 8), drawn(16, 3, *kernel), masked(16, 3, *kernel), None, stride, padding)


@pytest.mark.parametrize("size", [(1, 17), (2, 2), (4, 4), (7, 7), (5, 33), (20, 20)])
def test_sizes(size):
    assert_same(drawn(40, 9, *size), drawn(5, 9, 3, 3), masked(5, 9, 3, 3), drawn(5), (1, 1), (1, 1))


def test_a_stride_that_passes_over_whole_remainders():
    assert_same(drawn(3, 16, 1, 2), drawn(16, 16, 3, 3), masked(16, 16, 3, 3), None, (2, 2), (1, 1))


def test_a_stride_wider_than_the_kernel_leaves_inputs_unread():
    assert_same(drawn(3, 4, 8, 9), drawn(5, 4, 2, 1), masked(5, 4, 2, 1), None, (3, 2), (0, 0))


@pytest.mark.parametrize("density", [0.0, 0.01, 1.0])
def test_densities(density):
    shape = 33, 40, 3, 3
    found, expected = both(drawn(20, 40, 8, 8), drawn(*shape), masked(*shape, density=density), drawn(33), (1, 1), (1, 1))
    mask = masked(*shape, density=density)
    for one, other in zip(found, [*expected[:2], expected[2] * mask, expected[3]], strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("samples", [1, 40, 300])
def test_linear(samples):
    mask, x = masked(33, 40), drawn(samples, 40).requires_grad_()
    weight, bias = drawn(33, 40, seed=2).requires_grad_(), drawn(33, seed=3).requires_grad_()
    y = sparse_linear(x, weight, bias, SparseWeight(mask).packed(x))
    expected = F.linear(x, weight * mask, bias)
    for one, other in zip(
        (y, *gradients(y, (x, weight, bias))), (expected, *gradients(expected, (x, weight, bias))), strict=True
    ):
        assert_close(one, other)


def test_other_orders_in_memory():
    mask = masked(6, 16, 3, 3)
    x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (drawn(5, 16, 6, 6), drawn(6, 16, 3, 3)))
    assert not x.is_contiguous()
    assert not weight.is_contiguous()
    assert_same(x, weight, mask)
    x.requires_grad_()
    y = sparse_conv2d(x, weight, None, SparseWeight(mask).packed(x))
    (dx,) = torch.autograd.grad(y.sum(), x)  # its gradient is one number, repeated
    assert_close(dx, torch.autograd.grad(F.conv2d(x, weight * mask).sum(), x)[0])


def small():
    mask = masked(16, 16, 3, 3)
    x, weight = drawn(4, 16, 4, 4).requires_grad_(), (drawn(16, 16, 3, 3) * mask).requires_grad_()
    return x, weight, mask, SparseWeight(mask).packed(x, padding=(1, 1))


def test_what_needs_no_gradient_gets_none(monkeypatch):
    x, weight, _, packing = small()
    y = sparse_conv2d(x.detach(), weight, None, packing)
    (dw,) = gradients(y, (weight,))
    assert "backward" not in vars(packing)  # the lists for the input's gradient were not even packed
    whole = gradients(sparse_conv2d(x, weight, None, packing), (x, weight))
    assert torch.equal(dw, whole[1])
    monkeypatch.setattr(sparse_layers, "_correlate", None)
    assert torch.equal(gradients(sparse_conv2d(x, weight.detach(), None, packing), (x,))[0], whole[0])
    with pytest.raises(TypeError):
        gradients(sparse_conv2d(x, weight, None, packing), (x, weight))


def test_without_gradients_at_all():
    x, weight, _, packing = small()
    with torch.no_grad():
        y = sparse_conv2d(x, weight, None, packing)
    assert not y.requires_grad
    assert_close(y, F.conv2d(x, weight, padding=1).detach())


def test_again_and_again():
    x, weight, _, packing = small()
    y = sparse_conv2d(x, weight, None, packing)
    first = gradients(y, (x, weight), retain_graph=True)
    others = gradients(y, (x, weight)), gradients(sparse_conv2d(x, weight, None, packing), (x, weight))
    for one, other in itertools.product(range(2), others):
        assert torch.equal(first[one], other[one])


def test_gradients_of_gradients():
    x, weight, mask, packing = small()
    outcomes = []
    for y in (sparse_conv2d(x, weight, None, packing), F.conv2d(x, weight * mask, padding=1)):
        dx, dw = gradients(y.square(), (x, weight), create_graph=True)
        outcomes.append((dx, dw, *torch.autograd.grad(dx.square().sum() + dw.square().sum(), (x, weight))))
    for one, other in zip(*outcomes, strict=True):
        assert_close(one, other)
    assert not outcomes[0][1][~mask].any()


def test_a_weight_that_changed_before_its_gradient_is_refused():
    x, weight, _, packing = small()
    y = sparse_conv2d(x, weight, None, packing)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(y, (x, weight))


def test_values_are_read_at_each_call():
    x, weight, _, packing = small()
    before = sparse_conv2d(x, weight, None, packing)
    with torch.no_grad():
        weight.mul_(2)
    assert_close(sparse_conv2d(x, weight, None, packing), 2 * before)


def test_threads(monkeypatch):
    mask, x, bias = masked(8, 4, 3, 3), drawn(90, 4, 5, 5), drawn(8)
    one, _ = both(x, drawn(8, 4, 3, 3), mask, bias)
    started = []
    monkeypatch.setattr(sparse_layers, "SHARE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    thread = sparse_layers.threading.Thread
    monkeypatch.setattr(sparse_layers.threading, "Thread", lambda **more: started.append(0) or thread(**more))
    several, _ = both(x, drawn(8, 4, 3, 3), mask, bias)
    assert len(started) == 6  # three besides the caller's, forward and backward
    assert torch.equal(one[0], several[0])
    assert torch.equal(one[1], several[1])
    for found, expected in zip(several[2:], one[2:], strict=True):
        assert_close(found, expected)


def test_other_processors():
    with jit.compiling_for("generic"):
        assert_same(drawn(20, 5, 6, 6), drawn(7, 5, 3, 3), masked(7, 5, 3, 3), drawn(7), (2, 1), (1, 1))


X, W = torch.zeros(2, 16, 4, 4), torch.zeros(8, 16, 3, 3)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((X, W.double()), "its weight is torch.float64, not float32"),
        ((X.half(), W), "its input is torch.float16, not float32"),
        ((X, W, torch.zeros(8).bfloat16()), "its bias is torch.bfloat16, not float32"),
        ((X.to("meta"), W), "its input is on meta, not on the CPU"),
        ((X.to_sparse(), W), "its input is no plain tensor"),
        ((X[0], W), "its input (16, 4, 4) does not go with its weight (8, 16, 3, 3)"),
        ((X[:, :8], W), "its input (2, 8, 4, 4) does not go with its weight (8, 16, 3, 3)"),
        ((X[..., :1], W), "its input is smaller than its kernel"),
        ((X[:0], W), "its input is empty"),
    ],
)
def test_obstacles(given, why):
    assert obstacle(*given) == why


def test_no_obstacle():
    assert obstacle(X, W, torch.zeros(8)) is None
    assert obstacle(X[..., :1], W, None, (0, 1)) is None


def test_without_llvmlite(monkeypatch):
    monkeypatch.setattr(jit, "llvm", None)
    assert "spikeprune[runtime]" in obstacle(X, W)


@pytest.mark.parametrize(
    ("x", "weight", "bias", "text"),
    [
        (torch.zeros(2, 16, 5, 4), W, None, "the input is torch.float32"),
        (X, W[:4], None, "the weight is torch.float32"),
        (X, W, torch.zeros(4), "the bias is torch.float32"),
        (X.double(), W, None, "the input is torch.float64"),
    ],
)
def test_tensors_that_the_lists_were_not_packed_for_are_refused(x, weight, bias, text):
    with pytest.raises(LayoutError, match=text):
        sparse_conv2d(x, weight, bias, SparseWeight(W == 0).packed(X))


def test_samples_of_less_than_a_vector_are_refused():
    x, mask = torch.zeros(20, 15), torch.ones(20, 15, dtype=torch.bool)
    assert advantage(SparseWeight(mask).packed(x), 20) == 0
    with pytest.raises(LayoutError, match="16 numbers or more"):
        sparse_linear(x, torch.zeros(20, 15), None, SparseWeight(mask).packed(x))
