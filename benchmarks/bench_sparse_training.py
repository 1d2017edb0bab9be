"""What sparse training saves: one layer forward and backward, and a whole step of a network, against dense code.

    make bench      (or: pytest benchmarks/bench_sparse_training.py -m slow -s)

CPU seconds on one thread, in rounds whose order turns; a ratio is that of two times of one round. Random data and random masks: what
lives decides the time, not what it is. Writes results/sparse_training.json.
"""

import copy
import json
import platform
import statistics
import time
from importlib import metadata
from pathlib import Path

import pytest
import snntorch
import torch
import torch.nn.functional as F
from torch import nn

import spikeprune as sp
from spikeprune import zoo
from spikeprune.sparse_training import sparse_training
from spikeprune.zoo.parts import SpikingNet, conv

ROUNDS, SEED, TIMESTEPS, BATCH = 21, 0, 4, 16
SPARSITIES, GOALS = (0.8, 0.9, 0.95, 0.98), (1.8, 2.8, 4.4, 6.5)  # of the layer, over dense
STEP_GOALS = {0.9: 1.4, 0.95: 1.5}  # of the step, over our own dense one
RATE = 0.12  # spikes an input and timestep
NEURON = zoo.Neuron("lif", tau=2.0, reset="soft", surrogate="atan", decay_input=False)
TARGET = Path(__file__).parent.parent / "results" / "sparse_training.json"


def seconds(contestants):
    """Time each once a round, in an order that turns, after one round that does not count."""
    times, names = {name: [] for name in contestants}, list(contestants)
    for i in range(ROUNDS + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.process_time()
            contestants[name]()
            if i:
                times[name].append(time.process_time() - start)
    return times


def ratio(slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def medians(times):
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def publish(part, result):
    """Write one part of the results beside the other."""
    known = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": sp.__version__}
    versions |= {name: metadata.version(name) for name in ("spikingjelly", "snntorch", "llvmlite")}
    shared = {
        "command": "pytest benchmarks/bench_sparse_training.py -m slow -s",
        "seed": SEED,
        "threads": torch.get_num_threads(),
    }
    known |= shared | {"cpu": torch.backends.cpu.get_cpu_capability(), "versions": versions, part: result}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(known, indent=2) + "\n")
    print(json.dumps({part: result}, indent=2))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_masks(view, names, sparsity):
    generator = torch.Generator().manual_seed(SEED)
    score = {layer.name: torch.rand(layer.weight.shape, generator=generator) for layer in view.select(names)}
    masks = sp.Masks(
        {name: s.flatten().argsort().argsort().view_as(s) >= round(sparsity * s.numel()) for name, s in score.items()}
    )
    masks.apply_(view.net)
    return masks


def layer_result(sparsity):
    """Time one layer, dense and sparse, the input's gradient too; its copy is dense, for `sparse_training` follows one model only."""
    torch.manual_seed(SEED)
    net = conv(256, 256)
    x = (torch.rand(TIMESTEPS * BATCH, 256, 8, 8) < RATE).float().requires_grad_()
    dy = torch.randn(x.shape)
    view = sp.model_view(net, x.detach(), spiking=False)
    masks = random_masks(view, None, sparsity)

    def run(layer):
        return torch.autograd.grad(layer(x), (x, layer.weight), dy)

    twin = copy.deepcopy(net)
    with sparse_training(view, masks) as training:
        dx, dw = run(twin)
        for found, expected in zip(run(net), (dx, dw * masks[""]), strict=True):
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert training.calls("") == (1, 0)
        times = seconds({"dense": lambda: run(twin), "sparse": lambda: run(net)})
    return {"seconds": medians(times), "dense_over_sparse": ratio(times["dense"], times["sparse"])}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_layer_is_faster_the_fewer_weights_live():
    found = {f"{sparsity:.0%}": layer_result(sparsity) for sparsity in SPARSITIES}
    what = f"CPU seconds of forward and backward of a 3x3 convolution 256-256 on 8x8, {TIMESTEPS * BATCH} images of {RATE:.0%} spikes"
    publish("layer", {"what": what, **found})
    for goal, numbers in zip(GOALS, found.values(), strict=True):
        assert numbers["dense_over_sparse"]["median"] >= goal


def network():
    """64-P-128-P-256-P-FC on 3x32x32; as anywhere in the zoo, the first convolution runs once for all timesteps."""
    torch.manual_seed(SEED)
    parts, channels = {}, 3
    for i, outputs in enumerate((64, 128, 256), start=1):
        parts |= {f"conv{i}": conv(channels, outputs), f"norm{i}": nn.BatchNorm2d(outputs), f"neuron{i}": NEURON.build()}
        parts[f"pool{i}"], channels = nn.MaxPool2d(2), outputs
    parts |= {"flat": nn.Flatten(), "fc": nn.Linear(256 * 16, 10)}
    return SpikingNet(parts, image=(3, 32, 32), timesteps=TIMESTEPS, coding="direct")


class Loop(nn.Module):
    """The same layers in snnTorch's way: a loop over timesteps."""

    def __init__(self, net):
        super().__init__()
        self.parts = nn.ModuleDict(copy.deepcopy(dict(net.named_children())))
        for name in [name for name in self.parts if name.startswith("neuron")]:
            slope = snntorch.surrogate.atan(alpha=self.parts[name].surrogate_function.alpha)
            self.parts[name] = snntorch.Leaky(beta=0.5, spike_grad=slope, reset_mechanism="subtract", reset_delay=False)

    def forward(self, batch):
        first, total = self.parts["norm1"](self.parts["conv1"](batch)), 0.0
        membranes = {name: part.reset_mem() for name, part in self.parts.items() if name.startswith("neuron")}
        for _ in range(TIMESTEPS):
            x = first
            for name, part in list(self.parts.items())[2:]:
                if name in membranes:
                    x, membranes[name] = part(x, membranes[name])
                else:
                    x = part(x)
            total = total + x
        return total / TIMESTEPS


class Double(nn.Module):
    """Give the channels twice: what stands for a convolution that costs nothing."""

    def forward(self, x):
        return torch.cat((x, x), 1)


def without_convolutions():
    net = network()
    net.conv2, net.conv3 = Double(), Double()
    return net


def images():
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(BATCH, 3, 32, 32, generator=generator), torch.randint(0, 10, (BATCH,), generator=generator)


def stepper(net, optimizer):
    x, y = images()

    def step():
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def optimizer_of(net):
    return torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_step_of_a_network_is_faster_than_dense_and_than_snntorch():
    found = {f"{sparsity:.0%}": step_result(sparsity) for sparsity in STEP_GOALS}
    what = "CPU seconds of a training step; 64-128-256 with batch norm, 3x32x32, T = 4, batch 16; SGD with momentum; masks held"
    publish("step", {"what": what, **found})
    for goal, numbers in zip(STEP_GOALS.values(), found.values(), strict=True):
        assert numbers["dense_over_sparse"]["median"] >= goal


def step_result(sparsity):
    """Time steps under one mask of the second and third convolution, held: by dense code, by sparse, and without the two at all."""
    net, twin, rest = network(), network(), without_convolutions()
    x, _ = images()
    views = [sp.model_view(one, x) for one in (net, twin)]
    masks = random_masks(views[0], ["conv2", "conv3"], sparsity)
    masks.apply_(twin)
    peer = Loop(net)
    with torch.no_grad():  # in evaluation the two are one network
        assert torch.allclose(copy.deepcopy(peer).eval()(x), views[1].clone().net.eval()(x), atol=1e-4)
    optimizers = [optimizer_of(one) for one in (net, twin, peer)]
    with (
        sp.hold(optimizers[0], views[0], masks),
        sp.hold(optimizers[1], views[1], masks),
        sparse_training(views[0], masks) as training,
    ):
        contestants = {
            "sparse": stepper(net, optimizers[0]),
            "dense": stepper(twin, optimizers[1]),
            "snntorch": stepper(peer, optimizers[2]),
            "all_else": stepper(rest, optimizer_of(rest)),
        }
        times = seconds(contestants)
        assert training.calls("conv2") == training.calls("conv3") == (ROUNDS + 1, 0)
    return {
        "seconds": medians(times),
        "dense_over_sparse": ratio(times["dense"], times["sparse"]),
        "snntorch_over_sparse": ratio(times["snntorch"], times["sparse"]),
        "dense_over_all_else": ratio(times["dense"], times["all_else"]),
        "snntorch_over_dense": ratio(times["snntorch"], times["dense"]),
    }
