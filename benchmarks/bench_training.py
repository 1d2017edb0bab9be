"""What a training step costs: ours against SpikingJelly and snnTorch, with and without a Pruner, and the neuron alone.

    make bench      (or: pytest benchmarks/bench_training.py -m slow -s)

Everything runs on one thread of one process, so CPU seconds are the measure, in rounds whose order turns: a drift of the machine
hits all alike. A ratio is that of two times of one round. Random data. Writes results/training.json.
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
from spikingjelly.activation_based import neuron
from torch import nn

import spikeprune as sp
from spikeprune import zoo

TIMESTEPS, BATCH, ROUNDS, SEED = 4, 16, 7, 0
BATCHES = (4, 32, 64)  # and 16 in the test of a step
HELD_BATCH = 64  # holding costs the same whatever the batch: it passes over weights
CALIBRATION, EPOCH = 5, 391  # batches: what SLAMP's recipes measure, and an epoch of CIFAR-10 in batches of 128
NEURON = zoo.Neuron("lif", tau=2.0, reset="hard", surrogate="atan", decay_input=False)  # snnTorch's Leaky can do this one exactly
NETWORK = "vgg16, 3x32x32, T = 4, batch 16, LIF with hard reset; forward, backward and SGD with momentum"
TARGET = Path(__file__).parent.parent / "results" / "training.json"


class SpikingJellyOnly:
    """Turns our neurons back into SpikingJelly's own; the rest of a zoo net is torch."""

    @staticmethod
    def of(net):
        net = copy.deepcopy(net)
        for module in net.modules():
            if isinstance(module, neuron.LIFNode):
                module.__class__ = neuron.LIFNode
        return net


class Loop(nn.Module):
    """The same layers in snnTorch's way: a loop over timesteps; what comes before the first neuron is computed once, as ours."""

    def __init__(self, net):
        super().__init__()
        self.parts = nn.ModuleList(copy.deepcopy(list(net.children())))
        self.first = next(i for i, part in enumerate(self.parts) if isinstance(part, neuron.LIFNode))
        for i, part in enumerate(self.parts):
            if isinstance(part, neuron.LIFNode):
                slope = snntorch.surrogate.atan(alpha=part.surrogate_function.alpha)
                self.parts[i] = snntorch.Leaky(
                    beta=1 - 1 / part.tau, threshold=part.v_threshold, spike_grad=slope, reset_mechanism="zero"
                )

    def forward(self, batch):
        current, total = batch, 0.0
        membranes = {i: part.reset_mem() for i, part in enumerate(self.parts) if isinstance(part, snntorch.Leaky)}
        for part in self.parts[: self.first]:
            current = part(current)
        for _ in range(TIMESTEPS):
            x = current
            for i, part in enumerate(self.parts):
                if i < self.first:
                    continue
                if isinstance(part, snntorch.Leaky):
                    x, membranes[i] = part(x, membranes[i])
                else:
                    x = part(x)
            total = total + x
        return total / TIMESTEPS


class Bound(nn.Module):
    """Convolutions, pools and linear layers alone, of the same size: what no neuron and no norm can be faster than."""

    def __init__(self, net):
        super().__init__()
        parts = list(copy.deepcopy(net).children())
        self.first, *rest = (part for part in parts if not isinstance(part, neuron.LIFNode | nn.BatchNorm2d | nn.BatchNorm1d))
        self.rest = nn.Sequential(*rest)

    def forward(self, batch):
        x = self.first(batch).repeat(TIMESTEPS, 1, 1, 1)
        return self.rest(x).unflatten(0, (TIMESTEPS, -1)).mean(0)


def images(batch=BATCH):
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(batch, 3, 32, 32, generator=generator), torch.randint(0, 10, (batch,), generator=generator)


def network():
    torch.manual_seed(SEED)
    return zoo.make("vgg16", timesteps=TIMESTEPS, neuron=NEURON)


def stepper(net, *, half=False, pruner_for=None, batch=BATCH):
    x, y = images(batch)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    pruner = pruner_for(net, x, optimizer) if pruner_for else None

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(net(x).float(), y)
        loss.backward()
        optimizer.step()
        if pruner:
            pruner.step()

    return step


def seconds(contestants, rounds=ROUNDS):
    """Time each once a round, in an order that turns, after one round that does not count."""
    times = {name: [] for name in contestants}
    names = list(contestants)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.process_time()
            contestants[name]()
            if i:
                times[name].append(time.process_time() - start)
    return times


def ratio(slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def publish(part, result):
    """Write one part of the results beside those of the other benchmarks of this file."""
    known = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": sp.__version__}
    versions |= {name: metadata.version(name) for name in ("spikingjelly", "snntorch", "llvmlite")}
    shared = {"command": "pytest benchmarks/bench_training.py -m slow -s", "seed": SEED, "threads": torch.get_num_threads()}
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_step_is_faster_than_with_spikingjelly_and_snntorch():
    net = network()
    nets = {"spikeprune": net, "spikingjelly": SpikingJellyOnly.of(net), "snntorch": Loop(net)}
    x, _ = images()
    with torch.no_grad():  # in evaluation the three are one network
        outputs = [copy.deepcopy(other).eval()(x) for other in nets.values()]
    assert all(torch.allclose(outputs[0], output, atol=1e-4) for output in outputs[1:])
    halves = {f"{name}_bfloat16": stepper(copy.deepcopy(nets[name]), half=True) for name in ("spikeprune", "snntorch")}
    contestants = {name: stepper(other) for name, other in nets.items()}
    times = seconds(contestants | {"layers_alone": stepper(Bound(net))} | halves)
    result = {
        "what": f"CPU seconds of a training step; {NETWORK}",
        "seconds": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "snntorch_over_spikeprune": ratio(times["snntorch"], times["spikeprune"]),
        "spikingjelly_over_spikeprune": ratio(times["spikingjelly"], times["spikeprune"]),
        "snntorch_over_layers_alone": ratio(times["snntorch"], times["layers_alone"]),
        "snntorch_over_spikeprune_both_bfloat16": ratio(times["snntorch_bfloat16"], times["spikeprune_bfloat16"]),
        "spikeprune_over_spikeprune_bfloat16": ratio(times["spikeprune"], times["spikeprune_bfloat16"]),
    }
    publish("step", result)
    assert result["snntorch_over_spikeprune"]["median"] >= 1.2
    assert result["spikingjelly_over_spikeprune"]["median"] >= 1.1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_small_batches_gain_most():
    found = {}
    for batch in BATCHES:
        net = network()
        nets = {"spikeprune": net, "snntorch": Loop(net), "layers_alone": Bound(net)}
        times = seconds({name: stepper(other, batch=batch) for name, other in nets.items()}, rounds=5)
        found[f"batch {batch}"] = {
            "snntorch_over_spikeprune": ratio(times["snntorch"], times["spikeprune"]),
            "snntorch_over_layers_alone": ratio(times["snntorch"], times["layers_alone"]),
        }
    publish("batches", {"what": "CPU seconds of a training step, at batches of other sizes", **found})
    medians = [ratios["snntorch_over_spikeprune"]["median"] for ratios in found.values()]
    assert min(medians) > 1
    assert medians[0] >= 1.5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_neuron_alone_is_at_least_four_times_faster():
    ours = NEURON.build()
    plain = SpikingJellyOnly.of(nn.Sequential(ours))[0]
    generator = torch.Generator().manual_seed(SEED)
    x, grad = torch.randn(2, TIMESTEPS, BATCH, 64, 32, 32, generator=generator)
    x.requires_grad_()

    def run(node):
        node.reset()
        torch.autograd.grad(node(x), x, grad)

    times = seconds({"spikeprune": lambda: run(ours), "spikingjelly": lambda: run(plain)}, rounds=3 * ROUNDS)
    result = {
        "what": f"CPU seconds of forward and backward of one LIF layer, T = 4, {x.numel()} elements in all",
        "seconds": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "spikingjelly_over_spikeprune": ratio(times["spikingjelly"], times["spikeprune"]),
    }
    publish("neuron", result)
    assert result["spikingjelly_over_spikeprune"]["median"] >= 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_step_under_a_pruner_costs_at_most_three_percent_more():
    pruners = []

    def pruned(net, x, optimizer):
        pruner = sp.Pruner(sp.model_view(net, x), sp.methods.Magnitude(), sp.schedules.once(0.9)).attach(optimizer)
        assert pruner.step()
        pruners.append(pruner)
        return pruner

    net = network()
    free, held = stepper(copy.deepcopy(net), batch=HELD_BATCH), stepper(net, pruner_for=pruned, batch=HELD_BATCH)
    times = seconds({"free": free, "held": held})
    result = {
        "what": f"CPU seconds of a training step under a Pruner that holds {pruners[0].masks.sparsity:.1%} of the weights, and without; {NETWORK.replace('batch 16', f'batch {HELD_BATCH}')}",
        "seconds": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "held_over_free": ratio(times["held"], times["free"]),
    }
    publish("held", result)
    assert result["held_over_free"]["median"] <= 1.03


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_slamp_measures_costs_at_most_two_percent_of_an_epoch():
    net = network()
    view = sp.model_view(net, images()[0])
    step = stepper(net)

    def scored():
        sp.measure(view, [images()], sp.methods.SLAMP().needs, loss_fn=F.cross_entropy)

    times = seconds({"step": step, "scored": scored})
    shares = [CALIBRATION * a / (EPOCH * b) for a, b in zip(times["scored"], times["step"], strict=True)]
    result = {
        "what": f"CPU seconds of measuring what SLAMP needs over {CALIBRATION} batches, over those of an epoch of {EPOCH} steps; {NETWORK}",
        "seconds_a_batch": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "share_of_an_epoch": {
            "median": round(statistics.median(shares), 4),
            "min": round(min(shares), 4),
            "max": round(max(shares), 4),
        },
    }
    publish("scoring", result)
    assert result["share_of_an_epoch"]["median"] <= 0.02
