"""How much of a model an N:M pattern covers, and which layers are without it and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from spikeprune.kernel.blocks import NM, fullest
from spikeprune.view.layer import Layer
from spikeprune.view.model_view import ModelView, check_view


@dataclass(frozen=True)
class Coverage:
    """Where an N:M pattern holds.

    Attributes:
        pattern: n of every m.
        layers: names of the layers in which no block has more than n alive.
        weights: of those layers.
        total: weights of all synaptic layers.
        nonzero: those of all synaptic layers that are not zero.
        left_out: why each other layer is without it.
    """

    pattern: NM
    layers: tuple[str, ...]
    weights: int
    total: int
    nonzero: int
    left_out: Mapping[str, str]

    @property
    def share(self) -> float:
        """Weights of covered layers over all."""
        return self.weights / self.total

    @property
    def density(self) -> float:
        """The true density: weights that are not zero over all, those of layers without the pattern included."""
        return self.nonzero / self.total

    def __str__(self) -> str:
        n, m, count = self.pattern.n, self.pattern.m, len(self.layers)
        others = "; ".join(f"{name}: {why}" for name, why in self.left_out.items()) or "none"
        return (
            f"{n}:{m} holds in {count} of {count + len(self.left_out)} layers, {self.share:.1%} of the weights; {self.density:.1%} of all weights are not zero. "
            f"Without it: {others}."
        )


def coverage(view: ModelView, pattern: NM) -> Coverage:
    """Look where a pattern holds in the weights that a model has now.

    Args:
        view: the model.
        pattern: n of every m.

    Example:
        >>> import torch
        >>> from spikeprune import methods, model_view, prune
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
        >>> view = model_view(net, torch.rand(1, 6), spiking=False)
        >>> _ = prune(view, methods.Magnitude(pattern=NM(2, 4)))
        >>> found = coverage(view, NM(2, 4))
        >>> found.layers, found.left_out["0"], round(found.density, 2)
        (('1',), 'the first; 6 inputs in a row, which 4 does not divide', 0.75)
    """
    check_view(view)
    reasons = {layer.name: _why(view, layer, pattern) for layer in view.layers}
    covered = [layer for layer in view.layers if reasons[layer.name] is None]
    return Coverage(
        pattern,
        tuple(layer.name for layer in covered),
        sum(layer.weight.numel() for layer in covered),
        sum(layer.weight.numel() for layer in view.layers),
        sum(int(layer.weight.count_nonzero()) for layer in view.layers),
        {name: why for name, why in reasons.items() if why is not None},
    )


def _why(view: ModelView, layer: Layer, pattern: NM) -> str | None:
    """Say why a layer is without the pattern; None if it has it."""
    inputs, m = layer.weight.shape[1], pattern.m
    if inputs >= m and (most := fullest(layer.weight != 0, m)) <= pattern.n:
        return None
    places = {view.layers[0].name: "the first", view.layers[-1].name: "the last"}
    found = [places[layer.name]] if layer.name in places else []
    if inputs % m:
        found.append(f"{inputs} inputs in a row, which {m} does not divide")
    return "; ".join(found) or f"a block of {m} has {most} alive"
