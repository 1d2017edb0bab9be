"""A network is compiled in a process of its own, from its file and a batch, as it would be in this one."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from spikeprune.bench.networks import Network, untrained
from spikeprune.runtime import jit
from spikeprune.saved import save


@pytest.fixture
def task(tmp_path):
    network = Network("mlp", width=1 / 8, sparsity=0.5, rate=0.1)
    _, net = untrained(network)
    save(tmp_path / "net.safetensors", net)
    save_file({"x": network.input(2, torch.Generator().manual_seed(0))}, tmp_path / "x.safetensors")
    return {
        "network": asdict(network), "saved": str(tmp_path / "net.safetensors"), "example": str(tmp_path / "x.safetensors"), "bits": 8,
    }  # fmt: skip


@pytest.mark.skipif(not jit.available(), reason="llvmlite is not installed")
def test_a_new_process_makes_all_machine_code_and_tells_how_long_it_took(task, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEPRUNE_CACHE", str(tmp_path))
    command = [sys.executable, "-m", "spikeprune.bench.compiled", json.dumps(task)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    took = json.loads(found.stdout.splitlines()[-1])
    assert took.keys() == {"cpu", "wall"}
    assert 0 < took["cpu"] < 100
    assert len(list((tmp_path / "native").iterdir())) > 3
