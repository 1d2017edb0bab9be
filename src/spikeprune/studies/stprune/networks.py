"""The networks of one seed by name. Each is made once, from those before it, and kept in the seed's folder.

=============  ==========================================================================================
dense          the wide SNN, as the recipe trains it
dense on       dense, trained on at its T by as many batches as T takes to fall
ann, ann on    the twin with ReLU for neurons, alike
slim           significant widths, weights drawn anew, trained by the dense network's recipe
leading        the same widths, with the trained weights of the channels that lead, trained as long again
uniform        every layer by one factor, no more parameters, drawn anew
shallow        slim without the layers from where dimensions begin to fall, if they do, drawn anew
short          slim, at the smallest T within the budget
leading short  leading, alike
dense short    dense, alike
sudden         significant widths, from scratch at the T of short, by as many batches as slim and short together
=============  ==========================================================================================
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from spikeprune import temporal
from spikeprune.errors import MeasureError
from spikeprune.files import read_json, write_json
from spikeprune.kernel.schedules import stages
from spikeprune.masks import Masks
from spikeprune.measure import measure
from spikeprune.methods import STPrune, contraction
from spikeprune.plan import ShrinkPlan
from spikeprune.recipes.splits import Part
from spikeprune.recipes.train import Bench, accuracy, draw, make_net, seeded
from spikeprune.saved import load, save
from spikeprune.shrink import channel_masks, plan_shrink, shrink
from spikeprune.studies.lab import Batches, Lab
from spikeprune.studies.measured import PROFILED
from spikeprune.studies.retrain import SMALL, fit, retrain
from spikeprune.studies.stprune.settings import Settings
from spikeprune.temporal import Descent, Level, truncate
from spikeprune.zoo import shallower

TWINS = ("ann", "ann on")
Made = tuple[Bench, ShrinkPlan | None, dict[str, Any]]
SEARCHED = (0.999, *(percent / 200 for percent in range(199, 59, -1)))  # shares of variance, falling
MEASURED = 128  # samples a batch of the principal components


def network(lab: Lab, settings: Settings, name: str) -> tuple[Bench, Mapping[str, Any]]:
    """Give a network and what is known of how it came about; made now unless it is kept."""
    if name == "dense":
        return lab.copy(), {}
    file = lab.path / "stprune" / f"{name.replace(' ', '-')}.safetensors"
    if not (told := file.with_suffix(".json")).exists():
        bench, plan, facts = MAKE[name](lab, settings)
        file.parent.mkdir(exist_ok=True)
        save(file, bench.net, plan=plan)
        write_json(told, facts)
    facts = dict(read_json(told))
    example = lab.copy().view.example
    form: Any = make_twin(lab) if name in TWINS else lab.untrained().net
    if (left_out := facts.get("from")) is not None:
        form = shallower(form, left_out)
    bench = Bench(load(file, form)[0], example, lab.recipe.machine, spiking=name not in TWINS)
    if (steps := facts.get("timesteps")) is not None:
        bench.view = truncate(bench.view, steps, rebin=lab.recipe.data.events)
    return bench, facts


def batches(lab: Lab) -> int:
    """Count the batches of the dense training."""
    return lab.recipe.train.epochs * lab.steps


def make_twin(lab: Lab) -> nn.Module:
    """Build the network with ReLU for neurons, untrained: it sees an image once."""
    recipe: Any = lab.recipe
    table = recipe.net.model_copy(
        update={"timesteps": 1, "coding": "direct", "neuron": recipe.net.neuron.model_copy(update={"kind": "relu"})}
    )
    return make_net(recipe.model_copy(update={"net": table}, deep=True), lab.untrained().view.example, lab.classes)


def ann(lab: Lab, _: Settings) -> Made:
    """Train the twin with the dense network's recipe."""
    bench = Bench(make_twin(lab), lab.copy().view.example, lab.recipe.machine, spiking=False)
    fit(lab, bench, batches(lab), name="ann")
    return bench, None, {}


def on(lab: Lab, settings: Settings, start: str) -> Made:
    """Train a network on, in as many rounds and batches as T takes to fall."""
    bench, _ = network(lab, settings, start)
    for stop in range(len(settings.levels)):
        retrain(lab, bench, bench.optimizer(lab.recipe.prune), stop, settings.batches)
    return bench, None, {}


def places(lab: Lab, settings: Settings) -> Batches:
    """Give the training samples that principal components are measured on."""
    return list(lab.some(settings.samples, "places").batches(MEASURED))


def significant(lab: Lab, settings: Settings) -> tuple[float, Masks, dict[str, int]]:
    """Find the largest variance whose widths leave few enough parameters; gives it, masks and widths."""
    bench = lab.copy()
    whole = sum(param.numel() for param in bench.net.parameters())
    layers, stats = bench.view.channel_layers(), measure(bench.view, places(lab, settings), STPrune().needs)

    def fits(variance: float) -> bool:
        plan = plan_shrink(bench.view, STPrune(variance)(layers, stats, Masks({})))
        return parameters(bench.net, plan) * settings.compress <= whole

    place = bisect_left(SEARCHED, True, key=fits)  # less variance never takes more channels
    if place == len(SEARCHED):
        raise MeasureError(f"no variance from {SEARCHED[0]:g} to {SEARCHED[-1]:g} leaves one parameter in {settings.compress:g}.")
    method = STPrune(SEARCHED[place])
    return SEARCHED[place], method(layers, stats, Masks({})), method.widths(layers, stats)


def parameters(net: nn.Module, plan: ShrinkPlan) -> int:
    """Count the parameters that a plan leaves."""
    kept = {name: {axis: len(stay) for axis, (stay, _) in axes.items()} for name, axes in plan.keeps.items()}
    shapes = [[kept.get(name, {}).get(axis, n) for axis, n in enumerate(p.shape)] for name, p in net.named_parameters()]
    return sum(int(torch.tensor(shape).prod()) for shape in shapes)


def slim(lab: Lab, settings: Settings) -> Made:
    """Draw the narrower network anew and train it as the dense one was."""
    variance, masks, _ = significant(lab, settings)
    return (*_anew(lab, lab.untrained(), masks, "slim"), {"variance": variance})


def leading(lab: Lab, settings: Settings) -> Made:
    """Keep the weights of the channels that lead, and train on as long."""
    variance, masks, _ = significant(lab, settings)
    view = lab.copy().view
    plan, small = plan_shrink(view, masks), shrink(view, masks)
    bench = Bench(small, view.example, lab.recipe.machine)
    fit(lab, bench, batches(lab), name="leading")
    return bench, plan, {"variance": variance}


def uniform(lab: Lab, settings: Settings) -> Made:
    """Narrow every layer by the largest factor that takes no more parameters than the significant widths."""
    bench = lab.untrained()
    most = parameters(bench.net, plan_shrink(bench.view, significant(lab, settings)[1]))
    for percent in range(99, 0, -1):
        masks = channel_masks(
            bench.view,
            {x.name: _first(x.weight.shape[0], round(x.weight.shape[0] * percent / 100)) for x in bench.view.channel_layers()},
        )
        if parameters(bench.net, plan_shrink(bench.view, masks)) <= most:
            return (*_anew(lab, bench, masks, "uniform"), {"percent": percent})
    raise MeasureError(f"no network that is narrowed alike has at most {most} parameters.")


def _first(channels: int, keep: int) -> torch.Tensor:
    return torch.arange(channels) < max(1, keep)


def shallow(lab: Lab, settings: Settings) -> Made:
    """Leave out the layers from where dimensions begin to fall, and narrow the others to theirs."""
    variance, masks, widths = significant(lab, settings)
    bench = lab.untrained()
    if (layer := contraction(widths)) is None:  # then it is slim
        return network(lab, settings, "slim")[0], plan_shrink(bench.view, masks), {"variance": variance}
    bench = Bench(shallower(bench.net, layer), bench.view.example, lab.recipe.machine)  # type: ignore[arg-type]
    leads = {x.name: _first(x.weight.shape[0], widths[x.name]) for x in bench.view.channel_layers()}
    masks = channel_masks(bench.view, leads)
    return (*_anew(lab, bench, masks, "shallow"), {"variance": variance, "from": layer})


def _anew(
    lab: Lab, wide: Bench, masks: Masks, name: str, timesteps: int | None = None, more: int = 0
) -> tuple[Bench, ShrinkPlan]:
    """Narrow an untrained network, draw its weights and train it."""
    view = wide.view
    with seeded(draw(lab.recipe.seed, name, "weights")):
        plan, small = plan_shrink(view, masks), shrink(view, masks, reinit=True)
    bench = Bench(small, view.example, lab.recipe.machine)
    if timesteps is not None:
        bench.view = truncate(bench.view, timesteps, rebin=lab.recipe.data.events)
    fit(lab, bench, batches(lab) + more, name=name)
    return bench, plan


def short(lab: Lab, settings: Settings, start: str) -> Made:
    """Let T fall level by level; the network of the smallest T within the budget is kept."""
    bench, _ = network(lab, settings, start)
    tested: list[float] = []
    states: list[dict[str, Any]] = []

    def train(view: Any, epoch: int) -> None:
        bench.view = view
        retrain(lab, bench, bench.optimizer(lab.recipe.prune), epoch, settings.batches)

    def evaluate(view: Any) -> float:
        bench.view = view
        states.append({name: value.clone() for name, value in bench.net.state_dict().items()})
        tested.append(accuracy(bench, scored(lab)))
        return accuracy(bench, chosen_by(lab))

    descent = Descent(stages(settings.levels, every=1), len(settings.levels), rebin=lab.recipe.data.events)
    sample = [next(lab.splits.test.batches(PROFILED))]
    found = temporal.shorten(bench.view, descent, train=train, evaluate=evaluate, calibration=sample)
    rows = [_row(level, accuracy) for level, accuracy in zip(found.levels, tested, strict=True)]
    within = [row["validation"] >= rows[0]["validation"] - settings.budget - 1e-9 for row in rows]
    last = within.index(False) - 1 if False in within else len(rows) - 1
    bench.net.load_state_dict(states[last])
    plan = None if start == "dense" else slim_plan(lab, settings)
    return bench, plan, {"timesteps": settings.levels[last], "levels": rows}


def _row(level: Level, tested: float) -> dict[str, Any]:
    told = {"timesteps": level.timesteps, "validation": level.accuracy, "accuracy": tested}
    return {**told, "spikes": level.spikes, "synops": level.synops, "energy_pj": level.energy_pj}


def scored(lab: Lab) -> Part:
    """Give the held-out samples that accuracy is told of; of a small data set, with half of the validation part."""
    test, validation = lab.splits.test, lab.splits.validation
    if len(test.y) >= SMALL:
        return test
    half = len(validation.y) // 2
    return Part(torch.cat([test.x, validation.x[half:].to(test.x.dtype)]), torch.cat([test.y, validation.y[half:]]))


def chosen_by(lab: Lab) -> Part:
    """Give the held-out samples that T is chosen by, none of which is scored."""
    validation = lab.splits.validation
    few = len(validation.y) // 2 if len(lab.splits.test.y) < SMALL else len(validation.y)
    return Part(validation.x[:few], validation.y[:few])


def slim_plan(lab: Lab, settings: Settings) -> ShrinkPlan:
    """Give the plan of the significant widths again."""
    return plan_shrink(lab.copy().view, significant(lab, settings)[1])


def sudden(lab: Lab, settings: Settings) -> Made:
    """Train the significant widths from scratch at the T of `short`."""
    steps = network(lab, settings, "short")[1]["timesteps"]
    tuned = len(settings.levels) * settings.batches * lab.recipe.prune.batch // lab.recipe.train.batch
    bench, plan = _anew(lab, lab.untrained(), significant(lab, settings)[1], "sudden", steps, tuned)
    return bench, plan, {"timesteps": steps}


MAKE: dict[str, Callable[[Lab, Settings], Made]] = {
    "ann": ann,
    "ann on": partial(on, start="ann"),
    "dense on": partial(on, start="dense"),
    "slim": slim,
    "leading": leading,
    "uniform": uniform,
    "shallow": shallow,
    "short": partial(short, start="slim"),
    "leading short": partial(short, start="leading"),
    "dense short": partial(short, start="dense"),
    "sudden": sudden,
}
