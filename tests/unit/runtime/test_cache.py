"""Machine code on disk: found again by another process, and made anew when it is damaged, foreign, or of another processor."""

import subprocess
import sys

import pytest
import torch

from spikeprune.runtime import bits, cache, jit

pytestmark = pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache, and a process that has compiled nothing yet."""
    monkeypatch.setenv("SPIKEPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(jit, "_functions", {})
    return tmp_path / "native"


def counted():
    """Count bits natively, with whatever is in the cache."""
    jit._functions.clear()
    words, found = torch.tensor([5, 7]), torch.zeros(2, dtype=torch.int64)
    bits.count()(words.data_ptr(), found.data_ptr(), 2, 1)
    return found.tolist()


def compilations(monkeypatch):
    made, real = [], jit._optimized
    monkeypatch.setattr(jit, "_optimized", lambda *given: made.append(1) or real(*given))
    return made


def test_code_is_compiled_once_and_then_read(folder, monkeypatch):
    made = compilations(monkeypatch)
    assert counted() == [2, 3]
    assert len(made) == len(list(folder.iterdir())) == 1
    assert counted() == [2, 3]
    assert len(made) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_or_foreign_file_is_made_anew(damage, folder, monkeypatch):
    assert counted() == [2, 3]
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    changed = {"cut": whole[:-10], "flipped": whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "empty": b"", "foreign": None}[
        damage
    ]
    if changed is None:
        cache.write("another", ["address"], b"no code at all")
        changed = (folder / "another").read_bytes()
        (folder / "another").unlink()
    file.write_bytes(changed)
    made = compilations(monkeypatch)
    assert counted() == [2, 3]
    assert len(made) == 1
    assert file.read_bytes() == whole


def test_another_processor_has_other_code(folder):
    assert counted() == [2, 3]
    with jit.compiling_for("x86-64"):
        assert counted() == [2, 3]
    assert len(list(folder.iterdir())) == 2


def test_other_source_of_the_kernels_makes_other_names(monkeypatch):
    before = cache.name_of("count")
    monkeypatch.setattr(cache, "_source", lambda: "changed")
    assert cache.name_of("count") != before


def test_a_folder_that_cannot_be_written_is_done_without(folder):
    folder.parent.joinpath("native").write_text("a file where the folder should be", encoding="utf-8")
    assert counted() == [2, 3]


def test_functions_of_others_are_not_kept(folder):
    def write(module):
        function = jit.ir.Function(module, jit.ir.FunctionType(jit.ir.VoidType(), []), "nothing")
        jit.ir.IRBuilder(function.append_basic_block()).ret_void()

    jit.compiled("a key that anybody could use", write)()
    assert not folder.exists()


def test_processes_that_write_at_once_leave_whole_files(folder, tmp_path):
    code = "import torch; from spikeprune.runtime import bits, spikes; print(spikes.counts(spikes.pack_rows(torch.ones(1, 1, 5))).item())"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=200)[0].strip() for process in running] == ["5"] * 3
    names = [file.name for file in folder.iterdir()]
    assert names
    assert all(cache.read(name) is not None for name in names)
