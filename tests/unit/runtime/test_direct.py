"""Convolutions of real numbers, against torch."""

import pytest
import torch
import torch.nn.functional as F

from programs import run_again
from spikeprune.errors import LayoutError, NonFinite
from spikeprune.runtime import direct, jit
from spikeprune.runtime.program import Program


def given(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# samples, inputs, height, width, outputs, kernel, stride, padding
CASES = [
    (1, 1, 8, 8, 5, 3, 1, 1),
    (2, 3, 5, 7, 4, 3, 1, 0),
    (2, 2, 34, 33, 3, 5, 1, 2),
    (3, 1, 6, 100, 2, 3, 1, 1),
    (2, 3, 9, 9, 4, 3, 2, 1),
    (1, 4, 1, 1, 3, 1, 1, 0),
    (1, 1, 4, 3, 2, 3, 1, 3),
    (2, 1, 7, 7, 2, 7, 3, 2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_currents_are_those_of_torch_whatever_ran_before(case, bias):
    n, c, h, w, o, k, stride, padding = case
    weight, shift = given(o, c, k, k), given(o, seed=1) if bias else None
    x, program = torch.full((n, c, h, w), 9.0), Program()
    found = direct.prepare(program, x, weight, shift, stride=stride, padding=padding)
    program.run()
    for seed in (2, 3):
        x.copy_(given(n, c, h, w, seed=seed))
        run_again(program)
        expected = F.conv2d(x.double(), weight.double(), None if shift is None else shift.double(), stride, padding)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-5


def test_other_processors_give_the_same():
    if jit.llvm.get_host_cpu_features().get("avx2") is not True:
        pytest.skip("this processor has no AVX2 to restrict it to")
    x, weight = given(2, 3, 9, 40), given(5, 3, 3, 3, seed=1)
    with jit.compiling_for("x86-64-v3"):  # AVX2, and nothing beyond
        found = direct.run(x, weight, padding=1)
    assert torch.equal(found, direct.run(x, weight, padding=1))


def test_what_does_not_fit_is_refused():
    weight = given(4, 3, 3, 3)
    with pytest.raises(LayoutError, match=r"takes float32 \(N, 3, H, W\), but torch.float32 \(1, 2, 5, 5\)"):
        direct.run(torch.ones(1, 2, 5, 5), weight)
    with pytest.raises(LayoutError, match=r"torch\.float64"):
        direct.run(torch.ones(1, 3, 5, 5).double(), weight)
    with pytest.raises(LayoutError, match="2 x 5 are too small"):
        direct.run(torch.ones(1, 3, 2, 5), weight)
    with pytest.raises(LayoutError, match="more than 64 weights"):
        direct.run(torch.ones(1, 8, 5, 5), given(4, 8, 3, 3))
    with pytest.raises(LayoutError, match="contiguous"):
        direct.prepare(Program(), torch.ones(1, 3, 5, 5).transpose(2, 3)[..., ::2], weight)
    with pytest.raises(NonFinite):
        direct.run(torch.ones(1, 3, 5, 5), weight / 0)
