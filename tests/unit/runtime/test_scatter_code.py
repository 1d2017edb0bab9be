import torch

from spikeprune.runtime.jit import compiled
from spikeprune.runtime.lanes import begin, constant
from spikeprune.runtime.program import Program
from spikeprune.runtime.scatter_code import transposed


def test_a_square_of_lanes_is_turned():
    def write(module):
        code, (x, out), _ = begin(module, "i32 i32", 0)
        for row, value in enumerate(transposed([x.load(constant(code, 8 * k), 8) for k in range(8)])):
            out.store(constant(code, 8 * row), value)
        code.ret_void()

    x, out = torch.arange(64, dtype=torch.int32).view(8, 8), torch.zeros(8, 8, dtype=torch.int32)
    made = Program()
    made.add(compiled("turned square", write), x, out)
    made.run()
    assert torch.equal(out, x.T)
