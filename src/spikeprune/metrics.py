"""What a network costs: synaptic operations, spike rates, density, energy. Counts are exact and aware of zero weights.

Conventions, which every number here follows:

- **SynOps effective** = for each non-zero input of a layer, at each timestep, its non-zero fan-out; border positions of
  a convolution count only the synapses that exist. **SynOps dense** = the same inputs times the full fan-out.
  **Operations** = every input and every weight counted as active: what a dense machine does (NeuroBench's `Dense`).
- A layer whose inputs are all -1, 0 or 1 accumulates (**AC**); one fed by real values, such as a first layer under
  direct coding or a layer behind average pooling, multiplies and accumulates (**MAC**). The verdict holds for the layer
  over the whole pass, where NeuroBench judges each call by itself; they differ only for a layer fed by both.
- All are means per sample, summed over timesteps. Biases, norms, pooling and neurons are not counted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer, apply_synapses
from spikeprune.view.model_view import ModelView

NEEDS = frozenset({Need.INPUT_COUNT, Need.SPIKE_RATE})


@dataclass(frozen=True)
class EnergyTable:
    """Energy of one operation, in picojoule, and where the figures come from.

    Left out: memory traffic, membrane updates, leak, norms. Counts times a table are a model, not a measurement.

    Example:
        >>> from spikeprune import measure, model_view
        >>> chip = EnergyTable(ac=0.5, mac=2.0, source="data sheet of my chip")
        >>> view = model_view(torch.nn.Linear(4, 2), torch.ones(1, 4), spiking=False)
        >>> costs(view, measure(view, [torch.ones(1, 4)], NEEDS), chip)[0].energy_pj
        4.0
    """

    ac: float
    mac: float
    source: str


HOROWITZ_45NM = EnergyTable(
    ac=0.9,
    mac=4.6,
    source="45 nm CMOS, 32-bit float: add 0.9 pJ, multiply 3.7 pJ (Horowitz, ISSCC 2014, doi:10.1109/ISSCC.2014.6757323)",
)


@dataclass(frozen=True)
class LayerCost:
    """One layer's row: its weights, what it was fed, and its operations as means per sample.

    Attributes:
        name, kind: the layer and its operation.
        weights, nonzero: all weights, and those that are not zero.
        input_rate: share of inputs that are not zero, over timesteps; of spikes, that is spikes a neuron and timestep.
        binary_input: whether operations are ACs (True) or MACs.
        synops_effective, synops_dense, operations: see the module.
        energy_pj: effective operations times the table.
    """

    name: str
    kind: str
    weights: int
    nonzero: int
    input_rate: float
    binary_input: bool
    synops_effective: float
    synops_dense: float
    operations: float
    energy_pj: float

    @property
    def density(self) -> float:
        """The share of the layer's weights that is not zero."""
        return self.nonzero / self.weights


def layer_cost(layer: Layer, stats: Stats, table: EnergyTable = HOROWITZ_45NM) -> LayerCost:
    """Count one layer's operations from the non-zero inputs that a pass found.

    Args:
        layer: the layer with the weights it has now.
        stats: a pass with Need.INPUT_COUNT.
        table: energy of an operation.
    """
    count, binary = stats[layer.name].input_count, stats[layer.name].binary_input
    alive = (layer.weight.detach() != 0).double()
    whole = torch.ones_like(alive)
    effective = synops(layer, count, alive)
    return LayerCost(
        name=layer.name,
        kind=layer.kind,
        weights=alive.numel(),
        nonzero=int(alive.sum()),
        input_rate=float(count.mean()),
        binary_input=binary,
        synops_effective=effective,
        synops_dense=synops(layer, count, whole),
        operations=synops(layer, torch.ones_like(count), whole),
        energy_pj=effective * (table.ac if binary else table.mac),
    )


def synops(layer: Layer, count: Tensor, present: Tensor) -> float:
    """Sum, over the inputs, how often each was active times the synapses that it has.

    A convolution is linear, so the counts of all samples go through it at once, and its output channels are summed
    beforehand: one cheap convolution instead of one a sample.

    Args:
        layer: gives stride, padding, groups.
        count: activity of each input, (steps, channels, space ...).
        present: of the weight's shape, 1 where a synapse is, else 0.
    """
    return float(_reached(layer, count, present).sum())


def fan_out(layer: Layer, activity: Tensor, present: Tensor) -> Tensor:
    """Count as `synops` does, but apart for every leading index, such as timestep and sample.

    Args:
        layer: gives stride, padding, groups.
        activity: how often each input was active, (..., channels, space ...).
        present: of the weight's shape, 1 where a synapse is, else 0.

    Returns:
        The sum over channels and space, of the leading axes (...).

    Example:
        >>> from spikeprune import model_view
        >>> view = model_view(torch.nn.Linear(3, 2), torch.ones(1, 3), spiking=False)
        >>> fan_out(view.layers[0], torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), torch.ones(2, 3))
        tensor([4., 2.])
    """
    reached = _reached(layer, activity, present)
    return reached.flatten(1 - present.dim()).sum(-1)


def _reached(layer: Layer, activity: Tensor, present: Tensor) -> Tensor:
    """Count the active synapses that end at each output position, all output channels of a group together."""
    groups = getattr(layer.module, "groups", 1)
    return apply_synapses(layer.module, activity, present.reshape(groups, -1, *present.shape[1:]).sum(1))


@dataclass(frozen=True)
class Connectivity:
    """How many weights and how many synapses there are, and how many are not zero.

    A synapse joins one input to one output: a kernel's weight stands for one at every output position that its input lies
    in the image for. Papers mean one or the other by connectivity, so name which.

    Attributes:
        weights, nonzero: of all synaptic layers.
        synapses, alive: the same unrolled; synapses of dead neurons are not taken out.
    """

    weights: int
    nonzero: int
    synapses: int
    alive: int

    @property
    def by_weight(self) -> float:
        """Non-zero weights over weights."""
        return self.nonzero / self.weights

    @property
    def unrolled(self) -> float:
        """Synapses of non-zero weights over synapses."""
        return self.alive / self.synapses


def connectivity(view: ModelView, stats: Stats) -> Connectivity:
    """Count weights and synapses.

    Args:
        view: the model with the weights it has now.
        stats: a pass with Need.INPUT_COUNT, which tells the sizes of what layers are given.

    Example:
        >>> from spikeprune import model_view
        >>> from spikeprune.measure import measure
        >>> conv = torch.nn.Conv1d(1, 1, 3, padding=1)
        >>> _ = conv.weight.data.copy_(torch.tensor([[[0.0, 1.0, 0.0]]]))
        >>> view = model_view(conv, torch.ones(1, 1, 4), spiking=False)
        >>> connectivity(view, measure(view, [torch.ones(1, 1, 4)], NEEDS))
        Connectivity(weights=3, nonzero=1, synapses=10, alive=4)
    """
    weights = nonzero = synapses = alive = 0
    for layer in view.layers:
        one = torch.ones_like(stats[layer.name].input_count[:1])
        present = (layer.weight.detach() != 0).double()
        weights, nonzero = weights + present.numel(), nonzero + int(present.sum())
        synapses += round(synops(layer, one, torch.ones_like(present)))
        alive += round(synops(layer, one, present))
    return Connectivity(weights, nonzero, synapses, alive)


def costs(view: ModelView, stats: Stats, table: EnergyTable = HOROWITZ_45NM) -> tuple[LayerCost, ...]:
    """Count the operations of every synaptic layer, in call order."""
    return tuple(layer_cost(layer, stats, table) for layer in view.layers)
