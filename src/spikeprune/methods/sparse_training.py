"""Sparse training: SET and RigL keep the number of weights and exchange which, while the network trains.

Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta. Scalable training of artificial neural networks with adaptive sparse
connectivity inspired by network science. Nature Communications 2018. arXiv:1707.04780
Evci, Gale, Menick, Castro, Elsen. Rigging the Lottery: Making All Tickets Winners. ICML 2020. arXiv:1911.11134

Reading of the papers
  stated    SET: a random mask of Erdős-Rényi densities; after every epoch a fraction zeta = 0.3 of each layer's weights, the
            smallest positive and the largest negative, is dropped, and as many are grown at random. RigL: the same with
            Erdős-Rényi-kernel densities, dropping by magnitude and growing where |dL/dw| of one batch is largest, among all
            that did not survive the drop; new weights start at zero; the fraction is alpha/2 (1 + cos(pi t / T_end)), with
            alpha = 0.3, every 100 steps. In SET's code too new weights start at zero.
  inferred  what an update has just dropped may be grown again at once, as in the code of both, and then keeps its value, as in
            RigL's code; SET's starts it at zero.
  differs   the exchanged count is rounded to nearest where the codes truncate. SET drops by magnitude, both signs in one
            ranking, and takes the kernel into its densities; its code leaves the output layer dense, which here is a choice
            (`layers`). RigL's gradient is taken in evaluation mode over the calibration batches: one is the paper's, of more
            the mean of |dL/dw|. RigL updates after an optimizer step, where the paper skips that step. No more
            is exchanged than there are dead weights with a gradient, rather than grow by index: a layer whose input neurons
            are silent keeps its weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from spikeprune.decide import decide
from spikeprune.errors import MaskMismatch, MeasureError, ScheduleError, SparsityError
from spikeprune.kernel.allocate import Allocation, check_allocation, erdos_renyi, kept
from spikeprune.kernel.patterns import Unstructured
from spikeprune.kernel.regrow import chance, revive, survivors
from spikeprune.kernel.scores import magnitude
from spikeprune.masks import Masks
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer

Growth = Callable[[Layer], Tensor]


@dataclass(frozen=True)
class SET:
    """Exchange the weakest weights of each layer for as many at random.

    The first call draws the masks; later ones exchange. Use it with `Pruner` and `schedules.every`, from the first step on.

    Args:
        fraction: of each layer's living weights, the share exchanged at an update, in [0, 1); the paper's zeta.
        allocation: how many weights each layer has. It is asked with random scores, so shapes and sparsity decide. Masks
            that already have the asked total keep their own counts.
        seed: of this method's own generator; the global one is not touched.
        step: of training; the driver sets it by `at`, so that every update draws anew, and again alike when resumed.

    Raises:
        SparsityError: the fraction is out of range.
        MethodError: the allocation is none.

    Example:
        >>> from spikeprune import Pruner, model_view, schedules
        >>> view = model_view(torch.nn.Linear(8, 4), torch.rand(1, 8), spiking=False)
        >>> pruner = Pruner(view, SET(seed=1), schedules.every(0.75, 100))
        >>> pruner.update(0.75).kept
        {'': 8}
    """

    fraction: float = 0.3
    allocation: Allocation = erdos_renyi
    seed: int = 0
    step: int = 0
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        _check(self.fraction, self.allocation)

    def at(self, step: int) -> "SET":
        """Return the method as it is at a training step."""
        return replace(self, step=step)

    @property
    def share(self) -> float:
        """The share of each layer's living weights that is exchanged: the fraction, at every step."""
        return self.fraction

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Draw the first masks, or drop the weakest and grow at random."""
        luck = chance(_shapes(layers), self.seed, self.step)
        return _update(self, layers, masks, sparsity, growth=lambda layer: luck[layer.name])


@dataclass(frozen=True)
class RigL:
    """Exchange the weakest weights of each layer for the dead ones of largest gradient, ever fewer as training goes on.

    The first call draws the masks; later ones exchange. Use it with `Pruner` and `schedules.every`, from the first step on.

    Args:
        fraction: of each layer's living weights, the share exchanged at step 0, in [0, 1); the paper's alpha.
        stop: step at which the share has fallen to zero, along a cosine; the paper's T_end. None holds it constant.
        allocation: as for `SET`.
        seed: as for `SET`; of the first masks, the only ones drawn.
        step: as for `SET`; the share depends on it.

    Raises:
        SparsityError: the fraction is out of range.
        ScheduleError: `stop` is no step after the first.
        MethodError: the allocation is none.
        MeasureError: no gradient reaches a layer that is to have more weights than before.

    Example:
        >>> method = RigL(fraction=0.3, stop=1000)
        >>> [round(method.at(step).share, 3) for step in (0, 500, 1000, 2000)]
        [0.3, 0.15, 0.0, 0.0]
    """

    fraction: float = 0.3
    stop: int | None = None
    allocation: Allocation = erdos_renyi
    seed: int = 0
    step: int = 0
    needs: ClassVar[frozenset[Need]] = frozenset({Need.WEIGHT_GRADIENT})

    def __post_init__(self) -> None:
        _check(self.fraction, self.allocation)
        if self.stop is not None and self.stop < 1:
            raise ScheduleError(f"stop is {self.stop}, but must be a step after the first, or None for a constant fraction.")

    def at(self, step: int) -> "RigL":
        """Return the method as it is at a training step."""
        return replace(self, step=step)

    @property
    def share(self) -> float:
        """The share of each layer's living weights that is exchanged at this step."""
        if self.stop is None:
            return self.fraction
        return self.fraction / 2 * (1 + math.cos(math.pi * min(self.step / self.stop, 1)))

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Draw the first masks, or drop the weakest and grow where the gradient is largest."""
        return _update(self, layers, masks, sparsity, growth=lambda layer: stats[layer.name].weight_gradient)


def _check(fraction: float, allocation: Allocation) -> None:
    if not 0 <= fraction < 1:
        raise SparsityError(
            f"fraction is {fraction}, but must lie in [0, 1): the share of each layer's living weights that an update exchanges."
        )
    check_allocation(allocation)


def _shapes(layers: Sequence[Layer]) -> dict[str, torch.Size]:
    return {layer.name: layer.weight.shape for layer in layers}


def _update(method: SET | RigL, layers: Sequence[Layer], masks: Masks, sparsity: float, *, growth: Growth) -> Masks:
    """Drop a share of each layer's living weights, or more if it is to keep fewer, and grow back to the count it keeps."""
    if cut := [layer.name for layer in layers if layer.name in masks.gates]:
        raise MaskMismatch(
            f"{type(method).__name__} exchanges single weights, but output channels of {', '.join(cut)} are pruned, and it could put weights into "
            "silent ones. Shrink first, and view the smaller network."
        )
    luck = chance(_shapes(layers), method.seed)
    if not any(layer.name in masks for layer in layers):
        return decide(layers, luck, method.allocation(luck, sparsity), Unstructured())
    living = {layer.name: masks.get(layer.name, torch.ones_like(layer.weight, dtype=torch.bool)) for layer in layers}
    keep = {name: int(mask.sum()) for name, mask in living.items()}
    if sum(keep.values()) != kept(sum(mask.numel() for mask in living.values()), sparsity):
        keep = method.allocation(luck, sparsity)  # as if nothing were dead: what is may come back
    share = method.share
    return Masks({x.name: _exchange(x, living[x.name], growth(x), keep[x.name], share) for x in layers})


def _exchange(layer: Layer, alive: Tensor, growth: Tensor, keep: int, share: float) -> Tensor:
    """Drop a share of the living, but no more than there are dead to grow that something speaks for."""
    count, able = int(alive.sum()), int((growth > 0)[~alive].sum())
    if keep > count and not able:
        raise MeasureError(
            f"layer {layer.name!r} is to have {keep} weights instead of {count}, but no gradient reaches its dead ones to tell which to grow. "
            "Do its neurons, or those behind it, never come near their threshold? Lower the threshold or the sparsity."
        )
    stay = max(kept(min(count, keep), share), min(count, keep) - able)
    mask = survivors(magnitude(layer.weight), alive, stay)
    return revive(mask, growth, keep - int(mask.sum()))
