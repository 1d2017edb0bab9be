"""What newcomers copy must run: the README's example and the files in examples/."""

import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["prune_snntorch.py", "prune_spikingjelly.py"])
def test_an_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / name))
    out = capsys.readouterr().out
    assert "pruned to" in out
    assert "SynOps effective" in out


def test_the_example_of_timesteps_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / "fewer_timesteps.py"))
    out = capsys.readouterr().out
    curve = [float(found) for found in re.findall(r"after +\d+ timesteps: accuracy ([\d.]+)%", out)]
    assert len(curve) == 10
    assert curve[-1] > 70 > curve[0]
    assert re.search(r"truncated to 6 timesteps: accuracy ([\d.]+)%", out)[1] == f"{curve[5]}"
    assert "early exit at confidence 0.7" in out


def test_the_example_of_a_deep_network_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / "slamp_deep.py"))
    out = capsys.readouterr().out
    told = re.findall(r"pruned to (\d+)%, accuracy ([\d.]+)%", out)
    assert [float(sparsity) for sparsity, _ in told] == [0, 0, 75, 90]
    assert float(told[-1][1]) > 50
    gains = [float(found) for found in re.findall(r"gain\^2 ([\d.]+)", out)]
    assert len(gains) == 9
    assert gains[-1] == 1 < min(gains[:-1])
    assert "SynOps effective" in out


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    with torch.random.fork_rng():
        exec(compile(blocks[0], "README.md", "exec"), {})
    assert "SynOps effective" in capsys.readouterr().out
    assert (tmp_path / "pruned.safetensors").exists()


def test_the_example_of_channels_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / "shrink_channels.py"))
    out = capsys.readouterr().out
    before, after, silenced, small = re.search(
        r"shrunk from ([\d,]+) to ([\d,]+) parameters, accuracy ([\d.]+)% and ([\d.]+)%", out
    ).groups()
    assert int(after.replace(",", "")) < int(before.replace(",", "")) / 2
    assert abs(float(silenced) - float(small)) <= 0.2  # in float32 a spike may round apart
    assert f"loaded: accuracy {small}%" in out
    assert float(small) > 50
    assert "SynOps effective" in out


def test_the_example_of_learned_masks_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / "learn_masks.py"))
    out = capsys.readouterr().out
    sure = [int(found) for found in re.findall(r"logits (\d+)% sure", out)]
    assert len(sure) == 3
    assert sure == sorted(sure)
    assert sure[-1] > 60  # the masks were learned, not only drawn
    assert float(re.search(r"fine-tuned: accuracy ([\d.]+)%", out)[1]) > 50
    assert "2:4" in out
    packed, dense = (int(found.replace(",", "")) for found in re.search(r"packed: ([\d,]+) bytes.*?, ([\d,]+) as", out).groups())
    assert packed < 0.6 * dense
    assert (tmp_path / "packed.safetensors").stat().st_size > packed


def test_the_example_of_compiling_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "examples" / "compile_network.py"))
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    eager = float(re.search(r"eager: accuracy ([\d.]+)%", out)[1])
    told = re.findall(r"(\w+) bits: accuracy ([\d.]+)%, ([\d.]+) times faster at batch 16, ([\d,]+) bytes", out)
    assert eager > 50
    assert [bits for bits, *_ in told] == ["float32", "8", "4"]
    accuracies = [float(accuracy) for _, accuracy, *_ in told]
    assert abs(accuracies[0] - eager) <= 0.3  # a charge at its threshold may be rounded apart
    assert abs(accuracies[1] - eager) <= 2
    sizes = [int(size.replace(",", "")) for *_, size in told]
    assert sizes[0] > sizes[1] > sizes[2]
    assert f"loaded without the network: accuracy {told[2][1]}%" in out
    assert "conv2" in out
