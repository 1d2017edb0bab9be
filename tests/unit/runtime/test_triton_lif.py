"""The Triton kernel of neurons: in Triton's interpreter and as code for a GPU without one, and on a GPU against torch.

The interpreter is switched on before Triton is imported, so it runs in a process of its own: this file as a program.
"""

import os
import subprocess
import sys

import pytest
import torch

from spikeprune.errors import LayoutError
from spikeprune.runtime import triton_lif
from spikeprune.runtime.triton_lif import TritonNeurons, fire

SHAPES = {
    "features": (4, 3, 5),
    "no channels": (7, 3),
    "maps": (5, 2, 3, 4, 2),
    "channels innermost": (4, 2, 3, 4, 2),
    "one axis of space": (2, 2, 3, 7),
    "three axes, innermost": (3, 2, 3, 2, 2, 2),
    "many": (2, 2, 3, 60, 1),
}
WAYS = [("hard", False), ("soft", False), ("none", False), ("soft", True)]


def currents(name, dtype, device, seed=0):
    x = torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    if "innermost" in name:
        order = torch.channels_last if x.dim() == 5 else torch.channels_last_3d
        x = x.flatten(0, 1).contiguous(memory_format=order).view(x.shape)
    return x


def neurons(channels, device, *, alike, seed=1, **ways):
    """Decay, gain, rest, threshold, reset_to, start: none of them 0 or 1."""
    low, high = torch.tensor([[0.3, 0.5, -0.3, 0.2, -0.4, -0.2], [0.9, 1.5, -0.1, 0.6, -0.1, 0.3]]).unsqueeze(2)
    share = torch.rand(6, 1 if alike else channels, generator=torch.Generator().manual_seed(seed))
    return TritonNeurons(table=(low + (high - low) * share).expand(6, channels).contiguous().to(device), **ways)


def scan(x, cells):
    """The equations in torch, one timestep after the other, in float32."""
    shape = (-1, *[1] * (x.dim() - 3)) if x.dim() > 2 else ()
    decay, gain, rest, level, low, start = (row.view(shape) for row in cells.table)
    v, due, out = start.expand(x.shape[1:]), None, []
    for current in x.float():
        h = rest + decay * (v - rest) + gain * current
        h = h if due is None else h - level * due
        s = (h > level if cells.strict else h >= level).float()
        v = {"hard": torch.where(s > 0, low, h), "soft": h if cells.delayed else h - level * s, "none": h}[cells.reset]
        due = s if cells.delayed else None
        out.append(h if cells.charges else s)
    return torch.stack(out).to(x.dtype)


def check(name, dtype, device):
    """Every way to reset gives what torch gives, bit by bit, laid out as the input is."""
    x = currents(name, dtype, device)
    channels = x.shape[2] if x.dim() > 2 else 1
    for place, (reset, delayed) in enumerate(WAYS):
        for charges in (False, True):
            ways = {"reset": reset, "delayed": delayed, "strict": place % 2 == 0, "charges": charges}
            cells = neurons(channels, device, alike=place == 1, **ways)
            found, wanted = fire(x, cells), scan(x, cells)
            # Triton's interpreter cuts off where a device rounds.
            cut = torch.finfo(dtype).eps if charges and device.type == "cpu" and dtype != torch.float32 else 0.0
            torch.testing.assert_close(found, wanted, rtol=cut, atol=0, msg=f"{name} {dtype} {ways}")
            assert found[0].stride() == x[0].stride(), name
            assert 0 < scan(x, neurons(channels, device, alike=False, reset=reset)).float().mean() < 1


def check_lying_anyhow(device):
    """One input for all timesteps, timesteps apart, and orders that the kernel has no word for."""
    cells = neurons(3, device, alike=False, reset="hard")
    x = currents("maps", torch.float32, device)
    for given in (x[:1].expand(4, *x.shape[1:]), x[::2], x.transpose(0, 1).contiguous().transpose(0, 1), x.transpose(3, 4)):
        assert torch.equal(fire(given, cells), scan(given, cells))
    mixed = x.permute(2, 0, 1, 3, 4).contiguous().permute(1, 2, 0, 3, 4)[:1].expand(4, *x.shape[1:])
    assert torch.equal(fire(mixed, cells), scan(mixed, cells))


def check_by_hand(device):
    """Charges 1.0, then 0.5 after a hard reset to 0, then 2.75: the threshold 1 is reached, and not exceeded."""
    x = torch.tensor([1.0, 0.5, 2.5]).view(3, 1, 1).to(device)
    table = torch.tensor([0.5, 1.0, 0.0, 1.0, 0.0, 0.0]).view(6, 1).to(device)
    assert fire(x, TritonNeurons(table=table, reset="hard")).flatten().tolist() == [1, 0, 1]
    assert fire(x, TritonNeurons(table=table, reset="hard", strict=True)).flatten().tolist() == [0, 0, 1]
    charges = TritonNeurons(table=table, reset="soft", delayed=True, charges=True)
    assert fire(x, charges).flatten().tolist() == [1.0, 0.0, 2.5]


def check_nothing_overruns(device):
    """What lies behind the last neuron stays."""
    wide = torch.zeros(3, 200, device=device)
    x = wide.view(-1)[:390].view(3, 130, 1) + 1
    out = fire(x, neurons(1, device, alike=True, reset="none"))
    assert out.shape == (3, 130, 1)
    assert out.untyped_storage().nbytes() == 3 * 130 * 4


def main():
    device = torch.device("cpu")
    assert triton_lif.refuses(device) == ""
    for name in SHAPES:
        for dtype in triton_lif.DTYPES if name == "maps" else (torch.float32,):
            check(name, dtype, device)
    check_lying_anyhow(device)
    check_by_hand(device)
    check_nothing_overruns(device)
    print("checked")


def in_a_process(*code, **environment):
    done = subprocess.run(
        [sys.executable, *code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_the_interpreter_it_gives_what_torch_gives():
    pytest.importorskip("triton")
    assert in_a_process(__file__, TRITON_INTERPRET="1") == "checked\n"


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spikeprune.runtime.triton_code import fire
for kind, last in (("fp32", 1), ("bf16", 0)):
    names = [one.name for one in fire.params]
    ways = dict(steps=10, unrolled=5, alike=not last, hard=last, soft=not last, delayed=not last, strict=last, charges=False, block=1024)
    fixed = {name: int(value) if name in ("steps", "unrolled", "block") else bool(value) for name, value in ways.items()}
    types = dict(x="*" + kind, out="*" + kind, table="*fp32", size="i32", x_step="i32", inner="i32", channels="i32")
    types |= dict.fromkeys(fixed, "constexpr")
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in ("x", "out", "table", "size", "x_step")}
    constants = {(names.index(name),): value for name, value in fixed.items()}
    source = ASTSource(fn=fire, signature=types, constexprs=constants, attrs=aligned)
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}).asm["ptx"]
    print("fma" in code, "ld.global.v4" in code, "st.global.v4" in code)
"""


def test_it_compiles_for_a_gpu_without_fused_roundings_and_moves_sixteen_bytes_at_a_time(tmp_path):
    pytest.importorskip("triton")
    told = in_a_process("-c", COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert told.splitlines() == ["False True True"] * 2


def test_a_cpu_has_none_and_it_says_so(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert triton_lif.refuses(torch.device("cpu")) == "Triton runs on CUDA devices"


def test_why_there_is_none_is_told(monkeypatch):
    from spikeprune.runtime import triton_code

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(triton_code, "fire", None)
    assert triton_lif._refuses.__wrapped__(torch.device("cpu")) == "Triton is not installed"

    def broken(*_, **__):
        raise RuntimeError("Failed to find C compiler.\nSee the manual.")

    monkeypatch.setattr(triton_code, "fire", {(1,): broken})
    told = triton_lif._refuses.__wrapped__(torch.device("cpu"))
    assert told == "Triton cannot compile here (RuntimeError: Failed to find C compiler.)"


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.zeros(2, 3, 4), r"neurons of 3 channels were given torch.float32 \(2, 3, 4\); the kernel takes \(T, N, 3, ...\)"),
        (torch.zeros(2, 3, 3, dtype=torch.double), "given torch.float64"),
        (torch.zeros(0, 3, 3), "not empty"),
        (torch.zeros(2, 0, 3), "not empty"),
        (torch.zeros(3), r"given torch.float32 \(3,\)"),
    ],
)
def test_inputs_that_the_kernel_does_not_take(x, told):
    with pytest.raises(LayoutError, match=told):
        fire(x, neurons(3, "cpu", alike=False, reset="hard"))


@pytest.mark.parametrize("table", [torch.zeros(5, 3), torch.zeros(6), torch.zeros(6, 3, dtype=torch.double)])
def test_tables_that_are_none(table):
    with pytest.raises(LayoutError, match=r"but must be float32 \(6, C\)"):
        TritonNeurons(table=table, reset="hard")


def test_constants_that_are_alike_are_found():
    assert TritonNeurons(table=torch.ones(6, 3), reset="hard").alike
    assert not TritonNeurons(table=torch.arange(18.0).view(6, 3), reset="hard").alike


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGpu:
    device = torch.device("cuda")

    @pytest.mark.parametrize("dtype", triton_lif.DTYPES)
    @pytest.mark.parametrize("name", SHAPES)
    def test_it_gives_what_torch_gives(self, name, dtype):
        pytest.importorskip("triton")
        assert triton_lif.refuses(self.device) == ""
        check(name, dtype, self.device)

    def test_it_takes_inputs_however_they_lie(self):
        pytest.importorskip("triton")
        check_lying_anyhow(self.device)
        check_by_hand(self.device)
        check_nothing_overruns(self.device)

    def test_large_blocks(self):
        pytest.importorskip("triton")
        x = torch.randn(4, 3, 16, 90, 70, device=self.device, dtype=torch.bfloat16)
        assert x[0].numel() >= triton_lif.MANY
        cells = neurons(16, self.device, alike=False, reset="soft")
        assert torch.equal(fire(x, cells), scan(x, cells))


if __name__ == "__main__":
    main()
