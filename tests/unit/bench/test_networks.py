from dataclasses import asdict, replace

import pytest
import torch

from spikeprune.bench import memory
from spikeprune.bench.making import Maker
from spikeprune.bench.measuring import Ground, Options
from spikeprune.bench.networks import Network, build, untrained
from spikeprune.bench.samples import fed
from spikeprune.bench.workloads import WORKLOADS, chosen
from spikeprune.engine import Reference, compile, make_plan, save_engine
from spikeprune.engine.plan import Pool, Synapse
from spikeprune.errors import RecipeError

VGG = Network("vgg", width=1 / 16, timesteps=4)


def rates(view, x):
    """The share of what each synapse but the first reads that is not zero."""
    plan = make_plan(view)
    values = Reference(plan).values(x)
    assert any(isinstance(op, Pool) and op.kind == "max" for op in plan.operations)
    return [float((values[op.inputs[0]] != 0).float().mean()) for op in plan.operations if isinstance(op, Synapse)][1:]


@pytest.mark.parametrize("blocks", [False, True])
def test_an_untrained_network_fires_and_is_pruned_as_asked(blocks):
    network = replace(VGG, width=0.25, rate=0.12, sparsity=0.9, blocks=blocks)
    view, net = untrained(network)
    x = network.input(8, torch.Generator().manual_seed(1))
    found = rates(view, x)
    assert all(0.06 < rate < 0.2 for rate in found), found
    assert sum(found) / len(found) == pytest.approx(0.12, abs=0.03)
    inner = [(net.get_submodule(f"conv{i}").weight != 0).float().mean().item() for i in range(2, 9)]
    assert inner == pytest.approx([0.1] * 7, abs=0.01)
    assert bool((net.conv1.weight != 0).all())
    assert bool((net.fc.weight != 0).all())


def test_networks_with_other_facts_have_other_names_and_parents_are_one_step_back():
    others = [VGG, replace(VGG, width=0.5), replace(VGG, timesteps=2), replace(VGG, sparsity=0.5), replace(VGG, channels=0.5)]
    others += [replace(VGG, sparsity=0.5, blocks=True), replace(VGG, rate=0.12), replace(VGG, seed=1)]
    assert len({one.name for one in others}) == len(others)
    most = replace(VGG, timesteps=2, channels=0.5, sparsity=0.9)
    line = [most]
    while line[-1].parent is not None:
        line.append(line[-1].parent)
    assert line[1:] == [replace(VGG, timesteps=2, channels=0.5), replace(VGG, timesteps=2), VGG]


def test_what_was_trained_is_not_trained_again(tmp_path, monkeypatch):
    network = replace(VGG, timesteps=2, channels=0.5, sparsity=0.9)
    made = Maker(tmp_path, quick=True).make(network)
    weights = {name: value.clone() for name, value in made.net.state_dict().items()}
    assert sum((value != 0).sum() for name, value in weights.items() if "conv" in name) < 0.2 * sum(
        value.numel() for name, value in weights.items() if "conv" in name
    )
    assert made.net.conv4.weight.shape[0] == 8  # half of 256 / 16
    assert len([*tmp_path.glob("networks/*")]) == 4
    monkeypatch.setattr(Maker, "_learn", lambda *_: pytest.fail("trained again"))
    again = Maker(tmp_path, quick=True).make(network)
    assert again.net.state_dict().keys() == weights.keys()
    assert all(torch.equal(again.net.state_dict()[name], value) for name, value in weights.items())
    assert again.density == made.density


def test_the_same_seed_trains_the_same_network(tmp_path):
    first, second, other = (
        Maker(tmp_path / str(i), quick=True).make(replace(VGG, seed=seed)).net.conv3.weight for i, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_mlp_is_given_spikes_at_the_odds_of_its_pixels():
    x = torch.stack([torch.ones(1, 28, 28), torch.zeros(1, 28, 28)])
    found = fed("mlp", x, 10, torch.Generator().manual_seed(0))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert found[:, 0].mean().item() == pytest.approx(0.42, abs=0.02)
    assert int(found[:, 1].sum()) == 0
    assert build(Network("mlp", width=1 / 16)).eval()(found).shape == (2, 10)


def test_frames_are_joined_to_fewer_timesteps():
    x = torch.zeros(1, 4, 2, 3, 3, dtype=torch.uint8)
    x[0, 1, 0, 0, 0] = x[0, 2, 1, 2, 2] = 1
    found = fed("events", x, 2, torch.Generator())
    assert found.shape == (2, 1, 2, 3, 3)
    assert found[0, 0, 0, 0, 0] == found[1, 0, 1, 2, 2] == 1
    assert int(found.sum()) == 2


def test_a_workload_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(RecipeError, match=f"'mpl'.*{', '.join(WORKLOADS)}"):
        chosen(["vgg", "mpl"])
    assert chosen(None) == list(WORKLOADS)


def test_an_engine_that_is_wrong_is_found_out(tmp_path):
    """The check of every case must be able to fail: a weight is changed behind the engine's back."""
    ground = Ground(Options(tmp_path, quick=True, width=1 / 16))
    network = replace(VGG, rate=0.12)
    made, x = ground.maker.make(network), ground.batch(network, 4)
    engine = compile(made.view, x)
    assert ground.correctness(made, engine, x, 4).right
    fc = next(op for op in engine.plan.operations if isinstance(op, Synapse) and op.name == "fc")
    fc.weight.add_(0.01)  # the plan is another now, but native code has its own copy
    assert not ground.correctness(made, engine, x, 4).right


@pytest.mark.skipif(not memory.STATUS.exists(), reason="this system does not tell a process's memory")
def test_memory_grows_with_what_is_read_and_run(tmp_path):
    maker = Maker(tmp_path, quick=True)
    made, file = maker.make(VGG), tmp_path / "engine.safetensors"
    save_engine(file, compile(made.view, maker.batch(VGG, 1)))
    tasks = [{"saved": str(maker.path(VGG))}, {"engine": str(file)}]
    for found in [memory.grown({"network": asdict(VGG), **task}) for task in tasks]:
        assert 0 <= found.running <= found.whole < 1e9
        assert 0 < found.cpu < 60
        assert 0 < found.wall < 60
    before = memory.read("VmRSS")
    kept = torch.ones(50_000_000 // 4)
    assert memory.read("VmRSS") - before > 40_000_000, len(kept)


def test_a_file_of_another_budget_is_not_taken(tmp_path):
    quick, whole = Maker(tmp_path, quick=True), Maker(tmp_path)
    assert quick.path(VGG) != whole.path(VGG)
    assert quick.path(VGG).name.startswith(VGG.name)
