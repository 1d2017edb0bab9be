"""What learning N:M masks costs: a training step under learn_masks against the same step without, and memory.

    make bench      (or: pytest benchmarks/bench_learning.py -m slow -s)
    pytest benchmarks/bench_learning.py -m "slow and gpu" -s      on a CUDA device

CPU seconds on one thread, or seconds of a GPU, in rounds whose order turns; a ratio is that of two times of one round. A round of steps is as many
as lie between two measurements of credits, one of them included. Random data. Writes results/learning.json, or results/learning_cuda.json.
"""

import copy
import json
import platform
import statistics
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import spikeprune as sp
from spikeprune import zoo
from spikeprune.learn import learn_masks

ROUNDS, EVERY, SEED, TIMESTEPS = 3, 32, 0, 4
CREDITED = 64  # samples that credits are measured on, but no more than a batch has
RESULTS = Path(__file__).parent.parent / "results"
NETWORKS = {  # name, width, image, batch
    "vgg11, an eighth of its width, 1x32x32, batch 128": ("vgg11", 0.125, (1, 32, 32), 128),
    "vgg11, half of its width, 1x32x32, batch 32": ("vgg11", 0.5, (1, 32, 32), 32),
}
ON_GPU = {"vgg16, 3x32x32, batch 128": ("vgg16", 1.0, (3, 32, 32), 128)}
METHODS = {
    "spikenm_2_4": sp.methods.SpikeNM(2, 4, every=EVERY),
    "spikenm_2_16": sp.methods.SpikeNM(2, 16, every=EVERY),
    "spikenm_2_4_half": sp.methods.SpikeNM(2, 4, every=EVERY, half=True),
    "spikenm_2_4_without_distillation": sp.methods.SpikeNM(2, 4, distill=0),
    "sr_ste_2_4": sp.methods.SRSTE(2, 4),
}


def batch_of(image, samples, seed=SEED):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, *image, generator=generator), torch.randint(0, 10, (samples,), generator=generator)


class Contestant:
    """A network in training, perhaps with masks that are learned."""

    def __init__(self, net, image, samples, method=None, device="cpu"):
        self.net, self.device = copy.deepcopy(net).to(device), device
        self.batch = tuple(x.to(device) for x in batch_of(image, samples))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9)
        self.learning = None
        if method is not None:
            view = sp.model_view(self.net, self.batch[0][:2])
            credited = [tuple(x.to(device) for x in batch_of(image, min(CREDITED, samples), 1))]
            self.learning = learn_masks(self.optimizer, view, method, 1000, calibration=credited, loss_fn=F.cross_entropy)

    def steps(self):
        """Take as many steps as there are from one measurement of credits to the next."""
        x, y = self.batch
        start = self.now()
        for _ in range(EVERY):
            self.optimizer.zero_grad()
            F.cross_entropy(self.net(x), y).backward()
            self.optimizer.step()
        return (self.now() - start) / EVERY

    def now(self):
        """Tell the time: that of the processor, or on the wall once a GPU has done all."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def floats_a_weight(self):
        """Count what the search keeps besides the model, in float32 a weight that has the pattern."""
        learner = self.learning.learner
        kept = [
            *self.learning.weights.values(),
            *getattr(learner, "logits", {}).values(),
            *getattr(learner, "credits", {}).values(),
        ]
        weights = sum(weight.numel() for weight in self.learning.weights.values())
        return sum(x.numel() * x.element_size() for x in kept) / 4 / weights


def ratio(slow, fast):
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def compared(name, width, image, samples, device="cpu"):
    torch.manual_seed(SEED)
    net = zoo.make(name, image=image, width=width, timesteps=TIMESTEPS, coding="direct")
    contestants = {"dense": Contestant(net, image, samples, device=device)}
    contestants |= {title: Contestant(net, image, samples, method, device) for title, method in METHODS.items()}
    times = {title: [] for title in contestants}
    titles = list(contestants)
    for i in range(ROUNDS + 1):
        for title in titles[i % len(titles) :] + titles[: i % len(titles)]:
            seconds = contestants[title].steps()
            if i:  # the first round does not count
                times[title].append(seconds)
    return {
        "weights": sum(param.numel() for param in net.parameters()),
        "seconds_a_step": {title: round(statistics.median(values), 4) for title, values in times.items()},
        "over_dense": {title: ratio(times[title], times["dense"]) for title in METHODS},
        "floats_a_weight": {title: round(contestants[title].floats_a_weight(), 2) for title in METHODS},
    }


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def publish(target, clock, networks, **machine):
    result = {
        "what": f"{clock} seconds of a training step, T = {TIMESTEPS}, a measurement of credits on {CREDITED} samples (a batch, where it is smaller) every {EVERY} steps included; and what the search keeps",
        "networks": networks,
        "seed": SEED,
        **machine,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": sp.__version__},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / target).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def check(found, most):
    for numbers in found.values():
        assert max(ratios["median"] for ratios in numbers["over_dense"].values()) <= most
        assert numbers["floats_a_weight"]["spikenm_2_4_half"] <= 2.0
        assert max(numbers["floats_a_weight"].values()) <= 2.5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_step_of_the_search_costs_at_most_a_third_more_than_a_dense_one():
    found = {title: compared(*network) for title, network in NETWORKS.items()}
    machine = {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}
    publish("learning.json", "CPU", found, command="pytest benchmarks/bench_learning.py -m slow -s", **machine)
    check(found, most=1.35)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_of_the_search_costs_at_most_a_fifth_more_on_a_gpu():
    found = {title: compared(*network, device="cuda") for title, network in ON_GPU.items()}
    machine = {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    publish("learning_cuda.json", "GPU", found, command='pytest benchmarks/bench_learning.py -m "slow and gpu" -s', **machine)
    check(found, most=1.2)
