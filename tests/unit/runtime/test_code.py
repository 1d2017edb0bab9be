import math

import pytest
import torch

from spikeprune.runtime.code import Array, counting
from spikeprune.runtime.jit import compiled, ir


def over(name, x, compute, *, half_in=False, half_out=False, down=False):
    """Run `compute` on every element by native code; to float32, or bfloat16 if half_out."""

    def write(module):
        kinds = [(ir.IntType(16) if half else ir.FloatType()).as_pointer() for half in (half_in, half_out)]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*kinds, ir.IntType(64)]), "over")
        code = ir.IRBuilder(function.append_basic_block())
        source, target = Array(code, function.args[0], half_in), Array(code, function.args[1], half_out)
        with counting(code, ir.IntType(64)(0), function.args[2], down=down) as i:
            target[i] = compute(source[i])
        code.ret_void()

    out = torch.full(x.shape, math.nan, dtype=torch.bfloat16 if half_out else torch.float32)
    compiled(name, write)(x.data_ptr(), out.data_ptr(), x.numel())
    return out


def test_operators_round_as_torch_does():
    x = torch.randn(1001, generator=torch.Generator().manual_seed(0))
    compute = lambda x: abs(-x * 0.1 + 3.0 - x) / 0.7 - (2.5 - x) / (1 / 3) + 1 / (2.0 + x * x)  # noqa: E731
    assert torch.equal(over("operators", x, compute), compute(x))
    assert torch.equal(over("operators down", x, compute, down=True), compute(x))


def test_exp_to_a_millionth():
    x = torch.cat([torch.tensor([0.0, -0.0]), -torch.logspace(-8, math.log10(86.9), 5000)])
    expected = x.double().exp()
    assert float(((over("exp", x, lambda x: x.exp()) - expected) / expected).abs().max()) < 1e-6
    far = over("exp", torch.tensor([-88.0, -1e30, -math.inf, math.nan]), lambda x: x.exp())
    assert far[:3].tolist() == pytest.approx([math.exp(-87)] * 3, rel=1e-6)
    assert far[3].isnan()


def test_comparisons():
    x = torch.tensor([0.5, 0.49999997, -math.inf, math.inf, math.nan, -0.0])
    assert over("at least", x, lambda x: x.at_least(0.5)).tolist() == [1, 0, 0, 1, 0, 0]
    low = over("clamp", x, lambda x: x.clamp_min(0.5))
    assert low[:4].tolist() == [0.5, 0.5, 0.5, math.inf]
    assert low[4].isnan()
    assert low[5] == 0.5


def test_half_the_width_is_rounded_as_torch_rounds_it():
    generator = torch.Generator().manual_seed(0)
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1e-42, 3.4e38, math.inf, -math.inf, 0.0, -0.0])
    x = torch.cat([torch.randn(500, generator=generator) * 1e3, ties])
    assert torch.equal(over("to half", x, lambda x: x, half_out=True), x.bfloat16())
    nan = torch.tensor([0x7FFFFFFF, 0x7F800001, -1], dtype=torch.int32).view(torch.float32)  # its last bits would carry
    assert over("to half", nan, lambda x: x, half_out=True).isnan().all()
    assert torch.equal(over("from half", x.bfloat16(), lambda x: x, half_in=True), x.bfloat16().float())
