"""What a network of a study comes to on held-out data: accuracy, size, operations."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.recipes.splits import Part
from spikeprune.recipes.train import Bench, accuracies
from spikeprune.report import profile
from spikeprune.studies.lab import Lab
from spikeprune.studies.retrain import held_out
from spikeprune.view.model_view import ModelView

PROFILED = 500  # test samples whose operations are counted


def measured(lab: Lab, bench: Bench, part: Part | None = None) -> dict[str, Any]:
    """Measure a smaller network on held-out data: accuracies, size, operations, channels and rates by layer."""
    top1, top5 = accuracies(bench, held_out(lab) if part is None else part, (1, 5))
    batch = [next(lab.splits.test.batches(min(PROFILED, len(lab.splits.test.y))))[0]]
    report = profile(bench.view, batch)
    return {
        "timesteps": bench.view.timesteps,
        "accuracy": top1,
        "top5": top5,
        "parameters": sum(param.numel() for param in bench.net.parameters()),
        "macs": macs(bench.view),
        "synops": report.synops_effective,
        "synops_dense": report.synops_dense,
        "operations": report.operations,
        "pixels": sum(x.synops_dense for x in report.layers[:1] if not x.binary_input),
        "energy_pj": report.energy_pj,
        "channels": [layer.weight.shape[0] for layer in bench.view.layers],
        "rates": [sum(rate) / len(rate) for rate in report.rates.values()],
    }


def whole(lab: Lab) -> Mapping[str, Any]:
    """Measure the dense network."""
    return measured(lab, lab.copy())


def macs(view: ModelView) -> float:
    """Count the multiply-accumulates of all synaptic layers a sample, as a dense engine does them, over all timesteps."""
    counts: list[float] = []

    def hook(module: nn.Module, _: Any, output: Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, Tensor)
        counts.append(output.numel() / weight.shape[0] * weight.numel())

    handles = [layer.module.register_forward_hook(hook) for layer in view.layers]
    try:
        with view.undisturbed(), torch.no_grad():
            view(view.example)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts) / samples(view)


def samples(view: ModelView) -> int:
    """Count the samples of the view's example."""
    first, seen = view.layers[0], []
    handle = first.module.register_forward_pre_hook(
        lambda _, args: seen.append(first.by_timestep(args[0], view.timesteps).shape[1])
    )
    try:
        with view.undisturbed(), torch.no_grad():
            view(view.example)
    finally:
        handle.remove()
    return int(seen[0])
