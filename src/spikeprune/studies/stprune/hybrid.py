"""The paper's own way to a trained SNN: an ANN without norms, balanced thresholds, and training on with Poisson input."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spikeprune.balance import balance_
from spikeprune.recipes.nets import NeuronTable
from spikeprune.recipes.splits import Part
from spikeprune.recipes.train import Bench, accuracy, draw, epoch, make_net
from spikeprune.robustness import Gaussian, accuracy_under
from spikeprune.studies.lab import Lab
from spikeprune.studies.retrain import falling, fit, held_out
from spikeprune.studies.stprune.settings import Hybrid, Settings
from spikeprune.view.model_view import model_view

RELU = NeuronTable(kind="relu")
INTEGRATE = NeuronTable(kind="if", reset="soft", surrogate="piecewise_quadratic")
# The paper's: leak 0.99.
LEAKY = NeuronTable(kind="lif", tau=101.0, reset="soft", surrogate="piecewise_quadratic", decay_input=False)


def converted(lab: Lab, settings: Settings) -> Mapping[str, Any]:
    """Train the ANN, convert it, and train on; accuracies after each."""
    how = settings.hybrid
    assert how is not None
    ann = bench(lab, how, RELU, 1)
    fit(lab, ann, lab.recipe.train.epochs * lab.steps, name="hybrid")
    some = first(lab, how)
    found: dict[str, Any] = {"ann": accuracy(ann, some)}
    spiking = bench(lab, how, INTEGRATE, how.timesteps[-1])
    spiking.net.load_state_dict(ann.net.state_dict())
    x = lab.some(how.balanced, "balanced").batches(how.balanced)
    found["thresholds"] = list(balance_(spiking.view, x).values())
    for kind, table in (("without leak", INTEGRATE), ("with leak", LEAKY)):
        for steps in how.timesteps:
            other = bench(lab, how, table, steps)
            other.net.load_state_dict(spiking.net.state_dict())
            found[f"{kind}, T = {steps}"] = answers(lab, how, other)
    trained = bench(lab, how, LEAKY, how.timesteps[0])
    trained.net.load_state_dict(spiking.net.state_dict())
    train(lab, trained, settings.batches, how.lr)
    return {**found, "trained on": answers(lab, how, trained)}


def bench(lab: Lab, how: Hybrid, neuron: NeuronTable, timesteps: int) -> Bench:
    """Build the network without norms, for pixels in [-1, 1]; its weights are drawn from the seed."""
    recipe: Any = lab.recipe
    relu = neuron.kind == "relu"
    parts = {"width": how.width, "timesteps": timesteps, "neuron": neuron, "norm": "none", "dropout": how.dropout}
    net = recipe.net.model_copy(update={**parts, "coding": "direct" if relu else "poisson"})
    example = lab.untrained().view.example
    made = Bench(
        make_net(recipe.model_copy(update={"net": net}), example, lab.classes), example, recipe.machine, spiking=not relu
    )
    made.view = model_view(made.net, example, forward=_centred, spiking=not relu)
    return made


def _centred(net: nn.Module, x: Tensor) -> Any:
    return net(2 * x - 1)


def first(lab: Lab, how: Hybrid) -> Part:
    """Give the held-out samples that all of them are tested on, few since T is large."""
    some = held_out(lab)
    return Part(some.x[: how.tested], some.y[: how.tested])


def answers(lab: Lab, how: Hybrid, made: Bench) -> float:
    """Give the accuracy, a mean over draws of the Poisson input."""
    batches = list(first(lab, how).batches(made.evaluate))
    values = accuracy_under(made.view, batches, Gaussian(0.0), repeats=how.draws, seed=lab.recipe.seed)
    return sum(values) / len(values)


def train(lab: Lab, made: Bench, batches: int, lr: float) -> None:
    """Train the converted network on."""
    table = lab.recipe.prune
    optimizer = made.optimizer(table)
    part, seed = lab.some(batches * table.batch, "hybrid-tune"), draw(lab.recipe.seed, "hybrid-tune")
    rate = falling(optimizer, lr, batches)
    epoch(made, optimizer, part, batch=table.batch, seed=seed, before=rate, after=lambda: None)
    made.view.reset()
