"""The native neuron against the same equations run by torch's autograd; against SpikingJelly it stands in zoo/test_fused.py."""

import math

import pytest
import torch

from spikeprune.errors import LayoutError
from spikeprune.runtime import SLOPES, IntegrateAndFire, integrate_and_fire, jit, kernels, lif
from spikeprune.runtime.lif import native, scan

T = 3
THROUGH = IntegrateAndFire(tau=2.0, threshold=0.7, detach_reset=False)


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(function, x, start, neuron):
    """Return spikes, membrane and the gradients of input and start for some gradient of both outputs."""
    x, start = x.detach().requires_grad_(), start.detach().requires_grad_()
    spikes, membrane = function(x, start, neuron)
    loss = (spikes * drawn(*spikes.shape, seed=1)).sum() + (membrane * drawn(*membrane.shape, seed=2)).sum()
    return spikes.detach(), membrane.detach(), *torch.autograd.grad(loss, (x, start))


def assert_same(found, expected):
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert 0 < found[0].mean() < 1
    for gradient, wanted in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_by_hand():
    # h: 0.6, then 0.6 + 0.6 = 1.2 fires; hard reset to 0, then 0.6. Soft: 0.2 remains, then 0.8.
    x = torch.full((3, 1), 0.6, requires_grad=True)
    spikes, membrane = integrate_and_fire(x, 0.0, IntegrateAndFire())
    assert (spikes.flatten().tolist(), membrane.tolist()) == ([0.0, 1.0, 0.0], [pytest.approx(0.6)])
    # slope(h) = 1 / (1 + (pi (h - 1))^2); the spike of step 1 hears x of steps 0 and 1, and nothing before a reset hears step 2.
    (gradient,) = torch.autograd.grad(spikes.sum(), x)
    slopes = [1 / (1 + (math.pi * (h - 1)) ** 2) for h in (0.6, 1.2, 0.6)]
    assert gradient.flatten().tolist() == pytest.approx([slopes[0] + slopes[1], slopes[1], slopes[2]])
    spikes, membrane = integrate_and_fire(x.detach(), 0.0, IntegrateAndFire(reset=None))
    assert (spikes.flatten().tolist(), membrane.tolist()) == ([0.0, 1.0, 0.0], [pytest.approx(0.8)])


def assert_native_equals_torch(**options):
    neuron, x, start = IntegrateAndFire(threshold=0.4, alpha=1.5, **options), drawn(T, 5, 7), drawn(5, 7, seed=3)
    assert native(x)
    assert_same(run(integrate_and_fire, x, start, neuron), run(scan, x, start, neuron))


@pytest.mark.parametrize("surrogate", SLOPES)
def test_surrogates(surrogate):
    assert_native_equals_torch(surrogate=surrogate, tau=4 / 3, detach_reset=False)


@pytest.mark.parametrize(("tau", "decay_input"), [(None, True), (3.0, True), (101.0, False)])
@pytest.mark.parametrize("reset", [0.0, -0.3, None])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_dynamics(tau, decay_input, reset, detach_reset):
    assert_native_equals_torch(tau=tau, decay_input=decay_input, reset=reset, detach_reset=detach_reset)


@pytest.mark.parametrize("size", [1, kernels.BLOCK - 1, 2 * kernels.BLOCK + 5])
def test_blocks(size):
    x, start = drawn(25, size), drawn(size, seed=3)
    assert_same(run(integrate_and_fire, x, start, THROUGH), run(scan, x, start, THROUGH))


@pytest.mark.parametrize("dims", [(), (1,), (2, 1, 3)])
def test_shapes(dims):
    x, start = drawn(25, *dims), drawn(*dims, seed=3)
    assert_same(run(integrate_and_fire, x, start, THROUGH), run(scan, x, start, THROUGH))


def last(x):
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


LAYOUTS = {
    "channels last": last,
    "expanded over time": lambda x: x[:1].expand(x.shape),
    "expanded over time, channels last": lambda x: last(x)[:1].expand(x.shape),
    "every second timestep": lambda x: x.repeat_interleave(2, 0)[::2],
    "part of the batch": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "part of the batch, channels last": lambda x: last(torch.cat([x, x], 1))[:, : x.shape[1]],
    "part of each row": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "time innermost": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "transposed": lambda x: x.mT.contiguous().mT,
    "one value for all": lambda x: (x[:1, :1, :1, :1, :1].abs() + 0.5).expand(x.shape),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_the_input(name):
    x = LAYOUTS[name](drawn(T, 4, 3, 5, 2))
    for start in (drawn(4, 3, 5, 2, seed=3), last(drawn(1, 4, 3, 5, 2, seed=3))[0]):
        found, expected = (
            run(integrate_and_fire, x, start, THROUGH),
            run(scan, x.clone(memory_format=torch.contiguous_format), start, THROUGH),
        )
        assert_same(found, expected)
    assert found[0].flatten(0, 1).is_contiguous(memory_format=torch.channels_last if "last" in name else torch.contiguous_format)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("arrange", [lambda x: x, last], ids=["contiguous", "channels last"])
def test_layouts_of_the_gradient(name, arrange):
    x = arrange(drawn(T, 4, 3, 5, 2)).requires_grad_()
    ds, dv = LAYOUTS[name](drawn(T, 4, 3, 5, 2, seed=1)), LAYOUTS[name](drawn(T, 4, 3, 5, 2, seed=2))[1]
    found = torch.autograd.grad(integrate_and_fire(x, 0.1, THROUGH), x, (ds, dv))[0]
    expected = torch.autograd.grad(scan(x, torch.full((4, 3, 5, 2), 0.1), THROUGH), x, (ds, dv))[0]
    torch.testing.assert_close(found, expected)


def test_threads_share_the_elements(monkeypatch):
    x, start = drawn(T, 1000), drawn(1000, seed=3)
    alone = run(integrate_and_fire, x, start, THROUGH)
    ranges = []
    monkeypatch.setattr(lif, "SHARE", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    thread = lif.threading.Thread
    monkeypatch.setattr(lif.threading, "Thread", lambda target, args: ranges.append(args) or thread(target=target, args=args))
    assert all(torch.equal(a, b) for a, b in zip(run(integrate_and_fire, x, start, THROUGH), alone, strict=True))
    assert ranges == [(320, 656), (656, 1000)] * 2


def test_only_what_is_asked_for_has_a_gradient():
    x, start = drawn(T, 6), drawn(6, seed=3)
    assert not any(out.requires_grad for out in integrate_and_fire(x, start, THROUGH))
    with torch.no_grad():
        assert not integrate_and_fire(x.requires_grad_(), start, THROUGH)[0].requires_grad
    # Of the last membrane alone, to the start alone.
    start.requires_grad_()
    found = torch.autograd.grad(integrate_and_fire(x.detach(), start, THROUGH)[1].sum(), start)[0]
    expected = torch.autograd.grad(scan(x.detach(), start, THROUGH)[1].sum(), start)[0]
    torch.testing.assert_close(found, expected)
    assert expected.abs().sum() > 0


def test_a_gradient_has_a_gradient():
    x, start = drawn(T, 6).requires_grad_(), drawn(6, seed=3).requires_grad_()

    def second(function):
        spikes, membrane = function(x, start, THROUGH)
        first = torch.autograd.grad((spikes * drawn(T, 6, seed=1)).sum() + membrane.sum(), (x, start), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, start))

    for found, expected in zip(second(integrate_and_fire), second(scan), strict=True):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(found, expected)


def test_an_input_that_is_changed_before_the_gradient_is_noticed():
    x = drawn(T, 6).requires_grad_()
    held = x * 1
    spikes, _ = integrate_and_fire(held, 0.0, THROUGH)
    held.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


def test_what_is_no_number_stays_so():
    x = drawn(T, 6)
    x[0, 0], x[1, 1], x[1, 2] = math.nan, math.inf, -math.inf
    found, expected = run(integrate_and_fire, x, torch.zeros(6), THROUGH), run(scan, x, torch.zeros(6), THROUGH)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert found[1][:3].isnan().all()  # a spike of infinite charge leaves 0 * inf behind, as in SpikingJelly
    assert found[1][3:].isfinite().all()


def test_half_the_width_is_charged_in_float32():
    given = [drawn(*shape, seed=seed).bfloat16() for seed, shape in enumerate([(T, 4, 9), (4, 9), (T, 4, 9), (4, 9)])]

    def parts(x, start, ds, dv):
        outputs = integrate_and_fire(x.requires_grad_(), start.requires_grad_(), THROUGH)
        return *outputs, *torch.autograd.grad(outputs, (x, start), (ds, dv))

    wide = parts(*(part.float() for part in given))
    assert all(torch.equal(found, expected.bfloat16()) for found, expected in zip(parts(*given), wide, strict=True))
    assert not torch.equal(wide[1], wide[1].bfloat16().float())  # rounding is not for nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_llvmlite_torch_does_it(monkeypatch, dtype):
    x, start = drawn(T, 40).to(dtype), drawn(40, seed=3).to(dtype)
    expected = run(integrate_and_fire, x, start, THROUGH)
    monkeypatch.setattr(jit, "llvm", None)
    assert not native(x)
    for a, b in zip(run(integrate_and_fire, x, start, THROUGH), expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b)


def test_what_is_not_native():
    assert not native(torch.zeros(2, 3, dtype=torch.float64))
    assert not native(torch.zeros(2, 3, device="meta"))
    assert not native(torch.zeros(2, 0))
    assert not native(torch.zeros(2, 3).to_sparse())
    assert integrate_and_fire(torch.full((2, 1), 0.6, dtype=torch.float64), 0.0, IntegrateAndFire())[0].tolist() == [[0.0], [1.0]]


def test_refusals():
    with pytest.raises(LayoutError, match=r"\(T, \.\.\.\) with T of 1 or more, but was given \(0, 2\)"):
        integrate_and_fire(torch.zeros(0, 2), 0.0, THROUGH)
    with pytest.raises(LayoutError, match=r"membrane \(3,\) does not fit the input \(2, 4\): it must be \(4,\)"):
        integrate_and_fire(torch.zeros(2, 4), torch.zeros(3), THROUGH)
