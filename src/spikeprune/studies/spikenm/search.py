"""A search looked at on its way: how sure logits are, and how much their gradients vary from draw to draw."""

import torch
from torch import Tensor

from spikeprune.learn import Learning
from spikeprune.methods.spikenm import Logits
from spikeprune.recipes.losses import loss_fn
from spikeprune.studies.lab import Lab

LOOKED = 128  # samples that gradients are of
ELSEWHERE = 1_000_003  # seeds of these draws begin here, so that none is one of the search


def looked_at(lab: Lab, learning: Learning, draws: int) -> list[dict[str, float]]:
    """Give one row: the entropy of the logits, and what share of gradient, direction and masks is chance; none for a search without logits."""
    learner = learning.learner
    if not isinstance(learner, Logits):
        return []
    shares = {"slope": Share(), "direction": Share(), "masks": Share()}
    for draw in range(draws):
        for share, values in zip(shares.values(), _one(lab, learning, learner.again(ELSEWHERE + draw)), strict=True):
            share.add(values)
    return [{"step": learning.steps, "entropy": learner.entropy(), **{name: share.chance for name, share in shares.items()}}]


def _one(lab: Lab, learning: Learning, learner: Logits) -> tuple[Tensor, Tensor, Tensor]:
    """Give the slopes of all logits by one draw, the directions that they would move in, and the masks."""
    twin, weights = lab.untrained(), learning.weights
    twin.net.load_state_dict(learning.view.net.state_dict())
    layers = twin.view.select(list(weights))
    masks = {layer.name: learner.draw(layer.name, weights[layer.name]) for layer in layers}
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_(weights[layer.name] * masks[layer.name])
    x, y = next(iter(lab.some(LOOKED, "looked").batches(LOOKED)))
    with twin.view.undisturbed():
        grads = torch.autograd.grad(loss_fn(twin.view(x), y), [layer.weight for layer in layers])
    felt = [(layer.name, weights[layer.name], grad) for layer, grad in zip(layers, grads, strict=True)]
    return (
        torch.cat([learner.slope(*each).flatten() for each in felt]),
        torch.cat([learner.direction(*each).flatten() for each in felt]),
        torch.cat([mask.flatten().float() for mask in masks.values()]),
    )


class Share:
    """What share of the mean square of vectors is their variance: 0 where all are alike, 1 where they have no mean.

    Example:
        >>> share = Share()
        >>> share.add(torch.tensor([1.0, 1.0]))
        >>> share.add(torch.tensor([1.0, 1.0]))
        >>> share.chance
        0.0
        >>> share.add(torch.tensor([-2.0, -2.0]))
        >>> share.chance
        1.0
    """

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, torch.zeros(()), 0.0

    def add(self, values: Tensor) -> None:
        """Take one of the vectors."""
        values = values.double()
        self._count, self._sum = self._count + 1, self._sum + values
        self._squares += float(values.square().sum())

    @property
    def chance(self) -> float:
        """The share, without bias for few vectors: of two or more."""
        mean = float((self._sum / self._count).square().sum())
        variance = (self._squares / self._count - mean) * self._count / (self._count - 1)
        return min(1.0, variance / (self._squares / self._count)) if self._squares else 0.0
