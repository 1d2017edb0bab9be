"""In float64 small maps of all samples are convolved in one product: the same currents as torch's own."""

import pytest
import torch
import torch.nn.functional as F

from spikeprune.engine import reference
from spikeprune.engine.plan import Synapse


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("form", [(1, 1, 1), (2, 1, 1), (1, 0, 2), (3, 2, 1)])
@pytest.mark.parametrize(("samples", "side"), [(2, 8), (5, 3), (1, 4), (3, 9)])
def test_currents_are_those_of_torch(samples, side, form, bias):
    stride, padding, dilation = form
    if side + 2 * padding < dilation * 2 + 1:
        pytest.skip("smaller than the kernel")
    generator = torch.Generator().manual_seed(samples)
    weight = torch.randn(6, 4, 3, 3, generator=generator, dtype=torch.double)
    shift = torch.randn(6, generator=generator, dtype=torch.double) if bias else None
    x = (torch.rand(samples, 4, side, side, generator=generator) < 0.3).double()
    wanted = F.conv2d(x, weight, shift, stride, padding, dilation)
    op = Synapse(
        inputs=(0,), shape=tuple(wanted.shape[1:]), over_time=True, name="conv", weight=weight, bias=shift,
        stride=(stride,) * 2, padding=(padding,) * 2, dilation=(dilation,) * 2,
    )  # fmt: skip
    found = reference._synapse(op, x)
    assert found.is_contiguous()
    assert torch.allclose(found, wanted, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("samples", "side", "dtype", "once"),
    [(2, 8, torch.double, True), (2, 9, torch.double, False), (1, 8, torch.double, False), (2, 8, torch.float, False)],
)
def test_only_small_maps_of_several_samples_in_float64_are_convolved_so(monkeypatch, samples, side, dtype, once):
    called = []
    monkeypatch.setattr(reference, "_at_once", lambda op, x: called.append(op))
    op = Synapse(
        inputs=(0,), shape=(2, side, side), over_time=True, name="conv", weight=torch.ones(2, 3, 1, 1, dtype=dtype), bias=None,
        stride=(1, 1), padding=(0, 0), dilation=(1, 1),
    )  # fmt: skip
    reference._synapse(op, torch.ones(samples, 3, side, side, dtype=dtype))
    assert bool(called) == once
